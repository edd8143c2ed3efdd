"""The diagnosis of any learner: planted verdicts, the cache, and what is refused by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from isthmus.diagnosis import Diagnosis, DomainRows, RowMean, diagnose, plan_diagnosis
from isthmus.diagnosis import finished as diagnosing
from isthmus.diagnosis.learners.content import content_of
from isthmus.errors import ConfigError, IsthmusError, RunError, SchemaError
from learners import Able, Linear, changed, planted

AGREE = {"a": 0.0, "b": 0.0}
CONFLICT = {"left": 0.0, "right": 180.0}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosing, "write_figures", lambda *_: None)


def run(learner: Any, domains: dict[str, DomainRows], out: Path, **options: Any) -> Diagnosis:
    return diagnose(learner=learner, domains=domains, out=out, **{"seeds": 3, **options})


def verdicts(found: Diagnosis) -> dict[str, str]:
    return {name: domain["verdict"] for name, domain in found.report["domains"].items()}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    """Two groups of two domains, in conflict, at level full with three metrics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosing, "write_figures", lambda *_: None)
        return run(
            Able(),
            planted({"a": 0.0, "b": 0.0, "c": 180.0, "d": 180.0}),
            tmp_path_factory.mktemp("four"),
            level="full",
            metrics=["auc", "accuracy", "logloss"],
            margin={"auc": 0.01, "accuracy": 0.01, "logloss": 0.02},
        )


def test_domains_that_agree_share(tmp_path: Path):
    found = run(Able(), planted(AGREE), tmp_path, margin=0.01)
    assert verdicts(found) == {"a": "share", "b": "share"}
    for domain in found.report["domains"].values():
        assert domain["auc"]["net"]["ci"][0] > 0
        assert domain["auc"]["transfer"]["ci"][0] > 0


def test_domains_in_conflict_get_a_tower_of_their_own(tmp_path: Path):
    found = run(Able(), planted(CONFLICT), tmp_path, margin=0.01)
    assert set(verdicts(found).values()) <= {"own tower", "adapt"}
    for domain in found.report["domains"].values():
        assert domain["auc"]["net"]["ci"][1] < -0.1
        assert domain["auc"]["interference"]["ci"][0] > 0.1


def test_groups_are_found_and_named(four: Diagnosis):
    assert four.report["groups"]["groups"] == [["a", "b"], ["c", "d"]]
    assert four.report["groups"]["confirmed"]["against_all"]["ci"][0] > 0.1
    assert verdicts(four) == dict.fromkeys("abcd", "group")
    assert four.report["domains"]["a"]["with"] == ["b"]


def test_net_plus_is_transfer_minus_interference_in_every_metric(four: Diagnosis):
    for domain in four.report["domains"].values():
        for metric in ("auc", "accuracy", "logloss"):
            plus, transfer, interference = (
                domain[metric][key]["estimate"] for key in ("net_plus", "transfer", "interference")
            )
            assert abs(plus - (transfer - interference)) < 1e-12


def test_a_mean_has_the_interval_that_is_written_out(four: Diagnosis):
    """Of seeds that test the same rows: var(D) / K + max(0, (K A - W) / (K - 1))."""
    domains = planted({"a": 0.0, "b": 0.0, "c": 180.0, "d": 180.0})
    labels, rows = domains["a"].labels, domains["a"].test
    learner, psi, values = Able(), [], []
    for seed in range(3):
        scores = []
        for names in ("abcd", "a"):
            state = learner.train(
                {name: domains[name].train for name in names},
                watch={name: domains[name].validation for name in names},
                seed=seed,
                start=None,
                steps=None,
            )
            scores.append((learner.score(state, "a", rows) > 0.5) == labels)
        difference = scores[0].astype(float) - scores[1]
        values.append(difference.mean())
        psi.append((difference - difference.mean()) / len(labels))
    n, k = len(labels), 3
    each = np.mean([(one**2).sum() for one in psi]) * n / (n - 1)
    both = (np.mean(psi, axis=0) ** 2).sum() * n / (n - 1)
    variance = np.var(values, ddof=1) / k + max(0.0, (k * both - each) / (k - 1))
    net = four.report["domains"]["a"]["accuracy"]["net"]
    assert net["estimate"] == pytest.approx(np.mean(values), abs=1e-12)
    assert net["se"] == pytest.approx(variance**0.5, rel=1e-9)


