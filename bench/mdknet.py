"""MDKNet beside its controls, and its mass on pairs of domains beside who helps whom.

    python -m bench.mdknet OUT.json [INSTEVAL_FOLDER]

Planted: two camps of two domains at 0, 90 and 180 degrees, 5,000 rows a domain, three tables with a
training seed each. InstEval: the table of ``isthmus data insteval`` (14 departments), its own split, five
training seeds. All arms are one MLP [64, 32] with a batch norm that reads the domain as a field, trained
jointly with the same batch, rate and patience; what differs is the adapter and the objective. Nothing is
chosen; validation rows stop the trainings; macro AUC of test rows, paired by table or by seed. The matrix
of who helps whom is that of docs/pages/insteval.html. A run that was stopped goes on.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

from bench.pairs import mantel, symmetric
from isthmus.config import Config, load_config
from isthmus.data import Dataset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.metrics.formulas.auc import auc
from isthmus.recipe import recipe_of
from isthmus.sources.planted import angles, planted
from isthmus.train import End, score_rows, train

PAGE = Path(__file__).parents[1] / "docs" / "pages" / "insteval.html"
DEGREES = (0, 90, 180)
TABLES = (0, 1, 2)
SEEDS = (0, 1, 2, 3, 4)
GATES = ["model.adapter.name=instance_modulation", "model.adapter.condition=without_domain"]
VIRTUAL = {"name": "virtual_classifier", "weight": 0.1}


def objective(**settings: Any) -> str:
    """An override with one objective."""
    return f"train.objectives=[{json.dumps(VIRTUAL | settings)}]"


ARMS: dict[str, tuple[str | None, list[str]]] = {
    "batch norm": (None, []),
    "norm": (None, ["model.adapter.name=norm"]),
    "film by id": (None, ["model.adapter.name=film", "model.adapter.condition=[DOMAIN]"]),
    "gates alone": (None, GATES),
    "mdknet": ("mdknet", []),
    "mdknet, temperature 10": ("mdknet", [objective(temperature=10.0)]),
}
# Without the lecturer, who belongs to one department and so tells it.
NO_LECTURER = ["model.adapter.condition=[student,studage,lectage,service]"]


def config_of(arm: str, control: dict[str, Any], domain: str, more: list[str]) -> Config:
    """The control's config with an arm over it."""
    recipe, changes = ARMS[arm]
    changes = [change.replace("DOMAIN", domain) for change in changes] + more
    if recipe is None:
        return load_config(control, changes)
    return recipe_of(recipe).over(control, changes)


