"""Python processes of the tests start by a fork of one server that has imported what most of them need.

``install()`` lets ``subprocess`` and the method "spawn" of ``multiprocessing`` ask the server, wherever a
new interpreter would start in the same way: same executable, no options, same settings of the
interpreter in the environment. Such a process is a real one. It has its own number, files, signals,
exit code and death, and it is a child of the process that asked. It shares with the others what an
interpreter draws at its start: the seed of hashes. `executed` turns the server off for a block, for
tests of the start itself.
"""

import array
import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import io
import json
import multiprocessing
import multiprocessing.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

IMPORTED = (
    "isthmus.cli.commands",
    "isthmus.run",
    "isthmus.benchmarking",
    "isthmus.diagnosis",
    "isthmus.exporting",
    "isthmus.serving.supervisor",
    "torch._dynamo",  # the first optimiser imports it
    "torch.onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pyarrow.parquet",
    "uvicorn",
)
# What an interpreter, torch or the terminal's library reads once, at the start.
READ_AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "LD_", "CUDA", "TORCH", "FORCE_COLOR",
                 "NO_COLOR", "TERM", "COLUMNS", "LINES", "TTY_", "JUPYTER", "_TYPER")  # fmt: skip
READ_LATER = (
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
    "TORCHINDUCTOR_CACHE_DIR",  # torch itself sets it
)
SUBREAPER, DEATH_SIGNAL, NAME = 36, 1, 15  # of prctl
SERVER_NAME = b"forking-server"
MESSAGE = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


# Where processes are asked for


class _Server:
    """The server, started with the first process that is asked for."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.enabled = True
        self.owner = os.getpid()
        self.environment = dict(os.environ)
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen | None = None

    def serves(self, words: Sequence[Any], environment: Mapping[str, str] | None) -> bool:
        if not self.enabled or os.getpid() != self.owner or not words:
            return False
        first, *rest = map(os.fsdecode, words)
        if first != sys.executable or not rest:
            return False
        if not (rest[0] in ("-c", "-m") or rest[0].endswith(".py")):
            return False
        wanted = os.environ if environment is None else environment
        return _start_settings(wanted) == _start_settings(self.environment)

    def fork(
        self,
        words: Sequence[Any],
        files: Mapping[int, int],
        *,
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
        session: bool = False,
    ) -> int:
        """Give the number of a child of this process. ``files``: the child's by ours."""
        order = {
            "words": [os.fsdecode(word) for word in words[1:]],
            "cwd": os.path.abspath(cwd or "."),
            "environment": dict(os.environ if environment is None else environment),
            "session": session,
            "files": list(files),
            "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        }
        with self.lock:
            server = self._socket or self._start()
            _libc.prctl(SUBREAPER, 1, 0, 0, 0)
            try:
                ours = array.array("i", files.values())
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ours)] if files else []
                server.sendmsg([json.dumps(order).encode()], rights)
                answer = server.recv(MESSAGE)
            finally:
                _libc.prctl(SUBREAPER, 0, 0, 0, 0)
        assert answer, "the server of forked processes must live"
        return int(answer)

    def take(self, server: socket.socket | None, environment: Mapping[str, str]) -> None:
        """Ask from now on, in this process: that server, or one that is started when it is needed."""
        self.owner, self.environment, self._socket = os.getpid(), dict(environment), server
        self.lock = threading.Lock()
        subprocess.Popen = _ForkedPopen
        multiprocessing.util.spawnv_passfds = _spawn

    def _start(self) -> socket.socket:
        ours, theirs = _pair()
        self._process = _EXECUTED(
            [sys.executable, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env=self.environment,
        )
        theirs.close()
        self._socket = ours
        atexit.register(self._end)
        return ours

    def _end(self) -> None:
        if self._socket is not None and self._process is not None and os.getpid() == self.owner:
            self._socket.close()
            self._process.wait()


def _pair() -> tuple[socket.socket, socket.socket]:
    both = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in both:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE)
    return both


def _start_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_START) and name not in READ_LATER
    }


class _ForkedPopen(subprocess.Popen):
    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        pipes, session = rest[3:9], rest[-2]
        plain = isinstance(args, list | tuple) and executable is None and preexec_fn is None
        if not (plain and not pass_fds and _server.serves(args, env)):
            return super()._execute_child(  # pyright: ignore[reportAttributeAccessIssue]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest
            )
        reads, _, _, writes, _, complains = pipes
        ours = enumerate((reads, writes, complains))
        files = {number: number if file == -1 else file for number, file in ours}
        self.pid = _server.fork(args, files, cwd=cwd, environment=env, session=session)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # pyright: ignore[reportAttributeAccessIssue]
        return None


_server = _Server()
_EXECUTED = subprocess.Popen


def _spawn(path: bytes, words: Sequence[bytes | str], files: Sequence[int]) -> int:
    plain = [word for word in map(os.fsdecode, words) if word != "-B"]
    if not any("spawn_main" in word for word in plain) or not _server.serves(plain, None):
        return _spawned(path, words, files)
    return _server.fork(plain, {number: number for number in (0, 1, 2, *files)})


