"""The diagnosis as text and figures: words, scales, orders, Markdown, plain text, PNG and SVG."""

import copy
import html
import itertools
import math
import re
import sys
from pathlib import Path
from xml.etree.ElementTree import fromstring, tostring

import pytest
from hypothesis import given
from hypothesis import strategies as st

import diagnosis_example as examples
from isthmus.report.diagnosis import page, to_markdown, to_terminal, write_figures
from isthmus.report.diagnosis.charts import Interval, reach, strip_chart
from isthmus.report.diagnosis.day_one import day_one_table, newcomer_lines
from isthmus.report.diagnosis.heat_map import matrix_view, orders
from isthmus.report.diagnosis.lookup import by_size, dig
from isthmus.report.diagnosis.text_tables import recipes, remark_lines
from isthmus.report.diagnosis.words import ADVICE, against, headline, minus
from isthmus.report.json_text import pointer
from isthmus.report.svg import short, ticks

REPORTS = {"six": examples.example(), "quick": examples.quick(), "many": examples.many()}


def test_names_of_any_kind_make_a_pointer_that_resolves():
    report = {"domains": {"a/b~c": {"x": [1, 2]}}}
    assert pointer(("domains", "a/b~c", "x", 1)) == "/domains/a~1b~0c/x/1"
    assert dig(report, "domains", "a/b~c", "x", 1) == 2
    assert dig(report, "domains", "none", "x") is None


def test_alike_domains_stand_together():
    names = [f"d{place}" for place in range(9)]
    group = {name: place % 3 for place, name in enumerate(names)}
    matrix = {
        a: {
            b: {"estimate": (0.01 if group[a] == group[b] else -0.01) + 0.001 * (int(a[1]) % 2)}
            for b in names
            if a != b
        }
        for a in names
    }
    del matrix["d0"]["d1"], matrix["d4"]["d7"]
    held = [group[names[place]] for place in orders(matrix, names)["alike"]]
    assert changes(held) == 2
    apart = {a: {b: 0.5 - cell["estimate"] for b, cell in row.items()} for a, row in matrix.items()}
    held = [group[names[p]] for p in orders(apart, names, distance=True)["alike"]]
    assert changes(held) == 2


def changes(values: list[int]) -> int:
    return sum(a != b for a, b in itertools.pairwise(values))


def test_a_report_with_the_least_it_may_hold_still_gives_all_three_texts():
    report = copy.deepcopy(REPORTS["quick"])
    report["plan"] = {}
    for held in report["domains"].values():
        for key in ("flags", "with", "agree", "finding", "config", "certainty"):
            del held[key]
        held["logloss"] = {}
    del report["matrix"], report["capacity"], report["likeness"]
    for text in (page(report), to_markdown(report), to_terminal(report)):
        assert "home" in text


# --- words and scales ---------------------------------------------------------------------------


def test_the_headline_counts_each_kind_of_advice():
    verdicts = [held["verdict"] for held in REPORTS["six"]["domains"].values()]
    assert headline(verdicts) == (
        "Of 6 domains, train 1 together, 1 together with tuning or an adapter, 1 in a small"
        " group, 1 alone and 1 alone for now; 1 cannot be told yet."
    )
    assert headline(["share"]) == "Of 1 domain, train 1 together."


@given(st.lists(st.sampled_from([*ADVICE, "something new", None]), min_size=1, max_size=60))
def test_no_domain_is_lost_in_the_headline(verdicts: list[str | None]):
    first, *counts = map(int, re.findall(r"\d+", headline(verdicts)))
    assert first == sum(counts) == len(verdicts)


@given(st.floats(1e-6, 1e3))
def test_ticks_are_round_few_and_hold_zero(half: float):
    marks = ticks(-half, half, 7)
    assert 3 <= len(marks) <= 11
    assert 0 in marks
    assert max(map(abs, marks)) <= half * (1 + 1e-9)
    steps = {round(b - a, 12) for a, b in itertools.pairwise(marks)}
    assert max(steps) - min(steps) < 1e-6 * half + 1e-11


def test_one_wide_interval_does_not_flatten_the_others():
    usual = [Interval("a", {"estimate": 0.01, "ci": [0.008, 0.012]}, 0.005)] * 6
    wide = Interval("b", {"estimate": 0.0, "ci": [-2.0, 2.0]}, 0.005)
    assert reach([*usual, wide]) == pytest.approx(1.04 * 0.03)
    assert reach(usual) >= 0.012
    assert reach([Interval("c", {}, 0.005)]) == pytest.approx(1.04 * 0.01)
    assert reach([]) == 1.0


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "+.012"), (-0.0006, "−.001"), (0.0004, "0"), (1.25, "+1.250")]
)
def test_short_numbers(value: float, text: str):
    assert short(value) == text


