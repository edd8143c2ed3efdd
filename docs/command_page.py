"""Write docs/commands.md, every command and its options, from the app itself: ``make docs``."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.main import get_command

from isthmus.cli import app

PAGE = Path(__file__).with_name("commands.md")
HEAD = """\
# Commands

`isthmus --help` lists the commands, and `isthmus COMMAND --help` tells what is below. `make docs` writes this page from the
commands themselves.

A command ends with exit code 0. It ends with 2 where isthmus refuses something, and says what in one line. Ctrl-C gives 130.
Where the other processes of a training are gone, the code is 75: another start may do better. `refresh` and `monitor` give 1
where their answer is no.
"""


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it, such as ``cache list``; groups themselves are left out.

    A group that does something without a command, such as ``recipes``, comes before its commands.
    """
    group = get_command(app) if group is None else group
    for name, command in group.commands.items():
        words = (*path, name)
        if getattr(command, "commands", None) is None:
            yield " ".join(words), command
        else:
            if command.invoke_without_command:
                yield " ".join(words), command
            yield from commands(command, words)


def cell(text: str) -> str:
    """Text as one cell of a table: a word in capitals that stands for a value is no HTML."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def value_of(option: Any, hints: dict[str, Any]) -> str:
    """What stands behind an option, such as ``a.b=c``; nothing behind a switch."""
    if option.is_flag:
        return ""
    kinds = {int: "N", float: "X", Path: "PATH"}
    hint = hints[option.name]
    found = [kinds[kind] for kind in (hint, *get_args(hint)) if kind in kinds]
    return option.metavar or next(iter(found), "TEXT")


def said(option: Any) -> str:
    """What an option's help says, and its default where it has one that tells something."""
    told = cell(option.help or "")
    default = option.default
    if option.is_flag or option.required or default in (None, ()) or "default:" in told:
        return told
    return f"{told} (default: `{default}`)".strip()


def section(words: str, command: Any) -> str:
    """One command's part of the page."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    options = [one for one in options if one.name not in ("help", "version")]
    hints = get_type_hints(inspect.unwrap(command.callback))
    usage = ["isthmus", words]
    for one in arguments:
        usage.append((one.metavar or one.name.upper()).strip())
    usage += [f"{one.opts[0]} {value_of(one, hints)}".strip() for one in options if one.required]
    usage += ["[OPTIONS]"] if len(options) > sum(one.required for one in options) else []
    lines = [f"## `isthmus {words}`", "", cell(command.help or ""), "", "```text", " ".join(usage)]
    lines += ["```", ""]
    told = [one for one in arguments if one.help]
    if told or options:
        lines += ["| argument or option | meaning |", "|---|---|"]
        lines += [f"| `{one.metavar or one.name.upper()}` | {cell(one.help)} |" for one in told]
        for one in options:
            names = [*one.opts, *one.secondary_opts]
            shown = cell(
                ", ".join(f"`{f'{name} {value_of(one, hints)}'.strip()}`" for name in names)
            )
            parts = ["**required**" * one.required, said(one), "repeatable" * one.multiple]
            lines.append(f"| {shown} | {'; '.join(filter(None, parts))} |")
        lines.append("")
    return "\n".join(lines)


def page() -> str:
    """The page as it must be."""
    return "\n".join([HEAD, *(section(words, command) for words, command in commands())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
