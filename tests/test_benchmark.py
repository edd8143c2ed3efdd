"""benchmark(): what is compared, what may be said of it, what is refused, and that it goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from chromium import Browser
from command_line import SRC, isthmus_in_process, told
from isthmus.benchmarking.contenders import contenders
from isthmus.benchmarking.equal_terms import terms_of
from isthmus.benchmarking.measured_cost import CostJob, read_cost
from isthmus.benchmarking.shared_rows import with_domain
from isthmus.benchmarking.standing import Contestants, judged
from isthmus.config import validate
from isthmus.data import Dataset
from isthmus.data.batch import DomainPlaces
from isthmus.data.store.subset import Subset
from isthmus.errors import ConfigError, RunError
from isthmus.experiments import Training
from isthmus.experiments.outcome import build
from isthmus.experiments.workers import Workers
from isthmus.metrics import Effect, ScoredRows
from isthmus.models import ModelConfig
from isthmus.report import to_markdown
from page_reading import check_looks, check_structure
from small_benchmarks import MODELS, TRIALS, small_benchmark, without_costs, written_conflict


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, isthmus.Benchmark]:
    """A benchmark that nobody disturbed."""
    import torch

    folder = tmp_path_factory.mktemp("whole")
    config, threads = written_conflict(folder), torch.get_num_threads()
    torch.set_num_threads(1)
    found = small_benchmark(config, folder / "b")
    torch.set_num_threads(threads)
    return config, found


def model(found: isthmus.Benchmark, name: str) -> dict[str, Any]:
    (one,) = [one for one in found.report["models"] if one["name"] == name]
    return one


def test_what_does_not_know_the_domain_loses_where_domains_disagree(whole: Any):
    _, found = whole
    names = [one["name"] for one in found.report["models"]]
    assert names == ["mlp_no_domain", "mlp", "solo", "trees"], "control and trees are always there"
    for metric in ("auc", "logloss"):
        of = model(found, "mlp_no_domain")[metric]["pooled"]
        assert of["verdict"] == "worse"
        assert of["gain"] < -0.08
        assert of["ci"][1] < 0
        assert of["p"] <= of["p_holm"] < 0.05
        assert "gain" not in model(found, "mlp")[metric]["pooled"]
    assert re.search(r"worse \([^)]*mlp_no_domain", str(found))


def test_every_table_says_the_split_and_the_seeds(whole: Any):
    config, found = whole
    text, page = (found.path / "report.md").read_text(), (found.path / "report.html").read_text()
    rows = found.report["rows"]["test"]
    for told_ in (str(found), text, page):
        assert f"test rows of the random split, {rows:,} rows, 2 seeds" in told_
        assert "2 trials for each model on validation rows" in told_
        assert "Trees stay the same with every seed." in told_
    assert to_markdown(found.table()) + "\n" == text
    assert isthmus.Benchmark.open(found.path).report == found.report
    assert json.loads((found.path / "report.json").read_text()) == found.report
    assert page.count("<svg") == 3 + len(found.report["domains"])
    assert not re.search(r"(src|href)=\"(?!#|data:)", page), "the page needs no other file"
    assert isthmus.load_config(config).model.sizes is None, "the user's file stays as it is"


def test_the_page_can_be_read_by_anyone(whole: Any, browser: Browser):
    page = whole[1].path / "report.html"
    check_looks(browser, page, width=360, dark=True)
    check_looks(browser, page, width=1600, dark=False)
    check_structure(browser)


def test_costs_and_sizes_are_told_of_every_model(whole: Any):
    _, found = whole
    for one in found.report["models"]:
        cost = one["cost"]
        assert min(cost["train_rows_per_second"], cost["predict_rows_per_second"]) > 0
        assert cost["training_seconds"] > 0
        assert cost["peak_mebibytes"] > 50
    assert model(found, "trees")["parameters"] is None
    control, solo = (model(found, name)["parameters"] for name in ("mlp", "solo"))
    assert solo["networks"] == 2
    for of in (control, solo):  # the best recipe may have a norm, and fewer parameters then
        assert 0.8 * found.report["trunk"] < of["trunk"] / of["networks"] <= found.report["trunk"]


@pytest.mark.soak
def test_a_killed_benchmark_ends_as_an_undisturbed_one(
    whole: Any, tmp_path: Path, one_thread: None
):
    config, undisturbed = whole
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{SRC}{os.pathsep}{Path(__file__).parent}",
    }
    script, out = Path(__file__).with_name("benchmarks_to_kill.py"), tmp_path / "b"
    # In a search's third trial, in that of trees, then between trainings with the best setting.
    for text, number in (("trial 1 (", "5"), ("trees: trial 0 (", "1"), ("best setting", "3")):
        order = [sys.executable, str(script), str(config), str(out), text, number]
        done = subprocess.run(order, env=environment, check=False, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert not (out / "report.json").exists()
    heard: list[str] = []
    resumed = small_benchmark(config, out, progress=lambda notice: heard.append(notice.text))
    assert without_costs(resumed.report) == without_costs(undisturbed.report)
    assert not [text for text in heard if "trial 0 (" in text], "what has ended is not done again"
    before = {path: path.read_bytes() for path in (out / "costs").iterdir()}
    again = small_benchmark(config, out)
    assert again.report == resumed.report, "costs too are measured once"
    assert {path: path.read_bytes() for path in (out / "costs").iterdir()} == before


def test_trees_have_the_same_search_as_networks_and_the_best_forest_is_tested(whole: Any):
    _, found = whole
    of = model(found, "trees")
    study = isthmus.Tuning.open(found.path / "studies" / "trees")
    assert len(study.report["trials"]) == TRIALS == of["tuned"]["trials"]
    assert study.best is not None
    assert of["tuned"]["score"] == study.best["score"]
    assert set(study.best["params"]) == {
        f"data.trees.{key}" for key in ("leaves", "rate", "least_rows", "columns", "l2")
    }
    # The best setting, fitted from the study's own file, has the test figure of the report.
    run = isthmus.fit(found.path / "studies" / "trees" / "best.yaml", out=found.path.parent / "run")
    assert run.evaluate().pooled.auc == of["auc"]["pooled"]["mean"]
    assert study.report["rows"] == {
        name: found.report["rows"][name] for name in ("train", "validation")
    }


def test_a_folder_without_trials_of_trees_goes_on_and_searches_nothing_else(
    whole: Any, tmp_path: Path, one_thread: None
):
    config, found = whole
    shutil.copytree(found.path, tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "studies" / "trees")
    heard: list[str] = []
    again = small_benchmark(config, tmp_path / "b", progress=lambda one: heard.append(one.text))
    assert {text.partition("trial ")[0] for text in heard if "(as it stands)" in text} == {
        "trees: "
    }
    assert any("trees: searched, 2 trials" in text for text in heard)
    assert without_costs(again.report) == without_costs(found.report)


def test_a_report_of_before_says_that_its_trees_are_not_tuned(whole: Any):
    _, found = whole
    models = [
        one | ({"tuned": None} if one["name"] == "trees" else {}) for one in found.report["models"]
    ]
    old = isthmus.Benchmark(found.path, {**found.report, "models": models})
    assert "Trees are not tuned, and stay the same with every seed." in " ".join(str(old).split())
    assert "not tuned" in str(old.table())


def test_other_labels_of_test_rows_change_no_choice(whole: Any, tmp_path: Path, one_thread: None):
    config, found = whole
    data = isthmus.load_config(config).data
    rows = np.asarray(Dataset.from_table(data).rows("test").row)
    table = pq.read_table(config.parent / "table.parquet")
    label = table["label"].to_numpy().copy()
    label[rows] = np.random.default_rng(0).permutation(label[rows])
    written_conflict(tmp_path)
    at = table.schema.get_field_index("label")
    changed = table.set_column(at, "label", pa.array(label))
    pq.write_table(changed, tmp_path / "table.parquet")
    other = small_benchmark(tmp_path / "config.yaml", tmp_path / "b", ("mlp_no_domain",), seeds=1)
    for again in other.report["models"]:
        one = model(found, again["name"])
        assert {k: again[k] for k in ("tuned", "parameters")} == {
            k: one[k] for k in ("tuned", "parameters")
        }
    known = [model(of, "mlp")["auc"]["pooled"]["mean"] for of in (found, other)]
    assert known[1] < 0.6 < known[0], "test rows are read at the end"


def test_a_folder_goes_on_with_what_it_began_with(whole: Any):
    config, found = whole
    with pytest.raises(RunError, match=r"trials must be 2 or more, as many as mlp\S* had in"):
        small_benchmark(config, found.path, trials=1)
    with pytest.raises(RunError, match=r"must go on with the trunk it began with, \d+, got 500"):
        small_benchmark(config, found.path, trunk=500)
    with pytest.raises(RunError, match=r"with the config it began with, got: train.lr was 0.02"):
        small_benchmark(config, found.path, set=["train.lr=0.01"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("ple,shared_botom", "unknown model 'shared_botom'; did you mean 'shared_bottom'?"),
        ("hamurr", "unknown model 'hamurr'; did you mean 'hamur'?"),
        ("tree", "unknown model 'tree'; did you mean 'trees'?"),
        ("ple+hamr", "unknown adapter 'hamr' in 'ple+hamr'; did you mean 'hamur'?"),
        ("pel+hamur", "unknown model 'pel' in 'pel+hamur'; did you mean 'ple'?"),
    ],
)
def test_an_unknown_name_names_the_nearest(names: str, said: str, tmp_path: Path):
    config, out = written_conflict(tmp_path), tmp_path / "b"
    result = isthmus_in_process("benchmark", config, "--models", names, "--out", out)
    assert told(result).replace("\n", " ") == said
    assert not out.exists()


def test_a_budget_that_no_size_meets_says_the_smallest_possible(tmp_path: Path):
    config, out = written_conflict(tmp_path), tmp_path / "b"
    order = ("benchmark", config, "--out", out, "--models", "ple,dcn", "--trunk")
    said = told(isthmus_in_process(*order, 20))
    assert len(said.splitlines()) == 3, "every model that does not fit is named"
    found = re.findall(r"^(\w+): sizes.trunk must be (\d+) or more here", said, re.MULTILINE)
    assert [name for name, _ in found] == ["mlp", "dcn", "ple"] or len(found) == 3
    assert not out.exists()
    least = max(int(smallest) for _, smallest in found)
    result = isthmus_in_process(*order, least, "--dry-run", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert f"trunk: at most {least:,} parameters" in result.stdout
    assert not out.exists(), "a plan writes nothing"


def test_all_models_fill_one_budget_and_the_wide_one_the_largest_total(tmp_path: Path):
    config = with_domain(isthmus.load_config(written_conflict(tmp_path)))
    dataset = Dataset.from_table(config.data)
    names = ("ple", "star", "wide_deep", "hamur", "mlp_wide", "mlp_no_domain")
    terms, left_out = terms_of(config, contenders(names), 20_000, dataset)
    assert left_out == {}
    totals = {}
    for one in terms:
        if one.name == "trees":
            continue
        training = Training(model=one.config.model, train=one.config.train)
        report = build(training, dataset).parameter_report()
        totals[one.name] = report.total
        if one.name != "mlp_wide":
            assert 0.9 * 20_000 < report.trunk <= 20_000, one.name
            assert one.config.model.backbone.model_dump().get("norm", "none") in ("none", "domain")
    largest = max(of for name, of in totals.items() if name != "mlp_wide")
    assert 0.95 * largest < totals["mlp_wide"] <= largest
    (star,) = [one for one in terms if one.name == "star"]
    searched = star.space(dataset).parameters
    assert [key for key, of in searched.items() if ", " in str(of) or " to " in str(of)] == [
        "train.lr",
        "train.batch_rows",
        "train.embedding_l2",
        "model.backbone.dropout",
        "model.backbone.norm",
    ]
    without, why = terms_of(config, contenders(["mlp_wide"]), 20_000, dataset)
    assert [one.name for one in without] == ["mlp", "trees"]
    assert why == {"mlp_wide": "no network here has more parameters in all than mlp"}


def rows_of(logits: np.ndarray, label: np.ndarray, source: str) -> ScoredRows:
    count = len(label)
    return ScoredRows(
        split="test",
        row=np.arange(count),
        logits=logits,
        label=label,
        domain=1 + np.arange(count) % 2,
        names=("a", "b"),
        source=source,
    )


def test_two_identical_models_tie():
    rng = np.random.default_rng(0)
    label = rng.random(600) < 0.4
    parts = [rows_of(label + rng.normal(0, 1, 600), label, "mlp") for _ in range(3)]
    better = [replace(one, logits=one.logits + 0.8 * label) for one in parts]
    standing = Contestants({"mlp": parts, "same": parts, "better": better}, "mlp")
    for metric in ("auc", "logloss"):
        for of in (standing.scopes(metric), {"domains": standing.domains(metric)}):
            for judgements in of.values():
                for key, one in judgements.items():
                    if "same" in key:
                        assert one.effect.estimate == 0
                        assert one.effect.p_holm == 1
                        assert one.verdict == "tie"
    assert standing.scopes("auc")["pooled"]["better"].verdict == "better"


def test_a_corrected_interval_leaves_0_out_exactly_where_holm_does():
    rng = np.random.default_rng(1)
    from scipy.special import stdtr

    seen = set()
    for _ in range(200):
        effects: dict[str, Effect] = {}
        for name in "abcde":
            estimate, se, df = rng.normal(0, 2), 1.0, float(rng.integers(2, 60))
            p = float(2 * stdtr(df, -abs(estimate) / se))
            effects[name] = Effect(estimate, se=se, df=df, p=p)
        effects["f"] = Effect(None, reason="no test rows")
        found = judged(effects)
        assert found["f"].verdict is found["f"].ci is None
        for one in (found[name] for name in "abcde"):
            assert one.ci is not None
            outside = not one.ci[0] <= 0 <= one.ci[1]
            assert outside == (one.verdict != "tie")
            seen.add(one.verdict)
    assert seen == {"better", "worse", "tie"}


def test_a_blind_model_reads_nothing_of_the_domain(tmp_path: Path):
    raw = isthmus.load_config(written_conflict(tmp_path)).model_dump(mode="json")
    for name in ("user_id", "item_id"):
        raw["data"]["features"][name]["statistics"] = True
    raw["data"]["trees"] = True
    config = isthmus.load_config(raw)
    dataset = Dataset.from_table(config.data)
    part = Subset(dataset, blind=True)
    places = DomainPlaces.of(dataset.encoder.fields)
    (seen,) = dataset.rows("train").batches(len(dataset.rows("train")))
    (blind,) = part.rows("train").batches(len(part.rows("train")))
    hidden = seen.hide_domain(seen.domain > 0, places)
    for name in ("categorical", "numeric", "domain"):
        assert (getattr(hidden, name) == getattr(blind, name)).all(), name
    test = part.scored("test", None)
    numbers = np.asarray(test.arrays.numeric)
    for effect in places.statistics:
        assert (numbers[:, effect + 2] == numbers[:, effect]).all()
        assert (numbers[:, effect + 3] == 0).all()
    assert places.score is not None
    own = np.asarray(dataset.rows("test").arrays.numeric)[:, places.score]
    assert np.corrcoef(numbers[:, places.score], own)[0, 1] < 0.9
    assert list(test.domain) == list(dataset.rows("test").domain), "the report knows the domain"
    plain = Training(model=config.model, train=config.train)
    assert replace(plain, blind=True).key(dataset) != plain.key(dataset)


def test_costs_are_measured_in_a_process_of_their_own(tmp_path: Path):
    config = isthmus.load_config(written_conflict(tmp_path))
    dataset = Dataset.from_table(config.data)
    training, file = Training(model=config.model, train=config.train), tmp_path / "cost.json"
    workers = Workers(1)
    try:
        assert list(workers.run([CostJob(training, dataset.folder, file)])) == [(0, None)]
    finally:
        workers.stop()
    found = read_cost(file)
    assert found is not None
    assert found.train_rows_per_second > 100
    assert found.predict_rows_per_second > 100
    assert 50 < found.peak_mebibytes < 5000


def test_every_default_name_is_a_model():
    names = [one.name for one in contenders(None)]
    assert names[:5] == ["mlp_no_domain", "mlp", "mlp_wide", "solo", "trees"]
    assert {"star", "ple", "mmoe", "mlp+hamur"} < set(names)
    assert len(names) == len(set(names))
    assert [one.name for one in contenders(["hamur", "mlp+hamur", "mlp"])] == [
        "mlp",
        "trees",
        "mlp+hamur",
    ]
    assert validate(ModelConfig, {"name": "trees"}).is_trees
    with pytest.raises(ConfigError, match="seeds must be 1 or more, got 0"):
        isthmus.benchmark({}, models=MODELS, seeds=0)
