"""`isthmus view`: what it lists, what it serves and refuses, and what the page does in a browser."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import isthmus
from chromium import PATIENCE, Browser
from command_line import ISTHMUS, SRC, isthmus_in_process, told
from isthmus.run.comparing import compare_runs
from isthmus.run.folder import LOCK, RunFolder
from isthmus.viewing import run_reading
from isthmus.viewing.regular_files import HeldLocks
from isthmus.viewing.runs_folder import RunsFolder
from page_reading import check_looks, check_structure, check_theme_button
from small_runs import clicks, content, settings
from viewed import Viewed, viewed

PAGE = "<!doctype html><title>a page</title><p>of a study</p>"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, of which one has other test rows, and pages beside them. Tests that write copy it."""
    folder = tmp_path_factory.mktemp("view")
    table = clicks(600)
    for name, seed, split in (("plain", 0, 0), ("again", 1, 0), ("moved", 0, 5)):
        config = settings(seed=seed, epochs=1)
        config["data"]["split"]["seed"] = split
        if name == "plain":
            config["model"]["adapter"] = {"name": "none"}
        isthmus.fit(config, table, out=folder / "runs" / name)
    (folder / "runs" / "plain" / "report.html").write_text(PAGE)
    for kind, mark in (("tuned", "study.json"), ("contest", "benchmark.json")):
        (folder / kind).mkdir()
        (folder / kind / mark).write_text("{}")
        (folder / kind / "report.html").write_text(PAGE)
        (folder / kind / "secret.html").write_text("not served")
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Any:
    with viewed(home) as running:
        yield running


def row_of(folder: Path, name: str) -> Any:
    return RunsFolder(folder).look().rows[name]


# What is listed.


def test_a_row_tells_what_the_files_of_the_run_say(home: Path):
    run = isthmus.Run.open(home / "runs" / "plain")
    row = row_of(home, "runs/plain")
    looks = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    best = [look for look in looks if look["better"]][-1]
    assert best["step"] == run.state.best_step
    assert (row.auc, row.logloss) == (best["auc_pooled"], best["logloss_pooled"])
    assert (row.state, row.why, row.look, row.progress) == ("finished", "", "", None)
    assert (row.model, row.split, row.domains) == ("mlp", "random", 3)
    assert (row.parameters, row.seconds) == (run.state.parameters, run.state.seconds)
    assert row.pages == (("Report", "pages/runs/plain/report.html"),)
    assert row_of(home, "runs/again").model == "mlp + hamur"


def test_names_of_files_are_those_that_a_fit_writes():
    of = RunFolder(Path("run"))
    names = (of.state_file.name, of.config_file.name, of.metrics.name, LOCK)
    assert names == (run_reading.STATE, run_reading.CONFIG, run_reading.LOOKS, run_reading.LOCK)
    assert run_reading.FORMAT == isthmus.run.folder.FORMAT


def test_pages_beside_the_runs_are_named_by_their_folder(home: Path):
    seen = RunsFolder(home).look()
    assert {(page.kind, page.name) for page in seen.pages} == {
        ("Tuning", "tuned"),
        ("Benchmark", "contest"),
    }
    assert sorted(seen.served) == [
        "pages/contest/report.html",
        "pages/runs/plain/report.html",
        "pages/tuned/report.html",
    ]


def test_the_folder_itself_may_be_a_run(home: Path):
    (row,) = RunsFolder(home / "runs" / "plain").look().rows.values()
    assert (row.id, row.name, row.state) == (".", "plain", "finished")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("run.json", "", "run.json is damaged"),
        ("run.json", '{"state": "running", "format', "run.json is damaged"),
        ("run.json", "[1]", "run.json is damaged: it holds no JSON object"),
        (
            "run.json",
            '{"state": "finished", "format": 2, "isthmus": "9"}',
            "format 1, got 2, by isthmus 9",
        ),
        ("run.json", '{"state": 7, "format": 1}', "must say running or finished, got 7"),
        ("run.json", "[" * 100_000, "run.json is damaged"),
        ("run.json", None, "it has no run.json"),
        ("config.yaml", "model: [", "config.yaml is damaged"),
        ("config.yaml", "- 1", "config.yaml is damaged: it holds no keys"),
        ("config.yaml", "!!python/object/apply:os.system [true]", "config.yaml is damaged"),
        ("metrics.jsonl", '{"step": 1}\nno look\n', "metrics.jsonl is damaged in line 2"),
        ("metrics.jsonl", "\xff\n", "metrics.jsonl is damaged in line 1"),
    ],
)
def test_a_damaged_run_is_a_row_that_says_so(
    file: str, text: str | None, said: str, home: Path, tmp_path: Path
):
    shutil.copytree(home / "runs" / "plain", tmp_path / "broken")
    shutil.copytree(home / "runs" / "again", tmp_path / "whole")
    if text is None:
        (tmp_path / "broken" / file).unlink()
    else:
        (tmp_path / "broken" / file).write_bytes(text.encode("latin-1"))
    with viewed(tmp_path) as running:
        rows = running.server.folder.look().rows
        assert rows["broken"].state == "damaged"
        assert said in rows["broken"].why
        assert rows["whole"].state == "finished"
        page = running.get("/")
        assert page.status == 200
        assert page.text.count("<tr data-id=") == 2
        answer = running.get("/compare?run=whole&run=broken")
        assert answer.status in (200, 422)  # scores may be whole where a look is not