@pytest.mark.parametrize(
    ("ci", "said"),
    [
        ([0.001, 0.009], "do better than"),
        ([-0.02, -0.001], "do worse than"),
        ([-0.02, 0.001], "are not told apart from"),
        (None, "cannot be compared with"),
    ],
)
def test_groups_are_compared_in_words(ci: list[float] | None, said: str):
    assert against({"ci": ci}) == said


def test_only_minus_signs_become_minus_signs():
    assert minus("falls by (-.003 to -0.1), 95 %, second-stage 2-3 d-4") == (
        "falls by (−.003 to −0.1), 95 %, second-stage 2-3 d-4"
    )


# --- matrices, recipes, notes -------------------------------------------------------------------


def test_a_model_of_another_domain_is_coloured_against_the_targets_own():
    cells = {
        "a": {"a": 0.80, "b": 0.80, "c": 0.70},  # b's model is as good as a's own
        "b": {"a": 0.50, "b": 0.60, "c": 0.65},  # c's is better than b's own
        "c": {"a": 0.60, "b": 0.55},  # c has no model of its own
    }
    matrix = {a: {b: {"estimate": value} for b, value in row.items()} for a, row in cells.items()}
    report = {"domains": {name: {"rows": 1} for name in "abc"}, "matrix": {"cross_score": matrix}}
    view = matrix_view(report, "cross_score")
    assert view is not None
    held = [[(one.text, one.tone, one.share) for one in row] for row in view.cells]
    assert held[0] == [(".800", "level own", 1.0), (".800", "level", 1.0), (".700", "level", 0.0)]
    assert held[1] == [(".500", "level", 0.0), (".600", "level own", 1.0), (".650", "up", 1.0)]
    assert held[2] == [(".600", "level", 0.0), (".550", "level", 0.0), ("", "self", 0.0)]
    assert [kind for kind, _ in view.legend] == ["none", "level", "up"]


def test_what_pairs_do_is_coloured_around_zero_and_one_cell_does_not_pale_the_others():
    names = [f"d{place}" for place in range(8)]
    matrix = {
        a: {b: {"estimate": 0.01 if a < b else -0.005} for b in names if a != b} for a in names
    }
    matrix["d0"]["d1"]["estimate"] = 0.9
    report = {"domains": {name: {"rows": 1} for name in names}, "matrix": {"pairwise": matrix}}
    view = matrix_view(report, "pairwise")
    assert view is not None
    assert {(one.tone, one.share) for row in view.cells for one in row} == {
        ("up", 1.0),
        ("down", 0.5),
        ("self", 0.0),
    }
    assert [told for _, told in view.legend] == [
        "harms (−.010 or beyond)",
        "no change",
        "helps (+.010 or beyond)",
    ]


def test_the_strip_of_groupings_shows_scores_of_the_same_replicates():
    strip = strip_chart(REPORTS["six"])
    assert strip is not None
    chart = tostring(strip, "unicode")
    paths = re.findall(r'data-path="/groups/confirmed/([^"]*)"', chart)
    assert paths == ["score_all", "score", "score_none", *(f"random/{place}" for place in range(5))]
    for value in (".6921", ".7012", ".6977"):
        assert f">{value}</text>" in chart


def test_recipes_are_told_in_words():
    assert recipes(REPORTS["six"]) == [
        (
            "Joint model",
            "4,096 rows a batch, learning rate 0.001; the best of 2 tried on validation rows",
        ),
        ("Solo models", "512 rows a batch, learning rate 0.001"),
        (
            "Second stage",
            "120 to 320 steps, 8 looks at validation, 512 rows a batch, learning rate 0.0003",
        ),
    ]
    assert recipes({"domains": {}}) == []


def test_a_note_is_told_once_with_the_names_it_holds_for():
    held = {f"d{place}": {"estimate": 0.1, "note": "rough"} for place in range(9)}
    report = {"effects": held}
    paths = [(name, ("effects", name)) for name in held]
    assert remark_lines(report, paths) == ("Everywhere: rough.",)
    held["d8"]["note"] = "few"
    assert remark_lines(report, paths) == ("d0, d1, d2, d3, d4, d5 and 2 more: rough.", "d8: few.")
    assert remark_lines({"effects": {}}, paths) == ()


