"""Results as text: plain, terminal, Markdown, JSON, and the table of the demo."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.special import expit

from isthmus.metrics import ScoredRows, compare, evaluate_rows
from isthmus.metrics.text_table import TextTable, number, p_text, shorten, with_interval
from isthmus.report import side_by_side, to_json, to_markdown, to_rich


def scored(seed=0, *, rows=3000, names=("under 25", "25 to 34", "35 and over"), noise=0.2):
    rng = np.random.default_rng(0)
    signal = rng.normal(size=rows)
    own = np.random.default_rng([seed, 1])
    return ScoredRows(
        split="test",
        row=np.arange(rows),
        logits=signal + noise * own.normal(size=rows),
        label=rng.random(rows) < expit(signal),
        domain=rng.integers(1, len(names) + 1, rows),
        names=names,
        group=rng.integers(0, 300, rows),
        source=f"model {seed}",
    )


def rich_text(result):
    text = io.StringIO()
    Console(file=text, width=100).print(to_rich(result))
    return text.getvalue()


def test_print_shows_the_table():
    result: Any = evaluate_rows(scored())
    lines = str(result).splitlines()
    assert lines[0].startswith("model 0: test split, 3,000 rows, 1 seed; 95% intervals, groups")
    assert lines[2].split()[0] == "domain"
    assert any(line.startswith("worst (") for line in lines)
    assert "Intervals cover the draw of test rows, not retraining (1 seed)." in lines
    assert f"{result.pooled.auc:.4f} [{result.pooled.auc_ci[0]:.4f}, " in str(result)


@pytest.mark.parametrize("kind", ["evaluation", "comparison", "side by side"])
def test_tables_fit_in_100_columns_with_large_counts(kind):
    a, b, again = scored(), scored(1), scored(2)
    if kind == "evaluation":
        result = evaluate_rows(a)
        wide = replace(
            result, domains={k: replace(v, rows=1_234_567) for k, v in result.domains.items()}
        )
        table = wide.table()
    elif kind == "comparison":
        table = compare(a, b).table()
    else:
        table = side_by_side(
            evaluate_rows(a), [(evaluate_rows(b), compare(a, b))], compare(a, again)
        )
    body = [line for line in str(table).splitlines()[2:] if line not in table.notes]
    assert max(map(len, body)) <= 100
    shown = rich_text(table)
    for row in table.fitted()[1:]:
        for cell in row:
            assert cell in shown


def test_undefined_is_a_dash_with_a_reason_below():
    rows = scored()
    text = str(evaluate_rows(replace(rows, label=rows.label & (rows.domain != 2))))
    line = next(line for line in text.splitlines() if line.startswith("25 to 34"))
    assert "–" in line
    assert "nan" not in text.lower().replace("no", "")
    assert "AUC: one class: no positives (25 to 34)" in text
    assert "AUC: mean over 2 of 3 domains (macro, weighted)" in text


def test_without_groups_there_is_no_gauc_column():
    assert "GAUC" in str(evaluate_rows(scored()))
    assert "GAUC" not in str(evaluate_rows(replace(scored(), group=None)))


def test_many_domains_are_cut_and_said_to_be():
    names = tuple(f"tenant {i}" for i in range(400))
    text = str(evaluate_rows(scored(rows=8000, names=names)))
    assert len(text.splitlines()) < 80
    assert "350 smaller domains are not shown" in text


def test_side_by_side_has_both_models_the_difference_and_the_control():
    a, b, again = scored(), scored(1, noise=0.9), scored(2)
    one, two = evaluate_rows(a), evaluate_rows(b)
    table = side_by_side(one, [(two, compare(a, b))], compare(a, again))
    text = str(table)
    assert "test split, 3,000 rows, 1 seed" in table.title
    assert "a = model 0, b = model 1, a' = model 2." in text
    assert "not retraining" in text
    assert "model 0 wins on pooled" in text
    scopes = [row[0] for row in table.rows if row[0]]
    assert scopes == [*one.domains, "pooled", "macro", f"worst ({one.worst.domain})"]
    assert f"{compare(a, again).pooled.auc.difference:+.4f}" in text


def test_side_by_side_names_no_winner_where_there_is_none():
    a, b, again = scored(), scored(3), scored(2)
    table = side_by_side(evaluate_rows(a), [(evaluate_rows(b), compare(a, b))], compare(a, again))
    assert "wins" not in str(table)
    assert "here nowhere" in str(table)


def test_side_by_side_takes_a_third_model():
    a, b, c, again = scored(), scored(1, noise=0.9), scored(3), scored(2)
    one = evaluate_rows(a)
    others = [(evaluate_rows(model), compare(a, model)) for model in (b, c)]
    table = side_by_side(one, others, compare(a, again))
    assert [row[2] for row in table.rows[:3]] == ["a", "b", "c"]
    assert f"{compare(a, c).pooled.auc.difference:+.4f}" in str(table)
    assert "b = model 1, c = model 3, a' = model 2." in str(table)
    assert "model 0 wins on pooled: |b - a|" in str(table)
    assert "|c - a|" not in str(table)
    with pytest.raises(ValueError, match="at least one model, got none"):
        side_by_side(one, [], compare(a, again))


def test_side_by_side_refuses_results_that_do_not_belong_together():
    a, b, again = scored(), scored(1), scored(2)
    with pytest.raises(ValueError, match="the two evaluations given"):
        side_by_side(evaluate_rows(b), [(evaluate_rows(a), compare(a, b))], compare(a, again))


def test_markdown_is_a_pipe_table_with_escaped_names():
    names = ("a|b", "*bold*", "under_score")
    text = to_markdown(evaluate_rows(scored(names=names)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(row.replace("\\|", "").count("|") == rows[0].count("|") for row in rows)
    assert "a\\|b" in text
    assert "\\*bold\\*" in text
    assert rows[1].startswith("| --- | ---: |")


def test_rich_prints_names_as_they_are():
    shown = rich_text(evaluate_rows(scored(names=("[red]x[/red]", "y", "z"))))
    assert "[red]x[/red]" in shown


def test_json_of_both_results():
    a, b = scored(names=("größe", "y", "z")), scored(1, names=("größe", "y", "z"))
    out = json.loads(to_json(evaluate_rows(a)))
    assert list(out["domains"]) == ["größe", "y", "z"]
    assert "größe" in to_json(compare(a, b))


def test_cells():
    assert number(None) == "–"
    assert number(-0.00001) == "0.0000"
    assert number(-0.00001, signed=True) == "+0.0000"
    assert number(-0.5, signed=True) == "-0.5000"
    assert with_interval(0.5, None) == "0.5000 [–]"
    assert (p_text(0.0001), p_text(0.0461), p_text(None)) == ("<.001", "0.046", "–")
    assert shorten("x" * 100, 28) == "x" * 13 + "…" + "x" * 14
    assert shorten("two\nlines", 20) == "two lines"
    assert str(TextTable("t", ("a",), (("1",),))) == "t\n\na\n-\n1"
