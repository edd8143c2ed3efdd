"""A training state on disk: safetensors and JSON, complete or not there at all; no pickle.

    FOLDER/checkpoint.json                 numbers, history, shape of the state; names the other file
    FOLDER/tensors-<random>.safetensors    every tensor

The tensors are written first, under a temporary name. Then ``checkpoint.json`` is replaced. At that
moment the new state takes the place of the former state. Both files carry a sha256. Whatever stops
the writer, the folder holds the former state or the new state. The next save clears what was left
lying.
"""

import hashlib
import json
import uuid
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isthmus.disk import remove_leftovers, sha256, whole_file, write_whole
from isthmus.errors import BundleError, RunError
from isthmus.train.events import Look, TrainState

FORMAT = 4  # 3: with objectives; 4: with a method and phases; an older file has none
READ = (2, 3, 4)
FILE = "checkpoint.json"


def exists(folder: str | Path) -> bool:
    """Tell whether ``folder`` holds a checkpoint, sound or not."""
    return (Path(folder) / FILE).exists()


def save(folder: str | Path, state: TrainState) -> None:
    """Write ``state`` into ``folder`` in place of the state that the folder holds.

    A missing folder is made. Raises RunError when the disk does not take the state; the former state
    is then still there.
    """
    folder = Path(folder)
    tensors: dict[str, Tensor] = {}
    tree = {
        field.name: _take_tensors(getattr(state, field.name), field.name, tensors)
        for field in fields(state)
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder, keep=_tensor_file(folder))
        file = folder / f"tensors-{uuid.uuid4().hex}.safetensors"
        with whole_file(file) as temporary:
            save_file(tensors, temporary)
        body = json.dumps({"tensors": file.name, "tensors_sha256": sha256(file), "state": tree})
        content = {"format": FORMAT, "sha256": _checksum(body), "body": body}
        write_whole(folder / FILE, json.dumps(content))
        _clear(folder, keep=file.name)
    except (OSError, SafetensorError) as error:
        raise RunError(f"a checkpoint must be writable at {folder}, got: {error}") from error


def load(folder: str | Path) -> TrainState:
    """Read the state that ``folder`` holds. The tensors of the state are on the CPU.

    Raises BundleError, naming the file, when the checkpoint is missing, damaged or of another format.
    """
    folder = Path(folder)
    file = folder / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] not in READ:
            raise BundleError(
                f"a checkpoint must have format {READ[0]} to {READ[-1]}, got {content['format']}"
                f" in {file}"
            )
        if _checksum(content["body"]) != content["sha256"]:
            raise BundleError(f"the checksum of a checkpoint must match, but {file} is damaged")
        body = json.loads(content["body"])
    except FileNotFoundError as error:
        raise BundleError(f"a folder with a checkpoint must hold {FILE}, got {folder}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"a checkpoint must be readable, but {file} is damaged") from error
    file = folder / body["tensors"]
    try:
        if sha256(file) != body["tensors_sha256"]:
            raise BundleError(f"the checksum of a checkpoint must match, but {file} is damaged")
        tensors = load_file(file)
    except FileNotFoundError as error:
        raise BundleError(f"a checkpoint must be complete, but {file} is missing") from error
    except (OSError, SafetensorError) as error:
        raise BundleError(f"a checkpoint must be readable, but {file} is damaged") from error
    tree = {name: _put_tensors(value, tensors) for name, value in body["state"].items()}
    tree["history"] = tuple(Look(**look) for look in tree["history"])
    return TrainState(**tree)


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a tree into ``tensors``; what is left of it can be written as JSON.

    JSON has neither tensors nor keys that are numbers, so a tensor becomes ``{"tensor": name}`` and
    a dict ``{"dict": [[key, value], ...]}``.
    """
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous()
        return {"tensor": name}
    if isinstance(value, Look):
        return asdict(value)
    if isinstance(value, dict):
        items = ((key, _take_tensors(v, f"{name}.{key}", tensors)) for key, v in value.items())
        return {"dict": [[key, item] for key, item in items]}
    if isinstance(value, list | tuple):
        return [_take_tensors(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a training state must hold tensors and plain values, got {value!r} at {name}")


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo ``_take_tensors``; tuples come back as lists."""
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "dict" in value:
        return {key: _put_tensors(item, tensors) for key, item in value["dict"]}
    return value


def _tensor_file(folder: Path) -> str | None:
    """Name of the tensor file that the present checkpoint of ``folder`` needs."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return json.loads(content["body"])["tensors"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _clear(folder: Path, keep: str | None) -> None:
    """Remove the tensor files that no checkpoint needs, and what a killed writer left."""
    remove_leftovers(folder)
    for file in folder.glob("tensors-*.safetensors"):
        if file.name != keep:
            file.unlink()


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
