"""The diagnosis page in a real browser: its numbers, its looks, its keys, its downloads."""

import csv
import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diagnosis_example as examples
from chromium import Browser
from isthmus.report.diagnosis import page
from isthmus.report.diagnosis.svg import short
from isthmus.report.diagnosis.values import pointer

REPORTS = {"six": examples.example(), "quick": examples.quick(), "many": examples.many()}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, report in REPORTS.items():
        (folder / f"{name}.html").write_text(page(report), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in REPORTS}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        # The page keeps the focus, also after a test has stepped out of it by the Tab key.
        opened.call("Emulation.setFocusEmulationEnabled", enabled=True)
        yield opened


# Where an element's number stands in the report: its own path, or one counted from its row's.
PLACE = (
    "(e.dataset.path.startsWith('/') ? e.dataset.path"
    " : e.closest('[data-base]').dataset.base + '/' + e.dataset.path)"
)


def resolve(report: Any, path: str) -> Any:
    """A JSON pointer, by its standard."""
    for step in path.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        report = report[int(step)] if isinstance(report, list) else report.get(step)
        if report is None:
            return None
    return report


# --- the page tells the truth -------------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_every_number_on_the_page_is_the_one_of_the_report(
    name: str, pages: dict[str, Path], browser: Browser
):
    report = REPORTS[name]
    browser.open(pages[name])
    embedded = browser.run("document.getElementById('report').textContent")
    assert json.loads(embedded) == report
    shown = browser.run(
        "[...document.querySelectorAll('[data-path]')].filter(e => !e.closest('svg'))"
        f".map(e => [{PLACE}, e.textContent])"
    )
    assert len(shown) > 100
    for path, text in shown:
        value = resolve(report, path)
        if text == "–":
            assert value is None, path
            continue
        if text == "<0.001":
            assert value < 0.0005, path
            continue
        told = text.replace("−", "-").replace(",", "")
        places = len(told.partition(".")[2])
        if told == "0":
            places = 3  # cells of a matrix say 0 for what rounds to it
        assert abs(float(told) - value) <= 0.5000001 * 10**-places, (path, text, value)
        assert "+" not in text or value > 0, (path, text)
    paths = {path for path, _ in shown}
    for domain, held in report["domains"].items():
        start = pointer(("domains", domain))
        for key in ("rows", "positives", "clusters", "train_rows", "auc/solo", "auc/joint"):
            assert f"{start}/{key}" in paths
        for metric in ("auc", "logloss"):
            for key, effect in held[metric].items():
                if isinstance(effect, dict):
                    assert f"{start}/{metric}/{key}/estimate" in paths


@pytest.mark.parametrize("name", REPORTS)
def test_every_mark_stands_where_its_number_is(name: str, pages: dict[str, Path], browser: Browser):
    report = REPORTS[name]
    browser.open(pages[name])
    marks = browser.run(
        "[...document.querySelectorAll('svg[data-low] .mark[data-path]')].map(m => {"
        " const s = m.closest('svg').dataset;"
        " return [m.dataset.path, +s.low, +s.high, +s.start, +s.end,"
        " +m.querySelector('.dot').dataset.x]; })"
    )
    assert len(marks) >= 3 * len(report["domains"]) // 2
    for path, low, high, start, end, place in marks:
        value = low + (place - start) / (end - start) * (high - low)
        true = min(max(resolve(report, path), low), high)
        assert value == pytest.approx(true, abs=(high - low) * 1e-3), path


def test_verdicts_come_first_and_each_domain_has_one(pages: dict[str, Path], browser: Browser):
    browser.open(pages["six"])
    assert browser.run("document.querySelector('main > section').id") == "verdicts"
    cards = browser.run(
        "[...document.querySelectorAll('.verdict')].map(c => [c.querySelector('h4').textContent,"
        " c.closest('.act').querySelector('.word').textContent, c.innerText])"
    )
    domains = REPORTS["six"]["domains"]
    assert [name for name, _, _ in cards] == list(domains)
    for name, word, text in cards:
        assert word == f"verdict: {domains[name]['verdict']}"
        assert domains[name]["why"].replace("(-", "(−") in text
        assert domains[name]["certainty"] in text
        assert str(domains[name]["command"] or "") in text
        assert "By AUC the verdict is" not in text  # `why` tells where the metrics disagree
    assert "Train it with live video." in cards[2][2]
    assert "Train together, then tune on its own rows" in cards[1][2]
    assert "solo ended at the epoch cap" in cards[4][2]
    assert "31 positives in 212 test rows" in cards[5][2]


def test_forty_domains_show_the_twenty_largest_and_fold_the_others(
    pages: dict[str, Path], browser: Browser
):
    browser.open(pages["many"])
    held = REPORTS["many"]["domains"]
    largest = sorted(held, key=lambda name: -held[name]["rows"])[:20]
    open_now = browser.run(
        "[...document.querySelectorAll('.verdict')].filter(c => !c.closest('details'))"
        ".map(c => c.querySelector('h4').textContent)"
    )
    assert sorted(open_now) == sorted(largest)
    assert browser.run("document.querySelectorAll('.verdict').length") == 40
    assert browser.run("document.querySelector('h4').textContent") == largest[0]
    assert browser.run("document.querySelectorAll('h4 b, h4 script').length") == 0