@pytest.mark.parametrize("write", [page, to_markdown, to_terminal])
def test_each_text_says_what_to_type_and_tells_a_disagreement_once(write):
    report = copy.deepcopy(REPORTS["six"])
    told = "By logloss alone the verdict would be: share."
    report["domains"]["search"] |= {"agree": False, "verdict_logloss": "share"}
    report["domains"]["search"]["why"] += f" {told}"
    text = " ".join(write(report).split('<script type="application/json"')[0].split())
    for held in report["domains"].values():
        if held["command"]:
            assert held["command"] in text
    assert "by log loss" not in text
    assert "Train together, then tune on its own rows" in text
    assert "4 of 5 replicates have a value" in text
    assert "3 of 5 replicates have a value" in text
    assert "120 to 320 steps" in text


def test_a_command_stands_on_a_line_of_its_own_that_is_not_wrapped():
    report = copy.deepcopy(REPORTS["six"])
    long = f"isthmus fit configs/{'group-' * 20}.yaml"
    report["domains"]["home"]["command"] = long
    assert f"\n  $ {long}\n" in to_terminal(report)
    assert f" Next: `{long}`\n" in to_markdown(report)


def test_a_weighting_that_could_not_be_used_is_named_with_its_reason(tmp_path: Path):
    report = REPORTS["six"]
    for text in (page(report), to_markdown(report)):
        assert "the tables are lazy: cagrad needs whole gradients" in text
        assert "its weights stayed even" in text
    only = copy.deepcopy(report)
    only["weighting"] = only["weighting"][:1]
    assert "the tables are lazy" in page(only).split('<script type="application/json"')[0]
    assert not any(path.stem == "weighting" for path in write_figures(only, tmp_path))


def test_a_domain_that_was_left_out_has_its_reason_and_no_number(tmp_path: Path):
    report = copy.deepcopy(REPORTS["quick"])
    left = {"rows": 98, "positives": 0, "clusters": 12, "train_rows": 700, "auc": None}
    left |= {"logloss": None, "verdict": "not enough data", "certainty": "cannot tell"}
    left |= {"why": "Left out: one class only.", "with": [], "agree": True, "flags": []}
    report["domains"]["archive"] = left | {"config": None, "command": None}
    for text in (page(report), to_markdown(report), to_terminal(report)):
        assert "Left out: one class only." in text
    assert write_figures(report, tmp_path)


# --- Markdown, plain text, figures --------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_plain_text_fits_100_columns_and_starts_with_what_to_do(name: str):
    text = to_terminal(REPORTS[name])
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith(f"Of {len(REPORTS[name]['domains'])} domains, train")
    if name == "six":
        home = next(line for line in text.splitlines() if line.startswith("home "))
        assert "84,210  share" in home
        assert "0.7121  0.7242  +0.0121 [+0.0093, +0.0149]" in home
        assert "Left out: archive, one class only: 0 positives in 98 test rows." in text


def test_markdown_holds_every_verdict_and_number():
    report = REPORTS["six"]
    text = to_markdown(report)
    for name, held in report["domains"].items():
        assert f"- **{name}**: " in text
        net = held["auc"]["net"]
        if net["estimate"] is not None:
            assert f"{net['estimate']:+.4f} [{net['ci'][0]:+.4f}, {net['ci'][1]:+.4f}]" in text
        assert re.search(rf"^\| {name} \| {held['rows']:,} \| {held['verdict']}", text, re.M)
    sections = ("What to do", "Why", "Who helps whom", "Groups", "Capacity", "Weighting")
    for section in (*sections, "A new domain"):
        assert f"\n## {section}\n" in text
    assert "unadjusted" in text
    large = to_markdown(REPORTS["many"])
    assert "40 domains; in report.json and on the page" in large
    assert "\\</script\\>" in large


def test_a_new_domain_has_one_sentence_and_its_numbers():
    report = REPORTS["six"]
    lines = dict(newcomer_lines(report))
    assert list(lines) == [name for name in by_size(report) if name in lines]
    assert lines["home"] == (
        "On day one it gets AUC 0.7160, 0.0040 below the joint model; as a row of the nearest domain"
        " (weather and kids & family) +0.0110 more; extended with 500 rows of its own it is not worse"
        " than the joint model, and alone not shown so with 8,000."
    )
    assert lines["weather"].startswith("Nothing can be said: not testable: 31 positives")
    told = to_terminal(report)
    assert "A new domain: AUC on day one" in told
    assert max(map(len, told.splitlines())) <= 100
    table = day_one_table(report)
    assert table is not None
    assert table.header[-2:] == ("rows, extended", "rows, alone")
    assert table.rows[0][-2:] == ("500", "–")
    assert day_one_table(REPORTS["quick"]) is None


