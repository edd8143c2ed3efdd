"""The site: nothing is left out of it, and what the pages tell of commands, keys and names is so."""

import ast
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

import command_page
import gallery_pictures
import reference_pages
from foreign_requests import foreign_request
from isthmus.cli import app
from isthmus.config import Config
from isthmus.family import Member
from isthmus.schema import Section

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OUT = {"truth-notes.md"}  # a part of another page
NO_KEYS = {"model.onnx"}  # a file
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), flags=re.M | re.S)


def navigation() -> list[str]:
    """The pages of mkdocs.yml, without the value that only MkDocs can read."""
    text = re.sub(r"!!python\S+ .*", "null", text_of(ROOT / "mkdocs.yml"))
    todo, pages = [yaml.safe_load(text)["nav"]], []
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            pages.append(one)
        else:
            todo += one.values() if isinstance(one, dict) else one
    return pages


def test_every_page_has_a_place_in_the_navigation():
    made = {"contributing.md", "changelog.md"}  # from outside of docs/, by docs/site_hooks.py
    assert sorted(navigation()) == sorted({page.name for page in DOCS.glob("*.md")} - OUT | made)


def test_the_page_of_commands_is_as_make_docs_writes_it():
    assert text_of(command_page.PAGE) == command_page.page(), "make docs writes it again"
    groups = {"cache", "recipes"}
    assert {words.split()[0] for words, _ in command_page.commands()} >= groups
    for words, command in command_page.commands():
        assert command.help, words
        for one in command.params:
            if one.param_type_name == "option":
                assert one.help, f"{words} {one.opts}"


def test_every_public_name_has_a_docstring_and_a_place_in_the_reference():
    assert reference_pages.undocumented() == []
    assert len(reference_pages.packages()) > 20
    for package in reference_pages.packages():
        page, module = reference_pages.page(package), importlib.import_module(package)
        for one in reference_pages.public_names(package):
            assert getattr(module, one.name, None) is not None, one
            assert f"::: {package}.{one.name}\n" in page or f"`isthmus.{one.name}`" in page, one


def test_a_name_without_a_docstring_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "isthmus" / "parts"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(
        "__all__ = ['told']\nfrom isthmus.parts import told\n"
    )
    (package / "__init__.py").write_text(
        "from isthmus.parts.one import Bare, CONSTANT, LIMIT, told\n"
        "__all__ = ['Bare', 'CONSTANT', 'LIMIT', 'told']\n"
    )
    (package / "one.py").write_text(
        'class Bare:\n    pass\n\n\nCONSTANT = 1\nLIMIT = 2\n"""The most."""\n\n\n'
        'def told():\n    """Told."""\n'
    )
    monkeypatch.setattr(reference_pages, "SOURCE", tmp_path)
    monkeypatch.setattr(reference_pages, "DEEPER", ())
    reference_pages.exported.cache_clear()
    try:
        assert reference_pages.undocumented() == ["isthmus.parts.Bare", "isthmus.parts.CONSTANT"]
        assert "[`isthmus.told`](isthmus.md#isthmus.told)" in reference_pages.page("isthmus.parts")
    finally:
        reference_pages.exported.cache_clear()


def test_docstrings_become_markdown():
    made = reference_pages.as_markdown("Do so::\n\n    a = 1\n\n>>> f(1)\n2\n>>> g()\n\nThe end.")
    assert made.splitlines() == [
        *("Do so:", "", "    a = 1", "", "```pycon"),
        *(">>> f(1)", "2", ">>> g()", "```", "", "The end."),
    ]
    assert reference_pages.as_markdown("f\n>>> f(1)\n2").endswith("2\n```")
    made = reference_pages.as_markdown("Departures:\n- of :class:`A`\n  and\n- of B")
    assert made == "Departures:\n\n- of `A`\n  and\n- of B"


def test_the_gallery_shows_every_page():
    linked = re.findall(
        r"^## \[[^\]]+\]\(pages/([\w-]+)\.html\)$", text_of(DOCS / "gallery.md"), re.M
    )
    assert sorted(linked) == sorted(page.stem for page in (DOCS / "pages").glob("*.html"))
    pictures = {f"gallery/{linked[0]}-{theme}.png" for theme in ("light", "dark")}
    made = gallery_pictures.with_pictures(text_of(DOCS / "gallery.md"), pictures)
    assert made.count("![") == 2
    for picture in pictures:
        assert picture in made


