"""The wheel, installed into an empty environment: everything is in it, and it works from there."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from command_line import written
from isthmus.version import VERSION

ROOT = Path(__file__).parents[1]


def called(*words: str | Path, **environment: str) -> str:
    """What a command prints; this process's own paths to modules are not handed on."""
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, cwd=ROOT, env=own | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """Wheel and sdist of the working tree."""
    paths = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    called(sys.executable, "-m", "hatchling", "build", "--directory", folder, **paths)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def isthmus_installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment that holds the wheel alone, and borrows what the wheel needs."""
    place = tmp_path_factory.mktemp("environment")
    called(sys.executable, "-m", "venv", "--without-pip", place)
    python = place / "bin" / "python"
    options = ("--no-deps", "--no-index", "--no-compile", "--quiet")
    called(sys.executable, "-m", "pip", "--python", python, "install", *options, built[0])
    (site,) = place.glob("lib/python*/site-packages")
    # A path from here is only looked through: the isthmus that is installed for work is not seen.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    told = called(python, "-c", "import isthmus; print(isthmus.__file__)")
    assert Path(told.strip()).is_relative_to(place)
    return place / "bin" / "isthmus"


def test_every_file_of_the_package_is_in_the_wheel(built: tuple[Path, Path]):
    tracked = called("git", "ls-files", "--cached", "--others", "--exclude-standard", "src/isthmus")
    files = {line.removeprefix("src/") for line in tracked.splitlines()}
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
        (points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "isthmus = isthmus.cli:app" in wheel.read(points).decode()
    assert {name for name in names if ".dist-info/" not in name} == files
    wanted = {"py.typed", "recipes/tal.yaml", "report/templates/style.css", "cli/config_keys.txt"}
    assert {f"isthmus/{name}" for name in wanted} <= names
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_the_version_is_said_in_one_place(built: tuple[Path, Path]):
    wheel, sdist = built
    assert wheel.name == f"isthmus-{VERSION}-py3-none-any.whl"
    assert sdist.name == f"isthmus-{VERSION}.tar.gz"
    assert VERSION not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_same_files_give_the_same_bytes(built: tuple[Path, Path], tmp_path: Path):
    again = build(tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


def test_the_sdist_gives_the_same_wheel(built: tuple[Path, Path], tmp_path: Path):
    with tarfile.open(built[1]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert {path.name for path in source.iterdir()} >= {"LICENSE", "README.md", "CHANGELOG.md"}
    assert not (source / "tests").exists()
    with zipfile.ZipFile(built[0]) as wheel:
        for name in wheel.namelist():
            if name.startswith("isthmus/"):
                assert (source / "src" / name).read_bytes() == wheel.read(name), name


def test_the_installed_command_fits_a_table(isthmus_installed: Path, tmp_path: Path):
    assert called(isthmus_installed, "--version") == f"isthmus {VERSION}\n"
    assert "doctor" in called(isthmus_installed, "--help")
    config = written(tmp_path / "table", epochs=1)
    cache = str(tmp_path / "cache")
    told = called(isthmus_installed, "fit", config, "--out", tmp_path / "run", ISTHMUS_CACHE=cache)
    assert "pooled" in told
    assert (tmp_path / "run" / "bundle" / "bundle.json").exists()


def test_the_installed_doctor_finds_nothing_broken(isthmus_installed: Path):
    told = json.loads(called(isthmus_installed, "doctor", "--json", "-"))
    assert told["isthmus"] == VERSION
    findings = {one["name"]: one for one in told["findings"]}
    for extra in ("trees", "tune", "onnx", "serve", "tensorboard"):  # really imported
        assert findings[extra]["told"].startswith("works: "), findings[extra]
    assert findings["torch"]["told"] == version("torch")
    assert findings["cache"]["told"].startswith(os.environ["ISTHMUS_CACHE"])
