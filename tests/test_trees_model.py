"""Trees as a model of its own: its config, its logits, its training, and the contracts."""

import math
import re
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest

from fake_batches import EVEN, make_batch
from forest_rows import forest_config, forest_table
from isthmus import testing
from isthmus.config import load_config
from isthmus.data import Dataset, Subset
from isthmus.data.encoding import trees as trees_file
from isthmus.errors import ConfigError
from isthmus.experiments import Engine, Training
from isthmus.experiments.outcome import build_to_train
from isthmus.models import ModelConfig, TreesModel, build_model
from isthmus.schema import TREES, DataConfig, FittedField
from isthmus.train import End, Look, TrainConfig, score_rows, train

TREES_MODEL = ModelConfig(name="trees")


def refusal(*changes: str, **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config({**forest_config(), **sections}, changes)
    return str(caught.value)


def with_data(**keys: Any) -> dict[str, Any]:
    return {**forest_config()["data"], **keys}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = load_config(forest_config())
    return Dataset.from_table(config.data, forest_table(), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> TreesModel:
    training = Training(model=TREES_MODEL, train=TrainConfig())
    made = build_to_train(training, dataset, dataset.rows("train"))
    assert isinstance(made, TreesModel)
    return made


def test_the_name_brings_forest_and_statistics():
    config = load_config(forest_config())
    assert config.data.trees
    assert config.data.with_statistics == ("city", "user", "history")  # not tab, the domain
    assert load_config(config) == config
    written = config.to_yaml()
    assert "model:\n  name: trees\n  calibration: none\n" in written
    assert "backbone" not in written
    given = DataConfig.model_validate(with_data(trees=True, features=written_features()))
    assert given.content() == config.data.content()  # so both have one encoded table


def written_features() -> dict[str, Any]:
    features = dict(forest_config()["data"]["features"])
    for name, kind in {"city": {}, "user": {"dim": 4}, "history": {}}.items():
        plain = features[name] if isinstance(features[name], dict) else {"kind": features[name]}
        features[name] = {**plain, **kind, "statistics": True}
    return features


def test_statistics_that_are_said_to_be_false_stay_away():
    features = {"city": {"kind": "categorical", "statistics": False}, "tab": "categorical"}
    config = load_config({**forest_config(), "data": with_data(features=features)})
    assert config.data.with_statistics == ()


def test_set_leaves_the_network_out():
    network = {"backbone": {"name": "dcn"}, "towers": "per_domain", "calibration": "per_domain"}
    changed = load_config({**forest_config(), "model": network}, ["model.name=trees"])
    assert changed.model == ModelConfig(name="trees", calibration="per_domain")


def test_a_network_is_described_as_before_it_had_a_name():
    assert set(ModelConfig().model_dump()) == {
        "backbone",
        "towers",
        "head",
        "adapter",
        "calibration",
    }
    named = load_config({**forest_config(), "model": {"name": "network"}})
    assert named.model == ModelConfig()
    assert not named.data.trees
    described = Training(model=TREES_MODEL, train=TrainConfig()).describe()
    assert described["model"] == {"name": "trees"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            ["model.backbone={name: mlp}"],
            "model.backbone must be left out where model.name is 'trees', which has none, got 'mlp'",
        ),
        (["model.backbone={name: wide_deep}"], "which has none, got 'wide_deep'"),
        (["model.adapter={name: hamur}"], "model.adapter must be left out .* got 'hamur'"),
        (["model.towers=per_domain"], "model.towers must be left out .* got 'per_domain'"),
        (["model.head=shared"], "model.head must be left out .* got 'shared'"),
        (["data.trees=false"], "data.trees must be true where model.name is 'trees', got false"),
        (
            ["train.weighting=pcgrad"],
            "train.weighting must be left out where model.name is 'trees', which learns by no"
            " gradient, got 'pcgrad'",
        ),
        (["train.domain_sampling=0.5"], "train.domain_sampling must be left out .* got 0.5"),
        (
            ["train.objectives=[{name: domain_classifier}]"],
            "train.objectives must be left out .*'domain_classifier'",
        ),
        (["model.name=tree"], "model.name must be 'network' or 'trees', got 'tree'"),
        (
            ["data.features.prices=numeric_list"],
            "'prices' must be no list, .* got a list of numbers",
        ),
        (
            ["data.features.history.statistics=false"],
            "'history' must be no list, or one with statistics, .* got statistics false",
        ),
        (["data.features.trees=numeric"], "no feature must have that name"),
        (["data.features.user:statistics=numeric"], "no other feature must have that name"),
    ],
)
def test_what_trees_do_not_have_is_refused_by_name(changes: list[str], text: str):
    assert re.search(text, refusal(*changes))