def test_figures_are_written_as_png_and_svg_and_are_the_same_twice(tmp_path: Path):
    report = copy.deepcopy(REPORTS["six"])
    for key in ("cross_score", "pairwise_matched", "leave_one_out", "gradients"):
        report["matrix"][key] = None
    first = write_figures(report, tmp_path / "a")
    second = write_figures(report, tmp_path / "b")
    names = {path.name for path in first}
    kinds = ("effects-auc", "effects-logloss", "matrix-pairwise", "capacity", "map", "weighting")
    assert {f"{kind}.{end}" for kind in (*kinds, "new-domain") for end in ("png", "svg")} <= names
    for a, b in zip(first, second, strict=True):
        if a.suffix == ".svg":
            assert a.read_bytes() == b.read_bytes()
            assert "unadjusted" in a.read_text() or not a.stem.startswith("effects")
        else:
            assert a.read_bytes().startswith(b"\x89PNG")
    quick = {path.stem for path in write_figures(REPORTS["quick"], tmp_path / "c")}
    assert quick == {"effects-auc", "effects-logloss"}


def test_a_name_of_the_map_covers_nothing_and_is_listed_where_it_has_no_room(tmp_path: Path):
    report = copy.deepcopy(REPORTS["six"])
    spots = report["likeness"]["map"]
    for name in spots:
        spots[name] = [0.0, 0.0]
    apart = next(iter(spots))
    spots[apart] = [1.0, 1.0]
    write_figures(report, tmp_path)
    written = (tmp_path / "map.svg").read_text()
    texts = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]+)</text>", written)]
    alone = {name for name in spots if name in texts}
    note = " ".join(text for text in texts if text not in spots)
    assert apart in alone
    assert len(alone) < len(spots)
    listed = note.partition(f"no room for {len(spots) - len(alone)}: ")[2].split(", ")
    assert sorted([*alone, *listed]) == sorted(spots)


def test_figures_hold_the_marks_of_the_page_and_need_no_stylesheet(tmp_path: Path):
    report = copy.deepcopy(REPORTS["six"])
    report["domains"]["a\x1b[31m <b> & co"] = copy.deepcopy(report["domains"]["home"])
    titles = re.compile(r"<title>([^<]*)</title>")
    of_page = set(titles.findall(page(REPORTS["six"])))
    for path in write_figures(report, tmp_path):
        if path.suffix == ".svg":
            text = path.read_text()
            assert "class=" not in text
            assert fromstring(text).get("width")
            marks = [title for title in titles.findall(text) if "31m" not in title]
            assert set(marks) <= of_page
            assert marks or path.stem.startswith("matrix")


def test_names_that_look_like_formulas_can_be_drawn(tmp_path: Path):
    report = copy.deepcopy(REPORTS["quick"])
    report["domains"] = {f"$x_{{{name}$ $": held for name, held in report["domains"].items()}
    assert write_figures(report, tmp_path)


def test_without_matplotlib_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'isthmus\[plots\]'"):
        write_figures(REPORTS["six"], tmp_path)


def test_the_examples_hold_what_they_say():
    for held in REPORTS["six"]["domains"].values():
        auc = held["auc"]
        if auc["net"]["estimate"] is not None:
            plus = auc["transfer"]["estimate"] - auc["interference"]["estimate"]
            assert math.isclose(auc["net_plus"]["estimate"], plus, abs_tol=1e-12)
    assert {held["verdict"] for held in REPORTS["six"]["domains"].values()} | {
        REPORTS["quick"]["domains"]["live video"]["verdict"]
    } == set(ADVICE)


def test_the_terminal_says_a_command_that_several_share_once():
    report = examples.many(4)
    for name, domain in report["domains"].items():
        domain |= {"verdict": "share", "command": "isthmus fit configs/joint.yaml"}
        if name == "market 03":
            domain |= {"verdict": "own tower", "command": "isthmus fit configs/own.yaml"}
    lines = to_terminal(report).splitlines()
    typed = [line for line in lines if line.startswith("  $ ")]
    assert sorted(typed) == [
        "  $ isthmus fit configs/joint.yaml  # the 3 above",
        "  $ isthmus fit configs/own.yaml",
    ]
