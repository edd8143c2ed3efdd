"""Rows scored with the domain hidden or permuted: against tables changed by hand, and planted answers."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from command_line import isthmus_in_process, told
from isthmus.errors import RunError
from small_runs import clicks, settings


def fitted(folder: Path, table: pa.Table, **features) -> isthmus.Run:
    pq.write_table(table, folder / "table.parquet")
    content = settings()
    content["data"]["table"] = str(folder / "table.parquet")
    content["data"]["features"] |= features
    return isthmus.fit(content, out=folder / "run", cache=folder / "cache")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    counted = {"kind": "categorical", "dim": 4, "statistics": True}
    return fitted(tmp_path_factory.mktemp("robust"), clicks(), item=counted)


def changed(table: pa.Table, tab: pa.Array | list) -> pa.Table:
    return table.set_column(table.schema.get_field_index("tab"), "tab", pa.array(tab, pa.string()))


def auc(run: isthmus.Run, logits: np.ndarray) -> float | None:
    rows = run.scored()
    found = isthmus.metrics.evaluate(
        split="test", logits=logits, label=rows.label, domain=rows.domain, names=rows.names,
        group=rows.group,
    )  # fmt: skip
    return found.pooled.auc


def test_hidden_is_a_table_without_its_domain(run: isthmus.Run):
    rows = run.scored().row
    logits = run.bundle.logits(changed(clicks(), [None] * len(clicks())))[rows]
    found = run.robustness("hidden")
    assert found.evaluation.pooled.auc == pytest.approx(auc(run, logits))
    pooled = found.comparison.pooled.auc
    assert pooled.a == pytest.approx(run.evaluate().pooled.auc)
    assert pooled.b == pytest.approx(auc(run, logits))
    # Rows count in the domain that they belong to.
    for name, figures in run.evaluate().domains.items():
        assert found.evaluation.domains[name].rows == figures.rows


def test_permuted_is_a_table_whose_test_rows_bear_each_others_domains(run: isthmus.Run):
    rows = np.sort(run.scored().row)
    table = clicks()
    tab = np.array(table["tab"].to_pylist(), dtype=object)
    tab[rows] = tab[rows][np.random.default_rng(3).permutation(len(rows))]
    logits = run.bundle.logits(changed(table, tab.tolist()))[run.scored().row]
    found = run.robustness("permuted", seed=3)
    assert found.evaluation.pooled.auc == pytest.approx(auc(run, logits))
    assert found.to_dict() == run.robustness("permuted", seed=3).to_dict()
    other = run.robustness("permuted", seed=4)
    assert other.evaluation.pooled.auc != found.evaluation.pooled.auc


def test_a_table_of_its_own_and_the_other_split(run: isthmus.Run):
    found = run.robustness("hidden", data=clicks(seed=1))
    assert found.evaluation.split == "external"
    logits = run.bundle.logits(changed(clicks(seed=1), [None] * len(clicks())))
    assert found.comparison.pooled.rows == len(logits)
    assert run.robustness("hidden", "validation").evaluation.split == "validation"


def test_titles_say_how_the_domain_was_changed(run: isthmus.Run):
    assert "run, domain hidden: " in str(run.robustness("hidden"))
    told = str(run.robustness("permuted", seed=5))
    assert "run, domains permuted among rows, seed 5: " in told
    assert "b - a, a = run, b = run, domains permuted among rows, seed 5" in told


def test_a_label_that_hangs_on_the_domain_alone_is_lost_and_nothing_else_is(tmp_path: Path):
    rng = np.random.default_rng(0)
    table = clicks(2_000)
    tab = np.array(table["tab"].to_pylist())
    click = (rng.random(2_000) < np.where(tab == "home", 0.9, 0.1)).astype(np.int8)
    place = table.schema.get_field_index("click")
    found = fitted(tmp_path, table.set_column(place, "click", pa.array(click)))
    ordinary = found.evaluate().pooled.auc
    assert ordinary is not None
    assert ordinary > 0.8
    for domain_as in ("hidden", "permuted"):
        lost = found.robustness(domain_as)
        assert lost.evaluation.pooled.auc == pytest.approx(0.5, abs=0.1)
        difference = lost.comparison.pooled.auc
        assert difference.ci is not None
        assert difference.ci[1] < -0.2


def test_what_cannot_be_scored_again_is_refused(run: isthmus.Run, tmp_path: Path):
    with pytest.raises(RunError, match="must be hidden, permuted or detected, got 'shuffled'"):
        run.robustness("shuffled")  # pyright: ignore[reportArgumentType]
    given = isthmus.fit(settings(), clicks(), tmp_path / "given", cache=tmp_path / "cache")
    with pytest.raises(RunError, match="was given one from Python; give data"):
        given.robustness("hidden")
    lost = fitted(tmp_path, clicks())
    pq.write_table(clicks(seed=1).slice(0, 700), tmp_path / "table.parquet")
    with pytest.raises(RunError, match="is not the table of run"):
        lost.robustness("hidden")


def test_evaluate_says_how_much_a_run_leans_on_the_domain(run: isthmus.Run, tmp_path: Path):
    out = tmp_path / "out.json"
    result = isthmus_in_process("evaluate", run.path, "--domain-as", "hidden", "--json", out)
    found = run.robustness("hidden")
    assert result.stdout.rstrip().endswith(str(found).rstrip())
    content = json.loads(out.read_text())
    assert content.pop("robustness") == found.to_dict()
    assert content == run.evaluate().to_dict()
    fault = told(isthmus_in_process("evaluate", run.path, "--domain-as", "away"))
    assert fault == "--domain-as must be hidden, permuted or detected, got 'away'"
