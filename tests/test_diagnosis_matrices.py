"""The matrices and downloads of the diagnosis page, in a real browser."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest

from chromium import Browser
from example_pages import PLACE, REPORTS, resolve
from isthmus.report.json_text import pointer
from isthmus.report.svg import short

GRID = """
(() => { const t = document.querySelector('#matrix-KEY table');
  return { head: [...t.tHead.rows[0].cells].slice(1).map(c => c.title),
    rows: [...t.tBodies[0].rows].map(r => [r.cells[0].title, [...r.cells].slice(1)
      .map(e => e.dataset.path ? PLACE : null)]) }; })()
""".replace("PLACE", PLACE)


@pytest.mark.parametrize("name", ["six", "many"])
@pytest.mark.parametrize("by", ["rows", "name", "alike", "mean"])
def test_a_sorted_matrix_keeps_each_cell_with_its_row_and_column(
    name: str, by: str, pages: dict[str, Path], browser: Browser
):
    browser.open(pages[name])
    browser.run(
        "(() => { const s = document.querySelector('[data-order=matrix-pairwise]');"
        f" s.value = '{by}'; s.dispatchEvent(new Event('change')); }})()"
    )
    grid = browser.run(GRID.replace("KEY", "pairwise"))
    matrix, domains = REPORTS[name]["matrix"]["pairwise"], REPORTS[name]["domains"]
    assert [target for target, _ in grid["rows"]] == grid["head"]
    for target, paths in grid["rows"]:
        for source, path in zip(grid["head"], paths, strict=True):
            if source == target:
                assert path is None
            else:
                assert path == pointer(("matrix", "pairwise", target, source, "estimate"))
    order = grid["head"]
    assert sorted(order) == sorted(domains)
    if by == "name":
        assert order == sorted(domains, key=str.casefold)
    if by == "rows":
        sizes = [domains[each]["rows"] for each in order]
        assert sizes == sorted(sizes, reverse=True)
    if by == "mean":
        means = [np.mean([cell["estimate"] for cell in matrix[each].values()]) for each in order]
        assert means == pytest.approx(sorted(means, reverse=True), abs=1e-12)


def test_cells_are_read_in_words_on_focus_and_on_hover(pages: dict[str, Path], browser: Browser):
    browser.open(pages["six"])
    readout = "document.querySelector('#matrix-pairwise .readout').textContent"
    assert browser.run(readout).startswith("Point at a cell")
    browser.run("document.querySelector('#matrix-pairwise td[tabindex=\"0\"]').focus()")
    browser.press("ArrowRight", 39)
    cell = REPORTS["six"]["matrix"]["pairwise"]["home"]["search"]
    said = browser.run(readout)
    assert said == browser.run("document.activeElement.getAttribute('aria-label')")
    assert said == (
        "With the rows of search added, home changes by"
        f" {short(cell['estimate'], 4)}; 95 % interval {short(cell['ci'][0], 4)} to"
        f" {short(cell['ci'][1], 4)}, unadjusted; adjusted p {short(cell['p_bh'], 3, signed=False)}."
    )
    browser.press("ArrowDown", 40)
    browser.press("End", 35)
    assert browser.run(readout).startswith("With the rows of weather added, search changes by")
    assert (
        browser.run("document.querySelectorAll('#matrix-pairwise td[tabindex=\"0\"]').length") == 1
    )
    browser.press("ArrowRight", 39)  # the edge: nothing moves
    assert browser.run(readout).startswith("With the rows of weather added, search changes by")
    browser.run("document.querySelector('#matrix-leave_one_out').scrollIntoView()")
    place = browser.run(
        "(() => { const r = document.querySelector('#matrix-leave_one_out tbody')"
        ".rows[5].cells[1].getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    browser.point(*place)
    told = browser.run("document.querySelector('#matrix-leave_one_out .readout').textContent")
    assert told == "home on weather: not testable"


def test_a_cell_of_another_domains_model_says_how_far_it_is_from_the_own(
    pages: dict[str, Path], browser: Browser
):
    browser.open(pages["six"])
    browser.run(
        "[...document.querySelectorAll('#matrix-cross_score td')]"
        ".find(e => e.classList.contains('up')).focus()"
    )
    said = browser.run("document.querySelector('#matrix-cross_score .readout').textContent")
    row = REPORTS["six"]["matrix"]["cross_score"]["search"]
    more = row["home"]["estimate"] - row["search"]["estimate"]
    assert said.startswith(
        f"The model trained on home alone has AUC {short(row['home']['estimate'], 4, signed=False)}"
        f" on search, {short(more, 4)} against its own model; 95 % interval"
    )
    assert "better than its own" in browser.run(
        "document.querySelector('#matrix-cross_score .legend').textContent"
    )


def test_the_page_of_forty_domains_stays_small(pages: dict[str, Path]):
    embedded = len(json.dumps(REPORTS["many"], separators=(",", ":")))
    assert pages["many"].stat().st_size < 3 * embedded


def test_in_small_matrices_sign_and_certainty_are_text_too(
    pages: dict[str, Path], browser: Browser
):
    browser.open(pages["six"])
    cells = browser.run(
        "[...document.querySelectorAll('#matrix-pairwise td[data-path]')]"
        f".map(e => [{PLACE}, e.textContent, e.classList.contains('sure'),"
        " getComputedStyle(e, '::after').content])"
    )
    assert len(cells) == 30
    for path, text, sure, mark in cells:
        cell = resolve(REPORTS["six"], path.removesuffix("/estimate"))
        assert sure == (cell["p_bh"] <= 0.10)
        assert ("●" in mark) == sure
        assert text[0] == "0" or (text[0] == "+") == (cell["estimate"] > 0)


def download(browser: Browser, folder: Path, button: str) -> list[list[str]]:
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.run(f"{button}.click()")
    deadline = time.monotonic() + 30
    while not list(folder.glob("*.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (path,) = folder.glob("*.csv")
    text = path.read_bytes().decode("utf-8-sig")
    return list(csv.reader(text.splitlines()))


def test_a_matrix_downloads_as_one_line_for_each_cell(
    pages: dict[str, Path], browser: Browser, tmp_path: Path
):
    browser.open(pages["many"])
    header, *lines = download(browser, tmp_path, "document.querySelector('[data-matrix=pairwise]')")
    assert header == ["target", "source", "estimate", "lower", "upper", "p", "p_bh"]
    matrix = REPORTS["many"]["matrix"]["pairwise"]
    assert len(lines) == 40 * 39
    for target, source, estimate, low, high, _, p_bh in lines:
        cell = matrix[target][source]
        assert [float(estimate), float(low), float(high)] == [cell["estimate"], *cell["ci"]]
        assert float(p_bh) == cell["p_bh"]


def test_a_table_downloads_with_full_numbers(
    pages: dict[str, Path], browser: Browser, tmp_path: Path
):
    browser.open(pages["six"])
    header, *lines = download(browser, tmp_path, "document.querySelector('#verdicts .csv')")
    domains = REPORTS["six"]["domains"]
    assert header[:2] == ["domain", "verdict"]
    assert header[6:8] == ["95 % interval lower", "95 % interval upper"]
    assert [line[0] for line in lines] == list(domains)
    for line in lines:
        of = domains[line[0]]
        net = of["auc"]["net"]
        assert float(line[2]) == of["rows"]
        expected = [
            of["auc"]["solo"],
            of["auc"]["joint"],
            net["estimate"],
            *(net["ci"] or (None, None)),
        ]
        assert [float(cell) if cell else None for cell in line[3:8]] == expected
        assert line[-2:] == [of["command"] or "", of["why"].replace("(-", "(−")]


def test_every_table_can_be_downloaded(pages: dict[str, Path], browser: Browser):
    browser.open(pages["six"])
    missing = browser.run(
        "[...document.querySelectorAll('table')].filter(t => !t.closest('details, figure')"
        ".querySelector('button.csv')).length"
    )
    assert missing == 0
