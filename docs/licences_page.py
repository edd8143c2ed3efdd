"""Write docs/licences.md, the licence of every package that isthmus brings along: ``make licences``.

The packages are those that pyproject.toml asks for, for isthmus itself and for the extras of users, and
all that these ask for in turn. A licence is read from the metadata that a package was installed with. A
package without one, or with one that is not on the list below, is refused by name.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from isthmus.doctor.installed import OF_DEVELOPERS

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("licences.md")
# Each may be used, changed and passed on beside a package under Apache-2.0, by a company too.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD",  # that of two or of three clauses: the metadata does not say which
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "HPND",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",  # changes of its own files must stay open; it asks nothing of what stands beside it
    "PSF-2.0",
    "Python-2.0",
    "Unlicense",
    "Zlib",
}
# What packages call these licences that name them in words.
_WORDS = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd license": "BSD",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "the mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "psf": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
}
HEAD = """# Licences

`make licences` writes this page, from the metadata of the packages as they are installed. Isthmus itself stands under
Apache-2.0. `for` names what brings a package along: isthmus itself, or an extra. A test refuses a package whose licence
is not known, or not one of {allowed}.

A CUDA build of torch brings packages of NVIDIA along, which have terms of NVIDIA's own. They are not listed here.

| package | licence | for |
|---|---|---|
"""


@dataclass(slots=True)
class Licensed:
    """One package. ``licence``: an SPDX expression, empty where none is known. ``uses``: who wants it."""

    name: str
    licence: str
    uses: list[str] = field(default_factory=list)

    @property
    def is_allowed(self) -> bool:
        """Whether each licence that applies is on the list; of a choice, whether one is."""
        return bool(self.licence) and all(
            any(one.strip(" ()") in ALLOWED for one in re.split(r"\bOR\b", part))
            for part in re.split(r"\bAND\b", self.licence)
        )


def licence_of(package: Distribution) -> str:
    """The licence of an installed package as an SPDX expression; empty where its metadata has none."""
    about = package.metadata
    if expression := about.get_all("License-Expression"):
        return expression[0]
    named = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    short = (about.get_all("License") or [""])[0].strip()
    if "\n" not in short and _spdx(short) in ALLOWED:
        return _spdx(short)  # classifiers do not tell one BSD licence from another
    return " AND ".join(dict.fromkeys(map(_spdx, named))) or ("" if "\n" in short else short)


def _spdx(words: str) -> str:
    plain = re.sub(r"[\s,]+", " ", words.replace('"', "")).strip().lower()
    known = {licence.lower(): licence for licence in ALLOWED}
    return _WORDS.get(plain) or known.get(plain) or words


def wanted() -> dict[str, list[str]]:
    """What pyproject.toml asks for: requirements for ``isthmus`` and for each extra of users."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return {"isthmus": project["dependencies"]} | {
        name: lines for name, lines in extras.items() if name not in OF_DEVELOPERS
    }


def licensed() -> list[Licensed]:
    """All packages that are brought along and are installed here, by name."""
    found: dict[str, Licensed] = {}
    for use, lines in wanted().items():
        for name in dict.fromkeys(_brought(lines)):
            package = _installed(name)
            if package is None or name.startswith("nvidia-"):
                continue
            one = found.setdefault(name, Licensed(name, licence_of(package)))
            one.uses.append(use)
    return [found[name] for name in sorted(found)]


def _brought(lines: list[str]) -> Iterator[str]:
    """The names of what the requirements bring along, each as often as it is asked for first."""
    left, seen = [(Requirement(line), "") for line in lines], set()
    while left:
        asked, extra = left.pop()
        name = canonicalize_name(asked.name)
        if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
            continue
        for of in ("", *asked.extras):
            if (name, of) in seen:
                continue
            seen.add((name, of))
            yield name
            package = _installed(name)
            for line in (package.requires if package is not None else None) or []:
                left.append((Requirement(line), of))


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def page(found: list[Licensed]) -> str:
    """The page as it must be."""
    allowed = ", ".join(f"`{name}`" for name in sorted(ALLOWED))
    rows = [
        f"| {one.name} | {one.licence} | {'isthmus' if 'isthmus' in one.uses else ', '.join(one.uses)} |"
        for one in found
    ]
    return HEAD.format(allowed=allowed) + "\n".join(rows) + "\n"


def refused(found: list[Licensed]) -> list[str]:
    """A sentence on each package whose licence is not known or not allowed."""
    return [
        f"{one.name}: licence {one.licence!r} is not allowed"
        if one.licence
        else f"{one.name}: its metadata names no licence"
        for one in found
        if not one.is_allowed
    ]


def main() -> None:
    """Write the page; end with the packages that are refused, where there are any."""
    found = licensed()
    if told := refused(found):
        raise SystemExit("\n".join(told))
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
