"""The commands for one table and one model, from the first look at a table to a comparison."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.app import (
    Changes,
    ConfigFile,
    FormatName,
    JsonTarget,
    RecipeName,
    app,
    cache_app,
    check_format,
    command,
    deliver,
    formatted,
    say,
    show,
)
from isthmus.cli.completing import one_of
from isthmus.cli.progress_view import ProgressView
from isthmus.disk import check_place, write_whole, writing
from isthmus.errors import IsthmusError
from isthmus.printable import shown

_MADE = ("movielens-1m", "insteval", "synthetic")
_BROUGHT = ("kuairand", "ali-ccp", "amazon", "douban", "mind")


@command(app, "data")
def data(
    name: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join((*_MADE, *_BROUGHT))}",
            autocompletion=one_of(*_MADE, *_BROUGHT),
        ),
    ],
    domain: Annotated[
        str | None, typer.Option(help="For movielens-1m: age, gender or occupation (default: age)")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help=f"For {', '.join(_BROUGHT)}: the folder with your download, unpacked",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write (default: NAME)")] = None,
) -> None:
    """Write a named data set: one Parquet file and a config that fit accepts."""
    from isthmus import sources

    folder = out or Path(name)
    if name not in (*_MADE, *_BROUGHT):
        raise IsthmusError(
            f"data set must be one of {', '.join((*_MADE, *_BROUGHT))}, got {name!r}"
        )
    if domain is not None and name != "movielens-1m":
        raise IsthmusError(f"--domain must stand with movielens-1m only, got it with {name}")
    if source is not None and name not in _BROUGHT:
        raise IsthmusError(f"--from must stand with {', '.join(_BROUGHT)} only, got it with {name}")
    if name == "movielens-1m":
        by = "age" if domain is None else domain
        if by not in ("age", "gender", "occupation"):
            raise IsthmusError(f"--domain must be age, gender or occupation, got {by!r}")
        sources.movielens_1m(folder, by, report=say)
    elif name == "insteval":
        sources.insteval(folder, report=say)
    elif name == "synthetic":
        sources.write_synthetic(folder, report=say)
    elif source is None:
        raise IsthmusError(
            f"{name} needs --from FOLDER, the folder with your download of it, got none"
        )
    else:
        bring = {
            "kuairand": sources.kuairand,
            "ali-ccp": sources.ali_ccp,
            "amazon": sources.amazon,
            "douban": sources.douban,
            "mind": sources.mind,
        }[name]
        bring(source, folder, report=say)
    say(f"next: isthmus fit {folder / 'config.yaml'}")


@command(app, "init")
def init(
    table: Annotated[str, typer.Argument(help="Parquet file, folder or glob, or CSV")],
    domain: Annotated[str, typer.Option(help="Column that names the domain of a row")],
    label: Annotated[str, typer.Option(help="Column with the label, 0 or 1")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The config to write")] = Path(
        "config.yaml"
    ),
) -> None:
    """Read a table, guess each column's kind, and write a commented config."""
    from isthmus.inspect import inspect_table

    with writing("config", output):
        if output.exists():
            raise IsthmusError(f"config to write must not exist yet, got {output}")
        check_place(output, folders=False)
    inspection = inspect_table(table, domain, label)
    show(shown(inspection))
    with writing("config", output):
        write_whole(output, inspection.config_text(folder=output.absolute().parent))
    say(f"wrote {output}")
    say(f"next: isthmus fit {output}")


@command(app, "fit")
def fit(
    config: ConfigFile,
    set_: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/NAME-TIME)")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run")] = False,
    allow_other_threads: Annotated[
        bool, typer.Option(help="Resume with other threads, though the last bits may differ")
    ] = False,
    verify_content: Annotated[
        bool, typer.Option(help="Hash the whole table to find its encoded copy")
    ] = False,
    block_rows: Annotated[
        int, typer.Option(min=1, help="Rows held at once while the table is encoded; bounds memory")
    ] = 262_144,
    guard: Annotated[
        str | None,
        typer.Option(
            metavar="strict|balanced",
            help="Train the alternatives of each domain, too, and ship what serves each domain best",
            autocompletion=one_of("strict", "balanced"),
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="With --guard: trainings side by side, one thread each")
    ] = 1,
    recipe: RecipeName = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Train by so many processes of this machine together")
    ] = 1,
) -> None:
    """Train one model over all domains, and report every domain."""
    import isthmus
    from isthmus.ranks import start_ranks

    if guard not in (None, "strict", "balanced"):
        raise IsthmusError(f"--guard must be strict or balanced, got {guard!r}")
    if processes > 1:
        from isthmus.cli.launching import fit_together
        from isthmus.run.fit_plan import target_folder

        if guard is not None:
            raise IsthmusError("--guard trains side by side with --jobs, got --processes, too")
        words = [str(config), *(word for change in set_ or () for word in ("--set", change))]
        words += ["--block-rows", str(block_rows)]
        words += ["--allow-other-threads"] * allow_other_threads
        words += ["--verify-content"] * verify_content
        words += [] if recipe is None else ["--recipe", recipe]
        fit_together(processes, words, out=target_folder(config, out, resume), resume=resume)
        return
    with ProgressView() as progress:
        run = isthmus.fit(
            config,
            out=out,
            resume=resume,
            set=set_ or (),
            allow_other_threads=allow_other_threads,
            verify_content=verify_content,
            block_rows=block_rows,
            guard=guard,
            jobs=jobs,
            recipe=recipe,
            progress=progress,
        )
    if not start_ranks().is_first:
        return
    show(run.evaluate())
    if (choices := run.guard()) is not None:
        show(f"\n{choices}\n")
    say(f"run folder: {(path := run.path)}")
    say(f"report: {path / 'report.html'}")
    say(f"next: isthmus predict {path} TABLE -o scored.parquet, or compare it with another run")


