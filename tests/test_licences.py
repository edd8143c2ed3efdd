"""Every package that isthmus brings along has a licence that is known and allowed."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from licences_page import PAGE, Licensed, licence_of, licensed, refused, wanted


@pytest.fixture(scope="module")
def found() -> dict[str, Licensed]:
    return {one.name: one for one in licensed()}


def test_no_package_is_refused(found: dict[str, Licensed]):
    assert refused(list(found.values())) == []


def test_the_page_names_every_package_that_is_asked_for(found: dict[str, Licensed]):
    text = PAGE.read_text(encoding="utf-8")
    asked = {
        canonicalize_name(Requirement(line).name) for lines in wanted().values() for line in lines
    }
    assert asked <= set(found)
    for name in asked:
        assert f"| {name} | {found[name].licence} | " in text


def test_what_is_not_known_or_not_allowed_is_refused_by_name():
    told = refused(
        [
            Licensed("plain", "MIT"),
            Licensed("choice", "GPL-3.0-only OR MIT"),
            Licensed("both", "Apache-2.0 AND GPL-3.0-only"),
            Licensed("none", ""),
            Licensed("long", "Apache-2.0 WITH LLVM-exception"),
        ]
    )
    assert told == [
        "both: licence 'Apache-2.0 AND GPL-3.0-only' is not allowed",
        "none: its metadata names no licence",
    ]


class Package:
    """A package with this metadata."""

    def __init__(self, text: str, folder: Path) -> None:
        from importlib.metadata import PathDistribution

        made = folder / "a-1.dist-info"
        made.mkdir()
        (made / "METADATA").write_text(f"Metadata-Version: 2.4\nName: a\nVersion: 1\n{text}")
        self.distribution = PathDistribution(made)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("License-Expression: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        (
            "License: BSD 3-Clause License\nClassifier: License :: OSI Approved :: BSD License\n",
            "BSD-3-Clause",
        ),
        ("Classifier: License :: OSI Approved :: MIT License\n", "MIT"),
        ("License: Apache License, Version 2.0\n", "Apache-2.0"),
        ("License: Our Own Terms\n", "Our Own Terms"),
        ("License: Copyright\n        all of it\n", ""),
        ("", ""),
    ],
)
def test_a_licence_is_read_from_the_metadata(text: str, licence: str, tmp_path: Path):
    assert licence_of(Package(text, tmp_path).distribution) == licence
