"""The lowest versions that are tested are those that pyproject.toml claims, and so are the Pythons."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from isthmus.doctor.examination import PYTHONS
from licences_page import wanted

ROOT = Path(__file__).parents[1]
LOWEST = ROOT / "tests" / "lowest.txt"


def pins(file: Path) -> dict[str, Version]:
    """Each version by the package's name in its one spelling."""
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("==")[::2] for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def bounds() -> dict[str, Version]:
    """The lower bound of each package that isthmus or an extra of users asks for."""
    found: dict[str, Version] = {}
    for line in (line for lines in wanted().values() for line in lines):
        asked = Requirement(line)
        (bound,) = asked.specifier
        assert bound.operator == ">=", line
        name, version = canonicalize_name(asked.name), Version(bound.version)
        assert found.setdefault(name, version) == version, f"{name} has two lower bounds"
    return found


def test_the_lowest_pins_are_the_lower_bounds():
    lowest = pins(LOWEST)
    assert {name: lowest.get(name) for name in bounds()} == bounds()


def test_the_tested_versions_are_within_the_bounds():
    tested = pins(ROOT / "constraints.txt")
    for name, bound in bounds().items():
        assert tested[name] >= bound, name


def test_the_extras_of_developers_ask_for_no_less():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked: dict[str, str] = {
        canonicalize_name(Requirement(line).name): line
        for line in project["optional-dependencies"]["dev"]
    }
    for name, bound in bounds().items():
        if name in asked and "==" not in asked[name]:
            assert Version(asked[name].partition(">=")[2]) == bound, name


def test_the_pythons_that_are_named_are_one_list():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    low, high = PYTHONS
    assert named == [f"3.{minor}" for minor in range(low[1], high[1] + 1)]
    assert project["requires-python"] == f">=3.{low[1]}"
