"""The demo: three trainings, one table, and no winner without evidence."""

from pathlib import Path
from typing import Any

import pytest

from command_line import isthmus_in_process, told, written
from isthmus import sources
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


def test_the_demo_trains_three_models_and_prints_one_table(tmp_path: Path):
    told: list[Notice] = []
    result = demo("synthetic", out=tmp_path, progress=told.append)
    a, b, again = result.runs
    assert [run.name for run in result.runs] == ["mlp", "hamur", "mlp-again"]
    assert a.config.model.adapter.name == again.config.model.adapter.name == "none"
    assert a.config.model.backbone == b.config.model.backbone
    assert "tab" in a.config.data.features, "the shared model must see the domain"
    seeds = [run.config.train.seed for run in result.runs]
    assert seeds == [0, 0, 1]
    assert (a.scored().row == b.scored().row).all()
    text = str(result)
    for word in ("home", "mail", "search", "pooled", "macro", "worst", "AUC b - a", "a' - a"):
        assert word in text
    assert "Intervals cover the draw of test rows, not retraining (1 seed)." in text
    assert str(a.path) in text
    assert "try next" in text
    assert text.splitlines()[-1] == f"demo finished in {result.seconds:.0f} s"
    assert (result.folder / "report.md").read_text().startswith("**test split")
    assert "demo: training 2 of 3: hamur, seed 0" in map(str, told)


def test_the_demo_runs_again_in_a_fresh_folder(tmp_path: Path):
    first, second = (demo("synthetic", out=tmp_path) for _ in range(2))
    assert (first.folder.name, second.folder.name) == ("runs-1", "runs-2")
    assert first.runs[0].evaluate() == second.runs[0].evaluate()


def test_the_command_prints_the_demo(tmp_path: Path):
    result = isthmus_in_process("demo", "--data", "synthetic", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "demo finished in" in result.stdout
    assert "look at epoch" in result.stderr
    text = told(isthmus_in_process("demo", "--data", "ml", "--out", tmp_path))
    assert text == "--data must be one of movielens-1m, synthetic, got 'ml'"
