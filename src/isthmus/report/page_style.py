"""The style that all pages share."""

from importlib.resources import files

from markupsafe import Markup


def page_style() -> Markup:
    """Give the style sheet: light and dark, and print."""
    return Markup((files("isthmus.report") / "templates" / "style.css").read_text("utf-8"))