@pytest.mark.parametrize("change", ["lr=0.5", "batch_rows=2", "compile=true", "device=cuda"])
def test_settings_of_steps_change_nothing(dataset: Dataset, model: TreesModel, change: str):
    settings = load_config(forest_config(), [f"train.{change}"]).train
    look, end = train(model, dataset, settings)
    assert isinstance(look, Look)
    assert isinstance(end, End)
    assert (end.step, end.epoch, end.best, end.stopped) == (0, 0.0, look, "no parameters")
    assert next(iter(model.buffers())).device.type == "cpu"


def test_the_logit_is_the_start_and_lightgbms_raw_score(dataset: Dataset, model: TreesModel):
    trees = dataset.encoder.taught.trees
    assert trees is not None
    saved = lightgbm.Booster(model_str=trees.to_text())
    rate = np.mean(dataset.rows("train").label)
    for split in ("validation", "test"):
        rows = dataset.rows(split)
        arrays = rows.arrays
        # x, y, two of a vector, four each of city, user and history; then city; then the domain.
        numbers = np.asarray(arrays.numeric)[:, :16]
        city = np.asarray(arrays.categorical)[:, :1]
        matrix = np.hstack([numbers, city, np.asarray(arrays.domain)[:, None]])
        raw = np.asarray(saved.predict(matrix, raw_score=True))
        expected = raw + math.log(rate / (1 - rate))
        np.testing.assert_allclose(score_rows(model, rows), expected, atol=1e-5)
    assert saved.num_feature() == 18
    assert saved.feature_importance()[17] > 0  # the domain: what city says, turns round in c


def test_a_look_tells_the_loss_of_train_rows_out_of_fold(dataset: Dataset, model: TreesModel):
    look, _ = train(model, dataset, TrainConfig())
    assert isinstance(look, Look)
    rows = dataset.rows("train")
    probability = 1 / (1 + np.exp(-score_rows(model, rows)))
    label = np.asarray(rows.label) > 0
    expected = -np.log(np.where(label, probability, 1 - probability)).mean()
    assert look.loss == pytest.approx(expected, rel=1e-6)
    held = look.metrics["logloss_pooled"]
    assert held is not None
    assert abs(look.loss - held) < 0.05
    assert look.metrics["auc_pooled"] > 0.7  # type: ignore[operator]


def test_a_monitor_that_labels_leave_undefined_is_refused(dataset: Dataset, model: TreesModel):
    rows = dataset.rows("validation")
    only = Subset(dataset, domains=["a"], watch=["a"])
    label = only.rows("validation").arrays.label
    label[:] = 1
    assert len(label) < len(rows)
    with pytest.raises(ConfigError, match=r"train\.monitor must be defined on the validation rows"):
        next(train(model, only, TrainConfig()))


def test_the_unknown_domain_has_the_forests_answer_for_no_domain(
    dataset: Dataset, model: TreesModel
):
    table = forest_table().slice(0, 200)
    place = table.column_names.index("tab")
    nowhere = table.set_column(place, "tab", pa.array(["mars"] * 200))
    none = table.set_column(place, "tab", pa.nulls(200, pa.string()))
    found = [
        model(dataset.encoder.encode(one.to_batches()[0], 0, "rows").batch()).numpy()
        for one in (table, nowhere, none)
    ]
    np.testing.assert_array_equal(found[1], found[2])
    assert np.isfinite(found[1]).all()
    assert not np.allclose(found[0], found[1])


