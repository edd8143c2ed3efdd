"""Compared runs as a page: its numbers are those of the dict, and anyone can read the page."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromium import Browser
from isthmus.metrics import compare
from isthmus.metrics.intervals import holm, holm_levels
from isthmus.report.comparison import comparison_page
from isthmus.report.comparison.comparison_charts import difference_chart
from isthmus.report.comparison.comparison_words import headline
from page_reading import check_looks, check_structure, check_theme_button
from test_comparison import pair

NAMES = ("home", "a < b & c", "mail")


def told(number: int, name: str, **more: Any) -> dict[str, Any]:
    """What is said of a run."""
    return {
        "name": name,
        "path": f"runs/{name}",
        "table": "/data/clicks.parquet",
        "split_by": "random",
        "isthmus": "0.1.0",
        "recipe": "",
        "guard": "",
        "stopped": "patience",
        "parameters": 12_345 * (number + 1),
        "steps": 900,
        "best_step": 700,
        "seconds": 12.5,
        "processes": 1,
        "threads": 2,
        **more,
    }


def report_of(*gains: float, domains: int = 3, groups: int = 300) -> dict[str, Any]:
    """Runs that see more or less of a signal, against a plain one, as `ComparedRuns.to_dict` has them."""
    found, names = [], []
    for place, gain in enumerate(gains):
        a, b = pair(np.random.default_rng(place), groups, gain=gain, domains=domains)
        name = f"run <{place + 1}>"
        (first,) = (compare(a, b).to_dict(),)
        shown = NAMES if domains == 3 else first["domains"]
        first["domains"] = dict(zip(shown, first["domains"].values(), strict=True))
        found.append({**first, "a": "plain", "b": name})
        names.append(name)
    runs = [told(0, "plain", best_step=None, stopped=""), *(told(1, name) for name in names)]
    settings = [
        {"key": "model.adapter.name", "values": [None, *("hamur" for _ in names)]},
        {"key": "model.backbone.widths", "values": [[8], *([16, 8] for _ in names)]},
    ]
    return {
        "isthmus": "0.1.0",
        "split": "test",
        "runs": runs,
        "settings": settings,
        "comparisons": found,
    }


def test_levels_by_hand_and_the_corrected_interval_holds_0_exactly_where_holm_does():
    assert holm_levels([0.01, 0.04, 0.03]) == pytest.approx([1 - 0.05 / 3, 0.975, 0.975])
    # The second is rejected at its own step, .05 / 2, though its adjusted p is that of the first.
    assert holm([0.017, 0.016, 0.9]) == pytest.approx([0.048, 0.048, 0.9])
    assert holm_levels([0.017, 0.016, 0.9]) == pytest.approx([0.975, 1 - 0.05 / 3, 0.95])
    seen = set()
    for seed in range(40):
        a, b = pair(np.random.default_rng(seed), 120, gain=0.25, domains=4)
        for of in compare(a, b).domains.values():
            for one in (of.auc, of.logloss):
                assert one.p_holm is not None
                assert one.ci_holm is not None
                assert one.ci is not None
                assert (one.ci_holm[0] <= 0 <= one.ci_holm[1]) == (one.p_holm > 0.05)
                assert one.ci_holm[0] <= one.ci[0] < one.ci[1] <= one.ci_holm[1]
                assert (one.verdict == "tie") == (one.p_holm > 0.05)
                seen.add(one.verdict)
    assert seen >= {"tie", "better"}


def test_a_verdict_is_of_b_and_turns_with_the_sides():
    a, b = pair(np.random.default_rng(5), 600, gain=0.8)
    there, back = compare(a, b), compare(b, a)
    for metric in ("auc", "logloss"):
        assert there.pooled.differences[metric].verdict == "better"
        assert back.pooled.differences[metric].verdict == "worse"
        assert compare(a, a).pooled.differences[metric].verdict == "tie"


def test_each_mark_stands_where_its_number_is():
    (of,) = report_of(0.6)["comparisons"]
    for metric in ("auc", "logloss"):
        chart = difference_chart(of, metric, list(of["domains"]))
        assert chart is not None
        low, high, start, end = (
            float(chart.get(f"data-{key}") or 0) for key in ("low", "high", "start", "end")
        )
        drawn = [
            low + (float(dot.get("cx") or 0) - start) / (end - start) * (high - low)
            for dot in chart.iter("circle")
        ]
        scopes = [of[key] for key in ("pooled", "macro", "weighted", "worst")]
        expected = [one[metric]["difference"] for one in (*scopes, *of["domains"].values())]
        assert drawn == pytest.approx(expected, abs=(high - low) / 400)
        tones = [g.get("class") for g in chart.iter("g")]
        by_verdict = {"better": "mark up", "worse": "mark down", "tie": "mark flat"}
        held = [one[metric]["verdict"] for one in (*scopes, *of["domains"].values())]
        assert tones == [by_verdict[one] for one in held]


def test_the_headline_counts_the_verdicts():
    (of,) = report_of(0.8)["comparisons"]
    assert headline(of).startswith("In pooled AUC, run <1> is better than plain: +0.")
    one_class = {**of["domains"]["mail"]["auc"], "difference": None, "verdict": None}
    of["domains"]["mail"]["auc"] = {**one_class, "reason": "one class: no positives"}
    assert "not told on 1" in headline(of)
    page = comparison_page({**report_of(0.8), "comparisons": [of]})
    assert "one class: no positives" in page


def test_every_number_of_the_table_is_the_one_of_the_dict(browser: Browser, tmp_path: Path):
    report = report_of(0.6, -0.4)
    path = tmp_path / "page.html"
    path.write_text(comparison_page(report), encoding="utf-8")
    browser.open(path)
    for place, of in enumerate(report["comparisons"]):
        section = f"document.querySelectorAll('main > section')[{place}]"
        rows = browser.run(
            f"[...{section}.querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
        )
        scopes = [of[key] for key in ("pooled", "macro", "weighted", "worst")]
        first = report["comparisons"][0]["domains"]
        by_rows = sorted(first, key=lambda name: -first[name]["rows"])
        expected = [*scopes, *(of["domains"][name] for name in by_rows)]
        assert [row[0] for row in rows[4:]] == by_rows
        for row, scope in zip(rows, expected, strict=True):
            assert int(row[1].replace(",", "")) == scope["rows"]
            for metric, at in (("auc", 2), ("logloss", 8)):
                one = scope[metric]
                shown = [float(text) for text in row[at : at + 3]]
                assert shown == pytest.approx(
                    [one["a"], one["b"], one["difference"]], abs=0.5000001e-4
                )
                ends = [float(text) for text in row[at + 3].split(" to ")]
                ci = one["ci"] if one["ci_holm"] is None else one["ci_holm"]
                assert ends == pytest.approx(ci, abs=0.5000001e-4)
                assert row[at + 5].startswith(one["verdict"])
    settings = browser.run("[...document.querySelectorAll('#settings td')].map(c => c.innerText)")
    assert settings == ["–", "hamur", "hamur", "[8]", "[16, 8]", "[16, 8]"]
    assert browser.run("document.querySelectorAll('nav a').length") == 5


def test_names_are_text_and_not_markup():
    page = comparison_page(report_of(0.3))
    assert "a &lt; b &amp; c" in page
    assert "a < b" not in page
    assert "run <1>" not in page
    assert page.count("<script") == 1
    assert not re.search(r"(src|href)=\"(?!#|data:)", page), "the page needs no other file"


def test_anyone_can_read_the_page(browser: Browser, tmp_path: Path):
    few, many = tmp_path / "few.html", tmp_path / "many.html"
    few.write_text(comparison_page(report_of(0.6, -0.4)), encoding="utf-8")
    many.write_text(comparison_page(report_of(0.3, domains=100, groups=2000)), encoding="utf-8")
    assert many.stat().st_size < 3_000_000
    check_looks(browser, few, width=360, dark=True)
    check_looks(browser, few, width=1600, dark=False)
    check_structure(browser)
    check_theme_button(browser, few)
    check_looks(browser, many, width=360, dark=False)
    assert browser.run("document.querySelectorAll('tbody tr').length") == 4 + 100 + 2 + 2
