"""Text tables of a diagnosis, for Markdown and the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.metrics.text_table import (
    NOTHING,
    TextTable,
    number,
    p_text,
    with_half_width,
    with_interval,
)
from isthmus.report.diagnosis.lookup import (
    FALSE_SHARE,
    Path,
    Report,
    by_advice,
    by_size,
    cell,
    dig,
    lead_of,
    margins_of,
    matrix_names,
    matrix_of,
)
from isthmus.report.diagnosis.words import (
    EFFECTS,
    MetricWords,
    act_of,
    duration,
    listed,
    matrix_words,
)

GROUPED = {"against_all": "against all in one", "against_none": "against each alone"}
SETTINGS = {
    "steps": "{} steps",
    "looks": "{} looks at validation",
    "batch_rows": "{} rows a batch",
    "lr": "learning rate {}",
}
NAMED = 6  # names given for one note
UNADJUSTED = "Intervals are 95 %, unadjusted. Verdicts use tests adjusted over domains."


def effect_text(report: Report, path: Path) -> str:
    """``+0.0121 [+0.0093, +0.0149]``, or a dash."""
    effect = dig(report, *path)
    return with_interval(dig(effect, "estimate"), dig(effect, "ci"), signed=True)


def verdict_table(report: Report, *, sure: bool) -> TextTable:
    """Domains in the order of the advice. ``sure``: with their partners, and how sure it is."""
    rows, lead = [], lead_of(report)
    for name in (name for _, names in by_advice(report) for name in names):
        of = report["domains"][name]
        line = (
            name,
            f"{of.get('rows') or 0:,}",
            str(of.get("verdict")) + (_partners(of) if sure else ""),
            number(dig(of, lead.key, "solo")),
            number(dig(of, lead.key, "joint")),
            effect_text(report, ("domains", name, lead.key, "net")),
        )
        rows.append((*line, of.get("certainty") or "") if sure else line)
    header = ("domain", "rows", "verdict", "alone", "joint", "net effect [95 %]")
    return TextTable(
        title=f"{lead.heading} on {report.get('split') or 'test'} rows, alone and together",
        header=(*header, "how sure") if sure else header,
        rows=tuple(rows),
        notes=(UNADJUSTED,),
        left=(0, 2, 6) if sure else (0, 2),
    )


def _partners(of: Report) -> str:
    return f" with {listed(of['with'])}" if of.get("with") else ""


def narrow_effects(report: Report) -> TextTable | None:
    """N, T and I in the leading metric with half widths, for a terminal; None without T and I."""
    keys = ("net", "transfer", "interference")
    lead = lead_of(report)
    if "transfer" not in _measured(report, lead.key, keys):
        return None
    title = f"Why: effects in {lead.gain}, with 95 % half widths, unadjusted"
    return _effects(report, lead.key, keys, title)


def effect_table(report: Report, metric: MetricWords) -> TextTable | None:
    """N, T, I and N+ with intervals; None where none is known."""
    keys = _measured(report, metric.key, ("net", "transfer", "interference", "net_plus"))
    if not keys:
        return None
    unit = "" if metric.larger_is_better else f", reduction{metric.unit and f' in{metric.unit}'}"
    return _effects(report, metric.key, keys, f"Effects in {metric.title}{unit}", full=True)


def _measured(report: Report, metric: str, keys: Sequence[str]) -> list[str]:
    names = report["domains"]
    return [key for key in keys if any(dig(report, "domains", n, metric, key) for n in names)]


def _effects(
    report: Report, metric: str, keys: Sequence[str], title: str, *, full: bool = False
) -> TextTable:
    """Effects of each domain. ``full``: with whole intervals, p values and what is detectable."""
    names = by_size(report)
    rows = []
    for name in names:
        paths = [("domains", name, metric, key) for key in keys]
        if full:
            net = dig(report, "domains", name, metric, "net")
            more = p_text(dig(net, "p_holm")), number(dig(net, "detectable"))
            rows.append((name, *(effect_text(report, path) for path in paths), *more))
        else:
            rows.append((name, *(_half(dig(report, *path)) for path in paths)))
    notes = [f"{EFFECTS[key][0]}: {EFFECTS[key][1]}." for key in keys]
    paths = [
        (f"{EFFECTS[key][0]} of {name}", ("domains", name, metric, key))
        for key in keys
        for name in names
    ]
    more = ("p (Holm) of N", "detectable") if full else ()
    return TextTable(
        title=title,
        header=("domain", *(EFFECTS[key][0] for key in keys), *more),
        rows=tuple(rows),
        notes=(*notes, *remark_lines(report, paths)),
    )


def _half(effect: Any) -> str:
    ci = dig(effect, "ci")
    return with_half_width(dig(effect, "estimate"), None if ci is None else (ci[1] - ci[0]) / 2)


def matrix_table(report: Report, key: str) -> TextTable | None:
    """One matrix; targets are rows. ``*`` marks cells that stand out after adjustment."""
    _, matrix = matrix_of(report, key)
    if not matrix:
        return None
    names, told = matrix_names(report, matrix), matrix_words(key, lead_of(report))

    def shown(target: str, source: str) -> str:
        held = cell(matrix, target, source)
        p = held.get("p_bh")
        text = number(held.get("estimate"), 4, signed=told.signed)
        return f"{text} *" if p is not None and p <= FALSE_SHARE else text

    sure = ("*: the cell stands out at a false discovery rate of 10 %.",) if told.signed else ()
    return TextTable(
        title=told.title,
        header=("target \\ source", *names),
        rows=tuple((target, *(shown(target, source) for source in names)) for target in names),
        notes=(told.meaning, *sure),
    )


def capacity_table(report: Report) -> TextTable | None:
    """The net effect at each width, one column for each."""
    runs = report.get("capacity") or []
    if not runs:
        return None
    lead = lead_of(report)
    paths = {
        name: [("capacity", place, "domains", name, lead.key) for place in range(len(runs))]
        for name in by_size(report)
    }
    header = [
        f"{'-'.join(map(str, run['widths']))}{', blind' if run['domain_input'] is False else ''}"
        for run in runs
    ]
    told = [(name, path) for name, held in paths.items() for path in held]
    sees = all(run["domain_input"] is None for run in runs)
    blind = () if sees else ("blind: the model does not see the domain.",)
    return TextTable(
        title=f"Net effect in {lead.gain} by width of the layers",
        header=("domain", *header),
        rows=tuple((name, *(effect_text(report, path) for path in paths[name])) for name in paths),
        notes=(*blind, *remark_lines(report, told)),
    )


def weighting_table(report: Report) -> TextTable | None:
    """Each weighting minus proportional, as a mean over domains."""
    held = report.get("weighting") or []
    if not held:
        return None
    paths = [(one["name"], ("weighting", place, "macro")) for place, one in enumerate(held)]
    return TextTable(
        title=f"Weighting of losses: {lead_of(report).gain} against proportional",
        header=("weighting", "mean over domains"),
        rows=tuple((name, effect_text(report, path)) for name, path in paths),
        notes=(
            *(["random is the control."] if any(one["name"] == "random" for one in held) else []),
            *(f"{one['name']}: {said}." for one in held for said in said_of(one)),
            *remark_lines(report, paths),
        ),
    )


def said_of(entry: Mapping[str, Any]) -> list[str]:
    """The reason and the note of one weighting, where it has them."""
    return [str(entry[key]) for key in ("reason", "note") if entry.get(key)]


def group_lines(report: Report) -> list[str]:
    """The groups, and whether they were confirmed."""
    groups = dig(report, "groups", "groups")
    if not groups:
        return []
    lines = [f"Group: {listed(group)}." for group in groups if len(group) > 1]
    alone = [group[0] for group in groups if len(group) == 1]
    if alone:
        lines.append(f"Alone: {listed(alone)}.")
    path = ("groups", "confirmed")
    confirmed = dig(report, *path)
    if not confirmed:
        return [*lines, "The groups are not confirmed on test rows."]
    count = confirmed.get("replicates_of_scores")
    kind = dig(report, "plan", "replicates") or "seeds"
    over = f" ({count} of {report.get('seeds')} {kind})" if count else ""
    others = ", ".join(number(value) for value in confirmed.get("random") or [])
    against = [f"{name} {effect_text(report, (*path, key))}" for key, name in GROUPED.items()]
    return [
        *lines,
        f"Mean {lead_of(report).title} on test rows{over}: these groups {number(confirmed.get('score'))},"
        f" all in one {number(confirmed.get('score_all'))},"
        f" each alone {number(confirmed.get('score_none'))},"
        f" random groupings {others or NOTHING}.",
        f"Difference of these groups: {', '.join(against)}.",
        *remark_lines(report, [(name, (*path, key)) for key, name in GROUPED.items()]),
    ]


def fine_print(report: Report) -> list[str]:
    """What was run, what was left out, and why."""
    plan = report.get("plan") or {}
    clusters, item = plan.get("clusters"), plan.get("item")
    rows = "No column names clusters of rows: rows are taken as independent."
    if clusters not in (None, "row"):
        rows = f"Rows are taken in clusters of {clusters}{f' and of {item}' if item else ''}."
    told = [
        f"Level {plan.get('level')}; {report.get('seeds')} {plan.get('replicates') or 'seeds'};"
        f" split {plan.get('split')}; margin {_margins(report)}.",
        rows,
        f"{plan.get('trainings')} trainings, {plan.get('cached') or 0} of them from the cache;"
        f" time: {duration(plan.get('seconds'))}.",
    ]
    if plan.get("sampled"):
        told.append(f"Sampled: {plan['sampled']}.")
    told += [f"{title}: {recipe}." for title, recipe in recipes(report)]
    told += [f"Left out: {name}, {why}." for name, why in (plan.get("left_out") or {}).items()]
    return told + list(plan.get("notes") or [])


def _margins(report: Report) -> str:
    """The margin of the leading metric: ``0.005 AUC``, or ``0.5 % of the solo's log loss``."""
    lead, margin = margins_of(report)[0]
    if lead.larger_is_better:
        return f"{margin} {lead.title}"
    return f"{100 * margin:g} % of the solo's {lead.title}"


