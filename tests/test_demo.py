"""The demo: what init writes and what stands beside it, one table, and no winner without evidence."""

from pathlib import Path
from typing import Any

import pytest

from command_line import isthmus_in_process, told, written
from isthmus import sources
from isthmus.config import load_config
from isthmus.demo import demo
from isthmus.run import Notice


@pytest.fixture(autouse=True)
def small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same demo on a table that trains in a moment."""

    def write(out: Path, *, report: Any) -> Path:
        written(out)
        report("wrote a small table")
        return out

    monkeypatch.setattr(sources, "write_synthetic", write)


def test_the_demo_trains_what_init_writes_and_prints_one_table(tmp_path: Path):
    told: list[Notice] = []
    result = demo("synthetic", out=tmp_path, progress=told.append)
    a, b, trees, again = result.runs
    assert [run.name for run in result.runs] == ["init", "hamur", "trees", "init-again"]
    written = Path(tmp_path / "init.yaml")
    target = ["init", str(tmp_path / "synthetic" / "clicks.parquet"), "--domain", "tab"]
    isthmus_in_process(*target, "--label", "click", "-o", written)
    assert a.config.data == load_config(written).data
    assert a.config.data.trees
    assert (a.config.model.name, trees.config.model.name) == ("network", "trees")
    assert a.config.model.adapter.name == again.config.model.adapter.name == "none"
    assert b.config.model.adapter.name == "hamur"
    assert a.config.model.backbone == b.config.model.backbone
    assert "tab" in a.config.data.features, "the shared model must see the domain"
    seeds = [run.config.train.seed for run in result.runs]
    assert seeds == [0, 0, 0, 1]
    assert (a.scored().row == b.scored().row).all()
    text = str(result)
    for word in ("home", "mail", "search", "pooled", "macro", "worst", "AUC - a", "a' - a"):
        assert word in text
    assert "Intervals cover the draw of test rows, not retraining (1 seed)." in text
    assert str(a.path) in text
    assert "try next" in text
    assert text.splitlines()[-1] == f"demo finished in {result.seconds:.0f} s"
    assert (result.folder / "report.md").read_text().startswith("**test split")
    assert "demo: training 2 of 4: hamur, seed 0" in map(str, told)


def test_the_demo_without_lightgbm_has_no_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in ("isthmus.demo", "isthmus.inspect.inspection"):
        monkeypatch.setattr(f"{module}.is_installed", lambda: False)
    result = demo("synthetic", out=tmp_path)
    assert [run.name for run in result.runs] == ["init", "hamur", "init-again"]
    assert not result.runs[0].config.data.trees
    assert "c =" not in str(result)


def test_the_demo_runs_again_in_a_fresh_folder(tmp_path: Path):
    first, second = (demo("synthetic", out=tmp_path) for _ in range(2))
    assert (first.folder.name, second.folder.name) == ("runs-1", "runs-2")
    assert first.runs[0].evaluate() == second.runs[0].evaluate()


def test_the_command_prints_the_demo(tmp_path: Path):
    result = isthmus_in_process("demo", "--data", "synthetic", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "demo finished in" in result.stdout
    assert "look at epoch" in result.stderr
    unread = "encode: the forest does not read: 'history' is a list without statistics: true"
    assert unread in result.stderr
    text = told(isthmus_in_process("demo", "--data", "ml", "--out", tmp_path))
    assert text == "--data must be one of movielens-1m, synthetic, got 'ml'"
