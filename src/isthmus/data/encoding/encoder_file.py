"""The encoder on disk: ``encoder.json``, files for each vocabulary, what is taught."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from isthmus.data.encoding import older
from isthmus.data.encoding.clock import Clock
from isthmus.data.encoding.counted.trial import CrossTrial
from isthmus.data.encoding.growth import Growth
from isthmus.data.encoding.lookup.vocabulary_file import (
    inside,
    is_large,
    load_values,
    save_values,
)
from isthmus.data.encoding.numbers.bins import check_edges
from isthmus.data.encoding.numbers.fitted import AnyScaler, scaler_of
from isthmus.data.encoding.taught import Taught
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.tables.fingerprint import blake2
from isthmus.errors import BundleError
from isthmus.schema import DataConfig, FittedField, Numeric, Time

VERSION = 4
# In 1 a number's key followed its type (`older`); 2 taught nothing; 3 had no quantiles, bins or attention.
GROWN = 5  # of an encoder that domains or ids came to after its fit
MAPPED = 6  # of an encoder with a vocabulary that is mapped
READ = (1, 2, 3, 4, GROWN, MAPPED)
_FILE = "encoder.json"
_TAUGHT = "taught"  # how the names of its files begin


def save(
    folder: Path,
    *,
    config: DataConfig,
    domains: Sequence[str],
    domain_kind: str,
    scalers: Mapping[str, AnyScaler],
    vocabularies: Mapping[str, Vocabulary],
    crosses: Sequence[CrossTrial],
    taught: Taught,
    bins: Mapping[str, Sequence[float]],
    clocks: Mapping[str, Clock],
    growth: Growth | None,
) -> None:
    """Write the parts of an encoder. `load` and `load_taught` give them back."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {}
    for i, (name, vocabulary) in enumerate(vocabularies.items()):
        entry: dict[str, Any] = {"kind": vocabulary.kind, "hash_buckets": vocabulary.hash_buckets}
        if vocabulary.hash_buckets is None:
            entry |= save_values(folder, f"vocabulary-{i}", vocabulary)
        described[name] = entry
    version = VERSION if growth is None else GROWN
    version = MAPPED if has_mapped(vocabularies) else version
    content: dict[str, Any] = {
        "version": version,
        "config": config.model_dump(mode="json"),
        "domains": list(domains),
        "domain_kind": domain_kind,
        "scalers": {name: asdict(scaler) for name, scaler in scalers.items()},
        "bins": {name: list(edges) for name, edges in bins.items()},
        "vocabularies": described,
        "crosses": [asdict(trial) for trial in crosses],
    }
    if clocks:  # an encoder without times is written as it was before there were clocks
        content["clocks"] = {name: clock.to_entry() for name, clock in clocks.items()}
    if growth is not None:
        content["growth"] = growth.to_entry()
    written = taught.save(folder / _TAUGHT)
    content["taught"] = {path.name: blake2(path) for path in written}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / _FILE).write_text(text, encoding="utf-8")


def has_mapped(vocabularies: Mapping[str, Vocabulary]) -> bool:
    """Whether `save` writes a vocabulary that `load` maps rather than reads."""
    return any(map(is_large, vocabularies.values()))


def load(folder: Path) -> dict[str, Any]:
    """Read the parts of an encoder; ``BundleError`` where they are damaged or of another version."""
    path = folder / _FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] not in READ:
            raise BundleError(
                f"encoder must be of version {VERSION}, got {content['version']} in {path}"
            )
        if content["version"] == 1:
            content["domains"] = older.domain_names(content["domains"], content["domain_kind"])
        config = DataConfig.model_validate(content["config"])
        crosses = tuple(CrossTrial(**trial) for trial in content.get("crosses", ()))
        if tuple((trial.left, trial.right) for trial in crosses) != config.crosses:
            raise ValueError("crosses must be those of the config")
        vocabularies = {
            name: _vocabulary(folder, entry, content["version"])
            for name, entry in content["vocabularies"].items()
        }
        domains = tuple(content["domains"])
        growth = None
        if "growth" in content:
            growth = Growth.of_entry(content["growth"], vocabularies, len(domains))
        return {
            "config": config,
            "domains": domains,
            "domain_kind": content["domain_kind"],
            "crosses": crosses,
            "scalers": {name: scaler_of(entry) for name, entry in content["scalers"].items()},
            "bins": {
                name: check_edges(name, content["bins"][name])
                for name, feature in config.features.items()
                if isinstance(feature, Numeric) and feature.embedding == "piecewise"
            },
            "clocks": {
                name: Clock.of_entry(name, feature, content["clocks"][name])
                for name, feature in config.features.items()
                if isinstance(feature, Time)
            },
            "vocabularies": vocabularies,
            "growth": growth,
        }
    except OSError as fault:
        raise BundleError(f"encoder cannot be read: {fault}") from fault
    except (KeyError, TypeError, ValueError, ValidationError, pa.ArrowException) as fault:
        raise BundleError(f"encoder is damaged in {path}: {fault}") from fault


def load_taught(
    folder: Path,
    fields: Sequence[FittedField],
    negative_rate: float,
    growth: Growth | None,
) -> Taught:
    """Read what the train rows of an encoder with these fields taught.

    Raises ``BundleError`` where a file is missing, damaged, or of other columns; ``ConfigError``
    where LightGBM is missing.
    """
    try:
        taught = json.loads((folder / _FILE).read_text(encoding="utf-8")).get("taught", {})
        for name, digest in taught.items():
            if blake2(inside(folder, name)) != digest:
                raise BundleError(
                    f"encoder must be unchanged since it was written, got other in {folder / name}"
                )
        return Taught.load(folder / _TAUGHT, fields, negative_rate, growth)
    except (OSError, ValueError) as fault:
        raise BundleError(f"encoder is damaged in {folder}: {fault}") from fault


def _vocabulary(folder: Path, entry: Mapping[str, Any], version: int) -> Vocabulary:
    kind, buckets = entry["kind"], entry["hash_buckets"]
    if buckets is not None:
        if version == 1 and kind in older.REHASHED:
            raise BundleError(
                f"encoder of version 1 must hash no {kind} values, got some in {folder}: such values"
                " hash otherwise now, so fit again"
            )
        return Vocabulary(kind, pa.array([], pa.int64()), buckets)
    values, index = load_values(folder, entry)
    if version == 1:
        kind, values = older.vocabulary(kind, values)
    return Vocabulary(kind, values, index=index)
