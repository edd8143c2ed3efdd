"""What is answered to a request: which addresses there are, what is refused, and every header.

A page of another site could ask a server on loopback through the reader's browser. So the Host must be
an address or a name of this machine (a name that somebody rebinds is neither), and requests that another
site causes are refused. The pages may load nothing, may ask nobody else, and may not be framed.
"""

import base64
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from isthmus.printable import printable
from isthmus.report.runs_table import runs_page
from isthmus.viewing.regular_files import Unreadable, read_regular
from isthmus.viewing.runs_folder import RunsFolder
from isthmus.viewing.ticked_runs import TickedRuns

MOST_BYTES = 256 << 20  # of a page that lies in a folder
FIELDS = 200  # of a query
HTML, TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"
OWN = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'; script-src {scripts}"
)
# A page from a folder may be anybody's: it runs in an origin of its own, where it reaches nothing here.
LYING = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:;"
    " form-action 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox allow-scripts allow-downloads"
)
ALWAYS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer."""

    status: int
    body: bytes
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """News from a version on, as server-sent events."""

    since: int | None  # None: of another server


class ViewAnswers:
    """Answers requests for one folder. ``host``: the name under which the server was asked to listen."""

    def __init__(self, folder: RunsFolder, host: str) -> None:
        self.folder = folder
        self.ticked = TickedRuns(folder)
        self.names = {"localhost", host.lower()}

    def answer(self, method: str, target: str, headers: Mapping[str, list[str]]) -> Answer | Stream:
        """Answer one request. ``target``: path and query. ``headers``: values by lower-case name."""
        if (refused := self._refused(method, headers)) is not None:
            return refused
        try:
            parts = urlsplit(target)
            query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=FIELDS)
        except ValueError:
            return Answer(400, b"the address cannot be read\n")
        if parts.scheme or parts.netloc or not parts.path.startswith("/"):
            return Answer(400, b"the address must be a path of this server\n")
        path = parts.path[1:]
        if path == "":
            return self._table()
        if path == "events":
            return self._events(query, headers)
        if path == "compare":
            first = query.get("first", [""])[0]
            split = query.get("split", ["test"])[0]
            status, page = self.ticked.page(query.get("run", []), split, first)
            return _own_page(page, status)
        if path.startswith("pages/"):
            return self._page(path)
        return _missing(path)

    def _refused(self, method: str, headers: Mapping[str, list[str]]) -> Answer | None:
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            told = "this server answers to an IP address or localhost, got Host "
            shown = printable(", ".join(hosts))[:100]
            return Answer(421, f"{told}{shown!r}\n".encode())
        if method not in ("GET", "HEAD"):
            return Answer(
                405, b"this server only reads: GET and HEAD\n", headers={"Allow": "GET, HEAD"}
            )
        # A reader may follow a link from anywhere; another site's script or image may ask nothing.
        site = headers.get("sec-fetch-site", ["none"])[0]
        navigates = headers.get("sec-fetch-mode", [""])[0] == "navigate"
        if site not in ("none", "same-origin") and not navigates:
            return Answer(403, b"another site asked\n")
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host is this machine by address, localhost, or the name that was asked for."""
        found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?", host)
        if found is None:
            return False
        name = found[1].lower().strip("[]")
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    def _table(self) -> Answer:
        seen = self.folder.look()
        page = runs_page(
            list(seen.rows.values()),
            seen.pages,
            folder=self.folder.name,
            version=f"{self.folder.token}.{seen.version}",
            cut=seen.cut,
        )
        return _own_page(page)

    def _events(
        self, query: Mapping[str, list[str]], headers: Mapping[str, list[str]]
    ) -> Answer | Stream:
        # A browser that comes back after a break says what it got last.
        told = headers.get("last-event-id", query.get("since", [""]))[0]
        token, _, version = told.partition(".")
        known = token == self.folder.token and re.fullmatch(r"\d{1,9}", version) is not None
        return Stream(int(version) if known else None)

    def _page(self, path: str) -> Answer:
        """A page that lies in a folder: one that the walk found, by the very address it was given."""
        file = self.folder.look().served.get(path)
        if file is None or self.folder.file_of(file) is None:
            return _missing(path)
        content = read_regular(file, MOST_BYTES)
        if isinstance(content, Unreadable):
            return _missing(path)
        return Answer(200, content, HTML, {"Content-Security-Policy": LYING})


def _missing(path: str) -> Answer:
    return Answer(404, f"nothing is served at {printable(path)[:200]!r}\n".encode())


def _own_page(page: str, status: int = 200) -> Answer:
    """A page made here. Its scripts are known by their hashes, so that no other script runs."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts)
    policy = OWN.format(scripts=" ".join(f"'sha256-{one}'" for one in hashes))
    return Answer(status, page.encode(), HTML, {"Content-Security-Policy": policy})