@command(app, "evaluate")
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    split: Annotated[str | None, typer.Option(help="test or validation (default: test)")] = None,
    data: Annotated[
        str | None, typer.Option(help="Score this whole table in place of a split, as external")
    ] = None,
    gates: Annotated[
        bool,
        typer.Option("--gates", help="Show what share of each expert each domain uses, too"),
    ] = False,
    domain_as: Annotated[
        str | None,
        typer.Option(
            "--domain-as",
            metavar="hidden|permuted|detected",
            help="Score the rows again with the domain hidden, permuted among them or told, too",
        ),
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Write RUN/report.html, too, where the run lacks it")
    ] = False,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the page's charts as PNG and SVG, too"),
    ] = None,
    form: FormatName = None,
    json_target: JsonTarget = None,
) -> None:
    """Print the metrics of every domain with 95 % intervals."""
    import isthmus

    check_format(form, json_target)
    with ProgressView() as progress:
        opened = isthmus.Run.open(run)
        if data is not None and split is not None:
            raise IsthmusError(f"--split must stand without --data, got {split!r} and {data!r}")
        if domain_as is not None and domain_as not in ("hidden", "permuted", "detected"):
            said = "--domain-as must be hidden, permuted or detected"
            raise IsthmusError(f"{said}, got {domain_as!r}")
        shown, content = [], {}
        if gates:  # first: a network without gates is refused before a table is scored
            shares = opened.gates(split or "test", data=data, progress=progress)
            shown, content = [*shares.tables()], {"gates": shares.to_dict()}
        if domain_as is not None:
            found = opened.robustness(domain_as, split or "test", data=data, progress=progress)
            shown = [found.evaluation, found.comparison, *shown]
            content |= {"robustness": found.to_dict()}
        if data is None:
            result = opened.evaluate(split or "test")
        else:
            result = opened.evaluate(data=data, progress=progress)
        shown, content = [result, *shown], result.to_dict() | content
        made = [opened.page(progress=progress)] if page else []
        made += [] if figures is None else opened.figures(figures, progress=progress)
    deliver(formatted(form, shown, content), content, json_target)
    if form is None and json_target != "-":
        for path in made:
            say(f"wrote {path}")


@command(app, "predict")
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="The table to write")
    ],
    strength: Annotated[
        float | None,
        typer.Option(help="of adapter modulation: 1 as trained, 0 the shared network"),
    ] = None,
    detect_domain: Annotated[
        str | None,
        typer.Option(
            metavar="row|group",
            help="Tell the domain of rows that name none, each alone or by all rows of its group",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped call that was to write OUT")
    ] = False,
) -> None:
    """Add the column score to a table, in a file or on an object store: CSV where OUT ends in .csv or .tsv, else Parquet."""
    import isthmus

    if detect_domain not in (None, "row", "group"):
        raise IsthmusError(f"--detect-domain must be row or group, got {detect_domain!r}")
    with ProgressView() as progress, writing("file", Path(output)):
        rows = isthmus.Run.open(run).predict_to(
            table,
            output,
            strength=strength,
            detect_domain=detect_domain,
            resume=resume,
            progress=progress,
        )
    say(f"wrote {rows:,} rows with their score to {output}")


@command(app, "compare")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...")],
    split: Annotated[str, typer.Option(help="test or validation")] = "test",
    form: FormatName = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="PAGE.html", help="Write a page")
    ] = None,
    json_target: JsonTarget = None,
) -> None:
    """Compare each later run with the first run, paired on the same rows."""
    from isthmus.run.comparing import compare_runs

    check_format(form, json_target)
    if len(runs) < 2:
        raise IsthmusError(f"compare must be given two runs or more, got {len(runs)}")
    if page is not None:
        with writing("page", page):
            check_place(page, folders=False)
    compared = compare_runs(runs, split=split)
    if page is not None:
        with writing("page", page):
            write_whole(page, compared.page())
    content = compared.to_dict()
    said = compared if form is None else formatted(form, compared.comparisons, content)
    deliver(said, content, json_target)
    if page is not None and form is None and json_target != "-":
        say(f"page: {page}")


@command(app, "demo")
def demo(
    data: Annotated[str, typer.Option(help="movielens-1m or synthetic")] = "movielens-1m",
    out: Annotated[Path, typer.Option(help="Folder for the table and the runs")] = Path("demo"),
) -> None:
    """Train a shared model, the same again, and HAMUR, and print what differs beyond noise."""
    from isthmus.demo import demo as run_demo

    with ProgressView() as progress, writing("folder", out):
        result = run_demo(data, out=out, progress=progress)
    show(result)


@command(cache_app, "list")
def cache_list() -> None:
    """Show the encoded tables, the newest first."""
    from isthmus.data.store import cache

    for entry in cache.entries():
        say(entry)
    say(f"cache folder: {cache.cache_folder()}")


@command(cache_app, "clear")
def cache_clear() -> None:
    """Remove every encoded table that nobody is writing."""
    from isthmus.data.store import cache

    say(f"removed {cache.clear()} encoded tables from {cache.cache_folder()}")