def trained(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Train, and give the AUC of each domain's test rows, the mass and the cost."""
    training = Training(model=config.model, train=config.train)
    model = build_to_train(training, dataset, dataset.rows("train"))
    (end,) = (e for e in train(model, dataset, config.train) if isinstance(e, End))
    rows = dataset.rows("test")
    logits = np.asarray(score_rows(model, rows))
    label, domain = np.asarray(rows.label), np.asarray(rows.domain)
    mass = end.between_domains.get("virtual_classifier")
    return {
        "auc": [
            float(auc(logits[domain == d], label[domain == d]))
            for d in range(1, dataset.n_domains + 1)
        ],
        "steps": end.step,
        "best": end.best.epoch,
        "parameters": model.parameter_report().total,
        "seconds": round(end.seconds, 1),
        "mass": None if mass is None else mass.tolist(),
        "domains": list(dataset.domain_names[: dataset.n_domains]),
    }


def planted_control(degrees: int, seed: int, folder: Path) -> tuple[dict[str, Any], Dataset]:
    """One table, a fifth of its rows for validation and a fifth for test, and the control on it."""
    made = planted(rows=5_000, relation=angles([0, degrees, 0, degrees]), seed=seed, items=200)
    data = made.config()
    data["split"] = {"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": seed}
    dataset = Dataset.from_table(load_config({"data": data}).data, made.table, cache=folder)
    given = {"batch_rows": 256, "epochs": 40, "patience": 8, "looks_per_epoch": 1, "lr": 3e-3}
    return _control(dataset, given, seed), dataset


def _control(dataset: Dataset, given: dict[str, Any], seed: int) -> dict[str, Any]:
    return {
        "data": dataset.config.model_dump(mode="json"),
        "model": {"backbone": {"name": "mlp", "widths": [64, 32], "norm": "batch"}},
        "train": given | {"monitor": "auc_macro", "seed": seed, "device": "cpu"},
    }


def paired(runs: list[dict[str, Any]], control: list[dict[str, Any]]) -> str:
    """Macro AUC, its difference, and the differences of the worst and the best domain."""
    each = np.array([run["auc"] for run in runs]) - np.array([run["auc"] for run in control])
    gain = each.mean(axis=1)
    half = float(stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5)
    by_domain = each.mean(axis=0)
    level = float(np.mean([run["auc"] for run in runs]))
    return (
        f"{level:.4f} {gain.mean():+.4f} ± {half:.4f}, domains {by_domain.min():+.4f} to"
        f" {by_domain.max():+.4f}, {int((by_domain > 0).sum())} of {len(by_domain)} above;"
        f" epochs {np.mean([run['best'] for run in runs]):.1f},"
        f" s {np.mean([run['seconds'] for run in runs]):.1f}"
    )


def measured(names: list[str]) -> np.ndarray:
    """The pairwise matrix of the page, lines are targets."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(
        r'<script type="application/json" id="report">(.*?)</script>', text, re.DOTALL
    )
    assert found is not None
    cells = json.loads(found[1])["matrix"]["pairwise"]
    return np.array([[0.0 if i == j else cells[i][j]["estimate"] for j in names] for i in names])


def main(out: Path, insteval: Path | None) -> None:
    """Train, write every number, and print the tables."""
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}

    def once(key: str, arm: str, control: dict[str, Any], dataset: Dataset, *more: str) -> None:
        if key not in found:
            config = config_of(arm, control, dataset.config.domain, list(more))
            found[key] = trained(config, dataset)
            out.write_text(json.dumps(found, indent=1), encoding="utf-8")

    with tempfile.TemporaryDirectory() as cache:
        for degrees in DEGREES:
            for seed in TABLES:
                control, dataset = planted_control(degrees, seed, Path(cache))
                for arm in ARMS:
                    once(f"planted {degrees}|{arm}|{seed}", arm, control, dataset)
        if insteval is not None:
            raw = yaml.safe_load((insteval / "config.yaml").read_text(encoding="utf-8"))
            raw["data"]["table"] = str(insteval / "insteval.parquet")
            dataset = Dataset.from_table(load_config({"data": raw["data"]}).data, cache=Path(cache))
            given = {"batch_rows": 1024, "epochs": 40, "patience": 5, "looks_per_epoch": 1}
            for seed in SEEDS:
                control = _control(dataset, given, seed)
                for arm in ARMS:
                    once(f"InstEval|{arm}|{seed}", arm, control, dataset)
                key = f"mass|without lecturer|{seed}"
                once(key, "mdknet", control, dataset, *NO_LECTURER)
    for table in dict.fromkeys(key.split("|")[0] for key in found if "mass" not in key):
        runs = {
            arm: [one for key, one in found.items() if key.rsplit("|", 1)[0] == f"{table}|{arm}"]
            for arm in ARMS
        }
        print(table)
        for arm, mine in runs.items():
            print(f"  {arm:24} {paired(mine, runs['batch norm'])}")
    for name, prefix in (
        ("mdknet", "InstEval|mdknet|"),
        ("mdknet, temperature 10", "InstEval|mdknet, temperature 10|"),
        ("mdknet, without the lecturer", "mass|without lecturer|"),
    ):
        mine = [one for key, one in found.items() if key.startswith(prefix)]
        if mine:
            mass = np.mean([one["mass"] for one in mine], axis=0)
            helped = symmetric(measured(mine[0]["domains"]))
            rho, p = mantel(helped, symmetric(mass))
            each = [
                mantel(helped, symmetric(np.array(one["mass"])), permutations=0)[0] for one in mine
            ]
            own = float(np.diag(mass).mean())
            pairs = float((mass.sum(axis=1) - np.diag(mass)).mean())
            print(
                f"{name}: mass on its own class {own:.3f}, on its pairs {pairs:.3f}; Spearman with A"
                f" {rho:+.2f}, p {p:.3f}, single seeds {min(each):+.2f} to {max(each):+.2f}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
