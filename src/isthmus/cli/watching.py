"""The commands that watch: what was served, and the runs under a folder."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.app import JsonTarget, app, command, deliver, say
from isthmus.errors import IsthmusError

FELL = 1  # exit code where a domain fell beyond the margin


@command(app, "monitor")
def monitor(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="What `isthmus serve --log` wrote")],
    labels: Annotated[str, typer.Option(metavar="TABLE", help="Table with ids and labels")],
    id: Annotated[str, typer.Option(help="Column of LABELS with the ids")] = "id",
    row: Annotated[
        str | None,
        typer.Option(
            help="Column with the place in the request (default: row, where there is one)"
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="Column with the label, 0 or 1")] = "label",
    run: Annotated[
        Path | None,
        typer.Option(help="Run or bundle to compare with (default: what the log says of its own)"),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Fall in AUC that does not matter; fix it before you look")
    ] = 0.01,
    calibration_margin: Annotated[
        float, typer.Option(help="Share by which calibration may change")
    ] = 0.1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="PAGE.html", help="Write a page")
    ] = None,
    json_target: JsonTarget = None,
) -> None:
    """Join logged scores to later labels; exit code 1 where a domain fell beyond the margin."""
    import isthmus

    if margin < 0 or calibration_margin < 0:
        raise IsthmusError(
            "--margin and --calibration-margin must be at least 0, got"
            f" {margin:g} and {calibration_margin:g}"
        )
    found = isthmus.monitor(
        log,
        labels,
        id=id,
        row=row,
        label=label,
        run=run,
        margin=margin,
        calibration_margin=calibration_margin,
        out=out,
    )
    deliver(found, found.to_dict(), json_target)
    if out is not None and json_target != "-":
        say(f"page: {out}")
    if found.fell:
        raise typer.Exit(FELL)


@command(app, "view")
def view(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where the runs lie (default: here)")
    ] = Path(),
    host: Annotated[str, typer.Option(help="Where to listen; 127.0.0.1: this machine alone")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8090,
) -> None:
    """Show all runs under a folder as one table in a browser: compare them, watch a fit."""
    from isthmus.viewing import view as view_runs

    view_runs(folder, host=host, port=port, tell=say)
