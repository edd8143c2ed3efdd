"""A diagnosis of which nothing is trained yet, and one without figures: shared by its tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diagnosed import small_levels
from isthmus.diagnosis import Diagnosis, diagnose
from isthmus.diagnosis import finished as diagnosing
from isthmus.diagnosis.command import prepared
from isthmus.diagnosis.level import LEVELS
from isthmus.diagnosis.study import Study


@contextmanager
def study_of(
    config: dict[str, Any],
    table: Any,
    out: Path,
    cache: Path,
    *,
    level: str = "standard",
    item: str | None = None,
) -> Iterator[Study]:
    """A prepared diagnosis; nothing is trained yet."""
    with (
        small_levels(),
        prepared(config, table, out, level=LEVELS[level], item=item, cache=cache) as (study, _),
    ):
        yield study


def quick(config: dict[str, Any], table: Any, out: Path, cache: Path, **options: Any) -> Diagnosis:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosing, "write_figures", lambda *_: None)
        return diagnose(config, table, out, level="quick", cache=cache, **options)