def test_what_the_learner_offers_is_measured_and_the_page_names_its_metrics(four: Diagnosis):
    report = four.report
    assert [point["widths"] for point in report["capacity"]] == [[2], [30]]
    assert [point["parameters"] for point in report["capacity"]] == [2, 30]
    assert [one["name"] for one in report["weighting"]] == ["balanced"]
    cross = report["matrix"]["cross_score"]
    assert cross["a"]["c"]["estimate"] < 0.5 < cross["a"]["b"]["estimate"]
    assert report["matrix"]["pairwise_matched"] is None
    page = (four.path / "report.html").read_text()
    for metric in ("auc", "accuracy", "logloss"):
        assert f'id="metric-{metric}"' in page
    assert "All effects in accuracy as a table" in page
    assert str(four).startswith("Of 4 domains, train 4 in a small group.")
    assert "not measured: pairs of equal rows" in str(four)
    assert isthmus.Diagnosis.open(four.path).to_dict() == report


def test_what_a_learner_lacks_is_named_as_not_measured(tmp_path: Path):
    domains = {name: replace(rows, validation_labels=None) for name, rows in planted(AGREE).items()}
    found = run(Linear(), domains, tmp_path, level="full", metrics=["accuracy"])
    report = found.report
    assert report["capacity"] is report["weighting"] is report["groups"] is None
    assert report["matrix"]["cross_score"] is None
    assert report["domains"]["a"]["accuracy"]["transfer"] is None
    page = (tmp_path / "report.html").read_text()
    for word in ("transfer T", "cross-scores", "groups", "capacity", "weightings of losses"):
        assert any(note.startswith(f"not measured: {word}") for note in report["plan"]["notes"])
        assert f"not measured: {word}" in page
    assert "AUC" not in page.split('<script type="application/json"')[0]


def test_each_training_is_run_once_and_a_stopped_diagnosis_goes_on(tmp_path: Path):
    class Stopped(Exception):
        pass

    class Stopping(Able):
        def train(self, *rows: Any, **options: Any) -> dict[str, np.ndarray]:
            if len(self.log) > 12:
                raise Stopped
            return super().train(*rows, **options)

    domains, learner = planted(AGREE), Able()
    with pytest.raises(Stopped) as fault:
        run(Stopping(), domains, tmp_path)
    assert fault.value.__notes__[0].startswith("in a training of the learner: arm ")
    before = len(list((tmp_path / "trainings").glob("[!.]*")))
    planned = plan_diagnosis(learner=learner, domains=domains, out=tmp_path, seeds=3)
    assert planned.cached == before > 0
    found = run(learner, domains, tmp_path)
    told = [line for line in learner.log if line.startswith("train")]
    assert len(told) == planned.trainings - before == found.report["plan"]["trained"]
    again = Able()
    assert run(again, domains, tmp_path, metrics=["logloss"]).report["plan"]["trained"] == 0
    assert again.log == []


def test_other_rows_of_one_domain_are_other_trainings_of_those_that_read_them(tmp_path: Path):
    domains, learner = planted(AGREE), Linear()
    run(learner, domains, tmp_path, level="quick", seeds=2)
    learner.log.clear()
    x, y = domains["b"].train
    run(learner, changed(domains, "b", train=(x + 1, y)), tmp_path, level="quick", seeds=2)
    trained = sorted(line for line in learner.log if line.startswith("train"))
    wanted = [f"train {rows} seed {k} steps None" for rows in ("a+b", "b") for k in (0, 1)]
    assert trained == wanted


def test_a_second_stage_takes_as_many_steps_from_solo_as_from_joint(tmp_path: Path):
    learner = Able()
    run(learner, planted(AGREE), tmp_path, seeds=2)
    second = [line for line in learner.log if line.endswith("steps 20") and "seed 1" in line]
    assert sorted(second) == sorted(
        [f"train {rows} seed 1 steps 20" for rows in ("a", "b", "a+b") for _ in range(2)]
    )


