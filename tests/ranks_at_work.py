"""A process that trains as one rank of several, on orders from the tests of ranks.

``python ranks_at_work.py FOLDER NAME...``: the environment tells rank and world, as torchrun would. The folder
holds ``table.parquet``. Each training named, of `CASES`, leaves ``NAME-SIZE.safetensors`` and ``NAME-SIZE.json``.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.ranks import Ranks, leave, start_ranks
from isthmus.train import Budget, End, Look, score_rows, train
from small_runs import settings

STEPS = 50
TRAIN_ROWS = 733
HAMUR = {"name": "hamur", "bottleneck": 4, "rank": 2, "hyper_widths": [4]}
NONE = {"name": "none"}


def mlp(**backbone: Any) -> dict[str, Any]:
    return {"backbone": {"name": "mlp", "widths": [8], "dropout": 0.0, **backbone}, "adapter": NONE}


CASES: dict[str, dict[str, Any]] = {
    "mlp": {"model": mlp()},
    "hamur": {"model": {**mlp(norm="domain"), "adapter": HAMUR}},
    "towers": {"model": {**mlp(), "towers": "per_domain"}, "train": {"weighting": "uniform"}},
    "hidden": {"model": mlp(), "train": {"domain_dropout": 0.3, "clip_norm": 0.5}},
    "lazy": {"model": mlp(), "train": {"embedding_update": "lazy"}},
    # Few steps: a row that stands between two clusters may go to either, and then all else differs.
    "clusters": {
        "model": {"backbone": {"name": "adaptdhm", "dropout": 0.0}, "adapter": NONE},
        "steps": 5,
    },
    "phases": {
        "model": {**mlp(), "adapter": HAMUR},
        "train": {
            "method": {
                "name": "phases",
                "phases": [{"trains": ["backbone", "inputs", "head"]}, {"trains": ["adapter"]}],
            }
        },
    },
    # The last batch of an epoch has 2 rows: a rank of a world of 3 has none of them. Without HAMUR, of
    # which such a batch moves a bias before a norm by the noise of its gradient, which is 0.
    "short": {
        "model": mlp(norm="domain"),
        "train": {"batch_rows": TRAIN_ROWS - 2, "embedding_update": "lazy"},
        "steps": 8,
    },
    # Gradients are rounded to 8 bits on each rank, before they are summed.
    "half": {
        "model": {**mlp(norm="domain"), "adapter": HAMUR},
        "train": {"precision": "bfloat16"},
        "steps": 5,
    },
}  # fmt: skip


def made(case: dict[str, Any]) -> Config:
    config = settings(**{"domain_dropout": 0.0, **case.get("train", {})})
    config["data"]["weight"] = "weight"
    return validate(Config, {**config, "model": case["model"]})


def train_case(name: str, folder: Path, ranks: Ranks) -> None:
    config = made(CASES[name])
    dataset = Dataset.from_table(config.data, folder / "table.parquet", cache=folder / "cache")
    training = Training(model=config.model, train=config.train)
    model = build_to_train(training, dataset, dataset.rows("train"))
    end, looks = None, []
    budget = Budget(steps=CASES[name].get("steps", STEPS), looks=1)
    for event in train(model, dataset, config.train, budget=budget, ranks=ranks):
        match event:
            case Look():
                looks.append(asdict(event))
            case End():
                end = event
    assert end is not None
    logits = score_rows(model, dataset.rows("test"), ranks=ranks)
    if ranks.is_first:
        file = folder / f"{name}-{ranks.size}"
        tensors = {key: value.clone() for key, value in model.state_dict().items()}
        save_file(tensors, file.with_suffix(".safetensors"))
        told = {"looks": looks, "logits": logits.tolist()}
        file.with_suffix(".json").write_text(json.dumps(told))


def main(folder: Path, names: list[str]) -> None:
    ranks = start_ranks()
    for name in names:
        train_case(name, folder, ranks)
    leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
