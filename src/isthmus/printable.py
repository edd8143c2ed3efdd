"""Text of the data as a terminal may show it.

Nothing in the text breaks a line, moves the cursor or changes a colour.
"""

import codecs
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape what is not printable in a text, as Python's ``repr`` escapes it.

    Letters of every alphabet stay, and backslashes stay. So a second call changes nothing. ``keep``:
    characters that stay too, such as the line breaks of a text that the package laid out.

    >>> printable("Köln\n\x1b[31m東京")
    'Köln\\n\\x1b[31m東京'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else repr(letter)[1:-1] for letter in text
    )


def shown(value: Any) -> Any:
    """Make every text in a value `printable`, before the value is laid out.

    The value may hold config sections, dataclasses, dicts, lists and tuples. Two keys that would
    become one key stay apart: the second key has its backslashes doubled.
    """
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list | tuple):
        return type(value)(shown(item) for item in value)
    if isinstance(value, dict):
        result = {}
        for key, item in value.items():
            name = shown(key)
            result[repr(key)[1:-1] if name in result else name] = shown(item)
        return result
    copied = getattr(value, "model_copy", None)
    if copied is not None:  # a section of a config
        return copied(update={name: shown(item) for name, item in value})
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.init]
        return replace(value, **{name: shown(getattr(value, name)) for name in names})
    return value


def json_text(content: Any, encoding: str | None = "utf-8") -> str:
    """Write JSON that an encoding can hold. What is not printable becomes ``\\uXXXX``."""
    plain = codecs.lookup(encoding or "ascii").name != "utf-8"
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=plain)
    return "".join(
        letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1]
        for letter in text
    )


def lenient_streams() -> None:
    """Let stdout and stderr escape the letters that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def restart_in_utf8(words: Sequence[str | None]) -> None:
    """Start this command line again in UTF-8 mode, where the locale's file names are ASCII.

    In such a locale Python has no usable text for a file or domain with other letters. ``words``: the
    words of the command line that runs. Where the process was not started with these words, nothing
    is done.
    """
    ascii_names = codecs.lookup(sys.getfilesystemencoding()).name == "ascii"
    if ascii_names and sys.executable and all(word in sys.argv for word in words):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
