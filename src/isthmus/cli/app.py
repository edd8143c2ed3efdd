"""The application: how a command is registered, how a fault ends it, and how text is printed."""

import functools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from isthmus.cli.completing import changes, recipes
from isthmus.disk import refusal, write_whole, writing
from isthmus.errors import IsthmusError
from isthmus.printable import json_text, lenient_streams, printable, restart_in_utf8
from isthmus.version import VERSION

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in boxes takes longer to import than all else together
)
cache_app = typer.Typer(no_args_is_help=True, help="The encoded tables that fit keeps.")
app.add_typer(cache_app, name="cache")
recipes_app = typer.Typer(help="Settings of published systems, for fit, tune and benchmark.")
app.add_typer(recipes_app, name="recipes")

FAULT = 2  # exit code of everything that isthmus refuses by name
INTERRUPTED = 130
LOST = 75  # the other processes of a training are gone; another start may do better
FORMATS = ("csv", "latex", "markdown", "json")
SHARED = ("fit",)  # commands that several processes may run as one

Arguments = ParamSpec("Arguments")
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="a.b=c", help="Change one key of the config", autocompletion=changes
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="Put the settings of a published system over it",
        autocompletion=recipes,
    ),
]
JsonTarget = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE|-", help="Write JSON to FILE, or - for stdout."),
]
FormatName = Annotated[
    str | None,
    typer.Option("--format", metavar="csv|latex|markdown|json", help="Print it in this form."),
]


def command(
    group: typer.Typer, name: str
) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """Register a command whose faults end as one red line and exit code 2."""

    def register(function: Callable[Arguments, None]) -> Callable[Arguments, None]:
        @group.command(name)
        @functools.wraps(function)
        def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
            warnings.showwarning = show_warning
            lenient_streams()
            code = 0
            try:
                if name not in SHARED:
                    _check_alone(name)
                function(*args, **kwargs)
            except BrokenPipeError:
                raise
            except (IsthmusError, OSError) as fault:
                _fault(refusal(fault) if isinstance(fault, OSError) else str(fault), fault)
                code = LOST if type(fault).__name__ == "RankError" else FAULT
            except KeyboardInterrupt:
                _fault("interrupted")
                code = INTERRUPTED
            if (ranks := sys.modules.get("isthmus.ranks")) is not None:
                ranks.leave(code)
            if code:
                raise typer.Exit(code) from None

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


def deliver(result: Any, content: dict[str, Any], target: str | None) -> None:
    """Print a result. With ``--json`` write its content as JSON; ``-`` takes the table's place."""
    if target == "-":
        show(json_text(content, sys.stdout.encoding))
        return
    if target is not None:
        with writing("JSON file", Path(target)):
            write_whole(Path(target), json_text(content) + "\n")
    show(result)


def check_format(form: str | None, target: str | None) -> None:
    """Refuse another form than those of `formatted`, and one beside ``--json -``."""
    if form not in (None, *FORMATS):
        raise IsthmusError(f"--format must be csv, latex, markdown or json, got {form!r}")
    if form is not None and target == "-":
        raise IsthmusError(f"--format must stand without --json -, got {form!r}")


def formatted(form: str | None, results: Sequence[Any], content: dict[str, Any]) -> str:
    """Results that have tables, one after another; ``json`` is the content as a whole."""
    if form is None:
        return "\n\n".join(map(str, results))
    if form == "json":
        return json_text(content, sys.stdout.encoding)
    from isthmus.report import to_csv, to_latex, to_markdown

    forms = {"csv": to_csv, "latex": to_latex, "markdown": to_markdown}
    return "\n\n".join(map(forms[form], results))


def show(result: Any, keep: str = "\n") -> None:
    """Print a result. ``keep``: the marks that are printed as they are."""
    try:
        print(printable(str(result), keep=keep), flush=True)
    except OSError as fault:
        fault.filename = "standard output"
        raise


def say(line: Any) -> None:
    """Print one line."""
    show(line, keep="")


def _check_alone(name: str) -> None:
    """Refuse a command that torchrun has started several times over."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise IsthmusError(
            f"isthmus {name} must run as one process, got {os.environ['WORLD_SIZE']} from torchrun"
        )


def _fault(text: str, fault: Exception | None = None) -> None:
    """Print a fault. Of several processes the first one speaks, unless another one's is its own."""
    if type(fault).__name__ == "ToldElsewhereError":
        return
    if (rank := os.environ.get("RANK", "0")) != "0":
        text = f"rank {rank}: {text}"
    _complain("error:", "bold red", printable(text, keep="\n"))


def show_warning(message: Warning | str, *_: Any) -> None:
    """Print a warning on stderr, in place of Python's own way."""
    _complain("warning:", "yellow", printable(str(message)))


def _complain(word: str, colour: str, text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text.assemble((word, colour), " ", text), soft_wrap=True)