def test_clusters_widen_an_interval_and_one_cluster_may_lie_in_two_domains(tmp_path: Path):
    domains = planted(AGREE, test=400)
    alone = run(Linear(), domains, tmp_path / "rows", level="quick")
    # Every row ten times, each time the same user: as if there were 400 rows.
    many = {
        name: replace(
            rows,
            test=(np.repeat(rows.test[0], 10, axis=0), np.repeat(rows.test[1], 10)),
            labels=np.repeat(rows.labels, 10),
            clusters=[f"user {number}" for number in np.repeat(np.arange(400), 10)],
        )
        for name, rows in domains.items()
    }
    found = run(Linear(), many, tmp_path / "users", level="quick")
    for name in domains:
        one, other = (of.report["domains"][name]["auc"]["net"] for of in (alone, found))
        assert found.report["domains"][name]["clusters"] == 400
        assert other["estimate"] == pytest.approx(one["estimate"], abs=1e-12)
        assert other["se"] == pytest.approx(one["se"], rel=1e-9)


def test_a_mean_of_the_users_own_may_lead(tmp_path: Path):
    error = RowMean("absolute_error", lambda y, s: abs(y - s), larger_is_better=False)
    found = run(Linear(), planted(CONFLICT), tmp_path, metrics=[error, "auc"], level="quick")
    left = found.report["domains"]["left"]
    assert left["leading"] == "absolute_error"
    assert left["absolute_error"]["net"]["estimate"] < 0  # the error rises: above 0 is better
    assert left["absolute_error"]["joint"] > left["absolute_error"]["solo"]
    assert left["absolute_error"]["margin"] == pytest.approx(
        0.005 * left["absolute_error"]["solo"], rel=1e-12
    )
    assert "raises absolute error" in left["why"]


def test_classes_may_differ_and_columns_are_read(tmp_path: Path):
    """One domain has two classes and the other three; scores have as many columns."""

    class Rates(Linear):
        def score(self, state: Any, domain: str, rows: Any) -> np.ndarray:
            chance = super().score(state, domain, rows)
            columns = [1 - chance, chance] + ([0 * chance] if domain == "b" else [])
            return np.stack(columns, axis=1)

    found = run(Rates(), planted(AGREE), tmp_path, level="quick", metrics=["accuracy", "logloss"])
    plain = run(
        Linear(), planted(AGREE), tmp_path / "plain", level="quick", metrics=["accuracy", "logloss"]
    )
    for name in AGREE:
        for metric in ("accuracy", "logloss"):
            one, other = (of.report["domains"][name][metric] for of in (found, plain))
            assert one["joint"] == pytest.approx(other["joint"], abs=1e-12)


def test_settings_are_chosen_on_validation_rows_and_told(tmp_path: Path):
    class Choosing(Able):
        def choices(self) -> dict[str, Able]:
            return {"poor": Able(width=1), "rich": Able(width=3)}

    upright = {"a": 90.0, "b": 90.0}
    found = run(Choosing(), planted(upright, train=400), tmp_path)
    assert found.report["plan"]["notes"][-1] == (
        "settings chosen on validation rows, of poor, rich: joint rich; alone a rich, b rich"
    )
    domains = changed(planted(AGREE), "b", validation_labels=None)
    with pytest.raises(ConfigError, match="validation_labels of every domain, got none of 'b'"):
        run(Choosing(), domains, tmp_path)


def test_too_few_test_rows_are_left_out_by_name(tmp_path: Path):
    domains = planted({**AGREE, "tiny": 0.0})
    x, y = domains["tiny"].test
    domains = changed(domains, "tiny", test=(x[:99], y[:99]), labels=y[:99])
    found = run(Linear(), domains, tmp_path, metrics=["accuracy"], level="quick")
    why = "not testable: 99 test rows, 100 are needed"
    assert found.report["plan"]["left_out"] == {"tiny": why}
    assert verdicts(found)["tiny"] == "not enough data"
    assert found.report["domains"]["tiny"]["accuracy"] is None


