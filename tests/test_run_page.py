"""The page of a run in a real browser: looks, keys, screen readers, sorting; numbers equal the JSON."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import run_reports
from chromium import Browser
from page_reading import check_looks, check_structure
from run_reports import content


@pytest.fixture(scope="module")
def run_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return run_reports.write_pages(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [("few", 360, True), ("few", 1600, False), ("one", 1000, True), ("many", 360, False)],
)
def test_no_fault_no_request_no_overflow_and_enough_contrast(
    name: str, width: int, dark: bool, run_pages: dict[str, Path], browser: Browser
):
    check_looks(browser, run_pages[name], width=width, dark=dark)


def test_a_screen_reader_gets_landmarks_names_and_headings(
    run_pages: dict[str, Path], browser: Browser
):
    browser.open(run_pages["few"])
    check_structure(browser)


def at(report: Any, pointer: str) -> Any:
    for step in pointer.removeprefix("/").split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        report = report[int(step)] if isinstance(report, list) else report[step]
    return report


def test_numbers_on_the_page_are_those_of_the_json(run_pages: dict[str, Path], browser: Browser):
    report = json.loads(json.dumps(content()))
    report["gates"] = {"gates": [{"shares": [[0.25, 0.75], [0.5, 0.5], None]}]}
    browser.open(run_pages["few"])
    told = browser.run(
        "[...document.querySelectorAll('[data-path]')].map(one => [one.dataset.path.startsWith('/')"
        " ? one.dataset.path : one.closest('[data-base]').dataset.base + '/' + one.dataset.path,"
        " one.textContent])"
    )
    assert len(told) > 90
    for path, text in told:
        value = at(report, path)
        if value is None:
            assert text == "–", path
            continue
        places = len(text.partition(".")[2])
        shown = float(text.replace(",", "").replace("−", "-"))
        assert shown == pytest.approx(value, abs=0.5 * 10**-places + 1e-12), path


NAMES = "[...document.querySelectorAll('#domains tbody th')].map(one => one.textContent)"


def test_the_worst_comes_first_and_a_head_sorts_by_its_column(
    run_pages: dict[str, Path], browser: Browser
):
    browser.open(run_pages["few"])
    by_auc = browser.run(NAMES)
    assert by_auc[-1] == "mail"  # one class: no AUC
    head = (
        "[...document.querySelectorAll('#domains thead th')].find(one => one.textContent === '{}')"
    )
    sort = "head.querySelector('button').click()"
    rows = "[...document.querySelectorAll('#domains tbody tr')].map(r => +r.cells[1].dataset.value)"
    browser.run(f"window.head = {head.format('rows')}; {sort}")
    assert browser.run(rows) == sorted(browser.run(rows))
    assert browser.run("head.getAttribute('aria-sort')") == "ascending"
    browser.run(sort)
    assert browser.run(rows) == sorted(browser.run(rows), reverse=True)
    assert (
        browser.run("document.getElementById('sorted').textContent") == "Sorted by rows, falling."
    )
    assert browser.run("document.querySelectorAll('[aria-sort]').length") == 1
    browser.run(f"window.head = {head.format('AUC')}; {sort}; {sort}")
    assert browser.run(NAMES) == [*reversed(by_auc[:-1]), "mail"]  # what has none stays last
    browser.run(f"window.head = {head.format('domain')}; head.querySelector('button').focus()")
    browser.press("Enter", 13, text="\r")
    assert browser.run(NAMES) == ["a < b & c", "home", "mail"]


def test_charts_hold_what_they_show(run_pages: dict[str, Path], browser: Browser):
    browser.open(run_pages["few"], width=360)
    assert browser.run("document.querySelectorAll('svg.reliability').length") == 4
    # The last domain has negatives only: no curve, and one line of scores.
    last = "document.querySelector('article:last-of-type')"
    assert browser.run(f"{last}.querySelector('svg.looks') === null")
    assert browser.run(f"{last}.querySelectorAll('svg.scores .curve').length") == 1
    dots = browser.run(
        "document.querySelectorAll('.reliability')[0].querySelectorAll('.dot').length"
    )
    assert dots == 15
    sizes = browser.run(
        "[...document.querySelectorAll('svg.chart text')].filter(t => t.getClientRects().length)"
        ".map(t => parseFloat(getComputedStyle(t).fontSize)"
        " * t.closest('svg').getBoundingClientRect().width / t.closest('svg').viewBox.baseVal.width)"
    )
    assert min(sizes) >= 9


def test_without_script_the_order_stands_and_nothing_is_dead(
    run_pages: dict[str, Path], browser: Browser
):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(run_pages["few"])
        assert (
            browser.run(
                "[...document.querySelectorAll('button')].filter(b => b.offsetHeight).length"
            )
            == 0
        )
        assert browser.run(NAMES)[-1] == "mail"
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_hundred_domains_fold_and_print_unfolds_them(
    run_pages: dict[str, Path], browser: Browser
):
    assert run_pages["many"].stat().st_size < 3_000_000
    browser.open(run_pages["many"])
    shown = "[...document.querySelectorAll('article')].filter(a => a.checkVisibility()).length"
    assert browser.run(shown) == 8
    assert browser.run("document.querySelector('summary').textContent") == "92 more domains"
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('details:not([open])').length") == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(shown) == 8


def test_names_are_text_and_not_markup(run_pages: dict[str, Path]):
    page = run_pages["few"].read_text(encoding="utf-8")
    assert "a < b" not in page
    assert "column <0>" not in page
    assert "slow &amp; last" in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
