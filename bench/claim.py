"""docs/claim.md: every backbone with and without HAMUR on MovieLens-1M, paired. ``make claim``.

Everything was fixed beforehand: the split, the sizes, the seeds, the stop. A backbone is ten
trainings. A finished backbone is kept in docs/claim.json, so the page grows from call to call and
needs no training again. Each network is read on the test rows once.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.benchmark_page import movielens_config
from bench.chart import Bar, drawn
from bench.results import train_one
from isthmus.backbones import BackboneConfig
from isthmus.config import Config, load_config
from isthmus.data.store.dataset import Dataset
from isthmus.disk import write_whole
from isthmus.family import members
from isthmus.metrics import compare
from isthmus.metrics.intervals import holm
from isthmus.models import ModelConfig, sized
from isthmus.run import Run
from isthmus.schema import DataConfig

DOCS = Path(__file__).parents[1] / "docs"
RECORD, PAGE, PICTURE = DOCS / "claim.json", DOCS / "claim.md", DOCS / "claim.svg"
SEEDS = 5
TRUNK = 30_000
DROPOUT = 0.2
HAMUR = {"name": "hamur", "bottleneck": 32, "rank": 35, "hyper_widths": [64]}
TRAIN = {"epochs": 20, "patience": 2, "looks_per_epoch": 1, "domain_dropout": 0.0}
TOWERS = "mlp, a tower per domain"
VARIANTS = {"plain": {}, "hamur": {"adapter": HAMUR}}
EDGE = 0.01  # of the picture, an AUC
ALARM = 0.05


def names() -> tuple[str, ...]:
    """The paper's own baseline, a tower per domain, among the backbones of the package."""
    first, *others = members(BackboneConfig)
    return (first, TOWERS, *others)


def model_of(name: str, dataset: Dataset) -> dict[str, Any]:
    """The network without HAMUR, as wide as the trunk allows; HAMUR is added to these widths."""
    backbone: dict[str, Any] = {"name": "mlp" if name == TOWERS else name}
    if "dropout" in members(BackboneConfig)[backbone["name"]].model_fields:
        backbone["dropout"] = DROPOUT
    asked: dict[str, Any] = {"backbone": backbone, "sizes": {"trunk": TRUNK}}
    if name == TOWERS:
        asked["towers"] = "per_domain"
    config = ModelConfig.model_validate(asked)
    found = sized(config, dataset.encoder.fields, dataset.n_domains)
    return found.model_dump(mode="json", exclude_none=True)


def train_missing(
    folder: Path, name: str, jobs: int, seeds: int, tell: Callable[[str], None]
) -> None:
    """Train what is missing of one backbone, a process a training."""
    base = movielens_config(folder / "tables")
    dataset = Dataset.from_table(DataConfig.model_validate(base["data"]))
    model = model_of(name, dataset)
    waiting: list[tuple[Config, Path]] = []
    for seed in range(seeds):
        for variant, more in VARIANTS.items():
            out = place(folder, name, variant, seed)
            if not (out / "bundle").exists():
                train = TRAIN | {"seed": seed}
                config = {"data": base["data"], "model": model | more, "train": train}
                waiting.append((load_config(config), out))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        done = [pool.submit(train_one, *job) for job in waiting]
        for number, future in enumerate(done, start=1):
            tell(f"{name}: {number} of {len(done)}: {future.result()}")


def place(folder: Path, name: str, variant: str, seed: int) -> Path:
    """The run folder of one training."""
    slug = "".join(c if c.isalnum() else "-" for c in name)
    return folder / slug / variant / f"seed-{seed}"


def measured(folder: Path, name: str, seeds: int) -> dict[str, Any]:
    """HAMUR minus the backbone without it on the test rows, and what both are."""
    runs = {
        variant: [Run.open(place(folder, name, variant, seed)) for seed in range(seeds)]
        for variant in VARIANTS
    }
    scored = {variant: [run.scored("test") for run in of] for variant, of in runs.items()}
    found = compare(scored["plain"], scored["hamur"])
    return {
        "seeds": seeds,
        "widths": runs["plain"][0].config.model.backbone.sizes,
        "parameters": {variant: of[0].state.parameters for variant, of in runs.items()},
        "pooled": found.pooled.to_dict(),
        "macro": found.macro.to_dict(),
        "domains": {domain: pair.to_dict() for domain, pair in found.domains.items()},
    }


def page(record: dict[str, Any]) -> str:
    """The whole text, from the record alone."""
    waiting = [name for name in names() if name not in record]
    return "\n".join(
        [
            INTRODUCTION,
            *(table(record) if record else ()),
            *([f"Not run yet: {', '.join(waiting)}.\n"] if waiting else ()),
        ]
    )


