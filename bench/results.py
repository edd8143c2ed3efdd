"""docs/results.md: MovieLens-1M and planted domains, several seeds, paired. ``make results``.

Every training is a run folder, so a stopped command goes on where it was. Nothing is chosen here.
Each variant has one config, fixed beforehand. Each is read on the test rows once.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from isthmus.config import Config, load_config
from isthmus.disk import write_whole
from isthmus.metrics import Comparison, Evaluation, compare, evaluate_rows
from isthmus.run import Run, fit
from isthmus.sources import movielens_1m
from isthmus.sources.planted import planted

SEEDS = 5
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
HAMUR = {"name": "hamur", "bottleneck": 32, "rank": 8}
CONTEXT = ["gender", "occupation", "first_genre", "domain", "age"]
MLP = {"name": "mlp", "widths": [256, 128], "dropout": 0.2}
DCN = {"name": "dcn", "widths": [256, 128], "dropout": 0.2}
WIDE_DEEP = {
    "name": "wide_deep",
    "widths": [256, 128],
    "dropout": 0.2,
    "crosses": [["gender", "first_genre"], ["occupation", "first_genre"]],
}
BASELINE = "shared, with the domain"
GLANCE = {  # study: its column
    "random-mlp": "random, MLP",
    "confirm-mlp": "random again, MLP",
    "random-dcn": "random, DCN",
    "random-wide_deep": "random, Wide&Deep",
    "time-mlp": "time, MLP",
    "time-dcn": "time, DCN",
    "time-wide_deep": "time, Wide&Deep",
}
CONTEXT_ONLY = "HAMUR, no ids in the condition"


@dataclass(frozen=True, slots=True)
class Variant:
    """One line of a table: what differs from the base config."""

    name: str
    model: dict[str, Any]
    domain_as_feature: bool = True
    train: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Study:
    """One table of the page: a data set, a split, and variants compared with the first BASELINE."""

    name: str
    title: str
    data: dict[str, Any]
    variants: tuple[Variant, ...]
    train: dict[str, Any]
    pairs: tuple[tuple[str, str], ...] = ()  # further comparisons: the first against the second


def variants(backbone: dict[str, Any], widened: list[int]) -> tuple[Variant, ...]:
    """The comparisons of one backbone; ``widened``: layers with HAMUR's number of parameters."""
    shared = Variant(BASELINE, {"backbone": backbone})
    wide = Variant(f"shared, {widened} wide", {"backbone": backbone | {"widths": widened}})
    towers = Variant("per-domain towers", {"backbone": backbone, "towers": "per_domain"})
    adapted = Variant("HAMUR", {"backbone": backbone, "adapter": HAMUR})
    context = Variant(
        CONTEXT_ONLY,
        {"backbone": backbone, "adapter": HAMUR | {"condition": CONTEXT}},
    )
    released = {"name": "hamur_released", "bottleneck": 32, "rank": 35}
    rest = (
        Variant("shared, without the domain", {"backbone": backbone}, domain_as_feature=False),
        Variant("HAMUR released", {"backbone": backbone, "adapter": released}),
    )
    return (shared, wide, towers, adapted, context, *rest)


def studies(folder: Path) -> tuple[Study, ...]:
    """Everything that the page shows."""
    made = folder / "movielens-1m"
    if not (made / "config.yaml").exists():  # a table written anew would begin every run anew
        movielens_1m(made)
    movielens = yaml.safe_load((made / "config.yaml").read_text())
    base = movielens["data"] | {"table": str(made / "movielens-1m.parquet")}
    by_time = base | {"split": {"by": "time", "fractions": [0.8, 0.1, 0.1]}}
    lazy = Variant("shared, lazy update", {"backbone": MLP}, train=(("embedding_update", "lazy"),))
    train = {"epochs": 20, "patience": 2}
    chosen = []
    for split, data in {"random": base, "time": by_time}.items():
        for name, backbone, extra in (
            ("MLP", MLP, (lazy,)),
            ("DCN", DCN, ()),
            ("Wide&Deep", WIDE_DEEP, ()),
        ):
            chosen.append(
                Study(
                    f"{split}-{backbone['name']}",
                    f"MovieLens-1M, `{split}` split, {name}",
                    data,
                    variants(backbone, WIDENED[backbone["name"]]) + extra,
                    train,
                )
            )
    return (*chosen, confirmation(base, train), conflict(folder))


def confirmation(base: dict[str, Any], train: dict[str, Any]) -> Study:
    """What was explored on the first split, once more on rows that nobody had looked at."""
    again = base | {"split": {"by": "random", "fractions": [0.8, 0.1, 0.1], "seed": 1}}
    asked = (BASELINE, CONTEXT_ONLY)
    return Study(
        "confirm-mlp",
        "Confirmation: MovieLens-1M, `random` split of another seed, MLP",
        again,
        tuple(one for one in variants(MLP, WIDENED["mlp"]) if one.name in asked),
        train,
    )