READ = tuple(field for field in EVEN if not field.kind.endswith("_list"))
FOREST = (*READ, FittedField(TREES, "trees", 1))


def test_contracts_that_do_not_speak_of_learning():
    # 2, 3 and 4 are of adapters and factors. The training of 8 asks that a gradient comes to the
    # unknown domain: the forest learns that domain from rows that it hides itself.
    made = build_model(TREES_MODEL, FOREST, 5)
    batch = make_batch(FOREST, 96, n_domains=5)
    testing.check_rows_do_not_see_neighbours(testing.model_subject(made, batch))
    testing.check_domains_are_apart(testing.model_subject(made, batch))
    with pytest.raises(AssertionError, match="contract 8: training never reaches"):
        testing.check_unknown_domain_is_answered(testing.model_subject(made, batch))
    for n_domains in (3, 1000):  # 6: no product, whatever the number of domains
        many = build_model(TREES_MODEL, FOREST, n_domains)
        assert many.flops(make_batch(FOREST, 96, n_domains=n_domains)) == 0
    assert not list(made.parameters())
    assert not made.domain_parameters()
    assert made.tables() == ()
    assert made.parameter_report().total == 0


@pytest.mark.parametrize(
    ("fields", "n_domains", "text"),
    [
        (READ, 3, "data.trees must be true where model.name is 'trees'"),
        (FOREST, 0, "n_domains must be at least 1, got 0"),
        (
            (*FOREST, FittedField("item", "categorical", 4, table="item", table_rows=257)),
            3,
            "'item' has 257 ids, more than 256, without statistics: true",
        ),
        (
            (*FOREST, FittedField("likes", "categorical_list", 4, table="likes", table_rows=9)),
            3,
            "'likes' is a list without statistics: true",
        ),
        ((*FOREST, FittedField("prices", "numeric_list", 1)), 3, "'prices' is a list of numbers"),
    ],
)
def test_a_feature_that_no_forest_reads_is_refused(
    fields: tuple[FittedField, ...], n_domains: int, text: str
):
    with pytest.raises(ValueError, match=text):
        build_model(TREES_MODEL, fields, n_domains)


def test_no_site_can_be_read(model: TreesModel, dataset: Dataset):
    batch = dataset.rows("test").arrays.batch(np.arange(4), dataset.n_domains)
    with pytest.raises(ValueError, match="sites must be none"):
        model.score(batch, ("input",))


def test_a_solo_is_the_forest_of_its_own_rows_and_a_dead_one_is_trained_once(
    dataset: Dataset, tmp_path: Path
):
    few = TrainConfig(monitor="logloss_pooled")
    with Engine([dataset], tmp_path / "trainings") as engine:
        joint, solo, dead = engine.run(
            [
                Training(model=TREES_MODEL, train=few),
                Training(model=TREES_MODEL, train=few, domains=("c",)),
                Training(model=TREES_MODEL, train=few, domains=("c",), rows_per_domain=2),
            ],
            "trees",
        )
        known = solo.training.subset(dataset).known
        assert known is not None
        assert known.taught.trees is not None
        assert known.taught.trees.size > 0
        rate = np.mean(solo.training.subset(dataset).rows("train").label)
        own = solo.model()
        assert isinstance(own, TreesModel)
        assert float(own.start) == pytest.approx(math.log(rate / (1 - rate)), abs=1e-6)
        assert not np.allclose(joint.logits("test"), solo.logits("test"))
        assert np.ptp(dead.logits("test")) == 0
        assert [one.told.restarts for one in (joint, solo, dead)] == [0, 0, 0]


def test_without_lightgbm_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trees_file, "find_spec", lambda _: None)
    config = load_config(forest_config())
    with pytest.raises(ConfigError, match=r"pip install 'isthmus\[trees\]'"):
        Dataset.from_table(config.data, forest_table(), cache=tmp_path)