def test_what_was_not_measured_has_no_section(pages: dict[str, Path], browser: Browser):
    browser.open(pages["quick"])
    sections = browser.run("[...document.querySelectorAll('main > section')].map(s => s.id)")
    assert sections == ["verdicts", "effects", "print"]
    links = browser.run("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert links == sections
    assert "not measured at this level" in browser.run("document.body.innerText")
    browser.open(pages["six"])
    for name in browser.run("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash)"):
        assert browser.run(f"document.querySelector('{name}') !== null"), name


# --- it can be read by anyone -------------------------------------------------------------------

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const seen = new Map();
  const rgba = (colour) => {
    if (!seen.has(colour)) seen.set(colour, drawn(colour));
    return seen.get(colour);
  };
  const drawn = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => {
    v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const out = [];
  for (const element of document.querySelectorAll('body *')) {
    const texts = [...element.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim());
    if (!texts.length || !element.getClientRects().length || element.closest('script, .sr')) continue;
    const style = getComputedStyle(element);
    if (parseFloat(style.fontSize) === 0) continue;
    const ink = rgba(element.closest('svg') ? style.fill : style.color);
    let under = [0, 0, 0, 0];
    for (let at = element; at && under[3] < 255; at = at.parentElement)
      under = rgba(getComputedStyle(at).backgroundColor);
    if (element.closest('.grouped')) under = rgba(getComputedStyle(
      element.closest('.grouped').querySelector('.dot')).fill);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) out.push([element.tagName, element.className.baseVal ?? element.className,
      element.textContent.trim().slice(0, 30), ratio]);
  }
  return out;
})()
"""


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [
        *(
            (name, width, dark)
            for name in ("six", "quick")
            for width in (360, 1600)
            for dark in (0, 1)
        ),
        ("many", 360, True),
        ("many", 1600, False),
    ],
)
def test_no_fault_no_request_no_overflow_and_enough_contrast(
    name: str, width: int, dark: int, pages: dict[str, Path], browser: Browser
):
    browser.open(pages[name], width=width, dark=bool(dark))
    assert browser.run(OVERFLOW) <= 0
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.run(OVERFLOW) <= 0
    assert browser.run(CONTRAST) == []
    browser.run("document.getElementById('metric-logloss').click()")
    assert browser.run(OVERFLOW) <= 0
    assert browser.run(CONTRAST) == []
    assert browser.faults == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", paper)))
    assert (brightness < 200) == bool(dark)


def test_text_in_charts_is_never_tiny(pages: dict[str, Path], browser: Browser):
    for width in (360, 1600):
        browser.open(pages["six"], width=width)
        sizes = browser.run(
            "[...document.querySelectorAll('svg.chart text')].filter(t => t.getClientRects().length)"
            ".map(t => parseFloat(getComputedStyle(t).fontSize)"
            " * t.closest('svg').getBoundingClientRect().width"
            " / t.closest('svg').viewBox.baseVal.width)"
        )
        assert min(sizes) >= 9


def test_the_theme_follows_the_button_and_stays(pages: dict[str, Path], browser: Browser):
    dark = "getComputedStyle(document.documentElement).colorScheme"
    browser.open(pages["quick"])
    browser.run("localStorage.clear()")
    assert browser.run(dark) == "light"
    assert browser.run("document.getElementById('theme').textContent") == "Dark theme"
    browser.run("document.getElementById('theme').click()")
    assert browser.run(dark) == "dark"
    assert browser.run("document.getElementById('theme').textContent") == "Light theme"
    browser.open(pages["quick"])
    assert browser.run(dark) == "dark"
    browser.open(pages["quick"], dark=True)
    browser.run("document.getElementById('theme').click()")
    assert browser.run(dark) == "light"
    browser.run("localStorage.clear()")


def test_by_keyboard_the_first_stop_skips_to_the_verdicts(pages: dict[str, Path], browser: Browser):
    browser.open(pages["six"])
    browser.press("Tab", 9)
    assert browser.run("document.activeElement.textContent") == "Skip to the verdicts"
    assert browser.run("document.activeElement.getBoundingClientRect().left") >= 0
    seen = set()
    for _ in range(60):
        browser.press("Tab", 9)
        active = "document.activeElement"
        seen.add(browser.run(f"{active}.id || {active}.className || {active}.tagName"))
        outline = browser.run(
            f"{active}.id.startsWith('metric') || {active} === document.body"
            f" || getComputedStyle({active}).outlineStyle !== 'none'"
        )
        assert outline, browser.run(f"{active}.outerHTML")
    assert {"theme", "metric-auc", "scroll", "quiet csv"} <= seen


def test_the_metric_is_switched_by_the_arrow_keys(pages: dict[str, Path], browser: Browser):
    browser.open(pages["six"])
    shown = "[...document.querySelectorAll('.of-auc, .of-logloss')].map(e => e.offsetHeight > 0)"
    assert browser.run(shown) == [True, False]
    browser.run("document.getElementById('metric-auc').focus()")
    browser.press("ArrowRight", 39)
    assert browser.run(shown) == [False, True]


def test_a_screen_reader_gets_landmarks_names_and_headings(
    pages: dict[str, Path], browser: Browser
):
    browser.open(pages["six"])
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    nodes = [node for node in browser.tree() if not node.get("ignored")]
    by_role: dict[str, list[str]] = {}
    for node in nodes:
        role = node["role"]["value"]
        by_role.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    for role in ("banner", "main", "navigation", "contentinfo", "region"):
        assert role in by_role, role
    for role in (
        "image",
        "button",
        "combobox",
        "link",
        "grid",
        "table",
        "region",
        "radio",
        "article",
    ):
        assert all(by_role[role]), (role, by_role[role])
    buttons = [name for name in by_role["button"] if name.startswith("Download")]
    assert len(buttons) == len(set(buttons))
    assert any("very sure" in name for name in by_role["StaticText"])
    levels = browser.run(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter(h => h.getClientRects().length)"
        ".map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert browser.run(
        "document.querySelectorAll('table:not(.heat) caption').length"
    ) == browser.run("document.querySelectorAll('table:not(.heat)').length")
    unnamed = "document.querySelectorAll('th:not([scope])').length"
    assert browser.run(unnamed) == 0
    repeated = "[...document.querySelectorAll('[id]')].map(e => e.id)"
    ids = browser.run(repeated)
    assert len(ids) == len(set(ids))


def test_without_script_everything_is_there_and_no_button_is_dead(
    pages: dict[str, Path], browser: Browser
):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["six"])
        buttons = "[...document.querySelectorAll('button, select')].filter(b => b.offsetHeight)"
        assert browser.run(f"{buttons}.length") == 0
        assert browser.run("document.querySelectorAll('.verdict').length") == 6
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_print_shows_what_was_folded_and_hides_the_controls(
    pages: dict[str, Path], browser: Browser
):
    browser.open(pages["six"], dark=True)
    browser.media(dark=True, kind="print")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('details:not([open])').length") == 0
    visible = "[...document.querySelectorAll('button, nav')].filter(b => b.offsetHeight).length"
    assert browser.run(visible) == 0
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run(CONTRAST) == []
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run("document.querySelectorAll('details.table[open]').length") == 0
    browser.media()


# --- commands -----------------------------------------------------------------------------------

COPY = """
(async () => { window.got = null;
  Object.defineProperty(navigator, 'clipboard', { configurable: true, value: {
    writeText: async (text) => { if (REFUSED) throw new Error('no'); window.got = text; } } });
  const button = document.querySelectorAll('button.copy')[1];
  button.click();
  await new Promise((done) => setTimeout(done, 50));
  return [window.got, getSelection().toString(), document.getElementById('copied').textContent,
    button.firstChild.data]; })()
