"""Hashes of rows of any kind, so that a diagnosis can tell when they have changed."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


def content_of(value: Any) -> str:
    """Give a hash of arrays, tensors, text, numbers, None, and of lists, tuples, dicts of these.

    Raises TypeError, which names the kind, for anything else.
    """
    digest = hashlib.blake2b(digest_size=16)
    _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        value = value.tolist()
    if isinstance(value, np.ndarray | np.generic):
        held = np.ascontiguousarray(value)
        digest.update(f"array {held.dtype.str} {held.shape}:".encode())
        digest.update(held.tobytes())
    elif isinstance(value, str | bytes):
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        digest.update(f"{type(value).__name__} {len(raw)}:".encode())
        digest.update(raw)
    elif value is None or isinstance(value, bool | int | float):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    elif isinstance(value, Mapping):
        digest.update(f"dict {len(value)}:".encode())
        for key, one in value.items():
            _add(digest, key)
            _add(digest, one)
    elif isinstance(value, Sequence):
        digest.update(f"list {len(value)}:".encode())
        for one in value:
            _add(digest, one)
    else:
        raise TypeError(
            "rows must be arrays, tensors, text, numbers, or lists, tuples and dicts of these, got"
            f" {type(value).__name__}; a learner that has `identify` may have any others"
        )
