"""`isthmus view`: what it lists, what the page does in a browser, and the command."""

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
from isthmus.run.folder import LOCK, RunFolder
from isthmus.viewing import run_reading, runs_folder
from isthmus.viewing.regular_files import HeldLocks
from isthmus.viewing.runs_folder import RunsFolder
from page_reading import check_looks, check_structure, check_theme_button
from small_runs import clicks, content, settings
from viewed import PAGE, Viewed, viewed


def row_of(folder: Path, name: str) -> Any:
    return RunsFolder(folder).look().rows[name]


# What is listed.


def test_a_row_tells_what_the_files_of_the_run_say(runs_home: Path):
    run = isthmus.Run.open(runs_home / "runs" / "plain")
    row = row_of(runs_home, "runs/plain")
    looks = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    best = [look for look in looks if look["better"]][-1]
    assert best["step"] == run.state.best_step
    assert (row.auc, row.logloss) == (best["auc_pooled"], best["logloss_pooled"])
    assert (row.state, row.why, row.look, row.progress) == ("finished", "", "", None)
    assert (row.model, row.split, row.domains) == ("mlp", "random", 3)
    assert (row.parameters, row.seconds) == (run.state.parameters, run.state.seconds)
    assert row.pages == (("Report", "pages/runs/plain/report.html"),)
    assert row_of(runs_home, "runs/again").model == "mlp + hamur"


def test_names_of_files_are_those_that_a_fit_writes():
    of = RunFolder(Path("run"))
    names = (of.state_file.name, of.config_file.name, of.metrics.name, LOCK)
    assert names == (run_reading.STATE, run_reading.CONFIG, run_reading.LOOKS, run_reading.LOCK)
    assert run_reading.FORMAT == isthmus.run.folder.FORMAT


def test_pages_beside_the_runs_are_named_by_their_folder(runs_home: Path):
    seen = RunsFolder(runs_home).look()
    assert {(page.kind, page.name) for page in seen.pages} == {
        ("Tuning", "tuned"),
        ("Benchmark", "contest"),
    }
    assert sorted(seen.served) == [
        "pages/contest/report.html",
        "pages/runs/again/report.html",
        "pages/runs/moved/report.html",
        "pages/runs/plain/report.html",
        "pages/tuned/report.html",
    ]


def test_the_folder_itself_may_be_a_run(runs_home: Path):
    (row,) = RunsFolder(runs_home / "runs" / "plain").look().rows.values()
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
    file: str, text: str | None, said: str, runs_home: Path, tmp_path: Path
):
    shutil.copytree(runs_home / "runs" / "plain", tmp_path / "broken")
    shutil.copytree(runs_home / "runs" / "again", tmp_path / "whole")
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


def test_values_of_other_kinds_are_left_out_and_not_shown(runs_home: Path, tmp_path: Path):
    shutil.copytree(runs_home / "runs" / "plain", tmp_path / "odd")
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


def test_a_half_written_line_is_left_for_later_and_lines_are_read_once(
    runs_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runs_folder, "COALESCED", 0)  # every look is a walk of its own
    monkeypatch.setattr(runs_folder, "RESTS", 0)
    shutil.copytree(runs_home / "runs" / "plain", tmp_path / "run")
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
    row = folder.look().rows["run"]
    assert (row.auc, row.progress) == (0.6, 0.5)
    assert row.look == "epoch 0.50 of 1, auc_pooled 0.5500"
    looks.unlink()  # a resumed run writes its looks anew
    looks.write_text(json.dumps({**line, "auc_pooled": 0.7, "epoch": 0.75}) + "\n")
    assert folder.look().rows["run"].auc == 0.7


def test_a_lock_tells_a_training_from_a_stopped_one_and_is_never_taken(
    runs_home: Path, tmp_path: Path
):
    shutil.copytree(runs_home / "runs" / "plain", tmp_path / "run")
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
    runs_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(HeldLocks, "LOCKS", tmp_path / "none")
    shutil.copytree(runs_home / "runs" / "plain", tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**state, "state": "running"}))
    assert row_of(tmp_path, "run").state == "training"
    for name in ("run.json", "metrics.jsonl"):
        os.utime(tmp_path / "run" / name, (1e9, 1e9))
    assert row_of(tmp_path, "run").state == "unfinished"


