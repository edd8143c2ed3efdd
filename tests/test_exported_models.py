"""Contract 7: every backbone and every adapter gives as an exported graph what it gives itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import models_to_export


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What each said, in a process of its own: tracing does not get through the shape checks here."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "models_to_export.py"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", models_to_export.cases())
def test_7_the_exported_graph_equals_eager(name: str, outcomes: dict[str, str]):
    assert outcomes[name] == "", outcomes[name]
