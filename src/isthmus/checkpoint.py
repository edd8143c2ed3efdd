"""A training state on disk: safetensors and JSON, complete or not there at all; no pickle.

    FOLDER/checkpoint.json                 numbers, history, shape of the state; names the other file
    FOLDER/tensors-<random>.safetensors    every tensor
    FOLDER/shard-<random>-N.safetensors    where tables lie on several processes, what process N holds

The tensors are written first, under a temporary name. Then ``checkpoint.json`` is replaced. At that
moment the new state takes the place of the former state. All files carry a sha256. Whatever stops
the writer, the folder holds the former state or the new state. The next save clears what was left
lying.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import distributed as dist

from isthmus.disk import remove_leftovers, sha256, whole_file, write_whole
from isthmus.errors import BundleError
from isthmus.layers.tables import Box
from isthmus.sharding import HeldPart, read_shards, run_on_first, shard_names, write_shards
from isthmus.train.events import Look, TrainState

FORMAT = 4  # 3: with objectives; 4: with a method and phases; an older file has none
SHARDED = 5  # as 4, with parts of tensors in files of their own; no other state has this number
READ = (2, 3, 4, SHARDED)
FILE = "checkpoint.json"


def exists(folder: str | Path) -> bool:
    """Tell whether ``folder`` holds a checkpoint, sound or not."""
    return (Path(folder) / FILE).exists()


def save(
    folder: str | Path,
    state: TrainState,
    *,
    boxes: Mapping[str, Box] | None = None,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Write ``state`` into ``folder`` in place of the state that the folder holds.

    A missing folder is made. ``group``: the processes that hold the tables; each calls with its own
    state, and writes its part of what ``boxes`` names (`isthmus.sharding.boxes_of_state`); the first
    one writes the rest. They all see one folder. Raises RunError, on every process, when the disk does
    not take the state; the former state is then still there.
    """
    folder = Path(folder)
    tensors: dict[str, Tensor] = {}
    tree = {
        field.name: _take_tensors(getattr(state, field.name), field.name, tensors)
        for field in fields(state)
    }
    what = f"a checkpoint must be writable at {folder}"
    run_on_first(lambda: _prepare(folder), group, what)
    shards: dict[str, Any] | None = None
    if group is not None and boxes:
        parts = {n: HeldPart(tensors.pop(n), box) for n, box in boxes.items() if n in tensors}
        shards = write_shards(folder, parts, group)
    run_on_first(lambda: _write(folder, tree, tensors, shards), group, what)


def _prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder, keep=_needed_files(folder))


def _write(
    folder: Path, tree: dict[str, Any], tensors: dict[str, Tensor], shards: dict[str, Any] | None
) -> None:
    """Write what one process writes, and let the new state take the former one's place."""
    file = folder / f"tensors-{uuid.uuid4().hex}.safetensors"
    with whole_file(file) as temporary:
        save_file(tensors, temporary)
    told = {"tensors": file.name, "tensors_sha256": sha256(file), "state": tree}
    if shards is not None:
        told["shards"] = shards
    body = json.dumps(told)
    content = {"format": SHARDED if shards else FORMAT, "sha256": _checksum(body), "body": body}
    write_whole(folder / FILE, json.dumps(content))
    _clear(folder, keep=_needed_files(folder))


def load(folder: str | Path, *, boxes: Mapping[str, Box] | None = None) -> TrainState:
    """Read the state that ``folder`` holds. The tensors of the state are on the CPU.

    ``boxes``: which part of a tensor to read, where its parts lie in files of their own; however many
    processes wrote these. All of it is read where ``boxes`` names nothing.
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
        if "shards" in body:
            tensors |= read_shards(folder, body["shards"], boxes or {})
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


def _needed_files(folder: Path) -> set[str]:
    """Names of the tensor files that the present checkpoint of ``folder`` needs."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        body = json.loads(content["body"])
        return {body["tensors"], *(shard_names(body["shards"]) if "shards" in body else ())}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove the tensor files that no checkpoint needs, and what a killed writer left."""
    remove_leftovers(folder)
    for pattern in ("tensors-*.safetensors", "shard-*.safetensors"):
        for file in folder.glob(pattern):
            if file.name not in keep:
                file.unlink()


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