def test_values_of_other_kinds_are_left_out_and_not_shown(home: Path, tmp_path: Path):
    shutil.copytree(home / "runs" / "plain", tmp_path / "odd")
    odd = {"state": "running", "format": 1, "table": ["x"], "n_domains": "many", "seconds": True}
    (tmp_path / "odd" / "run.json").write_text(json.dumps(odd))
    looks = '{"better": true, "auc_pooled": NaN, "logloss_pooled": 1e999, "epoch": "three"}\n'
    (tmp_path / "odd" / "metrics.jsonl").write_text(looks)
    row = row_of(tmp_path, "odd")
    assert (row.table, row.domains, row.seconds, row.auc, row.logloss) == (
        "",
        None,
        None,
        None,
        None,
    )


def test_a_half_written_line_is_left_for_later_and_lines_are_read_once(home: Path, tmp_path: Path):
    shutil.copytree(home / "runs" / "plain", tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**state, "state": "running"}))
    looks = tmp_path / "run" / "metrics.jsonl"
    line = {"step": 1, "epoch": 0.25, "better": True, "auc_pooled": 0.6, "logloss_pooled": 0.5}
    looks.write_text(json.dumps(line) + "\n" + '{"step": 2, "epo')
    folder = RunsFolder(tmp_path)
    row = folder.look().rows["run"]
    assert (row.state, row.auc, row.progress) == ("unfinished", 0.6, 0.25)
    assert row.look == "epoch 0.25 of 1, auc_pooled 0.6000"
    with looks.open("a") as file:
        file.write('ch": 0.5, "better": false, "auc_pooled": 0.55}\n')
    time.sleep(0.35)  # a look is shared for a moment
    row = folder.look().rows["run"]
    assert (row.auc, row.progress) == (0.6, 0.5)
    assert row.look == "epoch 0.50 of 1, auc_pooled 0.5500"
    looks.unlink()  # a resumed run writes its looks anew
    looks.write_text(json.dumps({**line, "auc_pooled": 0.7, "epoch": 0.75}) + "\n")
    time.sleep(0.35)
    assert folder.look().rows["run"].auc == 0.7


def test_a_lock_tells_a_training_from_a_stopped_one_and_is_never_taken(home: Path, tmp_path: Path):
    shutil.copytree(home / "runs" / "plain", tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**state, "state": "running"}))
    assert HeldLocks().known
    stopped = row_of(tmp_path, "run")
    assert (stopped.state, stopped.why) == ("unfinished", "stopped, or trained on another machine")
    with (tmp_path / "run" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert row_of(tmp_path, "run").state == "training"
        (tmp_path / "run" / "run.json").unlink()
        (tmp_path / "run" / "metrics.jsonl").unlink()
        begun = row_of(tmp_path, "run")
        assert (begun.state, begun.why) == ("training", "it begins")


def test_without_a_list_of_locks_a_run_trains_while_it_is_fresh(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(HeldLocks, "LOCKS", tmp_path / "none")
    shutil.copytree(home / "runs" / "plain", tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**state, "state": "running"}))
    assert row_of(tmp_path, "run").state == "training"
    for name in ("run.json", "metrics.jsonl"):
        os.utime(tmp_path / "run" / name, (1e9, 1e9))
    assert row_of(tmp_path, "run").state == "unfinished"


def test_viewing_writes_nothing(home: Path):
    before = content(home)
    with viewed(home) as running:
        assert running.get("/").status == 200
        assert running.get("/compare?run=runs/plain&run=runs/again").status == 200
    assert content(home) == before


# What is served, and what is refused.


