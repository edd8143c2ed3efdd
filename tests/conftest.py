"""Shape and type annotations of the torch parts are checked while the tests run, only there."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

CHECKED = ["isthmus.layers", "isthmus.backbones", "isthmus.adapters", "isthmus.models"]
install_import_hook(CHECKED, "beartype.beartype")


@pytest.fixture(autouse=True)
def isolated_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Keep each test's encoded tables out of the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ISTHMUS_CACHE", str(folder))
    return folder