def recipes(report: Report) -> list[tuple[str, str]]:
    """What the arms were trained with, in words: the choices on validation, and the budgets."""
    choices = dig(report, "plan", "choices") or {}
    joint, solo = choices.get("joint"), (choices.get("solo") or {}).values()
    held = {
        "Joint model": [joint] if joint else [],
        "Solo models": [one for one in solo if one.get("batch_rows")],
        "Second stage": list((dig(report, "plan", "stage_two") or {}).values()),
    }
    told = []
    for title, ones in held.items():
        parts = [
            text.format(_span(values))
            for key, text in SETTINGS.items()
            if (values := [one[key] for one in ones if one.get(key) is not None])
        ]
        tried = [len(one.get("tried") or []) for one in ones]
        if parts and max(tried) > 1:
            parts[-1] += f"; the best of {_span(tried)} tried on validation rows"
        if parts:
            told.append((title, ", ".join(parts)))
    return told


def _span(values: Sequence[float]) -> str:
    """``100``, or ``8 to 1,024``."""
    low, high = (
        f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (min(values), max(values))
    )
    return low if low == high else f"{low} to {high}"


def choice_table(report: Report) -> TextTable | None:
    """Each recipe that was tried on validation rows; ``*`` marks the chosen one."""
    choices = dig(report, "plan", "choices") or {}
    named = [("joint", "all", choices.get("joint") or {})]
    named += [("solo", name, held) for name, held in (choices.get("solo") or {}).items()]
    rows = [
        (arm, name, "; ".join(_tried(one, held) for one in held["tried"]))
        for arm, name, held in named
        if held.get("tried")
    ]
    if not rows:
        return None
    return TextTable(
        title="Recipes tried: rows a batch × learning rate, and the best on validation rows",
        header=("arm", "domain", "tried"),
        rows=tuple(rows),
        notes=("*: the recipe that was chosen.",),
        left=(0, 1, 2),
    )


