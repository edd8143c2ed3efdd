"""Contract 7: every backbone and every adapter gives as an exported graph what it gives itself."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import models_to_export


@functools.cache
def outcomes(n_domains: int) -> dict[str, str]:
    """What each said, in a process of its own: tracing does not get through the shape checks here."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "models_to_export.py", str(n_domains)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", models_to_export.cases(3))
def test_7_the_exported_graph_equals_eager(name: str):
    assert outcomes(3)[name] == "", outcomes(3)[name]


@pytest.mark.soak
@pytest.mark.parametrize("name", models_to_export.LARGE)
def test_7_with_many_domains(name: str):
    assert outcomes(models_to_export.MANY)[name] == "", outcomes(models_to_export.MANY)[name]
