"""A bundle as an MLflow model: ``mlflow.pyfunc.load_model`` gives its scores. No pickle and no code.

MLmodel                 which module loads the bundle, signature, versions
data/bundle/            the bundle as it is
input_example.json      rows that the model takes, made of its vocabularies; no row of a table
requirements.txt        and what else MLflow writes to build an environment
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.bundle import Bundle, is_bundle
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.roles import DOMAIN, needed, vocabulary_name
from isthmus.data.tables.kinds import BOTH_SIGNS
from isthmus.disk import check_place, whole_folder, writing
from isthmus.errors import ConfigError, RunError
from isthmus.run.folder import RunFolder
from isthmus.schema import Categorical, CategoricalList, NumericList, Time, Vector
from isthmus.version import VERSION

MARK = "MLmodel"
LOADER = "isthmus.exporting.pyfunc_model"
EXAMPLES = 3  # rows

# What MLflow calls the values of a kind. It has no type for decimals, and takes floats for them.
_TYPES: Mapping[str, str] = {
    "string": "string",
    "integer": "long",
    BOTH_SIGNS: "long",
    "floating": "double",
    "decimal": "double",
    "boolean": "boolean",
    "binary": "binary",
    "date": "datetime",
    "timestamp": "datetime",
}
_PLAIN: Mapping[str, Any] = {
    "string": "a",
    "long": 1,
    "double": 1.0,
    "boolean": True,
    "binary": b"a",
    "datetime": np.datetime64("2024-01-01T12:00:00", "ns"),
}


def mlflow_package(run: str | Path, out: str | Path | None = None) -> Path:
    """Write a run's bundle as an MLflow model, whole or not at all. Give the folder.

    ``run``: the folder of a run or of a bundle. ``out``: the folder to write, ``RUN/mlflow`` by
    default; an MLflow model in it is replaced.

    Raises ConfigError without the extra ``mlflow``, BundleError where the bundle is damaged or must not
    be served, RunError where the folder cannot be written.
    """
    _check_libraries()
    from mlflow import pyfunc
    from mlflow.models import ModelSignature

    bundled = is_bundle(Path(run))
    source = Path(run) if bundled else RunFolder(Path(run)).bundle
    bundle = Bundle.load(source)
    if out is None and bundled:
        raise RunError("the package of a bundle needs a folder to write, got none")
    folder = Path(run) / "mlflow" if out is None else Path(out)
    inputs, outputs = _schemas(bundle.encoder)
    example = _example(bundle.encoder)
    bundle.score(example)  # what the signature says is what the bundle takes
    with writing("folder", folder):
        check_place(folder)
        if folder.exists() and not (folder / MARK).is_file():
            raise RunError(
                f"folder to write must not exist yet, or hold an MLflow model, got {folder}"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as place:
            pyfunc.save_model(
                place,
                loader_module=LOADER,
                data_path=str(source),
                signature=ModelSignature(inputs=inputs, outputs=outputs),
                input_example=example,
                pip_requirements=_requirements(bundle),
            )
    return folder


def _check_libraries() -> None:
    """Raise ConfigError where a library of the extra is missing."""
    for name in ("mlflow", "pandas"):
        if find_spec(name) is None:
            raise ConfigError(
                f"a package for MLflow needs {name}, which is not installed:"
                " pip install 'isthmus[mlflow]'"
            )


def _requirements(bundle: Bundle) -> list[str]:
    """What an environment needs to load the package: the versions that wrote it."""
    features = bundle.config.data.features.values()
    extras = ["mlflow"]
    if any(field.kind == "trees" for field in bundle.encoder.fields):
        extras.append("trees")
    if any(getattr(one, "embedding", "none") != "none" for one in features):
        extras.append("numbers")
    torch_version = torch.__version__.split("+")[0]  # a build's own name is in no registry
    return [f"isthmus[{','.join(extras)}]=={VERSION}", f"torch=={torch_version}"]


def _schemas(encoder: Encoder) -> tuple[Any, Any]:
    """The columns that a row needs, and the scores."""
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Schema, TensorSpec

    columns = []
    for name in needed(encoder.config, roles=()):
        word, listed = _type_of(encoder, name)
        dtype: Any = AnyType() if word is None else DataType[word]
        if listed and word is not None:
            dtype = Array(dtype)
        # MLflow takes a null list for a column that need not be there. The bundle wants the column.
        columns.append(ColSpec(dtype, name, required=not listed))
    return Schema(columns), Schema([TensorSpec(np.dtype("float64"), (-1,))])


def _type_of(encoder: Encoder, name: str) -> tuple[str | None, bool]:
    """MLflow's word for the values of a column, None for nulls only; whether it holds lists of them."""
    config, kinds = encoder.config, encoder.kinds
    feature = config.features.get(name)
    if name == config.domain or feature is None:
        return _TYPES.get(kinds[DOMAIN]), False
    if isinstance(feature, Categorical | CategoricalList):
        kind = kinds[vocabulary_name(config, name)]
        return _TYPES.get(kind), isinstance(feature, CategoricalList)
    if isinstance(feature, Time):
        return "datetime" if feature.unit is None else "long", False
    return "double", isinstance(feature, NumericList | Vector)


def _example(encoder: Encoder) -> Any:
    """A few rows of the most frequent values, as a frame of pandas."""
    import pandas as pd

    rows = range(EXAMPLES)
    columns: dict[str, list[Any]] = {}
    for name in needed(encoder.config, roles=()):
        word, listed = _type_of(encoder, name)
        feature = encoder.config.features.get(name)
        values = _values(encoder, name, word)
        if isinstance(feature, Vector):
            columns[name] = [[0.0] * feature.width for _ in rows]
        elif listed:
            columns[name] = [values[: 1 + row] for row in rows]
        else:
            columns[name] = [values[row % len(values)] for row in rows]
    return pd.DataFrame(columns)


def _values(encoder: Encoder, name: str, word: str | None) -> list[Any]:
    """Values of a column: those of its vocabulary where they are texts or integers, else any."""
    config = encoder.config
    if word is None:
        return [None]
    if name == config.domain and word in ("string", "long"):
        return [int(text) if word == "long" else text for text in encoder.domains[:EXAMPLES]]
    if isinstance(config.features.get(name), Categorical | CategoricalList):
        held = encoder.vocabularies[vocabulary_name(config, name)].values
        if word in ("string", "long") and len(held):
            return held[:EXAMPLES].to_pylist()
    return [_PLAIN[word]]