# Widths at which a shared network has at least HAMUR's number of dense parameters.
WIDENED = {"mlp": [316, 158], "dcn": [316, 158], "wide_deep": [316, 158]}


def conflict(folder: Path) -> Study:
    """Two camps of two domains each: what one camp likes, the other dislikes."""
    camps = [[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]]
    made = planted(rows=20_000, relation=camps, items=1_000, seed=1)
    path = folder / "conflict.parquet"
    if not path.exists():
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(made.table, path)
    small = {"name": "mlp", "widths": [16, 8], "dropout": 0.0}
    blind = "shared, [40, 20] wide, without the domain"
    adapter = {"name": "hamur", "bottleneck": 8, "rank": 4, "sites": [0, 1], "hyper_widths": [16]}
    return Study(
        "conflict",
        "Planted conflict: 4 domains in two camps at 180 degrees, 20,000 rows each, MLP [16, 8]",
        made.config(str(path)),
        (
            Variant(BASELINE, {"backbone": small}),
            Variant("shared, without the domain", {"backbone": small}, domain_as_feature=False),
            Variant("shared, [40, 20] wide", {"backbone": small | {"widths": [40, 20]}}),
            Variant(blind, {"backbone": small | {"widths": [40, 20]}}, domain_as_feature=False),
            Variant("HAMUR", {"backbone": small, "adapter": adapter}),
            Variant(
                "HAMUR, domain not an input",
                {"backbone": small, "adapter": adapter},
                domain_as_feature=False,
            ),
        ),
        {"epochs": 30, "patience": 3, "batch_rows": 1024},
        pairs=(("HAMUR, domain not an input", blind),),
    )


def config_of(study: Study, variant: Variant, seed: int) -> Config:
    data = dict(study.data)
    if not variant.domain_as_feature:
        data["features"] = {
            name: feature for name, feature in data["features"].items() if name != data["domain"]
        }
    train = study.train | dict(variant.train) | {"seed": seed, "domain_dropout": 0.0}
    return load_config({"data": data, "model": variant.model, "train": train}, [])


def folder_of(folder: Path, study: Study, variant: Variant, seed: int) -> Path:
    slug = "".join(c if c.isalnum() else "-" for c in variant.name.lower())
    return folder / study.name / slug / f"seed-{seed}"


def train_one(config: Config, out: Path) -> str:
    """Train one run in a process with one thread, unless it is finished already."""
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="adapter hamur_released")
    begun = (out / "run.json").exists()
    return str(fit(config, out=out, resume=begun).path)


def jobs(folder: Path, chosen: tuple[Study, ...], seeds: int) -> Iterator[tuple[Config, Path]]:
    for seed in range(seeds):
        for study in chosen:
            for variant in study.variants:
                out = folder_of(folder, study, variant, seed)
                if not (out / "bundle").exists():
                    yield config_of(study, variant, seed), out


@dataclass(frozen=True, slots=True)
class Found:
    """What the finished runs of a study say; empty where its baseline is not finished."""

    study: Study
    evaluations: dict[str, Evaluation]
    parameters: dict[str, int]
    comparisons: dict[str, Comparison]


def read(folder: Path, study: Study, seeds: int) -> Found:
    """Score and compare the variants that are finished for every seed."""
    scored, parameters = {}, {}
    for variant in study.variants:
        folders = [folder_of(folder, study, variant, seed) for seed in range(seeds)]
        if all((path / "scores" / "test.parquet").exists() for path in folders):
            runs = [Run.open(path) for path in folders]
            scored[variant.name] = [run.scored("test") for run in runs]
            parameters[variant.name] = runs[0].state.parameters
    if BASELINE not in scored:
        return Found(study, {}, {}, {})
    comparisons = {
        name: compare(scored[BASELINE], rows) for name, rows in scored.items() if name != BASELINE
    }
    for name, other in study.pairs:
        if name in scored and other in scored:
            comparisons[f"{name}, minus that of *{other}*"] = compare(scored[other], scored[name])
    evaluations = {name: evaluate_rows(rows) for name, rows in scored.items()}
    return Found(study, evaluations, parameters, comparisons)


def section(found: Found, seeds: int) -> str:
    """The tables of one study."""
    study, evaluations = found.study, found.evaluations
    if not evaluations:
        return f"## {study.title}\n\nNot run yet.\n"
    rows = evaluations[BASELINE].pooled.rows
    missing = [variant.name for variant in study.variants if variant.name not in evaluations]
    return "\n".join(
        [
            f"## {study.title}\n",
            f"There are {rows:,} test rows and seeds 0 to {seeds - 1}. The 95 % intervals cover test rows"
            " (users drawn independently) and seeds together.\n",
            *absolute(evaluations, found.parameters),
            "",
            *paired(found.comparisons),
            *([f"\nNot run yet: {', '.join(missing)}."] if missing else []),
            "",
        ]
    )


