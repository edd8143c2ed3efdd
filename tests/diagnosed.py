"""Small planted tables for the tests of the diagnosis, levels that take seconds, the contract."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from isthmus.diagnosis import DiagnosisPlan, diagnose, plan_diagnosis
from isthmus.diagnosis import abstract_phases as listed
from isthmus.diagnosis import level as levels
from isthmus.diagnosis import phases as trained
from isthmus.diagnosis.abstract_reading import EFFECTS
from isthmus.diagnosis.command import prepared
from isthmus.diagnosis.level import LEVELS, Level
from isthmus.diagnosis.measures import confirmation as grouping
from isthmus.diagnosis.study import Study
from isthmus.metrics.intervals import holm
from isthmus.sources.planted import conflict, groups, planted

Report = dict[str, Any]

MODEL = {"backbone": {"name": "mlp", "widths": [16, 8], "dropout": 0.0}}
ADAPTER = {"name": "hamur", "bottleneck": 4, "rank": 2, "hyper_widths": [4]}
TRAIN = {"batch_rows": 256, "lr": 3e-3, "patience": 1}


def settings(*, hidden: bool = False, adapter: bool = True, **data: Any) -> dict[str, Any]:
    """A config for planted tables; ``hidden``: the domain is no feature."""
    features = {"user_id": "categorical", "item_id": "categorical", "domain": "categorical"}
    if hidden:
        del features["domain"]
    section = {"domain": "domain", "label": "label", "group": "user_id", "features": features}
    model = {**MODEL, "adapter": ADAPTER} if adapter else MODEL
    return {"data": {**section, **data}, "model": model, "train": dict(TRAIN)}


def opposed(rows: int = 2400, *, names: tuple[str, str] = ("left", "right")) -> pa.Table:
    """Two domains in conflict: what one likes, the other dislikes."""
    return planted(
        rows=rows, relation=conflict(2), seed=1, items=60, users=300, strength=1.5, names=names
    ).table


def paired() -> pa.Table:
    """Two groups of two domains each, 90 degrees apart."""
    return planted(
        rows=2400, relation=groups([2, 2]), seed=2, items=240, users=300, user_strength=0.2,
        strength=2.0,
    ).table  # fmt: skip


def added(table: pa.Table, rows: int, domain: str, label: int | None = None) -> pa.Table:
    """The table and so many rows of another domain; ``label``: of all of them, or at random."""
    rng = np.random.default_rng(rows)
    labels = rng.integers(0, 2, rows) if label is None else np.full(rows, label)
    more = pa.table(
        {
            "user_id": pa.array(rng.integers(0, 300, rows).astype(np.int32)),
            "item_id": pa.array(rng.integers(0, 60, rows).astype(np.int32)),
            "domain": [domain] * rows,
            "label": pa.array(labels.astype(np.int8)),
        }
    )
    return pa.concat_tables([table, more])


@contextmanager
def small_levels() -> Iterator[None]:
    """Three replicates at ``standard`` and ``full``, one of what is dearer, two widths."""
    with pytest.MonkeyPatch.context() as patch:
        standard = Level("standard", seeds=3, few=0, stages=True, adapted=True, dear=False)
        full = Level("full", seeds=3, few=1, stages=True, adapted=True, dear=True)
        patch.setitem(levels.LEVELS, "standard", standard)
        patch.setitem(levels.LEVELS, "full", full)
        patch.setattr(trained, "WIDTHS", (0.5, 1.0))
        for module in (listed, grouping):
            patch.setattr(module, "RANDOM_GROUPINGS", 2)
        yield


def outcomes(folder: Path) -> list[Path]:
    """The finished trainings of a diagnosis."""
    return sorted((folder / "trainings").glob("[!.]*/outcome.json"))


@dataclass(frozen=True)
class Case:
    """A table and config on the disk, the folder of its diagnoses, and what they reported."""

    folder: Path
    table: pa.Table
    reports: dict[str, Report] = field(default_factory=dict)
    plans: dict[str, DiagnosisPlan] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def diagnose(self, level: str, name: str | None = None, out: Path | None = None) -> Report:
        made = diagnose(self.config, out=out or self.out, level=level, cache=self.cache)
        self.reports[name or level] = made.report
        assert json.loads((made.path / "report.json").read_text()) == made.report
        return made.report

    def plan(self, level: str) -> DiagnosisPlan:
        self.plans[level] = plan_diagnosis(self.config, out=self.out, level=level, cache=self.cache)
        return self.plans[level]

    @contextmanager
    def study(self, level: str) -> Iterator[Study]:
        """The parts of a finished diagnosis, its arms read from the folder."""
        with (
            small_levels(),
            prepared(self.config, out=self.out, level=LEVELS[level], cache=self.cache) as (
                study,
                _,
            ),
        ):
            study.choose()
            study.train_arms()
            assert study.engine.trained == 0
            yield study


def on_disk(folder: Path, table: pa.Table, config: dict[str, Any]) -> Case:
    pq.write_table(table, folder / "table.parquet")
    config["data"]["table"] = "table.parquet"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return Case(folder, table)


def numbers(report: Report) -> Report:
    """A report without what the clock and the cache decide."""
    plan = {key: value for key, value in report["plan"].items() if key not in TIMES}
    return report | {"plan": plan}


TOP = {
    "plan", "margin", "margin_logloss", "metrics", "seeds", "split", "domains", "matrix", "capacity", "groups",
    "likeness", "weighting", "new_domain",
}  # fmt: skip
PLAN = {
    "level", "table", "split", "replicates", "seeds", "trainings", "trained", "cached",
    "estimate_seconds", "seconds", "jobs", "threads", "monitor", "looks_per_epoch", "choices",
    "stage_two", "measured", "left_out", "sampled", "clusters", "item", "notes", "isthmus", "torch",
}  # fmt: skip
DOMAIN = {
    "rows", "positives", "clusters", "train_rows", "auc", "logloss", "verdict", "finding", "remedy",
    "certainty", "why", "with", "leading", "verdict_auc", "verdict_logloss", "agree", "config",
    "command", "flags",
}  # fmt: skip
MEANS = {"solo", "joint", "solo_plus", "joint_plus", "margin"}
EFFECT = {
    "estimate", "se", "df", "ci", "ci90", "p", "p_holm", "detectable", "rows_needed", "reason",
    "note",
}  # fmt: skip
MATRIX = {
    "cross_score", "pairwise", "pairwise_matched", "leave_one_out", "gradients", "spearman"
}  # fmt: skip
FAMILIES = (("net",), ("adapted_plus", "interference"))  # each adjusted by Holm, per metric
ADJUSTED = {key for family in FAMILIES for key in family}
QUICK_HAS = {"solo", "joint", "margin", "net", "net_seen"}
TIMES = {"seconds", "estimate_seconds", "trained", "cached", "trainings"}


def check_holm(report: Report) -> None:
    """Adjusted p are those of all looks of their family together."""
    for metric in ("auc", "logloss"):
        for family in FAMILIES:
            looks = [domain[metric][key] for domain in report["domains"].values() for key in family]
            looks = [look for look in looks if look is not None and look["p"] is not None]
            assert [look["p_holm"] for look in looks] == holm([look["p"] for look in looks])


def check_contract(report: Report, level: str) -> None:
    """Every key of report.json is there, and null is what the level does not measure."""
    assert set(report) == TOP
    assert set(report["plan"]) == PLAN
    assert report["plan"]["level"] == level
    assert report["seeds"] == report["plan"]["seeds"] == (2 if level == "quick" else 3)
    names = report["plan"]["measured"]
    assert list(report["domains"]) == names
    for domain in report["domains"].values():
        assert set(domain) == DOMAIN
        for metric in ("auc", "logloss"):
            assert set(domain[metric]) == MEANS | set(EFFECTS) | {"net_seen"}
            for key, value in domain[metric].items():
                if level == "quick" and key not in QUICK_HAS:
                    assert value is None, key
                elif key in MEANS:
                    assert isinstance(value, float), key
                else:
                    assert set(value) == EFFECT
                    assert (value["estimate"] is None) == (value["reason"] is not None)
                    assert (value["p_holm"] is None) == (key not in ADJUSTED)
        if domain["config"] is not None:
            assert domain["command"].startswith(f"isthmus fit {domain['config']}")
    check_holm(report)
    matrix = report["matrix"]
    assert set(matrix) == MATRIX
    there = {name for name, cells in matrix.items() if cells is not None}
    assert (
        there
        == {
            "quick": {"cross_score", "spearman"},
            "standard": {"cross_score", "gradients", "spearman"},
            "full": MATRIX,
        }[level]
    )
    for name in there - {"spearman"}:
        own = name in ("cross_score", "gradients")
        for target, row in matrix[name].items():
            assert set(row) == {source for source in names if own or source != target}
            wanted = {"estimate", "ci"} | (set() if own else {"p", "p_bh", "reason"})
            assert all(set(cell) == wanted for cell in row.values())
    dear = [report[name] is not None for name in ("capacity", "groups", "weighting")]
    assert dear == [level == "full"] * 3
    assert (report["likeness"] is None) == (level == "quick")
    assert (report["plan"]["stage_two"] is None) == (level == "quick")


def check_net_plus(report: Report) -> None:
    """N+ = T - I for every domain, in both metrics."""
    for domain in report["domains"].values():
        for metric in ("auc", "logloss"):
            plus, transfer, interference = (
                domain[metric][key]["estimate"] for key in ("net_plus", "transfer", "interference")
            )
            assert abs(plus - (transfer - interference)) < 1e-12