def test_known_pages_are_served_in_an_origin_of_their_own(server: Viewed):
    got = server.get("/pages/tuned/report.html")
    assert (got.status, got.text) == (200, PAGE)
    policy = got.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox allow-scripts allow-downloads" in policy
    assert "allow-same-origin" not in policy
    assert got.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "target",
    [
        "/pages/tuned/secret.html",
        "/pages/tuned/study.json",
        "/pages/runs/plain/run.json",
        "/pages/runs/plain/bundle/weights.safetensors",
        "/pages/../../../../etc/passwd",
        "/pages/tuned/../runs/plain/report.html",
        "/pages/tuned/%2e%2e/%2e%2e/etc/passwd",
        "/pages/tuned/..%2fcontest/report.html",
        "/pages//tuned/report.html",
        "/pages/tuned/report.html/",
        "/pages/tuned/report.html%00",
        "/pages/",
        "/runs/plain/report.html",
        "/favicon.ico",
    ],
)
def test_other_files_and_paths_are_not_served(target: str, server: Viewed):
    got = server.get(target)
    assert got.status == 404
    assert "root:" not in got.text
    assert got.headers["content-type"].startswith("text/plain")


def test_links_are_neither_followed_nor_served(home: Path, tmp_path: Path):
    secret = tmp_path / "outside"
    shutil.copytree(home / "runs" / "plain", secret)
    inside = tmp_path / "inside"
    shutil.copytree(home / "runs" / "again", inside / "again")
    (inside / "linked").symlink_to(secret)
    (inside / "again" / "report.html").symlink_to(secret / "report.html")
    shutil.copytree(home / "runs" / "plain", inside / "plain")
    (inside / "plain" / "run.json").unlink()
    (inside / "plain" / "run.json").symlink_to(secret / "run.json")
    shutil.copytree(home / "runs" / "plain", inside / "scored")
    shutil.rmtree(inside / "scored" / "scores")
    (inside / "scored" / "scores").symlink_to(secret / "scores")
    os.mkfifo(inside / "scored" / "diagnosis.html")  # would block whoever opens it
    with viewed(inside) as running:
        seen = running.server.folder.look()
        assert sorted(seen.rows) == ["again", "plain", "scored"]
        assert seen.rows["plain"].state == "damaged"
        assert sorted(seen.served) == ["pages/plain/report.html", "pages/scored/report.html"]
        got = running.get("/compare?run=again&run=scored")
        assert got.status == 422
        assert "scored/scores/test.parquet is a link, or lies behind one" in got.text
        # What was found, and became a link since, is not served either.
        (inside / "plain" / "report.html").unlink()
        (inside / "plain" / "report.html").symlink_to(secret / "report.html")
        assert running.get("/pages/plain/report.html").status == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:9", 200),
        ("127.0.0.1:8090", 200),
        ("[::1]:8090", 200),
        ("10.0.0.7", 200),
        ("evil.example", 421),
        ("evil.example:8090", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("", 421),
    ],
)
def test_a_name_that_could_be_rebound_is_refused(host: str, status: int, server: Viewed):
    got = server.get("/", Host=host)
    assert got.status == status
    assert (status == 200) == ("<table" in got.text)


