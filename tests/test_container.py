"""The Dockerfile, as far as it can be checked without an engine that builds it."""

import fnmatch
import json
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import typer

from isthmus.cli import app

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of every instruction; a line that ends in a backslash goes on."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    whole = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in whole]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, words in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, words))
    return found


def of(stage: list[tuple[str, str]], wanted: str) -> list[str]:
    return [words for name, words in stage if name == wanted]


def test_every_instruction_is_known_and_the_stages_are_two():
    known = {
        "FROM", "ARG", "WORKDIR", "RUN", "COPY", "ENV", "USER", "EXPOSE", "HEALTHCHECK",
        "ENTRYPOINT", "CMD",
    }  # fmt: skip
    assert {name for name, _ in instructions()} == known
    build, final = stages()
    assert of(build, "FROM") == ["python:3.11-slim AS build"]
    assert of(final, "FROM") == ["python:3.11-slim"]  # the same Python, which the venv points to
    (needs,) = re.findall(r'requires-python = ">=(.*)"', (ROOT / "pyproject.toml").read_text())
    assert needs == "3.11"


def test_whatever_is_copied_is_there_and_not_ignored():
    build, final = stages()
    assert of(final, "COPY") == ["--from=build /opt/isthmus /opt/isthmus"]
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = [source for words in of(build, "COPY") for source in words.split()[:-1]]
    assert set(sources) == kept
    for source in sources:
        assert (ROOT / source).exists(), source
    dropped = [rule.removeprefix("**/") for rule in rules[1:] if not rule.startswith("!")]
    for path in (ROOT / "src").rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        assert not [p for p in parts if any(fnmatch.fnmatch(p, rule) for rule in dropped)]


def test_versions_are_the_tested_ones_and_no_index_is_named():
    build, _ = stages()
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    installs = [words for words in of(build, "RUN") if "pip install" in words]
    assert all("-c constraints.txt" in words for words in installs)
    (torch,) = re.findall(r"torch==\S+", installs[0])
    assert torch in pins
    hosts = re.findall(r"\w+://([^/:'\"]+)", (ROOT / "Dockerfile").read_text())
    assert set(hosts) == {"127.0.0.1"}


def test_it_is_not_root_and_writes_below_tmp_only():
    _, final = stages()
    assert of(final, "USER") == ["10001:10001"]
    at = [name for name, _ in final].index("USER")
    assert not {"RUN", "COPY"} & {name for name, _ in final[at:]}
    (words,) = of(final, "ENV")
    values = dict(pair.split("=", 1) for pair in words.split())
    for name in ("HOME", "TMPDIR", "ISTHMUS_CACHE"):
        assert Path(values[name]).parts[:2] == ("/", "tmp"), name
    assert of(final, "WORKDIR") == ["/tmp"]
    assert values["PYTHONDONTWRITEBYTECODE"] == "1"


def test_what_it_runs_is_a_command_of_ours():
    build, final = stages()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (named,) = re.findall(r"'\.\[(.*)\]'", of(build, "RUN")[-1])
    assert set(named.split(",")) <= set(extras["optional-dependencies"])
    assert json.loads(of(final, "ENTRYPOINT")[0]) == list(extras["scripts"])
    name, bundle, *options = json.loads(of(final, "CMD")[0])
    assert bundle == "/bundle"
    group = typer.main.get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    known = {option for one in command.params for option in one.opts}
    assert set(options[::2]) <= known
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {"--host": "0.0.0.0", "--port": of(final, "EXPOSE")[0]}


class Door(BaseHTTPRequestHandler):
    """Alive, until `answer` says otherwise."""

    answer = 200
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.answer)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


def test_the_health_check_tells_a_live_server_from_others():
    _, final = stages()
    (words,) = of(final, "HEALTHCHECK")
    command = json.loads(words[words.index("CMD") + 3 :])
    port = of(final, "EXPOSE")[0]
    assert f"127.0.0.1:{port}/healthz" in command[-1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def probed() -> int:
        code = command[-1].replace(f":{port}/", f":{server.server_port}/")
        assert command[:2] == ["python", "-c"]
        return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode

    try:
        assert probed() == 0
        Door.answer = 503
        assert probed() != 0
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert probed() != 0
    assert set(Door.asked) == {"/healthz"}