def test_viewing_writes_nothing(runs_home: Path):
    before = content(runs_home)
    with viewed(runs_home) as running:
        assert running.get("/").status == 200
        assert running.get("/compare?run=runs/plain&run=runs/again").status == 200
    assert content(runs_home) == before


# The page.


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1600, False)])
def test_anyone_can_read_the_table(width: int, dark: bool, view_server: Viewed, browser: Browser):
    check_looks(browser, view_server.url, width=width, dark=dark)
    check_structure(browser)


def test_a_fault_and_a_comparison_can_be_read_too(view_server: Viewed, browser: Browser):
    check_looks(
        browser, f"{view_server.url}compare?run=runs/plain&run=runs/again", width=360, dark=False
    )
    check_structure(browser)
    browser.open(f"{view_server.url}compare?run=runs/plain&run=runs/moved", width=360)
    check_structure(browser)
    assert browser.run("document.querySelector('a[href=\"/\"]').textContent") == "All runs"
    check_theme_button(browser, view_server.url)


SHOWN = "[...document.querySelectorAll('#table tbody tr')].filter(r => !r.hidden).map(r => r.dataset.id)"


def test_the_table_is_filtered_sorted_and_ticked(view_server: Viewed, browser: Browser):
    browser.open(view_server.url)
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

    rows = view_server.server.folder.look().rows
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


def test_without_script_runs_can_be_ticked_and_compared(view_server: Viewed, browser: Browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(view_server.url)
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
            if notice.text.startswith("look at") and not seen:
                epoch = float(notice.text.split()[3].rstrip(":"))
                more = "document.querySelector('.s-training .more')?.textContent"
                until(browser, f"{more}?.startsWith('epoch {epoch:.2f} of 2, auc_pooled 0.')")
                seen.append((epoch, browser.run("document.querySelector('progress').value")))
                browser.run("document.querySelector('tbody input').click()")
                browser.run("document.querySelector('tbody input').focus()")

        run = isthmus.fit(settings(), clicks(600), out=tmp_path / "run", progress=watch)
        ((epoch, progress),) = seen
        assert progress == pytest.approx(epoch / 2, abs=0.005)
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


def test_a_page_of_an_earlier_server_is_told_to_load_again(view_server: Viewed):
    got = view_server.get("/events?since=deadbeef.3")
    assert got.text == "event: again\ndata: 1\n\n"
    assert got.headers["content-type"] == "text/event-stream"


def test_too_many_listeners_are_refused_and_the_table_is_still_served(runs_home: Path):
    with viewed(runs_home) as running:
        taken = 0
        while running.server.streams.acquire(blocking=False):
            taken += 1
        assert taken > 1
        version = f"{running.server.folder.token}.0"
        assert running.get(f"/events?since={version}").status == 503
        assert running.get("/").status == 200


# The command.


def test_the_command_serves_until_it_is_interrupted(runs_home: Path):
    environment = {**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*ISTHMUS, "view", str(runs_home), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"3 runs of {runs_home} at http://127.0.0.1:"), line
            port = int(line.rstrip("/\n").rsplit(":", 1)[1])
            with socket.create_connection(("127.0.0.1", port), timeout=60) as to:
                to.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
                assert to.recv(15).split()[1] == b"200"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert process.stdout.read() == "stopped\n"
        finally:
            process.kill()


def test_a_folder_or_a_port_that_cannot_be_used_is_told_by_name(
    runs_home: Path, view_server: Viewed
):
    text = told(isthmus_in_process("view", runs_home / "none"))
    assert text.startswith("folder to view must exist, got")
    text = told(isthmus_in_process("view", runs_home, "--port", view_server.port))
    assert text == f"nothing can listen on 127.0.0.1:{view_server.port}: Address already in use"