_spawned = multiprocessing.util.spawnv_passfds


def install() -> None:
    """Let this process ask a server of its own."""
    _server.take(None, os.environ)


def children(pid: int) -> list[int]:
    """The processes that a process has started, oldest first, without its server."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in file.read_text().split()]
    names = {child: Path(f"/proc/{child}/comm").read_bytes().strip() for child in found}
    return sorted(child for child in found if names[child] != SERVER_NAME)


@contextlib.contextmanager
def executed() -> Iterator[None]:
    """Processes that start in this block are executed."""
    _server.enabled = False
    try:
        yield
    finally:
        _server.enabled = True


# The server, and what it forks


def serve(asked: socket.socket) -> None:
    """Fork a process for each order, until nobody is left to give one."""
    while True:
        text, rights, _, _ = asked.recvmsg(MESSAGE, socket.CMSG_SPACE(4 * 64))
        if not text:
            return
        files = array.array("i")
        for _, _, part in rights:
            files.frombytes(part[: len(part) - len(part) % files.itemsize])
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            before = os.getpid()
            child = os.fork()
            if child == 0:
                for file in (reading, writing, asked.detach()):
                    os.close(file)
                while os.getppid() == before:  # until it has the parent that asked
                    time.sleep(0.0002)
                os._exit(_obey(json.loads(text), list(files)))
            os.write(writing, str(child).encode())
            os._exit(0)
        os.waitpid(between, 0)  # from now on the child has the process that asked for its parent
        os.close(writing)
        asked.send(os.read(reading, 64))
        for file in (reading, *files):
            os.close(file)


def _obey(order: dict[str, Any], files: list[int]) -> int:
    """Become the process that was ordered; give its exit code."""
    if order["session"]:
        os.setsid()
    _libc.prctl(NAME, b"python", 0, 0, 0)
    _server.take(_heir(files), order["environment"])
    _put(files, order["files"])
    _open_streams()
    signal.pthread_sigmask(signal.SIG_SETMASK, order["blocked"])
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["cwd"])
    code = 0
    try:
        _run(order)
    except SystemExit as end:
        code = _exit_code(end.code)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:  # noqa: BLE001, as an interpreter ends
        traceback.print_exc()
        code = 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except ValueError:  # it was closed
            continue
        except OSError as fault:
            if stream is sys.stdout:
                sys.stderr.write(f"Exception ignored while flushing sys.stdout: {fault}\n")
            code = 120
    return code


def _heir(files: Sequence[int]) -> socket.socket:
    """Fork a server for this process, while nothing has run in it; it dies with this process."""
    ours, theirs = _pair()
    parent = os.getpid()
    if os.fork() == 0:
        _libc.prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        _libc.prctl(NAME, SERVER_NAME, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)
        for file in (*files, ours.detach()):
            os.close(file)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        serve(theirs)
        os._exit(0)
    theirs.close()
    return ours


def _put(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Give files the numbers that are asked for."""
    above = max((*numbers, *files)) + 1
    apart = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(apart, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


def _open_streams() -> None:
    """Those of Python, for the files that stand at their numbers now."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        raw = open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115
        text = io.TextIOWrapper(
            raw, before.encoding, before.errors, line_buffering=number == 2 or raw.isatty()
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _run(order: dict[str, Any]) -> None:
    """Run what stands after ``python``."""
    how, *words = order["words"]
    more = [one for one in order["environment"].get("PYTHONPATH", "").split(os.pathsep) if one]
    if how == "-m":
        sys.path[:] = [order["cwd"], *more, *PATH]
        sys.argv[:] = [how, *words[1:]]
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.path[:] = ["", *more, *PATH]
        sys.argv[:] = [how, *words[1:]]
        module = type(sys)("__main__")
        module.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = module
        exec(compile(words[0], "<string>", "exec"), module.__dict__)
    else:
        sys.path[:] = [str(Path(how).absolute().parent), *more, *PATH]
        sys.argv[:] = [how, *words]
        runpy.run_path(how, run_name="__main__")


def _exit_code(given: Any) -> int:
    if given is None or isinstance(given, int):
        return (given or 0) & 0xFF
    sys.stderr.write(f"{given}\n")
    return 1


def _read_onnx_functions() -> None:
    """Torch parses the source of its 500 ONNX functions anew for each graph. Here once is enough."""
    from torch.onnx._internal.exporter import _registration

    from isthmus.exporting import graph_file

    registry = _registration.ONNXRegistry
    registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))
    registry.from_torchlib(opset_version=graph_file.OPSET)


def main() -> None:
    import forking  # the module by its own name: `__main__` becomes another one in every child

    for name in IMPORTED:
        importlib.import_module(name)
    _read_onnx_functions()
    gc.collect()
    gc.freeze()
    more = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    forking.PATH = [one for one in sys.path[1:] if one not in more]
    forking.serve(socket.socket(fileno=int(sys.argv[1])))


PATH: list[str] = []  # where modules are looked for without PYTHONPATH, in the server

if __name__ == "__main__":
    main()
