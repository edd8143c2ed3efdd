"""Run the self-checks and write docs/truth.md. ``python -m bench.truth --only 3,4``."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.truth import harm, relations, simulated
from bench.truth.repeat import Result, repeat
from isthmus.disk import write_whole

PAGE = Path(__file__).parents[2] / "docs" / "truth.md"
Line = tuple[str, str, str, bool | None]
DATASETS = 10


def check_2(run: Callable[..., dict[str, Result]]) -> list[Line]:
    done = run("alarms", harm.solo_against_solo, {str(s): {"seed": s} for s in range(200)})
    alarms = sum(result["alarm"] for result in done.values())
    outside = [one for result in done.values() for one in result["outside"]]
    return [
        (
            "2. solo against solo, other seeds: 200 repetitions, 3 domains, 3 folds; repetitions"
            " with a false alarm after Holm",
            f"{alarms} of {len(done)}",
            "4 to 18",
            4 <= alarms <= 18,
        ),
        (
            "2. unadjusted 95 % intervals that miss 0",
            f"{np.mean(outside):.1%} of {len(outside)}",
            "nominal 5 %",
            None,
        ),
    ]


def check_3(run: Callable[..., dict[str, Result]]) -> list[Line]:
    lines: list[Line] = []
    for widths, seen in (([2], True), ([16], False)):
        told = "with" if seen else "without"
        done = run(
            f"conflict-{widths[0]}-{told}",
            harm.conflicting,
            {str(s): {"seed": s, "widths": widths, "domain_input": seen} for s in range(100)},
        )
        both = sum(all(result["harm"]) for result in done.values())
        found = sum(any(result["harm"]) for result in done.values())
        net = np.mean([result["net"] for result in done.values()])
        setting = (
            f"conflict at 180 degrees, width {widths[0]} {told} the domain as an input, 2 x 4,000"
            f" rows, 5 folds (mean N {net:+.3f})"
        )
        lines.append(
            (
                f"3. {setting}: harm found on both domains (on one at least: {found})",
                f"{both} of {len(done)}",
                ">= 95",
                both >= 95,
            )
        )
    return lines


def check_4(run: Callable[..., dict[str, Result]]) -> list[Line]:
    lines: list[Line] = []
    unequal = [10_000, 2_500, 10_000, 2_500, 10_000, 2_500, 5_000, 5_000]
    sets: list[tuple[str, dict[str, Any], bool]] = [
        ("3 x 2, 5,000 rows each", {"sizes": [2, 2, 2], "rows": 5000}, True),
        ("3 x 2, 20,000 rows each", {"sizes": [2, 2, 2], "rows": 20_000}, True),
        (
            "3 x 2 of 2,500 and 10,000 rows, 2 loners of 5,000",
            {"sizes": [2, 2, 2], "rows": unequal, "loners": 2},
            False,
        ),
        ("3 x 4, 20,000 rows each", {"sizes": [4, 4, 4], "rows": 20_000}, True),
    ]
    for name, setting, bound in sets:
        slug = "".join(c if c.isalnum() else "-" for c in name)
        done = run(
            f"groups-{slug}",
            relations.grouped,
            {str(s): setting | {"seed": s} for s in range(DATASETS)},
        )
        if not done:
            lines.append((f"4. groups {name}", "not run yet", ">= 9" if bound else "", None))
            continue
        whole = bound and len(done) == DATASETS
        perfect = sum(result["rand"] == 1.0 for result in done.values())
        rand = sorted(round(result["rand"], 2) for result in done.values())
        free = np.median([result["rand_without_penalty"] for result in done.values()])
        lines.append(
            (
                f"4. groups {name}, 90 degrees, width 16: datasets with adjusted Rand index 1"
                f" (all: {rand}; median without the penalty m: {free:.2f})",
                f"{perfect} of {len(done)}",
                ">= 9 of 10" if bound else "reported",
                perfect >= 9 if whole else None,
            )
        )
        within = min(result["within"] for result in done.values())
        crossed = min(result["within_cross_scores"] for result in done.values())
        lines.append(
            (
                f"5. two-valued relation, {name}: AUC of within against across pairs, lowest of"
                f" {len(done)} datasets: X {crossed:.3f}, A",
                f"{within:.3f}",
                ">= 0.99" if bound else "reported",
                within >= 0.99 and crossed >= 0.99 if whole else None,
            )
        )
    return lines


def check_5(run: Callable[..., dict[str, Result]]) -> list[Line]:
    lines: list[Line] = []
    for rows in (5000, 20_000):
        done = run(
            f"graded-{rows}",
            relations.graded,
            {str(s): {"seed": s, "rows": rows} for s in range(DATASETS)},
        )
        crossed = sorted(result["cross_scores"] for result in done.values())
        pairs = float(np.median([result["pairwise"] for result in done.values()]))
        lines += [
            (
                f"5. angles 0 to 180, 6 domains, {rows:,} rows each: Spearman of X with the"
                f" cosines, lowest of {len(done)} (median {np.median(crossed):.2f})",
                f"{crossed[0]:.2f}",
                ">= 0.9",
                crossed[0] >= 0.9,
            ),
            (
                f"5. the same of A, 3 replicates, {rows:,} rows each: median",
                f"{pairs:.2f}",
                ">= 0.7",
                pairs >= 0.7,
            ),
        ]
    return lines


def check_6(run: Callable[..., dict[str, Result]]) -> list[Line]:
    settings = {str(s): {"seed": s, "kind": "copies"} for s in range(DATASETS)}
    copies = run("copies", harm.stages_of, settings)
    settings = {str(s): {"seed": s, "kind": "conflict"} for s in range(DATASETS)}
    conflict = run("conflict-stages", harm.stages_of, settings)
    transfer, interference = (_flat(copies, name) for name in ("transfer", "interference"))
    lost, gained = _flat(conflict, "interference"), _flat(conflict, "transfer")
    upper = [ci[1] for result in conflict.values() for ci in result["transfer_ci90"]]
    return [
        (
            f"6. copies, 3 x 5,000 rows, {DATASETS} datasets: mean I",
            f"{np.mean(interference):+.4f}",
            "within 0.003",
            bool(abs(np.mean(interference)) < 0.003),
        ),
        (
            "6. copies: T, lowest domain of all datasets",
            f"{min(transfer):+.4f} (mean {np.mean(transfer):+.4f})",
            "> 0",
            min(transfer) > 0,
        ),
        (
            "6. conflict at width 2 with the domain: I, lowest domain of all datasets",
            f"{min(lost):+.4f} (mean {np.mean(lost):+.4f})",
            "> 0",
            min(lost) > 0,
        ),
        (
            "6. conflict at width 2: mean T",
            f"{np.mean(gained):+.4f} (its 90 % interval below m in"
            f" {sum(one < 0.005 for one in upper)} of {len(upper)} domains)",
            "< 0.005",
            bool(np.mean(gained) < 0.005),
        ),
    ]


def _flat(done: dict[str, Result], name: str) -> list[float]:
    return [value for result in done.values() for value in result[name]]


def check_7(run: Callable[..., dict[str, Result]]) -> list[Line]:
    lines: list[Line] = []
    for seeds in (1, 5):
        done = run(
            f"equivalence-{seeds}",
            simulated.equivalence,
            {
                str(s): {"seed": s, "repetitions": 100, "rows": 40_000, "seeds": seeds}
                for s in range(5)
            },
        )
        of = sum(result["of"] for result in done.values())
        told = sum(result["same"] for result in done.values())
        wrong = sum(result["not_worse"] for result in done.values())
        lines += [
            (
                f"7. the same predictor plus tiny noise, 40,000 rows, {seeds} seed(s): *same*",
                f"{told / of:.1%} of {of}",
                ">= 95 %",
                told >= 0.95 * of,
            ),
            (
                f"7. a true loss of exactly m, {seeds} seed(s): *not worse*",
                f"{wrong / of:.1%} of {of}",
                "<= 8 %",
                wrong <= 0.08 * of,
            ),
        ]
    return lines


def check_8(run: Callable[..., dict[str, Result]]) -> list[Line]:
    lines: list[Line] = []
    for rows, domains in ((1000, 3), (4000, 3), (1000, 14)):
        done = run(
            f"guard-{rows}-{domains}",
            simulated.guard,
            {
                str(s): {"seed": s, "repetitions": 100, "rows": rows, "domains": domains}
                for s in range(5)
            },
        )
        of = sum(result["of"] for result in done.values())
        wrong = sum(result["chosen"] for result in done.values())
        lines.append(
            (
                f"8. guard, strict: every candidate of {domains} domains at exactly -m, {rows:,}"
                " deciding rows each: one is chosen somewhere",
                f"{wrong / of:.1%} of {of}",
                "<= 8 %",
                wrong <= 0.08 * of,
            )
        )
    done = run(
        "guard-kept",
        simulated.kept,
        {str(s): {"seed": s, "repetitions": 50, "rows": 6000} for s in range(4)},
    )
    share = float(np.mean([result["kept"] for result in done.values()]))
    lines.append(
        (
            "8. guard, strict: share of planted gains that is kept, 6,000 deciding rows a domain",
            f"{share:.1%}",
            ">= 80 %",
            share >= 0.8,
        )
    )
    return lines


CHECKS = {2: check_2, 3: check_3, 4: check_4, 5: check_5, 6: check_6, 7: check_7, 8: check_8}

INTRODUCTION = """# Truth

