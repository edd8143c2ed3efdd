"""The commands that train many models of one table."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.app import Changes, ConfigFile, RecipeName, app, command, say, show
from isthmus.cli.progress_view import ProgressView
from isthmus.printable import shown


@command(app, "diagnose")
def diagnose(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="Folder to write; finished trainings in it are kept")],
    level: Annotated[str, typer.Option(help="quick, standard or full")] = "standard",
    new_domain: Annotated[
        bool,
        typer.Option("--new-domain", help="Measure also what a domain gets before it has rows"),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and the time it needs, and stop")
    ] = False,
    margin: Annotated[
        float, typer.Option(help="AUC difference that does not matter; fix it before you look")
    ] = 0.005,
    item: Annotated[
        str | None, typer.Option(help="Categorical feature by which test rows are clustered, too")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings that run at a time (default: one a core)")
    ] = None,
    shared: Annotated[
        bool,
        typer.Option("--shared", help="Other machines give the same command and train along"),
    ] = False,
    set_: Changes = None,
) -> None:
    """Tell whether training together helps or hurts each domain, because of whom, and what to do."""
    from isthmus.diagnosis import diagnose as run_diagnosis
    from isthmus.diagnosis import plan_diagnosis, processes

    with ProgressView() as progress:
        chosen = {
            "level": level,
            "new_domain": new_domain,
            "margin": margin,
            "item": item,
            "jobs": jobs or processes(),
            "shared": shared,
            "set": set_ or (),
            "progress": progress,
        }
        if dry_run:
            result = plan_diagnosis(config, out=out, **chosen)
        else:
            result = run_diagnosis(config, out=out, **chosen)
    show(shown(result) if dry_run else result)
    if not dry_run:
        say(f"report: {out / 'report.html'}, {out / 'report.md'}, {out / 'report.json'}")


@command(app, "tune")
def tune(
    config: ConfigFile,
    out: Annotated[
        Path | None,
        typer.Option(help="Study folder; a study in it goes on (default: studies/NAME)"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials in all (default: 40, without --minutes)")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes in all, after which no trial begins")
    ] = None,
    set_: Changes = None,
    recipe: RecipeName = None,
) -> None:
    """Try known recipes and then new ones on the validation rows, and write the best as a config."""
    import isthmus

    with ProgressView() as progress:
        study = isthmus.tune(
            config,
            out,
            trials=trials,
            minutes=minutes,
            set=set_ or (),
            recipe=recipe,
            progress=progress,
        )
    show(study)
    say(f"report: {study.path / 'report.html'}, {study.path / 'trials.md'}")
    if study.best is not None:
        say(f"next: isthmus fit {study.path / 'best.yaml'}")


@command(app, "benchmark")
def benchmark(
    config: ConfigFile,
    models: Annotated[
        str | None,
        typer.Option(help="Names with commas between (default: every backbone, HAMUR, controls)"),
    ] = None,
    trunk: Annotated[
        int | None,
        typer.Option(help="Parameters of a trunk at most (default: as the config's network)"),
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials of each model's search")] = 20,
    seeds: Annotated[int, typer.Option(help="Trainings with the best setting")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; a benchmark in it goes on (default: benchmarks/NAME)"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings that run at a time (default: one a core)")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and the time it needs, and stop")
    ] = False,
    set_: Changes = None,
) -> None:
    """Compare models on equal terms: the same rows, size, search and seeds, with honest intervals."""
    import isthmus
    from isthmus.diagnosis import processes

    with ProgressView() as progress:
        chosen = {
            "models": None if models is None else models.split(","),
            "trunk": trunk,
            "trials": trials,
            "seeds": seeds,
            "jobs": jobs or processes(),
            "set": set_ or (),
            "progress": progress,
        }
        result = (isthmus.plan_benchmark if dry_run else isthmus.benchmark)(config, out, **chosen)
    show(shown(result) if dry_run else result)
    if isinstance(result, isthmus.Benchmark):
        say(f"report: {result.path / 'report.html'}, {result.path / 'report.md'}")