"""


def test_a_command_is_copied_or_at_least_selected(pages: dict[str, Path], browser: Browser):
    command = REPORTS["six"]["domains"]["search"]["command"]
    browser.open(pages["six"])
    assert browser.run(COPY.replace("REFUSED", "false")) == [command, "", "Copied.", "Copied"]
    browser.open(pages["six"])
    got, selected, said, label = browser.run(COPY.replace("REFUSED", "true"))
    assert (got, selected) == (None, command)
    assert (said, label) in {
        ("Copied.", "Copied"),
        ("The command is selected.", "Selected"),
    }
    names = browser.run("[...document.querySelectorAll('button.copy')].map(b => b.textContent)")
    assert len(names) == len(set(names)) == 5


def test_notes_stand_where_their_effects_are(pages: dict[str, Path], browser: Browser):
    browser.open(pages["six"])
    for place, note in (
        ("#groups .remark", "against all in one: 3 of 5 replicates have a value."),
        ("#capacity .remark", "Everywhere: two trainings tell little"),
        (".of-auc .remark", "Net effect N of kids & family: 4 of 5 replicates have a value."),
    ):
        found = browser.run(f"document.querySelector('{place}')?.textContent ?? ''")
        assert found.startswith(note)
    cards = browser.run(
        "[...document.querySelectorAll('.verdict .much')].map(c => c.innerText)"
        ".filter(t => t.includes('4 of 5 replicates have a value')).length"
    )
    assert cards == 1


def test_the_fine_print_tells_recipes_budgets_and_what_was_tried(
    pages: dict[str, Path], browser: Browser
):
    browser.open(pages["six"])
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    text = browser.run("document.getElementById('print').innerText")
    for told in (
        "the best of 2 tried on validation rows",
        "120 to 320 steps, 8 looks at validation",
        "by user_id and by item_id",
        "archive: one class only",
        "6 measured, 1 left out",
        "4,096 × 0.001: 0.7181 (chosen)",
        "1,024 × 0.0003: 0.7177",
        "time; every number is of the test rows",
        "5 seeds",
    ):
        assert told in text


# --- matrices and downloads ---------------------------------------------------------------------

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