def test_the_name_that_was_asked_for_is_answered(home: Path):
    with viewed(home, "localhost") as running:
        assert running.get("/", Host="localhost").status == 200
    assert running.server.answers.names == {"localhost"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_nothing_but_reading_is_allowed(method: str, server: Viewed):
    got = server.get("/", method=method)
    assert got.status == 405
    assert got.headers["allow"] == "GET, HEAD"


def test_head_gives_the_headers_alone(server: Viewed):
    got, whole = server.get("/", method="HEAD"), server.get("/")
    assert (got.status, got.text) == (200, "")
    assert abs(int(got.headers["content-length"]) - len(whole.text.encode())) < 50
    assert server.get("/events", method="HEAD").headers["content-type"] == "text/event-stream"


def test_another_site_may_link_here_and_ask_nothing(server: Viewed):
    aside = {"Sec_Fetch_Site": "cross-site"}
    assert server.get("/compare?run=a", **aside, Sec_Fetch_Mode="no-cors").status == 403
    assert server.get("/events", **aside, Sec_Fetch_Mode="cors").status == 403
    assert server.get("/", **aside, Sec_Fetch_Mode="navigate").status == 200
    assert "access-control-allow-origin" not in server.get("/", Origin="http://evil").headers


def test_what_is_no_request_is_refused_and_the_server_goes_on(server: Viewed):
    for said in (
        b"\x16\x03\x01\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 70_000,
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as to:
            to.sendall(said + b"\r\n\r\n")
            try:
                got = to.recv(200)
            except ConnectionResetError:
                continue
            assert b" 200 " not in got
    assert server.get("/compare?" + "&".join(["run=x"] * 500)).status == 400
    assert server.get("/").status == 200


# What is compared.


def test_ticked_runs_are_compared_by_the_code_of_the_command(home: Path, server: Viewed):
    got = server.get("/compare?run=runs/plain&run=runs/again&split=validation")
    runs = [home / "runs" / "plain", home / "runs" / "again"]
    expected = compare_runs(runs, split="validation").page()
    assert got.status == 200
    start = got.text.index("<main>")
    assert got.text[start:] == expected[expected.index("<main>") :]
    turned = server.get("/compare?run=runs/plain&run=runs/again&first=runs/again")
    assert "<h1>Is plain better than again?</h1>" in turned.text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("run=runs/plain&run=runs/moved", "runs must score the same rows of split &#39;test&#39;"),
        ("run=runs/plain", "2 to 20 runs must be ticked to compare, got 1"),
        ("run=runs/plain&run=runs/plain", "2 to 20 runs must be ticked to compare, got 1"),
        ("", "2 to 20 runs must be ticked to compare, got 0"),
        ("run=runs/plain&run=runs/gone", "run &#39;runs/gone&#39; is not under"),
        ("run=runs/plain&run=../../etc", "run &#39;../../etc&#39; is not under"),
        ("run=runs/plain&run=<script>x</script>", "&lt;script&gt;"),
        ("run=runs/plain&run=runs/again&split=train", "split must be test or validation"),
    ],
)
def test_what_cannot_be_compared_is_told_by_name(query: str, said: str, server: Viewed):
    got = server.get(f"/compare?{query}".replace("<", "%3C").replace(">", "%3E"))
    assert got.status == 422
    assert said in got.text
    assert "<script>x" not in got.text


def test_a_run_that_still_trains_is_told_by_name(home: Path, tmp_path: Path):
    shutil.copytree(home / "runs", tmp_path / "runs")
    state = tmp_path / "runs" / "again" / "run.json"
    state.write_text(state.read_text().replace('"finished"', '"running"'))
    with viewed(tmp_path) as running:
        got = running.get("/compare?run=runs/plain&run=runs/again")
    assert got.status == 422
    assert "must be finished" in got.text


# The page.


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1600, False)])
def test_anyone_can_read_the_table(width: int, dark: bool, server: Viewed, browser: Browser):
    check_looks(browser, server.url, width=width, dark=dark)
    check_structure(browser)


def test_a_fault_and_a_comparison_can_be_read_too(server: Viewed, browser: Browser):
    check_looks(
        browser, f"{server.url}compare?run=runs/plain&run=runs/again", width=360, dark=False
    )
    check_structure(browser)
    browser.open(f"{server.url}compare?run=runs/plain&run=runs/moved", width=360)
    check_structure(browser)
    assert browser.run("document.querySelector('a[href=\"/\"]').textContent") == "All runs"
    check_theme_button(browser, server.url)


SHOWN = "[...document.querySelectorAll('#table tbody tr')].filter(r => !r.hidden).map(r => r.dataset.id)"


