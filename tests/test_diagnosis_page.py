"""The diagnosis page in a real browser: its numbers, marks, verdicts and commands."""

import copy
import json
from pathlib import Path

import pytest

from chromium import Browser
from example_pages import PLACE, REPORTS, resolve
from isthmus.report.diagnosis import page
from isthmus.report.json_text import pointer


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


def test_what_all_domains_share_is_said_once(tmp_path: Path, browser: Browser):
    report = copy.deepcopy(REPORTS["many"])
    for place, domain in enumerate(report["domains"].values()):
        domain["command"] = f"isthmus fit configs/{domain['verdict']}.yaml"
        if domain["verdict"] == "adapt":
            domain["command"] = f"isthmus fit configs/{place}.yaml"
        domain["auc"]["net"]["note"] = "two trainings tell little"
    (tmp_path / "page.html").write_text(page(report), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    copies = "[...document.querySelectorAll('{} button.copy')].map(b => b.dataset.copy)"
    heads = browser.run(copies.format(".act > header"))
    verdicts = {domain["verdict"] for domain in report["domains"].values()} - {"adapt"}
    assert sorted(heads) == sorted(f"isthmus fit configs/{verdict}.yaml" for verdict in verdicts)
    adapted = [d["command"] for d in report["domains"].values() if d["verdict"] == "adapt"]
    assert sorted(browser.run(copies.format(".verdict"))) == sorted(adapted)
    text = browser.run("document.getElementById('verdicts').innerText")
    assert text.lower().count("two trainings tell little") == 1


def test_names_break_at_their_strokes_and_stay_whole_as_text(tmp_path: Path, browser: Browser):
    report = copy.deepcopy(REPORTS["quick"])
    report["domains"] = {"executive/managerial": report["domains"]["home"]} | report["domains"]
    (tmp_path / "page.html").write_text(page(report), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    names = browser.run("[...document.querySelectorAll('.verdict h4')].map(e => e.textContent)")
    assert set(names) == set(report["domains"])
    assert browser.run("document.querySelectorAll('.verdict h4 wbr').length") == 1
