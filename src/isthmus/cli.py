"""The command line: each command parses, calls one function of the package, and prints.

Torch is imported inside the commands, so that ``isthmus --help`` answers at once.
"""

import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from isthmus.disk import check_place, refusal, write_whole, writing
from isthmus.errors import IsthmusError
from isthmus.printable import json_text, lenient_streams, printable, restart_in_utf8, shown
from isthmus.version import VERSION

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(no_args_is_help=True, help="The encoded tables that fit keeps.")
app.add_typer(cache_app, name="cache")

FAULT = 2  # exit code of everything that isthmus refuses by name
INTERRUPTED = 130

Arguments = ParamSpec("Arguments")
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Change one key of the config")
]
JsonTarget = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE|-", help="Write JSON to FILE, or - for stdout."),
]


def command(
    group: typer.Typer, name: str
) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """Register a command whose faults end as one red line and exit code 2."""

    def register(function: Callable[Arguments, None]) -> Callable[Arguments, None]:
        @group.command(name)
        @functools.wraps(function)
        def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
            warnings.showwarning = _show_warning
            lenient_streams()
            try:
                function(*args, **kwargs)
            except BrokenPipeError:
                raise
            except (IsthmusError, OSError) as fault:
                _fault(refusal(fault) if isinstance(fault, OSError) else str(fault))
                raise typer.Exit(FAULT) from None
            except KeyboardInterrupt:
                _fault("interrupted")
                raise typer.Exit(INTERRUPTED) from None

        return guarded

    return register


def _version(asked: bool) -> None:
    if asked:
        print(f"isthmus {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One model over many domains: train it, adapt it per domain, see what each domain gets."""
    del version
    restart_in_utf8([context.invoked_subcommand])


@command(app, "data")
def data(
    name: Annotated[str, typer.Argument(help="One of movielens-1m, insteval and synthetic")],
    domain: Annotated[
        str | None, typer.Option(help="For movielens-1m: age, gender or occupation (default: age)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write (default: NAME)")] = None,
) -> None:
    """Write a named data set: one Parquet file and a config that fit accepts."""
    from isthmus import sources

    folder = out or Path(name)
    if name == "movielens-1m":
        by = "age" if domain is None else domain
        if by not in ("age", "gender", "occupation"):
            raise IsthmusError(f"--domain must be age, gender or occupation, got {by!r}")
        sources.movielens_1m(folder, by, report=_say)
    elif name not in ("insteval", "synthetic"):
        raise IsthmusError(f"data set must be movielens-1m, insteval or synthetic, got {name!r}")
    elif domain is not None:
        raise IsthmusError(f"--domain must stand with movielens-1m only, got it with {name}")
    elif name == "insteval":
        sources.insteval(folder, report=_say)
    else:
        sources.write_synthetic(folder, report=_say)
    _say(f"next: isthmus fit {folder / 'config.yaml'}")


@command(app, "init")
def init(
    table: Annotated[str, typer.Argument(help="Parquet file, folder or glob, or CSV")],
    domain: Annotated[str, typer.Option(help="Column that names the domain of a row")],
    label: Annotated[str, typer.Option(help="Column with the label, 0 or 1")],
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("config.yaml"),
) -> None:
    """Read a table, guess each column's kind, and write a commented config."""
    from isthmus.inspect import inspect_table

    with writing("config", output):
        if output.exists():
            raise IsthmusError(f"config to write must not exist yet, got {output}")
        check_place(output, folders=False)
    inspection = inspect_table(table, domain, label)
    _print(shown(inspection))
    with writing("config", output):
        write_whole(output, inspection.config_text(folder=output.absolute().parent))
    _say(f"wrote {output}")
    _say(f"next: isthmus fit {output}")


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
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="With --guard: trainings side by side, one thread each")
    ] = 1,
) -> None:
    """Train one model over all domains, and report every domain."""
    import isthmus

    if guard not in (None, "strict", "balanced"):
        raise IsthmusError(f"--guard must be strict or balanced, got {guard!r}")
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
            progress=progress,
        )
    _print(run.evaluate())
    if (choices := run.guard()) is not None:
        _print(f"\n{choices}\n")
    _say(f"run folder: {(path := run.path)}")
    _say(f"next: isthmus predict {path} TABLE -o scored.parquet, or compare it with another run")


@command(app, "evaluate")
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    split: Annotated[str | None, typer.Option(help="test or validation (default: test)")] = None,
    data: Annotated[
        str | None, typer.Option(help="Score this whole table in place of a split, as external")
    ] = None,
    json_target: JsonTarget = None,
) -> None:
    """Print the metrics of every domain with 95 % intervals."""
    import isthmus

    with ProgressView() as progress:
        opened = isthmus.Run.open(run)
        if data is not None and split is not None:
            raise IsthmusError(f"--split must stand without --data, got {split!r} and {data!r}")
        if data is None:
            result = opened.evaluate(split or "test")
        else:
            result = opened.evaluate(data=data, progress=progress)
    _deliver(result, result.to_dict(), json_target)


