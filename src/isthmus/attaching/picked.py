"""The tensor that an adapter changes, in what a submodule returns: picked out, and put back.

A submodule returns a tensor, or a tuple, list, dict or dataclass that holds one under a key:
``lstm[0]`` is the first of a tuple, ``encoder[hidden]`` the value of a dict or the field of a
dataclass.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from torch import Tensor

Key = int | str | None


class Place(NamedTuple):
    """Where an adapter sits: behind submodule ``name``, at the tensor ``key`` of what it returns.

    ``key`` None: the submodule returns the tensor itself.

    >>> str(Place("lstm", 0)), str(Place("dnn.3"))
    ('lstm[0]', 'dnn.3')
    """

    name: str
    key: Key = None

    def __str__(self) -> str:
        return self.name if self.key is None else f"{self.name}[{self.key}]"


def picked(output: Any, place: Place) -> Tensor:
    """The tensor at ``place`` of what its submodule returned.

    Raises ``ValueError``, which names the place, where there is none.
    """
    found = _at(output, place.key)
    if isinstance(found, Tensor):
        return found
    got = type(output).__name__ if place.key is None or found is None else type(found).__name__
    raise ValueError(f"the output of '{place}' must be a tensor, got {got}{_keys(output)}")


def _at(output: Any, key: Key) -> Any:
    if key is None:
        return output
    if isinstance(output, Mapping):
        return output.get(key)
    if isinstance(key, str):
        return getattr(output, key, None)
    if isinstance(output, tuple | list) and -len(output) <= key < len(output):
        return output[key]
    return None


def _keys(output: Any) -> str:
    """What the tensor could be named by, in words."""
    if isinstance(output, Mapping):
        keys = [str(key) for key, value in output.items() if isinstance(value, Tensor)]
    elif isinstance(output, tuple | list):
        keys = [str(i) for i, value in enumerate(output) if isinstance(value, Tensor)]
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        names = [field.name for field in dataclasses.fields(output)]
        keys = [name for name in names if isinstance(getattr(output, name), Tensor)]
    else:
        return ""
    return (
        f" with tensors at {', '.join(f'[{key}]' for key in keys)}" if keys else " without tensors"
    )


def put_back(output: Any, key: Key, tensor: Tensor) -> Any:
    """The same output with ``tensor`` in place of the one at ``key``; ``output`` stays as it is."""
    if key is None:
        return tensor
    if isinstance(output, MutableMapping):
        changed = copy.copy(output)
        changed[key] = tensor
        return changed
    if isinstance(output, list):
        return [*output[: _index(output, key)], tensor, *output[_index(output, key) + 1 :]]
    if hasattr(output, "_replace"):  # a named tuple
        name = key if isinstance(key, str) else output._fields[key]
        return output._replace(**{name: tensor})
    if isinstance(output, tuple):
        at = _index(output, key)
        return (*output[:at], tensor, *output[at + 1 :])
    return dataclasses.replace(output, **{str(key): tensor})


def _index(output: list[Any] | tuple[Any, ...], key: Key) -> int:
    assert isinstance(key, int)
    return key % len(output)


def with_each(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a module returned, every tensor in its tuples, lists, dicts and dataclasses changed."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, MutableMapping):
        changed = copy.copy(output)
        for key, value in output.items():
            changed[key] = with_each(value, change)
        return changed
    if isinstance(output, list):
        return [with_each(value, change) for value in output]
    if isinstance(output, tuple):
        values = [with_each(value, change) for value in output]
        return type(output)(*values) if hasattr(output, "_fields") else tuple(values)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        names = [field.name for field in dataclasses.fields(output) if field.init]
        values = {name: with_each(getattr(output, name), change) for name in names}
        return dataclasses.replace(output, **values)
    return output
