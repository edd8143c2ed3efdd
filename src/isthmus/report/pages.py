"""What all pages share: how a template is read and drawn, and the style."""

from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element, tostring

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup


def page_template(package: str, name: str) -> Template:
    """Give a template of a package's folder ``templates``. Text is escaped, and charts are drawn."""
    env = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_drawn,
    )
    return env.get_template(name)


def page_style() -> Markup:
    """Give the style sheet: light and dark, and print."""
    return Markup((files("isthmus.report") / "templates" / "style.css").read_text("utf-8"))


def _drawn(value: Any) -> Any:
    """A chart as SVG; every other value as the value stands."""
    return Markup(tostring(value, "unicode")) if isinstance(value, Element) else value
