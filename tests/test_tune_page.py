"""A study as table and page: made of a plain dict, read back as SVG and in a real browser."""

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from chromium import Browser
from isthmus.report.tuning import trial_table, tuning_page
from isthmus.report.tuning.told import OPTIMISM, headline, title_of
from isthmus.report.tuning.tuning_charts import domain_chart, history_chart, importance_chart
from page_reading import check_looks, check_structure, check_theme_button

NAMES = ("home", "a < b & c", "mail")


def gain(
    rows: int, gain: float | None, half: float | None, why: str | None = None
) -> dict[str, Any]:
    value = None if gain is None else 0.7 + gain
    reference = None if gain is None else 0.7
    told = {"rows": rows, "reference": reference, "value": value, "gain": gain, "half": half}
    return {**told, "reason": why}


def trial(number: int, score: float | None, **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "recipe": None,
        "state": "complete",
        "score": score,
        "epoch": 1.5,
        "seconds": 2.0,
        "params": {},
        "changes": {"train.lr": 0.0031415},
        "feasible": True,
        "worst": "mail",
        "gains": {},
        "looks": {},
        "reason": None,
        **more,
    }


def report_of(*trials: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "isthmus": "0.1.0",
        "table": "/data/clicks.parquet",
        "monitor": "auc_pooled",
        "minimised": False,
        "metric": "auc",
        "budget": "40 trials",
        "seed": 0,
        "looks_per_epoch": 4,
        "rows": {"train": 8000, "validation": 1000},
        "portfolio": ["as it stands", "no norm"],
        "left_out": {"deepfm": "widths <differ>"},
        "as_it_stands": {"train.lr": 0.001},
        "space": {"train.lr": "0.0001 to 0.01"},
        "seconds": 12.0,
        "best": 2,
        "reference": 0,
        "trials": list(trials),
        "importances": {"train.lr": 0.75, "model.towers": 0.25},
        "no_importances": None,
        **more,
    }


GAINS = {
    "home": gain(600, 0.02, 0.01),
    "a < b & c": gain(300, -0.004, 0.03),
    "mail": gain(100, None, None, "one class: no positives"),
}


def example() -> dict[str, Any]:
    return report_of(
        trial(0, 0.70, recipe="as it stands", changes={}),
        trial(1, 0.74, recipe="no norm", feasible=False, worst="a < b & c"),
        trial(2, 0.72, gains=GAINS),
        trial(3, 0.66, state="pruned", feasible=None),
        trial(4, None, state="failed", feasible=None, epoch=None, reason="loss must stay finite"),
        trial(5, 0.71),
    )


def test_the_table_has_the_best_first_and_says_how_each_ended():
    table = trial_table(example())
    assert [row[0] for row in table.rows] == ["2 *", "5", "0", "1", "3", "4"]
    assert [row[1] for row in table.rows][2:4] == ["as it stands", "no norm"]
    ends = [row[-1] for row in table.rows]
    assert ends == ["", "", "", "worse in a < b & c", "pruned", "failed: loss must stay finite"]
    assert table.rows[0][2:6] == ("0.7200", "1.50", "2.0", "lr 0.00314")
    assert table.notes[0] == (
        "Best is trial 2 (TPE), auc_pooled 0.7200: +0.0200 against the config as it stands."
    )
    assert OPTIMISM in table.notes
    assert "deepfm (widths <differ>)" in table.notes[-1]
    assert "6 trials (4 complete, 1 pruned, 1 failed)" in title_of(example())


def test_a_logloss_is_ranked_from_below():
    low = report_of(trial(0, 0.5, recipe="as it stands"), trial(1, 0.4), minimised=True, best=1)
    assert [row[0] for row in trial_table(low).rows] == ["1 *", "0"]
    assert "-0.1000 against" in headline(low)