def _tried(one: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    chosen = all(one.get(key) == held.get(key) for key in ("batch_rows", "lr"))
    text = f"{one['batch_rows']:,} × {one['lr']:g}: {number(one.get('validation'))}"
    return f"{text} *" if chosen else text


def remark_lines(report: Report, paths: Sequence[tuple[str, Path]]) -> tuple[str, ...]:
    """Each note of the named effects once, with the names that it holds for.

    A note that holds for all is told without names.
    """
    known = {name for name, path in paths if dig(report, *path, "estimate") is not None}
    noted: dict[str, dict[str, None]] = {}
    for name, path in paths:
        if note := dig(report, *path, "note"):
            noted.setdefault(note, {})[name] = None
    lines = []
    for note, held in noted.items():
        names, more = list(held), len(held) - NAMED
        named = listed([*names[:NAMED], f"{more:,} more"] if more > 1 else names)
        lines.append(f"{'Everywhere' if known <= set(names) else named}: {note}.")
    return tuple(lines)


def advice_lines(report: Report, names: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """For each domain: its name; what to do, how sure, and why; and what to type for it."""
    lines = []
    for name in names:
        of = report["domains"][name]
        said = [f"{act_of(of)}{_partners(of)}."]
        sure = of.get("certainty")
        # Where nothing can be told, the act says so already.
        if sure and of.get("verdict") != "not enough data":
            said.append(f"{sure[0].upper()}{sure[1:]}.")
        said.append(of.get("why") or "")
        said += [f"{flag}." for flag in of.get("flags") or []]
        if note := dig(of, lead_of(report).key, "net", "note"):
            said.append(f"Note: {note}.")
        lines.append((name, " ".join(part for part in said if part), of.get("command")))
    return lines
