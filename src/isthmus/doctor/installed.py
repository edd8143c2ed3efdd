"""The packages that isthmus asks for, by the metadata that was installed with it."""

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

# Extras for whoever works on isthmus, not for whoever works with it.
OF_DEVELOPERS = ("dev", "docs", "peers")
# Modules that are not called like their package.
_MODULES = {"pyyaml": "yaml", "mlflow-skinny": "mlflow"}
_ASKED = re.compile(r"(?P<name>[\w.-]+)(?:\[[^\]]*\])?\s*(?P<bounds>[^;]*)(?:;\s*(?P<marker>.*))?")
_EXTRA = re.compile(r"extra\s*==\s*[\"']([\w-]+)[\"']")


@dataclass(frozen=True, slots=True)
class Asked:
    """One package that isthmus asks for. ``extra``: for which extra, empty for isthmus itself.

    ``bounds``: such as ``>=2.0``. ``version``: the installed one, empty where there is none.
    """

    name: str
    bounds: str
    extra: str
    version: str

    @property
    def module(self) -> str:
        """The module that is imported."""
        return _MODULES.get(self.name.lower(), self.name.replace("-", "_"))

    @property
    def is_too_old(self) -> bool:
        """Whether the installed version is below the lower bound."""
        lowest = re.search(r"[>=~]=\s*([\w.+]+)", self.bounds)
        if lowest is None or not self.version:
            return False
        return _numbers(self.version) < _numbers(lowest[1])


def _numbers(text: str) -> tuple[int, ...]:
    """The release numbers of a version; what comes after ``+`` or a letter does not count.

    >>> _numbers("2.13.0+cpu") < _numbers("2.14")
    True
    """
    release = re.match(r"[\d.]*", text)
    numbers = [int(part) for part in (release[0] if release else "").split(".") if part]
    return tuple(numbers + [0] * (4 - len(numbers)))


def asked() -> tuple[Asked, ...]:
    """What isthmus asks for, for itself first; nothing where isthmus was not installed."""
    try:
        lines = requires("isthmus") or []
    except PackageNotFoundError:
        return ()
    return tuple(map(_asked, lines))


def _asked(line: str) -> Asked:
    found = _ASKED.match(line)
    assert found is not None
    extra = _EXTRA.search(found["marker"] or "")
    return Asked(
        name=found["name"],
        bounds=found["bounds"].strip(),
        extra="" if extra is None else extra[1],
        version=version_of(found["name"]),
    )


def version_of(name: str) -> str:
    """The installed version of a package, empty where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
