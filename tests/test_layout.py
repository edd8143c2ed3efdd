"""The package's shape: imports run one way, names agree, files stay short."""

import ast
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "isthmus"

# A file imports only from lines above its own, or from its own family (the same line).
WALK = [
    "printable",
    "errors",
    "version",
    "signature",
    "disk",
    "ranks",
    "schema",
    "family",
    "data",
    "layers",
    "backbones",
    "adapters",
    "models",
    "attaching",
    "objectives",
    "optimisers",
    "sharding",
    "metrics",
    "train",
    "checkpoint",
    "report",
    "tracking",
    "config",
    "recipe",
    "inspect",
    "sources",
    "bundle",
    "experiments",
    "run",
    "monitoring",
    "extending",
    "exporting",
    "serving",
    "tuning",
    "benchmarking",
    "diagnosis",
    "viewing",
    "demo",
    "testing",
    "doctor",
    "cli",
    "__main__",
]

# The model layer knows no optimiser, device, file or metric.
MODEL_LAYER = {"layers", "backbones", "adapters", "models"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def folders() -> list[Path]:
    return sorted({path.parent for path in modules()} | {PACKAGE})


def stop_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_stops(path: Path) -> set[str]:
    """Names of the stops that a file imports, at any depth of the file."""
    stops = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            assert not isinstance(node, ast.ImportFrom), f"{path}: write imports in full"
            continue
        stops |= {name.split(".")[1] for name in names if name.startswith("isthmus.")}
    return stops


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path):
    own = stop_of(path)
    assert own in WALK, f"{own} has no place in the walk"
    for stop in imported_stops(path):
        if stop in WALK:
            assert WALK.index(stop) <= WALK.index(own), f"{path} imports {stop}, which comes later"
        else:
            # A public name taken from the package itself: only the command line may.
            assert own == "cli", f"{path} imports isthmus.{stop}"


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if stop_of(path) in MODEL_LAYER],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_the_model_layer_knows_no_optimiser_and_no_file(path: Path):
    text = path.read_text()
    for word in (
        "torch.optim",
        "pathlib",
        "open(",
        "isthmus.metrics",
        "isthmus.data.store.dataset",
    ):
        assert word not in text, f"{path} mentions {word}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path: Path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("folder", folders(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_holds_a_dozen_files_at_most(folder: Path):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 12


def test_no_two_files_and_no_two_classes_share_a_name():
    files = [path.name for path in modules() if path.name != "__init__.py"]
    classes = [
        node.name
        for path in modules()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    for names in (files, classes):
        assert [name for name, count in Counter(names).items() if count > 1] == []


def test_the_map_in_contributing_is_the_walk():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.findall(r"^([a-z_]+)(?:/|\.py) ", text[text.index("```text") :], flags=re.MULTILINE)
    assert shown == WALK


def test_schema_and_reading_need_no_torch():
    for name in ("errors.py", "schema/data_config.py", "data/tables/table.py"):
        assert "torch" not in imported_names(PACKAGE / name)


def imported_names(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            roots.add(node.module.split(".")[0])
    return roots


def test_nothing_is_read_by_pickle():
    for path in modules():
        assert "pickle" not in imported_names(path), path
        for word in ("torch.load(", "allow_pickle=True"):
            assert word not in path.read_text(), path


def test_every_public_name_exists():
    import isthmus

    for name in isthmus.__all__:
        assert getattr(isthmus, name) is not None
    for family in (
        "data",
        "layers",
        "backbones",
        "adapters",
        "models",
        "attaching",
        "metrics",
        "report",
        "exporting",
        "serving",
        "tuning",
        "benchmarking",
    ):
        module = importlib.import_module(f"isthmus.{family}")
        for name in getattr(module, "__all__", []):
            assert getattr(module, name) is not None, f"{family}.{name}"
