"""The pages of every public name, made for the site out of the package's source, which is read and not run.

A public name stands in the ``__all__`` of ``isthmus`` or of one of the packages in it. Each has a docstring; a constant
has one on the line below it.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
# Beside the packages right below isthmus: the members of these are chosen by name in a config.
DEEPER = ("isthmus.train.methods", "isthmus.train.weighting")


@dataclass(frozen=True, slots=True)
class PublicName:
    """A public name and the module that defines it. ``doc``: its docstring, or none."""

    name: str
    module: str
    doc: str | None

    @property
    def is_config(self) -> bool:
        """Whether the name is a section of a config, whose keys stand in docs/config.md."""
        return self.name.endswith("Config")


@cache
def tree(path: Path) -> ast.Module:
    """A source file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"))


def file_of(module: str) -> Path:
    """Where a module lies."""
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def packages() -> list[str]:
    """The packages with public names, ``isthmus`` first; the command line has a page of its own."""
    below = sorted(path.parent.name for path in SOURCE.glob("isthmus/*/__init__.py"))
    named = ["isthmus", *(f"isthmus.{name}" for name in below if name != "cli"), *DEEPER]
    return [module for module in named if exported(module)]


@cache
def exported(module: str) -> tuple[str, ...]:
    """The ``__all__`` of a module."""
    for node in tree(file_of(module)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return tuple(name for name in ast.literal_eval(node.value) if name != "__version__")
    return ()


def public_names(module: str) -> list[PublicName]:
    """The names of a package's ``__all__``, in its order."""
    return [resolved(module, name) for name in exported(module)]


def resolved(module: str, name: str) -> PublicName:
    """The place where a name is defined, by following imports."""
    # From the end, because the last of several overloads is the function itself.
    for node, below in reversed(list(statements(tree(file_of(module)).body))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return resolved(node.module, alias.name)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return PublicName(name, module, ast.get_docstring(node))
        elif name in assigned(node):
            text = below.value if isinstance(below, ast.Expr) else None
            doc = text.value if isinstance(text, ast.Constant) else None
            return PublicName(name, module, doc if isinstance(doc, str) else None)
    raise LookupError(f"{module} must define {name}, which its __all__ names")


def statements(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    """Each statement and the one below it, also those of ``if TYPE_CHECKING``."""
    for node, below in zip(body, [*body[1:], None], strict=True):
        yield node, below
        if isinstance(node, ast.If):
            yield from statements(node.body)


def assigned(node: ast.stmt) -> set[str]:
    """The names that a statement gives a value."""
    if isinstance(node, ast.Assign):
        return {ast.unparse(target) for target in node.targets}
    if isinstance(node, ast.AnnAssign):
        return {ast.unparse(node.target)}
    return set()


def undocumented() -> list[str]:
    """Public names without a docstring."""
    return [
        f"{module}.{one.name}"
        for module in packages()
        for one in public_names(module)
        if not one.doc
    ]


def address(module: str) -> str:
    """The page of a package, below docs/."""
    return f"reference/{module}.md"


def page(module: str) -> str:
    """The Markdown of a package's page: directives for mkdocstrings, grouped by defining module.

    What a module says of itself stands above its names: there are the papers and the departures. A
    name that ``isthmus`` has too is described there alone.
    """
    top = (
        set()
        if module == "isthmus"
        else {(one.module, one.name) for one in public_names("isthmus")}
    )
    lines = [f"# {module}", "", directive(module, of_module=True)]
    groups: dict[str, list[PublicName]] = {}
    for one in public_names(module):
        groups.setdefault(one.module, []).append(one)
    for where, names in groups.items():
        own = [one for one in names if (one.module, one.name) not in top]
        if own and module != "isthmus" and where != module:
            lines += [f"## `{where.removeprefix(module + '.')}`", ""]
            lines += [directive(where, of_module=True)]
        for one in names:
            if one in own:
                lines += [described(module, one)]
            else:
                link = f"isthmus.md#isthmus.{one.name}"
                lines += [f"`{one.name}` is public as [`isthmus.{one.name}`]({link}).", ""]
    return "\n".join(lines)


def described(module: str, one: PublicName) -> str:
    """The part of one name."""
    text = directive(f"{module}.{one.name}", members=not one.is_config)
    if one.is_config:
        text += "Its keys and their defaults: [the config](../config.md).\n"
    return text


def directive(name: str, *, of_module: bool = False, members: bool = True) -> str:
    """What mkdocstrings reads. A name of ``isthmus`` has a heading of its own, others stand in a group."""
    options = []
    if of_module:
        options = ["members: false", "show_root_heading: false", "show_root_toc_entry: false"]
    elif not members:
        options = ["members: false"]
    if not of_module:
        options += [f"heading_level: {2 if name.count('.') == 1 else 3}"]
    return "\n".join([f"::: {name}", "    options:", *(f"      {line}" for line in options), ""])


def as_markdown(text: str) -> str:
    """A docstring as Markdown: its examples in fences, and a colon in place of two.

    A docstring of the package is plain Markdown but for a few habits of Python: examples begin with
    ``>>>``, ``::`` stands before a block of text, ``:class:`` before a name, and a list may stand
    right below a line.

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
            lines += [*([""] if lines and lines[-1] else []), "```pycon"]
            in_example = True
        if line.rstrip().endswith("::") and not in_example:
            line = line.rstrip()[:-1]
        line = re.sub(r"\s*# doctest: .*$", "", line)
        line = re.sub(r":[a-z]+:`", "`", line)
        if line.startswith("- ") and lines and lines[-1] and not re.match(r"- |  ", lines[-1]):
            lines.append("")
        lines.append(line.strip() if in_example and line.lstrip().startswith(">>>") else line)
    return "\n".join([*lines, "```"] if in_example else lines)
