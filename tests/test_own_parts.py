"""Members of other packages: installed by pip, found by entry point, chosen by name in a config."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from command_line import ISTHMUS, SRC
from isthmus import family
from isthmus.adapters import AdapterConfig, FilmConfig
from isthmus.errors import ConfigError
from isthmus.family import Member, members
from small_runs import clicks, settings

PAGE = Path(__file__).parents[1] / "docs" / "models.md"


def block(language: str, holds: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("### Your own adapter") :]
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    (one,) = [code for code in found if holds in code]
    return one


def wheel(folder: Path, module: str, entry_points: str) -> Path:
    """A wheel of a package with one module, as a build would make it."""
    path = folder / "own_parts-1.0-py3-none-any.whl"
    info = "own_parts-1.0.dist-info"
    files = {
        "own_parts/__init__.py": "",
        "own_parts/static.py": module,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: own-parts\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entry_points,
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(name, text)
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package of docs/models.md."""
    folder = tmp_path_factory.mktemp("own")
    project = block("toml", "entry-points")
    group, line = re.search(r'entry-points\."(.*)"\]\n(.*)', project).groups()  # pyright: ignore[reportOptionalMemberAccess]
    entry_points = f"[{group}]\n{line.replace(chr(34), '')}\n"
    path = wheel(folder, block("python", "class StaticConfig"), entry_points)
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", target, path], check=True)
    return target


def isthmus(site: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = f"{site}:{SRC}"
    environment = {**os.environ, "PYTHONPATH": path, "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*ISTHMUS, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table and a config that asks for the package's adapter as docs/models.md does."""
    pq.write_table(clicks(), tmp_path / "clicks.parquet")
    raw = settings(epochs=1)
    raw["data"]["table"] = "clicks.parquet"
    raw["model"]["backbone"]["widths"] = [8, 6]
    raw["model"] |= yaml.safe_load(block("yaml", "static"))["model"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path


def test_an_adapter_of_another_package_is_fitted_evaluated_and_served(site: Path, folder: Path):
    fitted = isthmus(site, "fit", "config.yaml", "--out", "run", cwd=folder)
    assert fitted.returncode == 0, fitted.stderr
    kept = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert kept["model"]["adapter"] == {"name": "static", "sites": [0, -1], "rank": 8}
    for command in (("evaluate", "run"), ("predict", "run", "clicks.parquet", "-o", "p.parquet")):
        told = isthmus(site, *command, cwd=folder)
        assert told.returncode == 0, told.stderr
    assert pq.read_table(folder / "p.parquet").num_rows == clicks().num_rows


def test_the_error_hints_know_its_keys(site: Path, folder: Path):
    for change, told in {
        "model.adapter.rnak=3": "did you mean 'model.adapter.rank'?",
        "model.adapter.name=statik": "'prompt', 'tal', 'static', got 'statik'; did you mean 'static'?",
        "model.adapter.rank=0": "model.adapter.rank must be greater than or equal to 1, got 0",
    }.items():
        found = isthmus(site, "fit", "config.yaml", "--set", change, cwd=folder)
        assert found.returncode == 2
        assert told in " ".join(found.stderr.split())


def test_without_the_package_the_name_is_unknown(folder: Path):
    found = isthmus(Path("/nowhere"), "fit", "config.yaml", cwd=folder)
    assert found.returncode == 2
    assert "model.adapter.name must be one of" in " ".join(found.stderr.split())


def test_a_members_own_contract_call_passes():
    exec(block("python", "class StaticConfig"), {"__name__": "__main__"})


class Entry:
    """What the standard library gives for an entry point."""

    def __init__(self, name: str, found: object) -> None:
        self.name, self.found, self.group, self.dist = name, found, "isthmus.adapters", None

    def load(self) -> object:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry("hamur", FilmConfig), "must have a name of its own, got 'hamur' a second time"),
        (Entry("mine", ImportError("no module")), "must be importable, got: no module"),
        (Entry("mine", 3), "must be a config class of a member, got 3"),
        (Entry("mine", FilmConfig), "must bear the name of its config, 'film', got 'mine'"),
    ],
)
def test_a_faulty_entry_point_is_refused_by_name(
    entry: Entry, text: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(family, "entry_points", lambda group: [entry])
    family._members.cache_clear()
    with pytest.raises(ConfigError, match=re.escape(text)) as fault:
        members(AdapterConfig)
    assert str(fault.value).startswith(f"entry point '{entry.name}' in group 'isthmus.adapters'")
    monkeypatch.undo()
    family._members.cache_clear()
    assert all(issubclass(kind, Member) for kind in members(AdapterConfig).values())
