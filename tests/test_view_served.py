"""`isthmus view`: which files it serves, what it refuses, and how ticked runs are compared."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from isthmus.run.comparing import compare_runs
from viewed import PAGE, Viewed, viewed


def test_known_pages_are_served_in_an_origin_of_their_own(view_server: Viewed):
    got = view_server.get("/pages/tuned/report.html")
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
def test_other_files_and_paths_are_not_served(target: str, view_server: Viewed):
    got = view_server.get(target)
    assert got.status == 404
    assert "root:" not in got.text
    assert got.headers["content-type"].startswith("text/plain")


def test_links_are_neither_followed_nor_served(runs_home: Path, tmp_path: Path):
    secret = tmp_path / "outside"
    shutil.copytree(runs_home / "runs" / "plain", secret)
    inside = tmp_path / "inside"
    shutil.copytree(runs_home / "runs" / "again", inside / "again")
    (inside / "linked").symlink_to(secret)
    (inside / "again" / "report.html").unlink()
    (inside / "again" / "report.html").symlink_to(secret / "report.html")
    shutil.copytree(runs_home / "runs" / "plain", inside / "plain")
    (inside / "plain" / "run.json").unlink()
    (inside / "plain" / "run.json").symlink_to(secret / "run.json")
    shutil.copytree(runs_home / "runs" / "plain", inside / "scored")
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
def test_a_name_that_could_be_rebound_is_refused(host: str, status: int, view_server: Viewed):
    got = view_server.get("/", Host=host)
    assert got.status == status
    assert (status == 200) == ("<table" in got.text)


def test_the_name_that_was_asked_for_is_answered(runs_home: Path):
    with viewed(runs_home, "localhost") as running:
        assert running.get("/", Host="localhost").status == 200
    assert running.server.answers.names == {"localhost"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_nothing_but_reading_is_allowed(method: str, view_server: Viewed):
    got = view_server.get("/", method=method)
    assert got.status == 405
    assert got.headers["allow"] == "GET, HEAD"


def test_head_gives_the_headers_alone(view_server: Viewed):
    got, whole = view_server.get("/", method="HEAD"), view_server.get("/")
    assert (got.status, got.text) == (200, "")
    assert abs(int(got.headers["content-length"]) - len(whole.text.encode())) < 50
    assert view_server.get("/events", method="HEAD").headers["content-type"] == "text/event-stream"


def test_another_site_may_link_here_and_ask_nothing(view_server: Viewed):
    aside = {"Sec_Fetch_Site": "cross-site"}
    assert view_server.get("/compare?run=a", **aside, Sec_Fetch_Mode="no-cors").status == 403
    assert view_server.get("/events", **aside, Sec_Fetch_Mode="cors").status == 403
    assert view_server.get("/", **aside, Sec_Fetch_Mode="navigate").status == 200
    assert "access-control-allow-origin" not in view_server.get("/", Origin="http://evil").headers


def test_what_is_no_request_is_refused_and_the_server_goes_on(view_server: Viewed):
    for said in (
        b"\x16\x03\x01\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 70_000,
    ):
        with socket.create_connection(("127.0.0.1", view_server.port), timeout=60) as to:
            to.sendall(said + b"\r\n\r\n")
            try:
                got = to.recv(200)
            except ConnectionResetError:
                continue
            assert b" 200 " not in got
    assert view_server.get("/compare?" + "&".join(["run=x"] * 500)).status == 400
    assert view_server.get("/").status == 200


# What is compared.


def test_ticked_runs_are_compared_by_the_code_of_the_command(runs_home: Path, view_server: Viewed):
    got = view_server.get("/compare?run=runs/plain&run=runs/again&split=validation")
    runs = [runs_home / "runs" / "plain", runs_home / "runs" / "again"]
    expected = compare_runs(runs, split="validation").page()
    assert got.status == 200
    start = got.text.index("<main>")
    assert got.text[start:] == expected[expected.index("<main>") :]
    turned = view_server.get("/compare?run=runs/plain&run=runs/again&first=runs/again")
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
def test_what_cannot_be_compared_is_told_by_name(query: str, said: str, view_server: Viewed):
    got = view_server.get(f"/compare?{query}".replace("<", "%3C").replace(">", "%3E"))
    assert got.status == 422
    assert said in got.text
    assert "<script>x" not in got.text


def test_a_run_that_still_trains_is_told_by_name(runs_home: Path, tmp_path: Path):
    shutil.copytree(runs_home / "runs", tmp_path / "runs")
    state = tmp_path / "runs" / "again" / "run.json"
    state.write_text(state.read_text().replace('"finished"', '"running"'))
    with viewed(tmp_path) as running:
        got = running.get("/compare?run=runs/plain&run=runs/again")
    assert got.status == 422
    assert "must be finished" in got.text
