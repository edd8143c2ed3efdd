"""Docstrings as Markdown, for the reference of the site.

A docstring of the package is plain Markdown but for two habits of Python: examples begin with ``>>>``, and ``::`` stands
before a block of text. The first becomes a fence, the second a colon.
"""
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from typing import Any

import griffe


def as_markdown(text: str) -> str:
    """A docstring with its examples fenced.

    >>> print(as_markdown("Add one.\\n\\n>>> add(1)\\n2"))
    Add one.
    <BLANKLINE>
    ```pycon
    >>> add(1)
    2
    ```
    """
    lines: list[str] = []
    in_example = False
    for line in text.split("\n"):
        if in_example and not line.strip():
            lines.append("```")
            in_example = False
        elif not in_example and line.lstrip().startswith(">>>"):
            lines += ["", "```pycon"]
            in_example = True
        if line.rstrip().endswith("::") and not in_example:
            line = line.rstrip()[:-1]
        lines.append(line.strip() if in_example and line.lstrip().startswith(">>>") else line)
    return "\n".join([*lines, "```"] if in_example else lines)


class DocstringMarkdown(griffe.Extension):
    """Turns every docstring as soon as it was read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
