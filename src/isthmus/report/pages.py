"""What all pages share: how a template is read and drawn, the frame around it, style and theme."""

from functools import cache
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element, tostring

from jinja2 import ChoiceLoader, Environment, PackageLoader, Template
from markupsafe import Markup

SHARED = "isthmus.report"


def page_template(package: str, name: str) -> Template:
    """Give a template of a package's folder ``templates``. Text is escaped, and charts are drawn.

    A page extends ``base.html.j2`` and names ``kicker``, ``file``, ``skip_to``, ``made_by`` and its
    ``chapters`` as pairs of an id and a name.
    """
    return _environment(package).get_template(name)


@cache
def _environment(package: str) -> Environment:
    """What reads a package's templates; made once, for a server draws them again and again."""
    env = Environment(
        loader=ChoiceLoader(
            [PackageLoader(package, "templates"), PackageLoader(SHARED, "templates")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_drawn,
    )
    env.globals |= {"style": page_style(), "theme": _shared("theme.js")}
    return env


def page_style() -> Markup:
    """Give the style sheet: light and dark, and print."""
    return _shared("style.css")


def _shared(name: str) -> Markup:
    return Markup((files(SHARED) / "templates" / name).read_text("utf-8"))


def _drawn(value: Any) -> Any:
    """A chart as SVG; every other value as the value stands."""
    return Markup(tostring(value, "unicode")) if isinstance(value, Element) else value
