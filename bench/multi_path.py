"""Multi-path networks on planted tables at three levels of conflict: against shared MLPs, on test rows.

    python -m bench.multi_path OUT.json

Two camps of three domains, 1,000 rows a domain, at 0, 90 and 180 degrees; two tables a level with a training
seed each. Differences are paired over all six tables. The MLPs have as many products a row as the widest path,
and as many parameters in the trunk as the whole network; the MLP of equal products is the control. One rate,
batch and patience hold for all, and validation rows stop each training. Size of the tables, batch and patience
were settled after two tries with others, which were given up: they took too long, and patience ended
networks that do not read the domain before their paths had parted.

Domains alone give the reference for regret and for the priority, and by their scores on other domains' rows
the measured relation, against which the overlap of paths is ranked; p is exact, over all permutations of the
domains. "blind" networks do not read the domain as a field, so the path alone tells it. A run that was stopped
goes on.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from isthmus.backbones import MultiPath
from isthmus.config import load_config
from isthmus.data import Dataset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.metrics.formulas.auc import auc
from isthmus.models import DomainModel, ModelConfig
from isthmus.recipe import recipe_of
from isthmus.sources.planted import angles, planted
from isthmus.train import End, TrainConfig, score_rows, train

Numbers = dict[str, Any]

ROWS, DOMAINS, SEEDS = 1_000, 6, (0, 1)
LEVELS = {"agree": 0, "unrelated": 90, "conflict": 180}
CONTROL = "MLP, equal products"
PATHS = {"name": "multi_path", "width": 32, "layers": 2, "blocks": [1, 1, 0.5, 0], "norm": "none"}
COSTS = (0.0, 0.01)
NAMES = tuple(f"d{number}" for number in range(DOMAINS))


def dataset_of(level: str, seed: int, folder: Path) -> Dataset:
    """One table; a fifth of its rows are validation rows, a fifth test rows."""
    degrees = LEVELS[level]
    relation = angles([degrees * (number % 2) for number in range(DOMAINS)])
    made = planted(rows=ROWS, relation=relation, seed=seed, items=40, strength=2.0)
    section = made.config()
    section["split"] = {"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": seed}
    return Dataset.from_table(load_config({"data": section}).data, made.table, cache=folder)


def models() -> dict[str, Numbers]:
    """The sections ``model`` of the contestants."""
    with tempfile.TemporaryDirectory() as name:
        dataset = dataset_of("agree", SEEDS[0], Path(name))
    training = Training(model=ModelConfig.model_validate({"backbone": PATHS}), train=TrainConfig())
    model = build_to_train(training, dataset, dataset.rows("train"))
    assert isinstance(model, DomainModel)
    mlp = {"backbone": {"name": "mlp", "widths": [2, 1], "norm": "none"}}
    trunk = model.parameter_report().trunk
    return {
        CONTROL: {**mlp, "sizes": {"trunk": max(products(model))}},
        "MLP, equal parameters": {**mlp, "sizes": {"trunk": trunk}},
        **{f"gumbel, cost {cost:g}": {"backbone": {**PATHS, "cost": cost}} for cost in COSTS},
        "reinforce": {"backbone": {**PATHS, "estimator": "reinforce"}},
        "gumbel, recipe": {"backbone": PATHS},
        "gumbel, priority": {"backbone": PATHS},
        "gumbel, blind": {"backbone": PATHS},
        "MLP, blind": {**mlp, "sizes": {"trunk": max(products(model))}},
    }


def products(model: DomainModel) -> list[int]:
    """Multiplications a row of stem, path and head: of each trained domain; last, of the widest path."""
    backbone = model.backbone
    if not isinstance(backbone, MultiPath):
        weights = [p for p in (*backbone.parameters(), *model.head.parameters()) if p.ndim > 1]
        return [sum(weight.numel() for weight in weights)]
    width, units = backbone.out_width, np.array(backbone.units)
    fixed = backbone.in_width * width + width
    chosen = paths(backbone)
    of = fixed + 2 * width * units[chosen].sum(axis=1)
    return [*of.tolist(), fixed + 2 * width * int(units.max()) * chosen.shape[1]]


def paths(backbone: MultiPath) -> np.ndarray:
    """(domains, layers): the block of each trained domain in each layer."""
    lines = [gate.choice.detach()[1:].argmax(dim=1).numpy() for gate in backbone.paths]  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    return np.stack(lines, axis=1)


def config_of(seed: int, **changes: Any) -> TrainConfig:
    """One rate, batch and patience for all."""
    given = {"batch_rows": 128, "epochs": 25, "patience": 8, "looks_per_epoch": 1, "lr": 3e-3}
    given |= {"monitor": "auc_macro", "seed": seed, "device": "cpu"}
    return TrainConfig(**given, **changes)


def fitted(training: Training, dataset: Dataset) -> tuple[DomainModel, Numbers]:
    """Train; AUC of each domain's test rows, and of its validation rows."""
    part = training.subset(dataset)
    model = build_to_train(training, dataset, part.rows("train"))
    assert isinstance(model, DomainModel)
    (end,) = (e for e in train(model, part, training.train) if isinstance(e, End))
    found: Numbers = {"steps": end.step, "seconds": round(end.seconds, 1)}
    for split in ("validation", "test"):
        rows = part.scored(split, NAMES)  # pyright: ignore[reportArgumentType]
        logits, label = np.asarray(score_rows(model, rows)), np.asarray(rows.label)
        domain = np.asarray(rows.domain)
        each = [domain == place for place in range(1, DOMAINS + 1)]
        found[split] = [float(auc(logits[of], label[of])) for of in each]
    return model, found


