"""Sparse experts against dense networks, and the domain hidden at test: on planted tables, test rows.

    python -m bench.sparse_experts OUT.json [INSTEVAL_FOLDER]

Two camps of two domains in conflict, 5,000 rows a domain, three tables with a training seed each. The dense
networks are as large as the sparse one in products a row, and in parameters of the trunk. Each network has
the better of two learning rates, chosen on a fourth table by its validation rows. Then the dense network of
equal products and the sparse one of k = 1 are trained with three shares of domain dropout, and scored with
the domain as it is, hidden, and permuted; the dense one on InstEval too, where its folder is given. A run
that was stopped goes on.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy import stats

import isthmus
from isthmus.config import read_yaml
from isthmus.models import ModelConfig, build_network
from isthmus.schema import FittedField
from isthmus.sources.planted import conflict, planted

ROWS = 5_000
DOMAINS = 4
SEEDS = (0, 1, 2)
CHOOSING = 100
RATES = (1e-3, 3e-3)
DROPOUTS = (0.0, 0.02, 0.2)
EXPERTS = 8
WIDTHS = (64, 32)
DIM = 16

Numbers = dict[str, Any]


def fields_of() -> tuple[FittedField, ...]:
    """The features of a planted table, with few rows in each."""
    names = ("user_id", "item_id", "domain")
    return tuple(FittedField(name, "categorical", DIM, table=name, table_rows=4) for name in names)


def products_of(backbone: Numbers) -> int:
    """Multiplications a row of the trunk."""
    with torch.random.fork_rng():
        model = build_network(ModelConfig.model_validate({"backbone": backbone}), fields_of(), 4)
    report, experts = model.parameter_report(), backbone.get("experts", 1)
    if experts == 1:
        return report.trunk
    banked = sum(p.numel() for name, p in model.named_parameters() if ".bank." in name)
    return report.trunk - banked + banked * backbone["k"] // experts


def networks() -> dict[str, Numbers]:
    """The sections ``model`` of the contestants."""
    sparse = {
        f"sparse, k = {k}": {
            "backbone": {"name": "sparse_moe", "widths": WIDTHS, "experts": EXPERTS, "k": k}
        }
        for k in (1, 2)
    }
    one = sparse["sparse, k = 1"]["backbone"]
    model = build_network(ModelConfig.model_validate({"backbone": one}), fields_of(), DOMAINS)
    dense = {"backbone": {"name": "mlp", "widths": WIDTHS}}
    return {
        **sparse,
        "dense, equal products": {**dense, "sizes": {"trunk": products_of(one)}},
        "dense, equal parameters": {**dense, "sizes": {"trunk": model.parameter_report().trunk}},
    }


def section_of(seed: int, folder: Path) -> Numbers:
    """One planted table, written down, and its section ``data``."""
    path = folder / f"planted-{seed}.parquet"
    made = planted(rows=ROWS, relation=conflict(DOMAINS), seed=seed, items=200)
    if not path.exists():
        pq.write_table(made.table, path)
    section = made.config(str(path))
    section["split"] = {"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": seed}
    return section


def trained(data: Numbers, model: Numbers, folder: Path, **train: Any) -> isthmus.Run:
    """Fit, and give the run."""
    given = {"batch_rows": 256, "epochs": 20, "patience": 3, "looks_per_epoch": 1}
    given |= {"monitor": "auc_macro", "device": "cpu", **train}
    number = len(list(folder.glob("run-*")))
    settings = {"data": data, "model": model, "train": given}
    return isthmus.fit(settings, out=folder / f"run-{number}", cache=folder / "cache")


def against_dense(found: Numbers, folder: Path, keep: Callable[[], object]) -> None:
    """Sparse experts and dense networks; ``keep`` writes what is found so far."""
    for name, model in networks().items():
        if name in found:
            continue
        tried = {}
        for lr in RATES:
            run = trained(section_of(CHOOSING, folder), model, folder, lr=lr, seed=CHOOSING)
            tried[lr] = run.evaluate("validation").macro.auc
        lr = max(tried, key=lambda one: tried[one] or 0.0)
        runs = [trained(section_of(s, folder), model, folder, lr=lr, seed=s) for s in SEEDS]
        found[name] = {
            "lr": lr,
            "auc": [run.evaluate().macro.auc for run in runs],
            "parameters": runs[0].bundle.model.parameter_report().trunk,
            "seconds": round(sum(run.state.seconds for run in runs), 1),
            "steps": sum(run.state.steps for run in runs),
        }
        if model["backbone"]["name"] == "sparse_moe":
            found[name]["gates"] = runs[0].gates().to_dict()
        keep()
    base = np.array(found["dense, equal products"]["auc"])
    for name in networks():
        found[name]["minus equal products"] = difference(np.array(found[name]["auc"]) - base)


def difference(gain: np.ndarray) -> list[float]:
    """Mean over the tables, and half of Student's 95 % interval."""
    half = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
    return [float(gain.mean()), float(half)]


def under_dropout(
    found: Numbers,
    folder: Path,
    sections: list[Numbers],
    rate: float,
    keep: Callable[[], object],
    network: str = "dense, equal products",
) -> None:
    """The domain as it is, hidden and permuted, for each share of domain dropout."""
    model = networks()[network]
    for share in DROPOUTS:
        if str(share) in found:
            continue
        values: Numbers = {"plain": [], "hidden": [], "permuted": []}
        for seed, data in zip(SEEDS, sections, strict=True):
            run = trained(data, model, folder, lr=rate, seed=seed, domain_dropout=share)
            values["plain"].append(run.evaluate().macro.auc)
            for changed in ("hidden", "permuted"):
                figures = run.robustness(changed).evaluation
                values[changed].append(figures.macro.auc)
        found[str(share)] = values
        keep()


def main(out: Path, insteval: Path | None) -> None:
    """Every number, written after each part."""
    found: Numbers = json.loads(out.read_text()) if out.exists() else {}

    def keep() -> None:
        out.write_text(json.dumps(found, indent=1), encoding="utf-8")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        against_dense(found.setdefault("networks", {}), folder, keep)
        tables = [section_of(seed, folder) for seed in SEEDS]
        under_dropout(found.setdefault("planted", {}), folder, tables, max(RATES), keep)
        sparse = found.setdefault("planted, sparse", {})
        under_dropout(sparse, folder, tables, max(RATES), keep, "sparse, k = 1")
        if insteval is not None:
            data = read_yaml(insteval / "config.yaml")["data"]
            data["table"] = str(insteval / data["table"])
            same = [data] * len(SEEDS)
            under_dropout(found.setdefault("insteval", {}), folder, same, min(RATES), keep)
        keep()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
