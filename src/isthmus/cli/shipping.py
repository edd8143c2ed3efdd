"""The commands that ship a run."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.app import app, command, say, show
from isthmus.disk import writing
from isthmus.errors import IsthmusError


@command(app, "export")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    format: Annotated[
        str, typer.Option(help="onnx; or pt2, a file of torch.export for others to load")
    ] = "onnx",
    layout: Annotated[
        str, typer.Option(help="plain; or triton or kserve, the folder that such a server reads")
    ] = "plain",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder to write (default: in RUN)"),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(help="Rows to compare the graphs with the networks on (default: the run's)"),
    ] = None,
) -> None:
    """Write a run's networks as graphs, each compared with the network on real rows."""
    from isthmus.exporting import export as run_export

    if format not in ("onnx", "pt2"):
        raise IsthmusError(f"--format must be onnx or pt2, got {format!r}")
    if layout not in ("plain", "triton", "kserve"):
        raise IsthmusError(f"--layout must be plain, triton or kserve, got {layout!r}")
    with writing("folder", output or run):
        found = run_export(run, output, format=format, layout=layout, table=table)
    show(found)
    say(f"what the graphs read and give: {found.path / 'export.json'}")


@command(app, "mlflow-package")
def mlflow_package(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder to write (default: RUN/mlflow)"),
    ] = None,
) -> None:
    """Write a run's bundle as an MLflow model that mlflow.pyfunc loads, without a pickle."""
    from isthmus.exporting import mlflow_package as write_package

    with writing("folder", output or run):
        folder = write_package(run, output)
    say(f"wrote an MLflow model: {folder}")
    say(f"next: python -c \"import mlflow; mlflow.pyfunc.load_model('{folder}')\"")
