"""What a page of the site must not hold: an address that a browser asks a foreign host for when it shows the page."""

import re

_ASKED = re.compile(
    r"<(?:script|img|iframe|source|audio|video|embed)\b[^>]*?\bsrc=[\"']?((?:https?:)?//[^\s\"'>]+)"
    r"|<link\b(?![^>]*\brel=[\"']?canonical)[^>]*?\bhref=[\"']?((?:https?:)?//[^\s\"'>]+)"
    r"|\burl\([\"']?((?:https?:)?//[^\s\"')]+)"
)


def foreign_request(html: str) -> str | None:
    """The first such address, or none. A link that a reader may follow is no request.

    >>> foreign_request('<a href="https://example.org">there</a> <img src="pages/one.png">')
    >>> foreign_request('<script src="https://example.org/a.js"></script>')
    'https://example.org/a.js'
    """
    found = _ASKED.search(html)
    return None if found is None else next(filter(None, found.groups()))
