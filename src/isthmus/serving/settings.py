"""What a server is told when it starts."""

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from isthmus.errors import ConfigError

Backend = Literal["onnx", "torch"]
LIBRARIES = ("httptools", "msgspec", "prometheus_client", "starlette", "uvicorn", "uvloop")
LEAST_TOKEN = 16  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Where a server listens, and what it takes. Raises ConfigError for a value out of its range.

    ``bundle``: the folder of a bundle, or of a run. ``port``: 0 for any that is free. ``token``: what
    requests must carry; None asks for none, and then nothing can be reloaded. ``name``: of the model, in
    the Open Inference Protocol. ``max_rows``, ``max_items``: of a request, and of one list in it.
    ``max_bytes``: of a body, and of a compressed one once it is unpacked. ``time_limit``: seconds for a
    request. ``drain``: seconds that requests under way have when the server is stopped. ``log``: a file
    for scores; ``log_share`` 0 to 1 of the requests are kept, with the values of the rows if
    ``log_values``.
    """

    bundle: Path
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    token: str | None = field(default=None, repr=False)
    name: str = "isthmus"
    backend: Backend = "onnx"
    max_rows: int = 10_000
    max_items: int = 10_000
    max_bytes: int = 32 << 20
    time_limit: float = 30.0
    drain: float = 30.0
    log: Path | None = None
    log_share: float = 1.0
    log_values: bool = False

    def __post_init__(self) -> None:
        if self.backend not in get_args(Backend):
            raise ConfigError(f"backend must be one of onnx, torch, got {self.backend!r}")
        for name, least, most in (
            ("port", 0, 65535),
            ("workers", 1, 512),
            ("max_rows", 1, 10**9),
            ("max_items", 1, 10**9),
            ("max_bytes", 1, 1 << 40),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name} must be {least} to {most}, got {value}")
        for name in ("time_limit", "drain"):
            if not 0 < getattr(self, name) <= 86_400:
                raise ConfigError(f"{name} must be more than 0 seconds, got {getattr(self, name)}")
        if not 0 < self.log_share <= 1:
            raise ConfigError(f"log_share must be more than 0 and at most 1, got {self.log_share}")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise ConfigError(f"name must be letters, digits, '.', '_' or '-', got {self.name!r}")
        if self.log_values and self.log is None:
            raise ConfigError("log_values must stand with log, got it without")


def read_token(file: Path) -> str:
    """The token in a file. Raises ConfigError where it cannot be read, or is too short."""
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"token file must be readable, got {file}: {fault}") from fault
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"a token must have at least {LEAST_TOKEN} printable ASCII characters, got {len(token)}"
            f" characters in {file}"
        )
    return token


def check_serving_installed(backend: Backend) -> None:
    """Raise ConfigError where a library of the extra is missing."""
    wanted = (*LIBRARIES, *(("onnxruntime",) if backend == "onnx" else ()))
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serving needs {missing[0]}, which is not installed: pip install 'isthmus[serve]'"
        )
