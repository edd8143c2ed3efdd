"""What the documentation shows is run: README's commands, its config, and the loop of your own."""

import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

import isthmus
from isthmus.cli import app
from isthmus.sources.planted import planted

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def clicks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the table that README speaks of."""
    made = planted(rows=[6000, 4000], relation=np.eye(2), seed=3, names=["home", "search"])
    table = made.table.rename_columns(
        {"domain": "tab", "label": "click"} | {c: c for c in ("user_id", "item_id")}
    )
    rng = np.random.default_rng(0)
    seconds = pa.array(rng.lognormal(8, 1, table.num_rows))
    table = table.append_column("duration_ms", seconds)
    pq.write_table(table, tmp_path / "clicks.parquet")
    pq.write_table(table.drop_columns("click"), tmp_path / "new.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_commands_and_python(clicks: Path):
    (commands,) = [block for block in blocks("README.md", "sh") if "isthmus init" in block]
    for line in commands.splitlines():
        arguments = shlex.split(line, comments=True)
        assert arguments[0] == "isthmus"
        arguments = arguments[1:]
        if arguments[0] == "fit":
            arguments += ["--set", "train.epochs=1", "--set", "train.batch_rows=512"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    assert "score" in pq.read_schema(clicks / "scored.parquet").names
    (code,) = blocks("README.md", "python")
    code = code.replace("runs/first", "runs/second")
    values: dict[str, object] = {}
    exec(code, values)
    scores = values["scores"]
    assert isinstance(scores, np.ndarray)
    assert scores.shape == (10_000,)


def test_readme_tunes_and_fits_what_was_found(clicks: Path):
    (commands,) = [block for block in blocks("README.md", "sh") if "isthmus tune" in block]
    asked = "isthmus init clicks.parquet --domain tab --label click -o config.yaml"
    for line in (asked, *commands.splitlines()):
        arguments = shlex.split(line, comments=True)[1:]
        if arguments[0] == "tune":
            assert arguments[-2] == "--minutes"
            arguments[-2:] = ["--trials", "2"]
        if arguments[0] != "init":
            arguments += ["--set", "train.epochs=1", "--set", "data.trees=false"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    assert (clicks / "studies" / "first" / "report.html").exists()


def test_readme_diagnose_is_planned(clicks: Path):
    (line,) = [
        line for b in blocks("README.md", "sh") for line in b.splitlines() if "diagnose" in line
    ]
    asked = ["isthmus", "init", "clicks.parquet", "--domain", "tab", "--label", "click"]
    for arguments in (asked, [*shlex.split(line, comments=True), "--dry-run", "--jobs", "1"]):
        result = CliRunner().invoke(app, arguments[1:])
        assert result.exit_code == 0, result.output
    assert "quick diagnosis of 2 domains (home, search)" in result.output


def test_readme_config_is_accepted(clicks: Path):
    (text,) = blocks("README.md", "yaml")
    config = isthmus.load_config(yaml.safe_load(text), [])
    assert config.data.domain == "tab"
    assert config.model.adapter.name == "hamur"


def test_the_page_of_attaching_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    values: dict[str, object] = {}
    for code in blocks("docs/attach.md", "python"):
        exec(code, values)
    assert (tmp_path / "adapters.safetensors").exists()


def test_own_loop_is_short_and_reaches_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = planted(rows=12_000, relation=np.eye(2), items=300, seed=5, strength=1.5)
    pq.write_table(made.table, tmp_path / "table.parquet")
    section = made.config(str(tmp_path / "table.parquet"))
    adapter = {"name": "hamur", "bottleneck": 8, "rank": 4, "hyper_widths": [16]}
    config = {
        "data": section,
        "model": {
            "backbone": {"name": "mlp", "widths": [32, 16], "dropout": 0.0},
            "adapter": adapter,
        },
        "train": {"epochs": 3, "batch_rows": 1024, "patience": 3, "domain_dropout": 0.0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("docs/own-loop.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    values: dict[str, object] = {}
    exec(code, values)
    own = values["evaluation"]
    assert isinstance(own, isthmus.Evaluation)
    fitted = isthmus.fit("config.yaml", out="run").evaluate("test")
    assert own.pooled.auc is not None
    assert fitted.pooled.auc is not None
    assert own.pooled.auc > 0.7
    assert own.pooled.auc >= fitted.pooled.auc - 0.002
