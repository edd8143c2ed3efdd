"""Where the results of a table lie. The folders' names hold a key of what decides a result.

The key holds the resolved config without the seed, the content of the table, the versions of the
encoding and of trainings, which are raised where numbers change, and the versions of the libraries that
train. So a result of another config, table or arithmetic is never met.
"""

import ast
import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import isthmus
from bench.accuracy.contestants import (
    PLAIN_FOREST,
    RECIPES,
    TOLD_FOREST,
    TRIALS,
    TUNED,
    Recipe,
    config_of,
    written_by_init,
)
from bench.accuracy.tables import Subject
from isthmus.config import Config
from isthmus.data.store import passes
from isthmus.disk import sha256
from isthmus.experiments import training

FOREST_CODE = Path(__file__).with_name("forests.py")
SEARCH_CODE = Path(isthmus.__file__).with_name("tuning")
LIBRARIES = ("torch", "numpy", "lightgbm", "optuna")
# A forest alone reads a table as one of the networks without trees does.
READ_AS = {PLAIN_FOREST: RECIPES[2], TOLD_FOREST: RECIPES[1]}


@dataclass(frozen=True)
class Shelf:
    """All places of one subject below ``folder``."""

    folder: Path
    subject: Subject

    @cached_property
    def written(self) -> dict[str, Any]:
        """What ``init`` writes for this table."""
        return written_by_init(self.subject)

    @property
    def cache(self) -> Path:
        """Where encoded tables are kept."""
        return self.folder / "cache"

    def config(self, recipe: Recipe, seed: int = 0) -> Config:
        """The config of a network."""
        return config_of(self.written, recipe, seed)

    def encoding(self, recipe: Recipe) -> Path:
        """The note of what the encoding of a network took."""
        key = encoding_key(self.subject, self.config(recipe))
        return self.folder / "encodings" / self.subject.name / key

    def network(self, recipe: Recipe, seed: int) -> Path:
        """The run folder of a network."""
        key = key_of(self.subject, self.config(recipe), training.VERSION)
        return self._root(recipe.name, key) / f"seed-{seed}"

    def forest(self, name: str, settings: dict[str, Any]) -> Path:
        """The folder of LightGBM alone, by its settings."""
        config = self.config(READ_AS.get(name, RECIPES[0]))
        code = code_digest(FOREST_CODE)
        return self._root(name, key_of(self.subject, config, settings, code))

    def tuned(self) -> Path:
        """The folder of a study of ``tune`` and of the runs with its best config."""
        more = (TRIALS, code_digest(SEARCH_CODE), training.VERSION)
        return self._root(TUNED, key_of(self.subject, self.config(RECIPES[0]), *more))

    def _root(self, name: str, key: str) -> Path:
        slug = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
        return self.folder / "runs" / self.subject.name / f"{slug}-{key}"


def key_of(subject: Subject, config: Config, *more: Any) -> str:
    """The key of a training of this config, whatever its seed. ``more``: what else decides."""
    content = {
        "data": config.data.content(),
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude={"seed"}),
        "more": more,
        **_surroundings(Path(subject.data["table"])),
    }
    return _digest(content)


def encoding_key(subject: Subject, config: Config) -> str:
    """The key of an encoded table."""
    table = Path(subject.data["table"])
    return _digest({"data": config.data.content(), **_surroundings(table)})


def _surroundings(table: Path) -> dict[str, Any]:
    return {
        "table": _hash_of(table),
        "encoding": passes.VERSION,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@cache
def _hash_of(table: Path) -> str:
    return sha256(table)


@cache
def code_digest(place: Path) -> str:
    """A digest of a file's code, or of all below a folder, without comments and docstrings."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        code = _bare(path.read_text(encoding="utf-8"))
        digest.update(f"{path.relative_to(place.parent)}\n{code}\n".encode())
    return digest.hexdigest()


def _bare(source: str) -> str:
    """The code without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)