def glance(held: list[Found], seeds: int) -> str:
    """Pooled differences of all studies on MovieLens-1M, side by side."""
    by_name = {found.study.name: found for found in held if found.comparisons}
    shown = [by_name[name] for name in GLANCE if name in by_name]
    names = list(dict.fromkeys(name for found in shown for name in found.comparisons))
    lines = [
        "## At a glance\n",
        f"A cell is the pooled AUC of a model minus the pooled AUC of *{BASELINE}* on the same backbone. It is"
        f" measured on test rows of MovieLens-1M, with seeds 0 to {seeds - 1}. The 95 % intervals are unadjusted.\n",
        f"| model | {' | '.join(GLANCE[found.study.name] for found in shown)} |",
        "|---" + "|---:" * len(shown) + "|",
    ]
    for name in names:
        cells = (found.comparisons.get(name) for found in shown)
        told = ("" if of is None else signed(of.pooled.auc) for of in cells)
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join([*lines, ""])


def absolute(evaluations: dict[str, Evaluation], parameters: dict[str, int]) -> Iterator[str]:
    domains = list(next(iter(evaluations.values())).domains)
    yield f"| model | parameters | AUC pooled | logloss | {' | '.join(domains)} | worst |"
    yield "|---" + "|---:" * (len(domains) + 4) + "|"
    for name, of in evaluations.items():
        low, high = of.pooled.auc_ci or (float("nan"),) * 2
        per_domain = " | ".join(f"{of.domains[domain].auc:.4f}" for domain in domains)
        yield (
            f"| {name} | {parameters[name]:,} | {of.pooled.auc:.4f} [{low:.4f}, {high:.4f}]"
            f" | {of.pooled.logloss:.4f} | {per_domain} | {of.worst.auc:.4f} |"
        )


def paired(comparisons: dict[str, Comparison]) -> Iterator[str]:
    if not comparisons:
        return
    domains = list(next(iter(comparisons.values())).domains)
    yield (
        f"A cell is the AUC of a model minus the AUC of *{BASELINE}*, or minus that of the model that the line names."
        " The column *logloss, pooled* has the difference in logloss. Rows and seeds are the same. p is adjusted by"
        " Holm over domains:\n"
    )
    yield f"| model | pooled | logloss, pooled | {' | '.join(domains)} |"
    yield "|---" + "|---:" * (len(domains) + 2) + "|"
    for name, of in comparisons.items():
        cells = [signed(of.pooled.auc), signed(of.pooled.logloss)]
        for domain in domains:
            pair = of.domains[domain].auc
            p = "" if pair.p_holm is None else f" (p {pair.p_holm:.2g})"
            cells.append(signed(pair) + p)
        yield f"| {name} | {' | '.join(cells)} |"


def signed(difference: Any) -> str:
    if difference.difference is None:
        return "undefined"
    half = "" if difference.half_width is None else f" ± {difference.half_width:.4f}"
    return f"{difference.difference:+.4f}{half}"


def write_page(folder: Path, chosen: tuple[Study, ...], seeds: int, page: Path) -> None:
    held = [read(folder, study, seeds) for study in chosen]
    parts = [INTRODUCTION, glance(held, seeds), *(section(found, seeds) for found in held)]
    write_whole(page, "\n".join(parts))


INTRODUCTION = """# Results

`make results` writes this page. Every training is a run folder that can be opened, evaluated and compared. Each variant
has one config (`bench/results.py`) and stops early on the validation rows. All variants have the same embeddings,
optimiser, batch and patience. Only what the line names differs.

Read a difference with its interval. Where the interval holds 0, the test rows and seeds do not tell the two models apart.

**What we had seen before.** We made two settings with test scores of this split in view, on one seed:

- The embeddings' start (docs/log.md). All variants share this start.
- *HAMUR, no ids in the condition*. HAMUR as in the paper had come out below the shared MLP, and we then added this line.
  So read the line as explored, not as foreseen. The table *Confirmation* asks again on another split.

Validation rows rank both settings the same way as test rows. In the planted study, we added the line *minus that of* and
its wide opponent after we had seen the other lines.

**Released** is the published code's form of HAMUR, kept for reproduction. Its scores depend on the rows that are scored
together (here 16,384 at a time). So its line flatters it as no served model could be flattered.
"""


def main(arguments: list[str] | None = None, tell: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/results"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="comma-separated names of studies")
    parser.add_argument("--page-only", action="store_true", help="write the page, train nothing")
    options = parser.parse_args(arguments)
    everything = studies(options.folder)
    only = set(filter(None, options.only.split(",")))
    chosen = tuple(study for study in everything if not only or study.name in only)
    if not options.page_only:
        waiting = list(jobs(options.folder, chosen, options.seeds))
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            done = [pool.submit(train_one, *job) for job in waiting]
            for number, future in enumerate(done, start=1):
                tell(f"{number}/{len(done)} {future.result()}")
    write_page(options.folder, everything, options.seeds, PAGE)


if __name__ == "__main__":
    main()
