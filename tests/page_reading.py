"""What every page must be for a reader, checked in a real browser."""

import itertools
import re
from pathlib import Path

from chromium import Browser

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


def check_looks(browser: Browser, page: Path | str, *, width: int, dark: bool) -> None:
    """Nothing fails, nothing is fetched from elsewhere, nothing sticks out, and text can be read."""
    browser.open(page, width=width, dark=dark)
    assert browser.run(OVERFLOW) <= 0
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.run(OVERFLOW) <= 0
    assert browser.run(CONTRAST) == []
    assert browser.faults == []
    home = "file:" if isinstance(page, Path) else page[: page.index("/", len("http://")) + 1]
    assert [url for url in browser.requests if not url.startswith((home, "data:"))] == []
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 200) == dark


def check_structure(browser: Browser) -> None:
    """A screen reader finds landmarks, names and headings on the page that is open."""
    nodes = [node for node in browser.tree() if not node.get("ignored")]
    by_role: dict[str, list[str]] = {}
    for node in nodes:
        name = node.get("name", {}).get("value", "")
        by_role.setdefault(node["role"]["value"], []).append(name)
    for role in ("banner", "main", "contentinfo"):
        assert role in by_role, role
    for role in ("image", "button", "combobox", "searchbox", "checkbox", "link", "table", "region"):
        assert all(by_role.get(role, ())), (role, by_role[role])
    levels = browser.run(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter(h => h.getClientRects().length)"
        ".map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert browser.run("document.querySelectorAll('th:not([scope])').length") == 0
    captions = "[...document.querySelectorAll('table')].filter(t => !t.caption).length"
    assert browser.run(captions) == 0
    unreached = "[...document.querySelectorAll('.scroll')].filter(s => s.tabIndex !== 0).length"
    assert browser.run(unreached) == 0
    ids = browser.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def check_theme_button(browser: Browser, page: Path | str) -> None:
    """The button turns the theme."""
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    browser.open(page)
    browser.run("localStorage.clear()")
    assert browser.run(scheme) == "light"
    browser.run("document.getElementById('theme').click()")
    assert browser.run(scheme) == "dark"
    browser.run("localStorage.clear()")
