"""The drift watch: silent while served rows are drawn as in training, and right about what moved."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.bundle.profile import Profile
from isthmus.bundle.validation_profile import measure_profile
from isthmus.data.store.arrays import Arrays
from isthmus.metrics import ScoredRows
from isthmus.monitoring import Drift, DriftWatch, drift, flagging
from isthmus.schema import FittedField

IDS = 40
FIELDS = [
    FittedField("item", "categorical", 4, table="item", table_rows=IDS),
    FittedField("user", "categorical", 4, table="user", table_rows=6),
    FittedField("price", "numeric", 1),
    FittedField("history", "categorical_list", 4, table="item", table_rows=IDS),
    FittedField("sums", "numeric_list", 1),
]
COLUMNS = [field.name for field in FIELDS]


@dataclass
class Draw:
    """Rows of some domains; what is changed is changed in the domains of ``moved`` only."""

    rng: np.random.Generator
    moved: tuple[int, ...] = ()
    logit: float = 0.0
    unknown: float = 0.0
    other_items: float = 0.0
    dearer: float = 0.0

    def rows(self, rows: int, domain: np.ndarray | int, users: np.ndarray | None = None) -> Arrays:
        rng = self.rng
        domain = np.broadcast_to(domain, rows)
        moved = np.isin(domain, self.moved)
        item = 1 + np.minimum(rng.geometric(0.15, rows), IDS - 1)
        item = np.where(moved & (rng.random(rows) < self.other_items), IDS - 1, item)
        item = np.where(rng.random(rows) < 0.02 + self.unknown * moved, 0, item % IDS)
        user = rng.integers(0, 6, rows) if users is None else users
        lengths = rng.integers(0, 4, rows)
        offsets = np.append(0, np.cumsum(lengths))
        price = rng.normal(size=rows) + self.dearer * moved
        return Arrays(
            categorical=np.stack([item, user], axis=1).astype(np.int32),
            numeric=price[:, None].astype(np.float32),
            lists=(
                (rng.integers(0, IDS, offsets[-1]).astype(np.int32), offsets),
                (rng.normal(size=offsets[-1]).astype(np.float32), offsets),
            ),
            domain=domain.astype(np.int32),
            label=np.zeros(rows, dtype=np.float32),
            weight=None,
        )

    def scores(self, domain: np.ndarray) -> np.ndarray:
        logit = self.rng.normal(-2, 1, len(domain)) + self.logit * np.isin(domain, self.moved)
        return 1 / (1 + np.exp(-logit))

    def profile(self, rows: int = 4_000, domains: int = 3) -> Profile:
        domain = self.rng.integers(1, domains + 1, rows)
        names = tuple(f"d{number}" for number in range(1, domains + 1))
        scored = scored_as(self.scores(domain), domain, names)
        return measure_profile(FIELDS, self.rows(rows, domain), scored)

    def serve(self, watch: DriftWatch, requests: int, rows: int = 20, domains: int = 3) -> None:
        for _ in range(requests):
            domain = self.rng.integers(1, domains + 1, rows)
            add(watch, self.rows(rows, domain), self.scores(domain))


def add(watch: DriftWatch, rows: Arrays, scores: np.ndarray) -> None:
    watch.add(
        domain=rows.domain,
        scores=scores,
        categorical=rows.categorical,
        numeric=rows.numeric,
        lists=rows.lists,
    )


@pytest.fixture(scope="module")
def profile() -> Profile:
    return Draw(np.random.default_rng(0)).profile(20_000)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"logit": 0.4}, {"score_mean"}),
        ({"unknown": 0.06}, {"unknown_rate:item"}),
        ({"other_items": 0.3}, {"mix:item"}),
        ({"dearer": 0.8}, {"mix:price"}),
    ],
)
def test_what_moved_is_flagged_in_its_domain_only(
    profile: Profile, change: dict[str, float], what: set[str]
):
    draw = Draw(np.random.default_rng(1), moved=(2,), **change)
    watch = DriftWatch(profile=profile)
    draw.serve(watch, 300)
    flags = watch.flags()
    assert {(flag.domain, flag.what) for flag in flags} == {("d2", name) for name in what}
    (flag,) = flags
    assert not flag.interval[0] <= flag.seen <= flag.interval[1]
    assert 1_500 < flag.rows < 2_500
    assert "of domain 'd2' is" in str(flag)


@pytest.mark.parametrize("change", [{"logit": 0.05}, {"unknown": 0.005}, {"other_items": 0.05}])
def test_what_does_not_matter_is_not_flagged_however_sure(
    profile: Profile, change: dict[str, float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(drift, "WINDOW_ROWS", 10**9)
    draw = Draw(np.random.default_rng(2), moved=(1,), **change)
    watch = DriftWatch(profile=profile)
    draw.serve(watch, 60, rows=1_000)
    assert watch.flags() == ()


def looks(monkeypatch: pytest.MonkeyPatch, level: float, margin: float) -> None:
    monkeypatch.setattr(flagging, "LEVEL", level)
    for name in ("SCORE_MARGIN", "UNKNOWN_MARGIN", "MIX_MARGIN"):
        monkeypatch.setattr(flagging, name, margin * getattr(flagging, name))


def test_chance_alone_flags_no_more_looks_than_the_level(monkeypatch: pytest.MonkeyPatch):
    # Without margins, and at a level at which a fault would show. A profile is drawn anew each time.
    looks(monkeypatch, 0.2, margin=0.0)
    rng = np.random.default_rng(3)
    flagged = 0
    for _ in range(100):
        draw = Draw(rng)
        watch = DriftWatch(profile=draw.profile(1_200))
        draw.serve(watch, 45)
        flagged += bool(watch.flags())
    assert flagged <= 20  # the level; the bounds of mixes are wide


def test_an_interval_of_scores_is_as_wide_as_it_must_be(monkeypatch: pytest.MonkeyPatch):
    looks(monkeypatch, 0.2, margin=0.0)
    rng = np.random.default_rng(15)
    domain = np.ones(1_000, dtype=np.int64)
    flagged = 0
    for _ in range(200):
        draw = Draw(rng)
        scored = scored_as(draw.scores(domain), domain, ("a",))
        watch = DriftWatch(profile=measure_profile([], draw.rows(1_000, 1), scored))
        for _ in range(60):
            add(watch, draw.rows(20, 1), draw.scores(domain[:20]))
        flagged += bool(watch.flags())
    assert 15 <= flagged <= 57  # 40 are the level; three standard deviations are 17


def scored_as(score: np.ndarray, domain: np.ndarray, names: tuple[str, ...]) -> ScoredRows:
    return ScoredRows(
        split="validation",
        row=np.arange(len(score)),
        logits=np.log(score / (1 - score)),
        label=score > np.median(score),
        domain=domain,
        names=names,
    )


def test_rows_of_one_request_that_belong_together_are_no_evidence(
    monkeypatch: pytest.MonkeyPatch,
):
    # All rows of a request have one user: a third of the rows may well be one user's.
    looks(monkeypatch, 0.2, margin=0.0)
    rng = np.random.default_rng(4)
    profile = Draw(rng).profile(30_000, domains=1)
    flags: list[Drift] = []
    for _ in range(100):
        draw = Draw(rng)
        watch = DriftWatch(profile=profile)
        for _ in range(40):
            rows = draw.rows(30, 1, users=np.full(30, rng.integers(0, 6)))
            add(watch, rows, draw.scores(rows.domain))
        flags += watch.flags()
    assert sum(flag.what.endswith(":user") for flag in flags) <= 20


def test_at_its_own_level_nothing_is_flagged_in_many_windows(profile: Profile):
    draw = Draw(np.random.default_rng(5))
    watch = DriftWatch(profile=profile)
    for _ in range(40):
        draw.serve(watch, 30)
        assert watch.flags() == ()


def test_nothing_is_said_of_few_rows_or_requests_or_of_a_small_profile(profile: Profile):
    draw = Draw(np.random.default_rng(6), moved=(1, 2, 3), logit=3.0)
    watch = DriftWatch(profile=profile)
    draw.serve(watch, 29, rows=600)
    assert watch.flags() == ()  # 29 requests
    draw.serve(watch, 10, rows=600)
    assert {flag.what for flag in watch.flags()} == {"score_mean"}
    watch = DriftWatch(profile=profile)
    draw.serve(watch, 100, rows=5)
    assert watch.flags() == ()  # 167 rows a domain
    small = DriftWatch(profile=Draw(np.random.default_rng(7)).profile(200))
    draw.serve(small, 100)
    assert small.flags() == ()


def test_states_of_several_processes_add_up(profile: Profile, tmp_path: Path):
    draw = Draw(np.random.default_rng(8), moved=(3,), unknown=0.1)
    size = DriftWatch.state_size(profile)
    watches = []
    for number in range(3):
        state = np.memmap(tmp_path / str(number), dtype=np.float64, mode="w+", shape=(size,))
        watches.append(DriftWatch(profile=profile, state=state))
    whole = DriftWatch(profile=profile)
    for request in range(120):
        domain = draw.rng.integers(1, 4, 20)
        rows, scores = draw.rows(20, domain), draw.scores(domain)
        add(watches[request % 3], rows, scores)
        add(whole, rows, scores)
    np.testing.assert_allclose(np.sum([of.state for of in watches], axis=0), whole.state)
    read = [np.memmap(tmp_path / str(number), dtype=np.float64, mode="r") for number in range(3)]
    assert [(flag.domain, flag.what) for flag in whole.flags(read)] == [("d3", "unknown_rate:item")]
    assert whole.flags(read) == watches[0].flags(read)


def test_old_rows_fade(profile: Profile):
    watch = DriftWatch(profile=profile)
    before = Draw(np.random.default_rng(9))
    before.serve(watch, 1_500, rows=60)
    assert watch.flags() == ()
    after = Draw(np.random.default_rng(10), moved=(1,), other_items=0.4)
    after.serve(watch, 1_000, rows=60)
    assert [(flag.domain, flag.what) for flag in watch.flags()] == [("d1", "mix:item")]
    before.serve(watch, 2_000, rows=60)
    assert watch.flags() == ()
    rows = watch.state.reshape(5, -1)[1:4, 0]
    assert ((rows > 4_000) & (rows <= 10_060)).all()


def test_a_long_request_is_several_and_does_not_empty_the_window(profile: Profile):
    draw = Draw(np.random.default_rng(11), moved=(1, 2, 3), logit=1.0)
    watch = DriftWatch(profile=profile)
    domain = draw.rng.integers(1, 4, 200_000)
    add(watch, draw.rows(200_000, domain), draw.scores(domain))
    assert {flag.domain for flag in watch.flags()} == {"d1", "d2", "d3"}


def test_unknown_domains_and_those_of_later(profile: Profile):
    draw = Draw(np.random.default_rng(12))
    watch = DriftWatch(profile=profile)
    for _ in range(50):
        domain = draw.rng.integers(0, 9, 100)
        add(watch, draw.rows(100, domain), draw.scores(domain))
    assert watch.flags() == ()  # the profile holds no row of the unknown domain, nor of d4
    # The unknown domain has a profile where validation rows had none of the trained ones.
    rows = draw.rng.integers(0, 2, 8_000)
    scored = scored_as(draw.scores(rows), rows, ("d1",))
    watch = DriftWatch(profile=measure_profile(FIELDS, draw.rows(8_000, rows), scored))
    Draw(draw.rng, moved=(0,), logit=1.0).serve(watch, 1)
    for _ in range(60):
        domain = draw.rng.integers(0, 2, 60)
        add(watch, draw.rows(60, domain), np.where(domain == 0, 0.9, draw.scores(domain)))
    assert [(flag.domain, flag.what) for flag in watch.flags()] == [(None, "score_mean")]


def test_ids_that_came_later_are_among_the_rest(profile: Profile):
    draw = Draw(np.random.default_rng(13))
    watch = DriftWatch(profile=profile)
    for _ in range(60):
        rows = draw.rows(30, 1)
        rows.categorical[:10, 0] = 10_000  # appended to the vocabulary since
        add(watch, rows, draw.scores(rows.domain))
    assert [flag.what for flag in watch.flags()] == ["mix:item"]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
)
def test_the_sums_are_those_of_a_slow_count(seed: int, sizes: list[int]):
    draw = Draw(np.random.default_rng(seed))
    profile = draw.profile(300)
    watch = DriftWatch(profile=profile)
    requests = []
    for size in sizes:
        domain = draw.rng.integers(0, 4, size)
        requests.append((draw.rows(size, domain), draw.scores(domain)))
        add(watch, *requests[-1])
    cells = profile.cells.shape[1]
    state = watch.state.reshape(5, -1)
    for domain in range(4):
        slow = np.zeros(state.shape[1])
        for rows, scores in requests:
            of = rows.domain == domain
            if not of.any():
                continue
            n, total = of.sum(), scores[of].sum()
            mean = np.nan_to_num(profile.score)[domain]
            slow[:5] += [n, n, n * n, total, (total - mean * n) ** 2]
            for place, column in enumerate(profile.columns):
                start = profile.starts[place]
                items, lengths = column.values(rows, np.flatnonzero(of))
                held = np.bincount(column.cells_of(items), minlength=column.cells)
                slow[5 + start :][: column.cells] += held
                training = profile.cells[domain, start:][: column.cells]
                share = training[0] / (training.sum() or 1)
                slow[5 + cells + place] += (held[0] - share * held.sum()) ** 2
                mix = training[1:] / (training[1:].sum() or 1)
                away = held[1:] - mix * held[1:].sum()
                slow[5 + cells + len(COLUMNS) + place] += (away**2).sum()
                assert lengths is None or lengths.sum() == held.sum()
        np.testing.assert_allclose(state[domain], slow, rtol=1e-9, atol=1e-9)


def test_a_profile_without_columns_watches_scores():
    draw = Draw(np.random.default_rng(14))
    domain = np.ones(1_000, dtype=np.int64)
    scored = scored_as(draw.scores(domain), domain, ("a",))
    rows = draw.rows(1_000, 1)
    watch = DriftWatch(profile=measure_profile([], rows, scored))
    for _ in range(50):
        add(watch, draw.rows(10, 1), np.full(10, 0.9))
    assert [flag.what for flag in watch.flags()] == ["score_mean"]


def test_a_state_of_another_shape_is_refused(profile: Profile):
    size = DriftWatch.state_size(profile)
    with pytest.raises(ValueError, match=rf"state must be float64 of shape \({size},\)"):
        DriftWatch(profile=profile, state=np.zeros(size - 1))
    with pytest.raises(ValueError, match="state must be float64"):
        DriftWatch(profile=profile, state=np.zeros(size, dtype=np.float32))
    with pytest.raises(ValueError, match="one is of another bundle"):
        DriftWatch(profile=profile).flags([np.zeros(3)])
