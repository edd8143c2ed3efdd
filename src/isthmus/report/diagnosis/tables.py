"""Text tables of a diagnosis, for Markdown and the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.metrics.text_table import NOTHING, TextTable, number, p_text, with_half_width
from isthmus.report.diagnosis.values import (
    Path,
    Report,
    by_advice,
    by_size,
    cell,
    dig,
    matrix_names,
    remarks,
)
from isthmus.report.diagnosis.words import (
    EFFECTS,
    MATRICES,
    METRICS,
    act_of,
    duration,
    listed,
    several,
)

GROUPED = {"against_all": "against all in one", "against_none": "against each alone"}
NAMED = 6  # names given for one note
UNADJUSTED = "Intervals are 95 %, unadjusted; verdicts use tests adjusted over domains."


def effect_text(report: Report, path: Path, places: int = 4) -> str:
    """``+0.0121 [+0.0093, +0.0149]``, or a dash."""
    value, ci = dig(report, *path, "estimate"), dig(report, *path, "ci")
    if value is None:
        return NOTHING
    ends = [number(end, places, signed=True) for end in ci] if ci else [NOTHING]
    return f"{number(value, places, signed=True)} [{', '.join(ends)}]"


def verdict_table(report: Report, *, sure: bool) -> TextTable:
    """Domains in the order of the advice; ``sure``: with partners and how sure it is."""
    rows = []
    for _, names in by_advice(report):
        for name in names:
            of = report["domains"][name]
            rows.append(
                (
                    name,
                    f"{of.get('rows') or 0:,}",
                    _verdict(of) if sure else str(of.get("verdict")),
                    number(dig(of, "auc", "solo")),
                    number(dig(of, "auc", "joint")),
                    effect_text(report, ("domains", name, "auc", "net")),
                    *((of.get("certainty") or "",) if sure else ()),
                )
            )
    header = ("domain", "rows", "verdict", "alone", "joint", "net effect [95 %]")
    return TextTable(
        title=f"AUC on {report.get('split') or 'test'} rows, alone and together",
        header=(*header, "how sure") if sure else header,
        rows=tuple(rows),
        notes=(UNADJUSTED,),
        left=(0, 2, 6) if sure else (0, 2),
    )


def _verdict(of: Report) -> str:
    partners = of.get("with") or []
    return f"{of.get('verdict')}{f' with {listed(partners)}' if partners else ''}"


def narrow_effects(report: Report) -> TextTable | None:
    """N, T and I in AUC with half widths, for a terminal; None where T and I are not known."""
    keys = ("net", "transfer", "interference")
    if not any(dig(report, "domains", name, "auc", "transfer") for name in report["domains"]):
        return None
    rows = []
    for name in by_size(report):
        held = [dig(report, "domains", name, "auc", key) for key in keys]
        cis = [dig(of, "ci") for of in held]
        halves = [None if ci is None else (ci[1] - ci[0]) / 2 for ci in cis]
        shown = [
            with_half_width(dig(of, "estimate"), half)
            for of, half in zip(held, halves, strict=True)
        ]
        rows.append((name, *shown))
    return TextTable(
        title="Why: effects in AUC, with 95 % half widths, unadjusted",
        header=("domain", *(EFFECTS[key][0] for key in keys)),
        rows=tuple(rows),
        notes=(*_meanings(keys), *_effect_remarks(report, "auc", keys)),
    )


def effect_table(report: Report, metric: str) -> TextTable | None:
    """N, T, I and N+ with intervals; None where none is known."""
    keys = [
        key
        for key in ("net", "transfer", "interference", "net_plus")
        if any(dig(report, "domains", name, metric, key) for name in report["domains"])
    ]
    if not keys:
        return None
    rows = tuple(
        (
            name,
            *(effect_text(report, ("domains", name, metric, key)) for key in keys),
            p_text(dig(report, "domains", name, metric, "net", "p_holm")),
            number(dig(report, "domains", name, metric, "net", "detectable")),
        )
        for name in by_size(report)
    )
    unit = ", reduction in nats" if metric == "logloss" else ""
    return TextTable(
        title=f"Effects in {METRICS[metric]}{unit}",
        header=("domain", *(EFFECTS[key][0] for key in keys), "p (Holm) of N", "detectable"),
        rows=rows,
        notes=(*_meanings(keys), *_effect_remarks(report, metric, keys)),
    )


def _meanings(keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{EFFECTS[key][0]}: {EFFECTS[key][1]}." for key in keys)


def _effect_remarks(report: Report, metric: str, keys: Sequence[str]) -> tuple[str, ...]:
    paths = [
        (f"{EFFECTS[key][0]} of {name}", ("domains", name, metric, key))
        for key in keys
        for name in by_size(report)
    ]
    return remark_lines(report, paths)


def matrix_table(report: Report, key: str) -> TextTable | None:
    """One matrix; targets are rows. ``*`` marks cells that stand out after adjustment."""
    matrix = (
        dig(report, "likeness", "distance") if key == "distance" else dig(report, "matrix", key)
    )
    if not matrix:
        return None
    names, told = matrix_names(report, matrix), MATRICES[key]

    def shown(target: str, source: str) -> str:
        held = cell(matrix, target, source)
        p = held.get("p_bh")
        text = number(held.get("estimate"), 4, signed=told.signed)
        return f"{text}{' *' if p is not None and p <= 0.10 else ''}"

    return TextTable(
        title=told.title,
        header=("target \\ source", *names),
        rows=tuple((target, *(shown(target, source) for source in names)) for target in names),
        notes=(
            told.meaning,
            *(("* stands out at a false discovery rate of 10 %.",) if told.signed else ()),
        ),
    )


def capacity_table(report: Report) -> TextTable | None:
    """The net effect at each width, one column for each."""
    runs = report.get("capacity") or []
    if not runs:
        return None
    header = [
        f"{'-'.join(map(str, run['widths']))}{'' if run['domain_input'] else ', blind'}"
        for run in runs
    ]
    paths = [
        (name, ("capacity", place, "domains", name, "auc"))
        for place in range(len(runs))
        for name in by_size(report)
    ]
    return TextTable(
        title="Net effect in AUC by width of the layers",
        header=("domain", *header),
        rows=tuple(
            (
                name,
                *(
                    effect_text(report, ("capacity", place, "domains", name, "auc"))
                    for place in range(len(runs))
                ),
            )
            for name in by_size(report)
        ),
        notes=("blind: the model does not see the domain.", *remark_lines(report, paths)),
    )


def weighting_table(report: Report) -> TextTable | None:
    """Each weighting minus proportional, mean over domains."""
    held = report.get("weighting") or []
    if not held:
        return None
    paths = [(one["name"], ("weighting", place, "macro")) for place, one in enumerate(held)]
    return TextTable(
        title="Weighting of losses: AUC against proportional",
        header=("weighting", "mean over domains"),
        rows=tuple(
            (one["name"], effect_text(report, ("weighting", place, "macro")))
            for place, one in enumerate(held)
        ),
        notes=(
            "random is the control.",
            *(f"{one['name']}: {said}." for one in held for said in said_of(one)),
            *remark_lines(report, paths),
        ),
    )


def said_of(entry: Mapping[str, Any]) -> list[str]:
    """The reason and the note of one weighting, where it has them."""
    return [str(entry[key]) for key in ("reason", "note") if entry.get(key)]


def group_lines(report: Report) -> list[str]:
    """The groups, and how they were confirmed."""
    groups = dig(report, "groups", "groups")
    if not groups:
        return []
    lines = [f"Group: {listed(group)}." for group in groups if len(group) > 1]
    alone = [group[0] for group in groups if len(group) == 1]
    if alone:
        lines.append(f"Alone: {listed(alone)}.")
    confirmed = dig(report, "groups", "confirmed")
    if not confirmed:
        return [*lines, "Not confirmed on test rows."]
    path = ("groups", "confirmed")
    others = ", ".join(number(value) for value in dig(confirmed, "random") or [])
    return [
        *lines,
        f"Mean AUC on test rows{_over(report)} {number(dig(confirmed, 'score'))}"
        f" (all in one {number(dig(confirmed, 'score_all'))},"
        f" each alone {number(dig(confirmed, 'score_none'))});"
        f" against all in one {effect_text(report, (*path, 'against_all'))},"
        f" against each alone {effect_text(report, (*path, 'against_none'))};"
        f" random groupings {others or NOTHING}.",
        *remark_lines(report, [(name, (*path, key)) for key, name in GROUPED.items()]),
    ]


def _over(report: Report) -> str:
    """Of which replicates the scores of groupings are means."""
    count = dig(report, "groups", "confirmed", "replicates_of_scores")
    kind = dig(report, "plan", "replicates") or "seeds"
    return f" ({count} of {report.get('seeds')} {kind})" if count else ""


def fine_print(report: Report) -> list[str]:
    """What was run, what was left out, and why."""
    plan = report.get("plan") or {}
    clusters = plan.get("clusters")
    known = clusters not in (None, "row")
    told = [
        f"Level {plan.get('level')}; {report.get('seeds')} {plan.get('replicates') or 'seeds'};"
        f" split {plan.get('split')}; margin {report.get('margin')} AUC.",
        f"Rows are taken in clusters of {clusters}"
        f"{' and of ' + plan['item'] if plan.get('item') else ''}."
        if known
        else "No clusters are named: rows are taken as independent.",
        f"{plan.get('trainings')} trainings, {plan.get('cached') or 0} from the cache,"
        f" {duration(plan.get('seconds'))}.",
    ]
    if plan.get("sampled"):
        told.append(f"Sampled: {plan['sampled']}.")
    told += [f"{title}: {recipe}." for title, recipe in recipes(report)]
    told += [f"Left out: {name}, {why}." for name, why in (plan.get("left_out") or {}).items()]
    return told + list(plan.get("notes") or [])


def recipes(report: Report) -> list[tuple[str, str]]:
    """What the arms were trained with, in words: the choices on validation, and the budgets."""
    choices = dig(report, "plan", "choices") or {}
    solo = [one for one in (choices.get("solo") or {}).values() if one.get("batch_rows")]
    stages = list((dig(report, "plan", "stage_two") or {}).values())
    told = []
    for title, held in (
        ("Joint model", [joint] if (joint := choices.get("joint")) else []),
        ("Solo models", solo),
    ):
        recipe = _recipe(held)
        tried = [len(one.get("tried") or []) for one in held]
        if recipe:
            best = (
                f"; the best of {_span(tried)} tried on validation rows" if max(tried) > 1 else ""
            )
            told.append((title, f"{recipe}{best}"))
    if stages:
        steps = [one["steps"] for one in stages if one.get("steps") is not None]
        looks = [one["looks"] for one in stages if one.get("looks") is not None]
        spent = f"{_span(steps)} steps" if steps else ""
        seen = f"{_span(looks)} looks at validation" if looks else ""
        parts = [part for part in (spent, seen, _recipe(stages)) if part]
        told.append(("Second stage", ", ".join(parts)))
    return told


def _recipe(held: Sequence[Mapping[str, Any]]) -> str:
    batches = [one["batch_rows"] for one in held if one.get("batch_rows") is not None]
    rates = [one["lr"] for one in held if one.get("lr") is not None]
    parts = [f"{_span(batches)} rows a batch"] if batches else []
    if rates:
        parts.append(f"learning rate {_span(rates)}")
    return ", ".join(parts)


def _span(values: Sequence[float]) -> str:
    """``100``, or ``8 to 1,024``."""
    ends = [f"{value:,}" if isinstance(value, int) else f"{value:g}" for value in values]
    low, high = (ends[values.index(end(values))] for end in (min, max))
    return low if low == high else f"{low} to {high}"


def choice_table(report: Report) -> TextTable | None:
    """Each recipe that was tried on validation rows; ``*`` marks the chosen one."""
    choices = dig(report, "plan", "choices") or {}
    named = [("all", choices.get("joint") or {}), *(choices.get("solo") or {}).items()]
    rows = [
        (
            "joint" if place == 0 else "solo",
            name,
            "; ".join(_tried(one, held) for one in held.get("tried") or []),
        )
        for place, (name, held) in enumerate(named)
        if held.get("tried")
    ]
    if not rows:
        return None
    return TextTable(
        title="Recipes tried: rows a batch × learning rate, and the best on validation rows",
        header=("arm", "domain", "tried"),
        rows=tuple(rows),
        notes=("* the chosen one.",),
        left=(0, 1, 2),
    )


def _tried(one: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    chosen = all(one.get(key) == held.get(key) for key in ("batch_rows", "lr"))
    return (
        f"{one['batch_rows']:,} × {one['lr']:g}: {number(one.get('validation'))}"
        f"{' *' if chosen else ''}"
    )


def remark_lines(report: Report, paths: Sequence[tuple[str, Path]]) -> tuple[str, ...]:
    """The notes of named effects, each once, with the names it holds for; all of them unnamed."""
    known = {name for name, path in paths if dig(report, *path, "estimate") is not None}
    lines = []
    for note, names in remarks(report, paths):
        more = len(names) - NAMED
        named = listed([*names[:NAMED], several(more, "more")] if more > 1 else names)
        lines.append(f"{'Everywhere' if known <= set(names) else named}: {note}.")
    return tuple(lines)


def advice_lines(report: Report, names: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """For each domain: its name; what to do, how sure, and why; and what to type for it."""
    lines = []
    for name in names:
        of = report["domains"][name]
        partners = of.get("with") or []
        act = f"{act_of(of)}{f' with {listed(partners)}' if partners else ''}."
        # Where nothing can be told, the act says so already.
        sure = None if of.get("verdict") == "not enough data" else of.get("certainty")
        notes = [f"{flag}." for flag in of.get("flags") or []]
        if dig(of, "auc", "net", "note"):
            notes.append(f"Note: {dig(of, 'auc', 'net', 'note')}.")
        said = [act, f"{sure[0].upper()}{sure[1:]}." if sure else "", of.get("why") or "", *notes]
        told = " ".join(part for part in said if part)
        lines.append((name, told, of.get("command")))
    return lines