X, Y = planted(AGREE)["a"].test


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ({"test": (X[:0], Y[:0]), "labels": []}, SchemaError, "'b' must have test rows, got 0"),
        ({"labels": Y[:-1]}, SchemaError, r"'b': labels must be one for each of its 1,500 test"),
        (
            {"labels": np.where(Y > 0, np.nan, Y)},
            SchemaError,
            "'b': labels must be finite, got nan",
        ),
        ({"labels": ["yes"] * len(Y)}, SchemaError, "'b': labels must be numbers"),
        ({"clusters": [1, 2]}, SchemaError, r"'b': clusters must be one for each of its 1,500"),
        ({"validation_labels": Y}, SchemaError, "'b': validation_labels must be one for each"),
        ({"train": object()}, TypeError, "not subscriptable"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_anything_is_trained(
    values: dict[str, Any], kind: type[Exception], said: str, tmp_path: Path
):
    learner = Linear()
    with pytest.raises(kind, match=said):
        run(learner, changed(planted(AGREE), "b", **values), tmp_path / "out")
    assert learner.log == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metrics": ["gini"]}, "metrics must be of auc, accuracy"),
        ({"metrics": ["auc", "auc"]}, "must be at least one, and differ"),
        ({"seeds": 1}, "seeds must be at least 2, got 1"),
        ({"margin": 0.0}, "margin must be above 0"),
        ({"margin": {"logloss": 0.1}}, "one for each of"),
        ({"config": "config.yaml"}, "config must not be given"),
        ({"jobs": 4}, "jobs must not be given"),
        ({"domains": {}}, "at least 2 names"),
        ({"learner": object()}, "must have fingerprint"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, Any], said: str, tmp_path: Path):
    asked: dict[str, Any] = {"learner": Linear(), "domains": planted(AGREE), "out": tmp_path}
    with pytest.raises(ConfigError, match=said):
        diagnose(**asked | options)


def test_arguments_of_a_learner_need_one(tmp_path: Path):
    with pytest.raises(ConfigError, match="domains goes with a learner"):
        diagnose("config.yaml", domains=planted(AGREE), out=tmp_path)
    with pytest.raises(ConfigError, match="a config, or a learner"):
        diagnose(out=tmp_path)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (lambda s: s[:-1], r"scores must have shape \(\d+,\) or .*, got \(\d+,\)"),
        (lambda s: s[:, None, None], "scores must have shape"),
        (lambda s: np.where(s > 0.9, np.nan, s), "scores must be finite, got nan for row"),
        (lambda s: np.stack([s, s, s], 1), "auc needs scores"),
    ],
)
def test_scores_that_do_not_fit_are_named_at_first_sight(scores: Any, said: str, tmp_path: Path):
    class Odd(Linear):
        def score(self, state: Any, domain: str, rows: Any) -> np.ndarray:
            given = super().score(state, domain, rows)
            return scores(given) if domain == "b" else given

    learner = Odd()
    with pytest.raises(RunError, match=said) as fault:
        run(learner, planted(AGREE), tmp_path)
    assert "rows of domain 'b', arm joint, domains a, b, seed 0" in str(fault.value)
    assert sum(line.startswith("train") for line in learner.log) == 1


def test_a_state_that_cannot_be_kept_is_named(tmp_path: Path):
    class Odd(Linear):
        def train(self, *rows: Any, **options: Any) -> Any:
            return {"w": np.array([object()])}

    with pytest.raises(RunError, match="arrays of numbers by name, got object at 'w': arm joint"):
        run(Odd(), planted(AGREE), tmp_path)


def test_chances_that_are_none_are_named(tmp_path: Path):
    class Sure(Linear):
        def score(self, state: Any, domain: str, rows: Any) -> np.ndarray:
            return np.round(super().score(state, domain, rows))

    with pytest.raises(IsthmusError, match="logloss needs probabilities of 0 to 1, and above 0"):
        run(Sure(), planted(AGREE), tmp_path, metrics=["logloss"])


def test_content_tells_rows_apart():
    kinds = [np.arange(3), np.arange(3.0), [0, 1, 2], (0, 1, 2.0), "012", b"012", None, {"a": 1}]
    hashes = [content_of(kind) for kind in kinds]
    assert len(set(hashes)) == len(kinds)
    assert content_of(["ab", "c"]) != content_of(["a", "bc"])
    assert content_of(np.array(["x", None], dtype=object)) == content_of(["x", None])
    with pytest.raises(TypeError, match="got object; a learner that has `identify`"):
        content_of(object())