def test_a_long_table_is_cut_for_the_terminal_only():
    many = report_of(*(trial(n, 0.7 + n / 1000) for n in range(90)), best=89)
    assert len(trial_table(many).rows) == 60
    assert "30 more trials stand in trials.md." in trial_table(many).notes
    assert len(trial_table(many, shown=None).rows) == 90


def marks(chart: Element, kind: str) -> list[Element]:
    return [one for one in chart.iter() if kind in (one.get("class") or "").split()]


def test_the_history_draws_each_trial_where_its_score_is():
    chart = history_chart(example())
    assert chart is not None
    low, high = float(chart.get("data-low") or 0), float(chart.get("data-high") or 0)
    start, end = float(chart.get("data-start") or 0), float(chart.get("data-end") or 0)
    drawn = {}
    for mark in marks(chart, "feasible") + marks(chart, "infeasible"):
        y = float(mark.get("cy") or 0)
        drawn[float(mark.get("cx") or 0)] = low + (y - start) / (end - start) * (high - low)
    scores = [drawn[x] for x in sorted(drawn)]
    assert scores == pytest.approx([0.70, 0.74, 0.72, 0.71], abs=1e-4)
    assert [len(marks(chart, kind)) for kind in ("infeasible", "pruned", "failed", "best")] == [
        1,
        1,
        1,
        1,
    ]
    texts = [one.text for one in chart.iter("title")]
    assert texts[1] == "trial 1, no norm: 0.7400; lr 0.00314; worse in a < b & c"
    # The line of the best so far leaves out the trial that harms a domain: two levels.
    (line,) = marks(chart, "best-line")
    assert len(set(re.findall(r"(?:V|M[\d.]+ )([\d.]+)", line.get("d") or ""))) == 2


def test_one_bad_trial_does_not_press_the_others_into_a_line():
    far = report_of(*(trial(n, 0.7 + n / 1000) for n in range(11)), trial(11, 0.1), best=10)
    chart = history_chart(far)
    assert chart is not None
    assert float(chart.get("data-low") or 0) > 0.68
    assert len(marks(chart, "feasible")) == 12


def test_each_domain_has_its_interval_and_one_without_has_none():
    chart = domain_chart(example(), GAINS)
    assert chart is not None
    assert [one.text for one in chart.iter("title")] == [
        "home: +0.0200 ± 0.0100, 600 rows",
        "a < b & c: -0.0040 ± 0.0300, 300 rows",
    ]
    assert [one.get("class") for one in marks(chart, "mark")] == ["mark up", "mark flat"]
    assert domain_chart(example(), {"mail": GAINS["mail"]}) is None


def test_a_chart_that_has_nothing_to_show_is_left_out():
    failed = trial(0, None, state="failed", feasible=None, epoch=None, reason="why")
    empty = report_of(failed, best=None, reference=None, importances=None, no_importances="few")
    assert history_chart(empty) is None
    assert importance_chart(empty) is None
    page = tuning_page(empty)
    assert "No trial has a score yet." in page
    assert "Not shown: few." in page
    assert "No trial was completed" in page
    tuning_page(report_of(best=None, reference=None))  # a study that has just begun
    assert trial_table(report_of(best=None, reference=None)).rows == ()


def test_names_are_text_and_not_markup():
    page = tuning_page(example())
    assert "a &lt; b &amp; c" in page
    assert "a < b" not in page
    assert "widths &lt;differ&gt;" in page
    assert page.count("<script") == 1  # the theme's


def test_the_page_opens_in_a_browser(browser: Browser, tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text(tuning_page(example()), encoding="utf-8")
    browser.open(path)
    assert browser.run("document.querySelectorAll('svg.chart').length") == 3
    assert browser.run("document.querySelector('.lead').textContent").startswith("Best is trial 2")
    rows = browser.run("[...document.querySelectorAll('#trials tbody tr')].length")
    assert rows == 6
    check_structure(browser)
    check_theme_button(browser, path)
    check_looks(browser, path, width=360, dark=True)
    check_looks(browser, path, width=1600, dark=False)
