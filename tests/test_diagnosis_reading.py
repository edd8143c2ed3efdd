"""The diagnosis page can be read by anyone: looks, themes, keys, screen readers, print."""

import itertools
import re
from pathlib import Path

import pytest

from chromium import Browser
from page_reading import CONTRAST, OVERFLOW


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