def test_the_table_is_filtered_sorted_and_ticked(server: Viewed, browser: Browser):
    browser.open(server.url)
    assert len(browser.run(SHOWN)) == 3
    said = "document.getElementById('said').textContent"
    assert browser.run(said) == "3 runs"

    def put(name: str, value: str, event: str) -> None:
        browser.run(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('{event}',"
            f" {{ bubbles: true }})); }})(document.getElementById('{name}'))"
        )

    put("by-model", "mlp + hamur", "change")
    assert sorted(browser.run(SHOWN)) == ["runs/again", "runs/moved"]
    put("find", "AGAIN mlp", "input")
    assert browser.run(SHOWN) == ["runs/again"]
    assert browser.run(said) == "1 of 3 runs"
    put("find", "", "input")
    put("by-model", "", "change")
    options = "[...document.getElementById('by-split').options].map(o => o.value)"
    assert browser.run(options) == ["", "random"]

    rows = server.server.folder.look().rows
    by_auc = sorted(rows, key=lambda key: rows[key].auc or 0)
    click = "document.querySelectorAll('button.sort')[6].click()"
    browser.run(click)
    assert browser.run(SHOWN) == by_auc[::-1]
    assert (
        browser.run("document.querySelector('[aria-sort]').getAttribute('aria-sort')")
        == "descending"
    )
    browser.run(click)
    assert browser.run(SHOWN) == by_auc

    # By keyboard: the box has the focus, the space bar ticks it.
    button = "document.getElementById('compare').disabled"
    assert browser.run(button)
    for name in ("runs/again", "runs/plain"):
        browser.run(f"document.querySelector('[data-id=\"{name}\"] input').focus()")
        browser.press(" ", 32, text=" ")
    assert browser.run(said) == "3 runs, 2 ticked"
    assert not browser.run(button)
    assert browser.run("document.getElementById('first').value") == "runs/again"
    browser.run("document.getElementById('compare').click()")
    until(browser, "document.querySelector('h1').textContent === 'Is plain better than again?'")
    assert browser.faults == []


def until(browser: Browser, condition: str) -> None:
    """Wait for something to become true in the page."""
    deadline = time.monotonic() + PATIENCE
    while not browser.run(f"document.readyState === 'complete' && ({condition})"):
        assert time.monotonic() < deadline, (condition, browser.run("document.body.innerText"))
        time.sleep(0.05)


def test_without_script_runs_can_be_ticked_and_compared(server: Viewed, browser: Browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(server.url)
        seen = "[...document.querySelectorAll('button, input, select')].filter(b => b.offsetHeight)"
        assert browser.run(f"{seen}.map(b => b.name || b.id)") == ["compare", "split", *["run"] * 3]
        assert not browser.run("document.getElementById('compare').disabled")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_fit_is_watched_while_it_trains(tmp_path: Path, browser: Browser):
    """No reload: the page hears of the new run, of its looks, of its end, and of one that vanishes."""
    seen = []
    with viewed(tmp_path) as running:
        browser.open(running.url)
        until(browser, "document.getElementById('live').textContent === 'live'")
        browser.run("window.stays = true")

        def watch(notice: Any) -> None:
            if notice.text.startswith("look at epoch 0.50"):
                until(browser, "document.querySelector('.s-training progress')?.value === 0.25")
                seen.append(browser.run("document.querySelector('.s-training .more').textContent"))
                browser.run("document.querySelector('tbody input').click()")
                browser.run("document.querySelector('tbody input').focus()")

        run = isthmus.fit(settings(), clicks(600), out=tmp_path / "run", progress=watch)
        assert seen[0].startswith("epoch 0.50 of 2, auc_pooled 0.")
        until(browser, "document.querySelector('.s-finished') !== null")
        until(browser, "document.getElementById('said').textContent.includes('run is finished')")
        assert browser.run("document.querySelector('tbody input').checked")
        assert browser.run("document.activeElement.name") == "run"
        (tmp_path / "run" / "report.html").write_text(PAGE)
        until(browser, "document.querySelector('.links a')?.textContent === 'Report of run'")
        shutil.rmtree(run.path)
        until(browser, "document.querySelectorAll('tbody tr').length === 0")
        assert browser.run("window.stays"), "the page was loaded again"
        assert browser.faults == []


def test_a_page_of_an_earlier_server_is_told_to_load_again(server: Viewed):
    got = server.get("/events?since=deadbeef.3")
    assert got.text == "event: again\ndata: 1\n\n"
    assert got.headers["content-type"] == "text/event-stream"


def test_too_many_listeners_are_refused_and_the_table_is_still_served(home: Path):
    with viewed(home) as running:
        taken = 0
        while running.server.streams.acquire(blocking=False):
            taken += 1
        assert taken > 1
        version = f"{running.server.folder.token}.0"
        assert running.get(f"/events?since={version}").status == 503
        assert running.get("/").status == 200


# The command.


def test_the_command_serves_until_it_is_interrupted(home: Path):
    environment = {**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*ISTHMUS, "view", str(home), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"3 runs of {home} at http://127.0.0.1:"), line
            port = int(line.rstrip("/\n").rsplit(":", 1)[1])
            with socket.create_connection(("127.0.0.1", port), timeout=60) as to:
                to.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
                assert to.recv(15).split()[1] == b"200"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert process.stdout.read() == "stopped\n"
        finally:
            process.kill()


def test_a_folder_or_a_port_that_cannot_be_used_is_told_by_name(home: Path, server: Viewed):
    text = told(isthmus_in_process("view", home / "none"))
    assert text.startswith("folder to view must exist, got")
    text = told(isthmus_in_process("view", home, "--port", server.port))
    assert text == f"nothing can listen on 127.0.0.1:{server.port}: Address already in use"
