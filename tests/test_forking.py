"""Processes that the tests fork in place of executing them: as real as the executed ones."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import forking
from killables import members

TELL = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "cwd": os.getcwd(), "parent": os.getppid(), "mine": os.environ.get("MINE"),
    "path": sys.path[:2], "name": __name__, "stdin": sys.stdin.read(), "main": len(sys.modules["__main__"].__dict__) > 5,
    "forked": "isthmus.run" in sys.modules,
}))
sys.stderr.write("heard")
sys.exit(3)
"""


def ran(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)


@pytest.mark.parametrize("how", ["text", "file", "module"])
def test_a_forked_process_is_what_an_executed_one_is(how: str, tmp_path: Path):
    (tmp_path / "told_by_it.py").write_text(TELL)
    place = tmp_path / "elsewhere"
    place.mkdir()
    words = {
        "text": ["-c", TELL, "a", "b c"],
        "file": [tmp_path / "told_by_it.py", "a", "b c"],
        "module": ["-m", "told_by_it", "a", "b c"],
    }[how]
    environment = {**os.environ, "MINE": "täxt", "PYTHONPATH": str(tmp_path)}
    options = {"cwd": place, "env": environment, "input": "given\n"}
    forked = ran(*words, **options)
    with forking.executed():
        executed = ran(*words, **options)
    assert (
        (forked.returncode, forked.stderr) == (executed.returncode, executed.stderr) == (3, "heard")
    )
    found, wanted = json.loads(forked.stdout), json.loads(executed.stdout)
    assert (found.pop("forked"), wanted.pop("forked")) == (True, False)
    assert found == wanted


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("import sys; sys.exit('no way')", 1, "no way\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import atexit, sys; atexit.register(lambda: sys.stderr.write('bye'))", 0, "bye"),
        ("import os; os._exit(7)", 7, ""),
    ],
)
def test_its_end_is_told(text: str, code: int, said: str):
    done = ran("-c", text)
    assert done.returncode == code
    assert done.stderr.endswith(said)
    assert bool(done.stderr) == bool(said)


def test_what_is_read_at_the_start_is_read_by_an_interpreter_of_its_own():
    for changed in ({"PYTHONOPTIMIZE": "1"}, {"LC_ALL": "C"}, {"OMP_NUM_THREADS": "7"}):
        done = ran("-c", "import sys; print('torch' in sys.modules)", env={**os.environ, **changed})
        assert done.stdout == "False\n"
    assert ran("-W", "error", "-c", "import sys; print('torch' in sys.modules)").stdout == "False\n"


def test_a_forked_process_forks_and_none_outlives_its_group():
    asleep = "import sys, time; print('torch' in sys.modules, flush=True); time.sleep(60)"
    text = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {asleep!r}])\n"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert len(members(process.pid)) >= 2
        os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while left := members(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL


def doubled(numbers: Any) -> None:
    numbers.send([2 * one for one in numbers.recv()])


def test_multiprocessing_spawns_through_the_server():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=doubled, args=(theirs,))
    process.start()
    theirs.close()
    ours.send([1, 2])
    assert ours.recv() == [2, 4]
    process.join()
    assert process.exitcode == 0
    with pytest.raises(EOFError):
        ours.recv()