def alone(dataset: Dataset, seed: int) -> Numbers:
    """Each domain's own MLP: its AUC, and in ``relation`` its AUC on every domain's rows."""
    model = ModelConfig.model_validate(models()[CONTROL])
    runs = []
    for name in NAMES:
        training = Training(model=model, train=config_of(seed), domains=(name,), hide_domain=True)
        runs.append(fitted(training, dataset)[1])
    return {
        "validation": [run["validation"][place] for place, run in enumerate(runs)],
        "test": [run["test"][place] for place, run in enumerate(runs)],
        "relation": [run["test"] for run in runs],
    }


def contest(name: str, model: Numbers, dataset: Dataset, seed: int, solo: Numbers) -> Numbers:
    """One contestant on one table."""
    changes: Numbers = {}
    if "priority" in name:
        reference = dict(zip(NAMES, solo["validation"], strict=True))
        changes = {"domain_sampling": {"name": "priority", "reference": reference}}
    if "recipe" in name:
        phases = recipe_of("multi_path").settings["train.method.phases"]
        changes = {"method": {"name": "phases", "phases": phases}}
    training = Training(
        model=ModelConfig.model_validate(model),
        train=config_of(seed, **changes),
        hide_domain="blind" in name,
    )
    network, found = fitted(training, dataset)
    found["products"] = float(np.mean(products(network)[:DOMAINS]))
    found["parameters"] = network.parameter_report().trunk
    if isinstance(network.backbone, MultiPath):
        found["paths"] = paths(network.backbone).tolist()
    found["regret"] = max(s - j for s, j in zip(solo["test"], found["test"], strict=True))
    return found


def agreement(chosen: list[list[int]], relation: list[list[float]]) -> tuple[float, float]:
    """Rank correlation of the overlap of paths with the measured relation, and its exact p."""
    path, score = np.array(chosen), np.array(relation)
    overlap = (path[:, None] == path[None]).mean(axis=2)
    score = (score + score.T) / 2
    pairs = np.triu_indices(DOMAINS, 1)
    if np.ptp(overlap[pairs]) == 0:
        return float("nan"), float("nan")
    ranks = stats.rankdata(score[pairs])

    def correlation(order: tuple[int, ...]) -> float:
        moved = overlap[np.ix_(order, order)][pairs]
        return float(np.corrcoef(stats.rankdata(moved), ranks)[0, 1])

    found = correlation(tuple(range(DOMAINS)))
    every = np.array([correlation(order) for order in permutations(range(DOMAINS))])
    return found, float((every >= found - 1e-9).mean())


def camps(chosen: list[list[int]]) -> tuple[float, float]:
    """Share of layers with one block: of two domains of one camp, and of opposite camps."""
    path, camp = np.array(chosen), np.arange(DOMAINS) % 2
    overlap = (path[:, None] == path[None]).mean(axis=2)
    same, other = camp[:, None] == camp[None], ~np.eye(DOMAINS, dtype=bool)
    return float(overlap[same & other].mean()), float(overlap[~same].mean())


def difference(gain: np.ndarray) -> str:
    """Mean over the tables with Student's 95 % interval."""
    half = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
    return f"{gain.mean():+.4f} ± {half:.4f}"


def lines(found: Numbers) -> Iterator[str]:
    """The tables, as text."""
    every = {name: [run for level in LEVELS for run in found[level][name]] for name in models()}

    def means(name: str) -> np.ndarray:
        return np.array([np.mean(run["test"]) for run in every[name]])

    def regrets(name: str) -> np.ndarray:
        return np.array([run["regret"] for run in every[name]])

    for name, runs in every.items():
        levels = means(name).reshape(len(LEVELS), -1).mean(axis=1)
        yield (
            f"{name:22} {' '.join(f'{auc:.4f}' for auc in levels)} all"
            f" {difference(means(name) - means(CONTROL))} products"
            f" {np.mean([run['products'] for run in runs]):,.0f} of {runs[0]['parameters']:,} regret"
            f" {' '.join(f'{r:.4f}' for r in regrets(name).reshape(len(LEVELS), -1).mean(axis=1))}"
            f" minus gumbel's {difference(regrets(name) - regrets('gumbel, cost 0'))}"
        )
    for name, runs in every.items():
        if "paths" not in runs[0]:
            continue
        for level in LEVELS:
            of = found[level][name]
            agreed = [
                agreement(run["paths"], solo["relation"])
                for run, solo in zip(of, found[level]["alone"], strict=True)
            ]
            told = ", ".join(f"{rho:+.2f} (p {p:.3f})" for rho, p in agreed)
            apart = ", ".join("{:.2f}/{:.2f}".format(*camps(run["paths"])) for run in of)
            yield f"{name:22} {level:10} rank correlation {told}; one camp/opposite {apart}"


def main(out: Path) -> None:
    """Train, and write every number."""
    found: Numbers = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        for place, seed in enumerate(SEEDS):
            for level in ("conflict", "unrelated", "agree"):
                dataset = dataset_of(level, seed, Path(name))
                runs = found.setdefault(level, {})
                solos = runs.setdefault("alone", [])
                if len(solos) == place:
                    solos.append(alone(dataset, seed))
                for contestant, model in models().items():
                    done = runs.setdefault(contestant, [])
                    if len(done) == place:
                        done.append(contest(contestant, model, dataset, seed, solos[place]))
                        out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