def test_a_request_to_a_foreign_host_is_found():
    for asked in (
        '<script async src="https://a.example/x.js">',
        "<link rel=stylesheet href=//a.example/x.css>",
        '<link href="https://a.example/f" rel="preconnect">',
        "<style>a { background: url('https://a.example/x.png') }</style>",
        '<img alt="" src="http://a.example/x.png">',
    ):
        found = foreign_request(f"<p>one</p>{asked}")
        assert found is not None, asked
        assert "//a.example/" in found
    for quiet in (
        '<a href="https://a.example/">there</a>',
        '<link rel="canonical" href="https://a.example/">',
        '<img src="gallery/one.png"><script src="assets/x.js"></script>',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    ):
        assert foreign_request(quiet) is None


def test_start_has_the_commands_of_the_readme():
    (shown,) = [block for block in blocks(DOCS / "start.md", "sh") if "isthmus init" in block]
    assert shown in blocks(ROOT / "README.md", "sh")  # which test_docs.py runs


def test_statistics_prints_what_it_says():
    page, values = DOCS / "statistics.md", {}
    shown = re.findall(
        r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", text_of(page), flags=re.M | re.S
    )
    assert len(shown) == len(blocks(page, "python")) == 6
    for code, printed in shown:
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(code, "docs/statistics.md", "exec"), values)
        assert stream.getvalue() == printed


# What stands in the pages of commands.


def lines_of(page: Path) -> Iterator[list[str]]:
    """The calls of isthmus in the shell blocks of a page, as words after `isthmus`."""
    for block in blocks(page, "(?:sh|bash)"):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"(?:torchrun .* -m )?isthmus (.*)", line):
                yield shlex.split(found[1], comments=True)


@cache
def whole_app() -> Any:
    return get_command(app)


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words call, and its arguments."""
    command, rest = whole_app(), list(words)
    while getattr(command, "commands", None) and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    assert command.name != "isthmus", words
    return command, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_lines_are_commands_that_exist(page: Path):
    for words in lines_of(page):
        command, arguments = command_of(words)
        made = command.make_context(command.name, list(arguments))  # refuses what it does not know
        for change in made.params.get("set_") or ():
            assert_key(change.partition("=")[0], change)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_sentences_exist(page: Path):
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    for call in re.findall(r"`isthmus ([a-z][^`]*)`", prose):
        words = re.sub(r"\s+", " ", call).split(" ")
        if words[0] == "COMMAND":
            continue
        command, arguments = command_of(words)
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        for word in arguments:
            assert not word.startswith("-") or word in known | {"-"}, call


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_in_sentences_exist(page: Path):
    if (
        page.name == "config.md"
    ):  # test_config_page.py reads it, with the keys that it shows to be refused
        return
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    for key in re.findall(
        r"`(?:--set )?((?:data|model|train)\.[a-z_.]+[a-z_])(?:[=:][^`]*)?`", prose
    ):
        if key not in NO_KEYS:
            assert_key(key, f"{page.name}: {key}")


def assert_key(path: str, told: str) -> None:
    """A dotted key leads from the config to a field, through any member of a family on its way."""
    if path.startswith("data.features."):
        return  # a column of the reader
    models: set[type[BaseModel]] = {Config}
    for name in path.split("."):
        fields = [model.model_fields[name] for model in models if name in model.model_fields]
        assert fields, f"no key {path}: {told}"
        models = {part for field in fields for part in sections(field.annotation, field.metadata)}


def sections(kind: Any, metadata: Any = ()) -> Iterator[type[BaseModel]]:
    """The sections that a key may hold."""
    del metadata
    if isinstance(kind, type) and issubclass(kind, Section | Member):
        yield kind
    for part in get_args(kind):
        yield from sections(part)


# What stands in the pages of Python.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_python_blocks_exist(page: Path):
    """Also of the few blocks that are not run, because they take hours, Spark or several machines."""
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isthmus"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert getattr(module, alias.name, None) is not None, (node.module, alias.name)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "isthmus":
                found = importlib.import_module("isthmus")
                assert node.attr in found.__all__ or importlib.import_module(f"isthmus.{node.attr}")
