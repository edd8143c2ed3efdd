"""The command line in this process, what it says of a fault, and a config file for it to read."""

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from typer.testing import CliRunner, Result

import isthmus
from isthmus.cli import app
from small_runs import clicks, settings

SRC = Path(isthmus.__file__).parents[1]
ISTHMUS = [sys.executable, "-c", "from isthmus.cli import app; app(prog_name='isthmus')"]


def isthmus_in_process(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def told(result: Result) -> str:
    """What a refused command says: one fault, no traceback, exit code 2."""
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert result.stderr.count("error:") == 1
    assert "Traceback" not in result.output
    return result.stderr.split("error:", 1)[1].strip()


def written(folder: Path, table: pa.Table | None = None, **changes: Any) -> Path:
    """A config file in ``folder`` beside its table."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(clicks() if table is None else table, folder / "clicks.parquet")
    config = settings(**changes)
    config["data"] = {"table": "clicks.parquet", **config["data"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / "config.yaml"
