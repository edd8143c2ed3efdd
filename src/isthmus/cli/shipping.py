"""The commands that ship a run."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.app import JsonTarget, app, command, deliver, say, show
from isthmus.cli.progress_view import ProgressView
from isthmus.disk import writing
from isthmus.errors import IsthmusError


@command(app, "export")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or a bundle")],
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


@command(app, "serve")
def serve(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, or a run")],
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one")] = 8080,
    workers: Annotated[int, typer.Option(help="Processes")] = 1,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the token that requests must carry; a reload needs one"),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the model, in /v2")] = "isthmus",
    backend: Annotated[str, typer.Option(help="onnx or torch")] = "onnx",
    max_rows: Annotated[int, typer.Option(help="Rows of a request")] = 10_000,
    log: Annotated[
        Path | None, typer.Option(help="A file that keeps scores, for isthmus monitor")
    ] = None,
    log_share: Annotated[float, typer.Option(help="Share of the requests that it keeps")] = 1.0,
    log_values: Annotated[bool, typer.Option(help="Let it keep the rows, too")] = False,
) -> None:
    """Serve a bundle over HTTP, in the own dialect, /v2 of KServe and Triton, and MLflow's."""
    from isthmus.serving.settings import ServeSettings, check_serving_installed, read_token

    if backend not in ("onnx", "torch"):
        raise IsthmusError(f"--backend must be onnx or torch, got {backend!r}")
    check_serving_installed(backend)
    from isthmus.serving.supervisor import serve as run_server

    settings = ServeSettings(
        bundle=bundle,
        host=host,
        port=port,
        workers=workers,
        token=None if token_file is None else read_token(token_file),
        name=name,
        backend=backend,
        max_rows=max_rows,
        log=log,
        log_share=log_share,
        log_values=log_values,
    )
    try:
        run_server(settings, tell=say)
    except OSError as fault:
        raise IsthmusError(f"the server cannot listen on {host}:{port}: {fault}") from fault


@command(app, "extend")
def extend(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    domain: Annotated[str, typer.Option(metavar="NAME", help="The new domain; its rows are taken")],
    out: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="New run folder (default: RUN-NAME)")
    ] = None,
    json_target: JsonTarget = None,
) -> None:
    """Add a domain to a run without touching those that are live, and prove it."""
    from isthmus.extending import extend as run_extend

    with ProgressView() as progress:
        found = run_extend(run, table, domain=domain, out=out, progress=progress)
    deliver(found, dict(found.content), json_target)
    say(f"wrote {found.run.path}")


@command(app, "refresh")
def refresh(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    out: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="New run folder (default: RUN-refreshed)")
    ] = None,
    json_target: JsonTarget = None,
) -> None:
    """Train a run on with newer rows; it is written only where it is not worse (else exit code 1)."""
    from isthmus.extending import refresh as run_refresh

    with ProgressView() as progress:
        found = run_refresh(run, table, out=out, progress=progress)
    deliver(found, dict(found.content), json_target)
    if found.run is None:
        raise typer.Exit(1)
    say(f"wrote {found.run.path}")


@command(app, "prune")
def prune(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    domain: Annotated[str | None, typer.Option(metavar="NAME", help="The domain to remove")] = None,
    unused: Annotated[
        str | None,
        typer.Option(metavar="TABLE", help="Remove ids that these newer rows do not have"),
    ] = None,
    least: Annotated[
        int,
        typer.Option(metavar="N", help="With --unused: how often an id must stand there to stay"),
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN2", help="New run folder (default: RUN-without-NAME, or RUN-used)"
        ),
    ] = None,
) -> None:
    """Remove a domain, or unused ids, from a run: they get the unknown one's answer, all others stay."""
    from isthmus.extending import prune as run_prune

    if (domain is None) == (unused is None):
        raise IsthmusError("prune must have one of --domain and --unused, got both or none")
    found = run_prune(run, domain=domain, unused=unused, least=least, out=out)
    show(found)
    say(f"wrote {found.run.path}")


@command(app, "diff")
def diff(
    a: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle or a run")],
    b: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Another one")],
    table: Annotated[str | None, typer.Option(help="Rows that both score")] = None,
    json_target: JsonTarget = None,
) -> None:
    """Say what changed: domains, vocabularies, settings, metrics, scores on a table."""
    from isthmus.extending import diff as run_diff

    found = run_diff(a, b, table=table)
    deliver(found, found.to_dict(), json_target)