This page shows what the diagnosis says of data whose truth is known. `make truth` writes it. The quick forms of these
checks are in the tests. Check 1 is in the tests only: N+ = T - I to 1e-12, and intervals equal to a slow version and to
the cluster bootstrap.

The data are planted, see docs/diagnosis.md. The network is an MLP of one hidden layer with dropout 0. The tool chooses
batch and learning rate. A bound that is missed stays here and says so.

| check | found | bound | met |
|---|---:|---:|---|
"""


def page(lines: Sequence[Line], notes: str) -> str:
    words = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {name} | {found} | {bound} | {words[met]} |" for name, found, bound, met in lines]
    return INTRODUCTION + "\n".join(rows) + "\n" + notes


def main(tell: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/truth"))
    parser.add_argument("--only", default="", help="comma-separated numbers of checks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page-only", action="store_true", help="of what is finished")
    options = parser.parse_args()
    only = [int(number) for number in options.only.split(",") if number] or list(CHECKS)

    def run(name: str, one: Callable[..., Result], settings: Any) -> dict[str, Result]:
        jobs = 0 if options.page_only else options.jobs
        return repeat(name, one, settings, options.folder, jobs, tell)

    lines = [line for number in only for line in CHECKS[number](run)]
    for line in lines:
        tell(str(line))
    if only == list(CHECKS):
        beside = PAGE.with_name("truth-notes.md")
        notes = "\n" + beside.read_text() if beside.exists() else ""
        write_whole(PAGE, page(lines, notes))


if __name__ == "__main__":
    main()