def table(record: dict[str, Any]) -> Iterator[str]:
    """The sentence that sums up, the picture, and a line a backbone."""
    adjusted = adjusted_of(record)
    shown = list(adjusted)
    verdicts = {name: verdict(record[name], adjusted[name]) for name in shown}
    counts = {said: list(verdicts.values()).count(said) for said in ("better", "worse", "tie")}
    seeds = sorted({record[name]["seeds"] for name in shown})
    yield (
        f"Backbones so far: {len(shown)}. Better with HAMUR: {counts['better']}; worse: {counts['worse']};"
        f" ties: {counts['tie']}. Test rows, {' or '.join(map(str, seeds))} seeds, Holm over the backbones.\n"
    )
    yield f"![AUC with HAMUR minus without, backbone by backbone]({PICTURE.name})\n"
    yield "Blue is better, red is worse, grey is a tie after the correction. A bar is the 95 % interval of one backbone.\n"
    domains = list(record[shown[0]]["domains"])
    yield (
        "| backbone | parameters, without and with | AUC without | with HAMUR, minus without | p, Holm | verdict"
        f" | logloss | {' | '.join(domains)} |"
    )
    yield "|---|---:|---:|---:|---:|---|" + "---:|" * (len(domains) + 1)
    for name in shown:
        one, sizes = record[name], record[name]["parameters"]
        cells = [signed(one["pooled"]["logloss"])]
        cells += [signed(one["domains"][domain]["auc"]) for domain in domains]
        yield (
            f"| {name} | {sizes['plain']:,}, {sizes['hamur']:,} | {one['pooled']['auc']['a']:.4f}"
            f" | {signed(one['pooled']['auc'])} | {adjusted[name]:.2g} | {verdicts[name]} | {' | '.join(cells)} |"
        )
    yield ""


def adjusted_of(record: dict[str, Any]) -> dict[str, float]:
    """Holm's p of the pooled AUC, over the backbones that were run, in the order of the page."""
    shown = [name for name in names() if name in record]
    found = holm([record[name]["pooled"]["auc"]["p"] for name in shown])
    return dict(zip(shown, found, strict=True))


def verdict(one: dict[str, Any], adjusted: float) -> str:
    """``better``, ``worse`` or ``tie``, by the pooled AUC and its corrected p."""
    if adjusted > ALARM:
        return "tie"
    return "better" if one["pooled"]["auc"]["difference"] > 0 else "worse"


def signed(of: dict[str, Any]) -> str:
    """A difference with half its interval."""
    low, high = of["ci"]
    return f"{of['difference']:+.4f} ± {(high - low) / 2:.4f}"


def bars(record: dict[str, Any]) -> list[Bar]:
    """What the picture shows."""
    made = []
    for name, adjusted in adjusted_of(record).items():
        one = record[name]["pooled"]["auc"]
        tie = verdict(record[name], adjusted) == "tie"
        made.append(Bar(name, one["difference"], tuple(one["ci"]), 0.0, tie))
    return made


INTRODUCTION = f"""# HAMUR's own claim

HAMUR's paper (CIKM 2023, arXiv:2309.06217) says that its adapter makes a multi-domain network better, whatever the
network is. So we ask each backbone of this package: is it better with HAMUR at its upper site than without? `make claim`
writes this page, and *{TOWERS}* is the paper's own baseline.

- **Data.** MovieLens-1M by age, split `random`, as in the paper: 8 fields, a positive is a rating above 3.
- **Sizes.** Each backbone is as wide as a trunk of {TRUNK:,} parameters allows, and HAMUR comes on top, at the sizes of the
  paper's code: bottleneck {HAMUR["bottleneck"]}, rank {HAMUR["rank"]}, one hidden layer of 64 in the hyper-network. So a
  gain may be one of size; a loss is none.
- **Training.** Adam at 0.001, 4,096 rows a batch, dropout {DROPOUT}, early stop on the pooled AUC of validation rows after
  two epochs without a better one. Nothing is tuned, with HAMUR or without. [Benchmark](benchmark.md) tunes all.
- **Pairs.** With and without HAMUR have the same seeds and test rows. A cell is AUC with minus AUC without, with half of
  its 95 % interval, which covers users and seeds together. p is corrected by Holm over the backbones.
"""


def main(arguments: list[str] | None = None, tell: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/claim"))
    parser.add_argument("--only", default="", help="names of backbones, with semicolons between")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--page-only", action="store_true", help="write the page, train nothing")
    options = parser.parse_args(arguments)
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    only = [name for name in options.only.split(";") if name]
    for name in names():
        if options.page_only or name in record or (only and name not in only):
            continue
        train_missing(options.folder, name, options.jobs, options.seeds, tell)
        record[name] = measured(options.folder, name, options.seeds)
        write_whole(RECORD, json.dumps(record, indent=1) + "\n")
    write_whole(PICTURE, drawn(bars(record), "pooled AUC, with HAMUR minus without", EDGE))
    write_whole(PAGE, page(record))


if __name__ == "__main__":
    main()