@command(app, "predict")
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT")],
) -> None:
    """Add the column score to a table: CSV where OUT ends in .csv or .tsv, else Parquet."""
    import isthmus

    with ProgressView() as progress, writing("file", output):
        rows = isthmus.Run.open(run).predict_to(table, output, progress=progress)
    _say(f"wrote {rows:,} rows with their score to {output}")


@command(app, "compare")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...")],
    split: Annotated[str, typer.Option(help="test or validation")] = "test",
    json_target: JsonTarget = None,
) -> None:
    """Compare each later run with the first run, paired on the same rows."""
    import isthmus

    if len(runs) < 2:
        raise IsthmusError(f"compare must be given two runs or more, got {len(runs)}")
    first, *others = [isthmus.Run.open(run) for run in runs]
    results = [isthmus.compare(first, other, split=split) for other in others]
    content = {"comparisons": [result.to_dict() for result in results]}
    _deliver("\n\n".join(map(str, results)), content, json_target)


@command(app, "diagnose")
def diagnose(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="Folder to write; finished trainings in it are kept")],
    level: Annotated[str, typer.Option(help="quick, standard or full")] = "standard",
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
    set_: Changes = None,
) -> None:
    """Tell whether training together helps or hurts each domain, because of whom, and what to do."""
    from isthmus.diagnosis import diagnose as run_diagnosis
    from isthmus.diagnosis import plan_diagnosis, processes

    with ProgressView() as progress:
        chosen = {
            "level": level,
            "margin": margin,
            "item": item,
            "jobs": jobs or processes(),
            "set": set_ or (),
            "progress": progress,
        }
        if dry_run:
            result = plan_diagnosis(config, out=out, **chosen)
        else:
            result = run_diagnosis(config, out=out, **chosen)
    _print(shown(result) if dry_run else result)
    if not dry_run:
        _say(f"report: {out / 'report.html'}, {out / 'report.md'}, {out / 'report.json'}")


@command(app, "demo")
def demo(
    data: Annotated[str, typer.Option(help="movielens-1m or synthetic")] = "movielens-1m",
    out: Annotated[Path, typer.Option(help="Folder for the table and the runs")] = Path("demo"),
) -> None:
    """Train a shared model, the same again, and HAMUR, and print what differs beyond noise."""
    from isthmus.demo import demo as run_demo

    with ProgressView() as progress, writing("folder", out):
        result = run_demo(data, out=out, progress=progress)
    _print(result)


@command(cache_app, "list")
def cache_list() -> None:
    """Show the encoded tables, the newest first."""
    from isthmus.data.store import cache

    for entry in cache.entries():
        _say(entry)
    _say(f"cache folder: {cache.cache_folder()}")


@command(cache_app, "clear")
def cache_clear() -> None:
    """Remove every encoded table that nobody is writing."""
    from isthmus.data.store import cache

    _say(f"removed {cache.clear()} encoded tables from {cache.cache_folder()}")


class ProgressView:
    """Shows on stderr what a long call does: as a bar on a terminal, else as plain lines."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}
        self.shown: dict[str, float] = {}

    def __enter__(self) -> "ProgressView":
        if self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                TextColumn("{task.fields[stage]:>9}"),
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:>3.0f} %  {task.description}"),
                TimeElapsedColumn(),
                console=self.console,
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, notice: Any) -> None:
        """Show one notice: a message, or how much of a stage is done."""
        if notice.done is None:
            self._line(notice)
        elif self.bar is not None:
            self._move_bar(notice)
        elif notice.done >= 1 or notice.done >= self.shown.get(notice.stage, -1) + PLAIN_STEP:
            self.shown[notice.stage] = notice.done if notice.done < 1 else -1
            self._line(notice)

    def _line(self, notice: Any) -> None:
        self.console.print(Text(printable(str(notice), keep="\n")), soft_wrap=True)

    def _move_bar(self, notice: Any) -> None:
        if notice.stage not in self.tasks:
            self.tasks[notice.stage] = self.bar.add_task("", total=1.0, stage=notice.stage)
        task = self.tasks[notice.stage]
        self.bar.update(task, completed=notice.done, description=escape(printable(notice.text)))
        if notice.done >= 1:
            self.bar.stop_task(self.tasks.pop(notice.stage))


PLAIN_STEP = 0.1  # share of a stage between two plain lines


def _deliver(result: Any, content: dict[str, Any], target: str | None) -> None:
    """Print a result. With ``--json`` write its content as JSON; ``-`` takes the table's place."""
    if target == "-":
        _print(json_text(content, sys.stdout.encoding))
        return
    if target is not None:
        with writing("JSON file", Path(target)):
            write_whole(Path(target), json_text(content) + "\n")
    _print(result)


def _print(result: Any, keep: str = "\n") -> None:
    try:
        print(printable(str(result), keep=keep), flush=True)
    except OSError as fault:
        fault.filename = "standard output"
        raise


def _say(line: Any) -> None:
    _print(line, keep="")


def _fault(text: str) -> None:
    told = Text.assemble(("error:", "bold red"), " ", printable(text, keep="\n"))
    Console(stderr=True).print(told, soft_wrap=True)


def _show_warning(message: Warning | str, *_: Any) -> None:
    told = Text.assemble(("warning:", "yellow"), " ", printable(str(message)))
    Console(stderr=True).print(told, soft_wrap=True)
