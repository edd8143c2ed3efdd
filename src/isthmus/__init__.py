"""Isthmus: one recommender over many domains.

>>> run = isthmus.fit("config.yaml")                     # doctest: +SKIP
>>> print(run.evaluate())                                # doctest: +SKIP
>>> isthmus.Bundle.load(run.path / "bundle").score(df)   # doctest: +SKIP

Names are imported when they are first used, so that ``import isthmus`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from isthmus.version import VERSION as __version__

if TYPE_CHECKING:
    from isthmus.attaching import (
        Attachment,
        attach,
        detach,
        load_adapters,
        merge_adapters,
        save_adapters,
        sites_of,
    )
    from isthmus.benchmarking import Benchmark, benchmark, plan_benchmark
    from isthmus.bundle import Bundle
    from isthmus.cli.progress_view import ProgressView
    from isthmus.config import Config, load_config
    from isthmus.data import Batch, Dataset
    from isthmus.diagnosis import Diagnosis, diagnose, plan_diagnosis
    from isthmus.errors import BundleError, ConfigError, IsthmusError, RunError, SchemaError
    from isthmus.exporting import Exported, export
    from isthmus.extending import (
        BundleDifference,
        Extended,
        Pruned,
        Refreshed,
        diff,
        extend,
        prune,
        refresh,
    )
    from isthmus.metrics import Comparison, Evaluation
    from isthmus.models import DomainModel, ModelConfig, build_model
    from isthmus.monitoring import Monitoring, monitor
    from isthmus.recipe import SystemRecipe, recipes
    from isthmus.run import Run, compare, fit
    from isthmus.schema import DataConfig
    from isthmus.serving.scoring_engine import ScoringEngine, load_engine
    from isthmus.train import TrainConfig
    from isthmus.tuning import Tuning, tune

_PLACES = {
    "isthmus.attaching": (
        "Attachment",
        "attach",
        "detach",
        "load_adapters",
        "merge_adapters",
        "save_adapters",
        "sites_of",
    ),
    "isthmus.benchmarking": ("Benchmark", "benchmark", "plan_benchmark"),
    "isthmus.bundle": ("Bundle",),
    "isthmus.cli.progress_view": ("ProgressView",),
    "isthmus.config": ("Config", "load_config"),
    "isthmus.data": ("Batch", "Dataset"),
    "isthmus.diagnosis": ("Diagnosis", "diagnose", "plan_diagnosis"),
    "isthmus.errors": ("BundleError", "ConfigError", "IsthmusError", "RunError", "SchemaError"),
    "isthmus.exporting": ("Exported", "export"),
    "isthmus.extending": (
        "BundleDifference",
        "Extended",
        "Pruned",
        "Refreshed",
        "diff",
        "extend",
        "prune",
        "refresh",
    ),
    "isthmus.metrics": ("Comparison", "Evaluation"),
    "isthmus.models": ("DomainModel", "ModelConfig", "build_model"),
    "isthmus.monitoring": ("Monitoring", "monitor"),
    "isthmus.recipe": ("SystemRecipe", "recipes"),
    "isthmus.run": ("Run", "compare", "fit"),
    "isthmus.schema": ("DataConfig",),
    "isthmus.serving.scoring_engine": ("ScoringEngine", "load_engine"),
    "isthmus.train": ("TrainConfig",),
    "isthmus.tuning": ("Tuning", "tune"),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "Attachment",
    "Batch",
    "Benchmark",
    "Bundle",
    "BundleDifference",
    "BundleError",
    "Comparison",
    "Config",
    "ConfigError",
    "DataConfig",
    "Dataset",
    "Diagnosis",
    "DomainModel",
    "Evaluation",
    "Exported",
    "Extended",
    "IsthmusError",
    "ModelConfig",
    "Monitoring",
    "ProgressView",
    "Pruned",
    "Refreshed",
    "Run",
    "RunError",
    "SchemaError",
    "ScoringEngine",
    "SystemRecipe",
    "TrainConfig",
    "Tuning",
    "__version__",
    "attach",
    "benchmark",
    "build_model",
    "compare",
    "detach",
    "diagnose",
    "diff",
    "export",
    "extend",
    "fit",
    "load_adapters",
    "load_config",
    "load_engine",
    "merge_adapters",
    "monitor",
    "plan_benchmark",
    "plan_diagnosis",
    "prune",
    "recipes",
    "refresh",
    "save_adapters",
    "sites_of",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'isthmus' has no attribute {name!r}")
    return getattr(import_module(_PLACE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
