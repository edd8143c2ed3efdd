"""The strength of a modulation at prediction: 1 as trained, 0 the shared network, by name refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import isthmus
from command_line import isthmus_in_process, told
from isthmus.bundle import Bundle, Part
from isthmus.errors import BundleError
from isthmus.models import DomainModel, build_model
from small_runs import ROWS, clicks, content, settings

PLAIN = "model.adapter={name: none}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strength")
    pq.write_table(clicks(), folder / "clicks.parquet")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> isthmus.Run:
    changes = ["model.adapter={name: modulation}", "model.calibration=per_domain"]
    config = isthmus.load_config(settings(epochs=1), changes)
    return isthmus.fit(config, clicks(), out=folder / "run", cache=folder / "cache")


def without_adapter(bundle: Bundle) -> np.ndarray:
    model = bundle.model
    assert isinstance(model, DomainModel)
    adapter, model.adapter = model.adapter, None
    try:
        return bundle.score(clicks())
    finally:
        model.adapter = adapter


def test_strength_goes_from_the_shared_network_to_the_one_trained(run: isthmus.Run):
    trained = run.predict(clicks())
    shared = without_adapter(run.bundle)
    assert np.array_equal(run.predict(clicks(), strength=1), trained)
    assert np.array_equal(run.predict(clicks(), strength=0), shared)
    half = run.predict(clicks(), strength=0.5)
    apart = [np.abs(half - other).mean() for other in (shared, trained)]
    assert min(apart) > 0
    assert max(apart) < np.abs(trained - shared).mean()
    # The bundle itself stays as it was.
    assert np.array_equal(run.predict(clicks()), trained)


def test_a_turned_bundle_shares_its_tensors_and_is_saved_as_trained(
    run: isthmus.Run, tmp_path: Path
):
    turned = run.bundle.at_strength(0.5)
    pairs = zip(turned.model.parameters(), run.bundle.model.parameters(), strict=True)
    assert all(ours is theirs for ours, theirs in pairs)
    turned.save(tmp_path / "bundle")
    assert content(tmp_path / "bundle") == content(run.path / "bundle")


def test_the_command_line_predicts_at_a_strength(run: isthmus.Run, folder: Path, tmp_path: Path):
    words = ("predict", run.path, folder / "clicks.parquet", "-o", tmp_path / "out.parquet")
    result = isthmus_in_process(*words, "--strength", 0.5)
    assert result.stdout.startswith(f"wrote {ROWS:,} rows"), result.output
    scored = pq.read_table(tmp_path / "out.parquet")["score"].to_numpy()
    np.testing.assert_allclose(scored, run.predict(clicks(), strength=0.5), atol=1e-12)


@pytest.mark.parametrize("strength", [-0.5, np.nan, np.inf])
def test_a_strength_is_a_number_of_0_or_more(run: isthmus.Run, strength: float):
    with pytest.raises(BundleError, match="strength must be a finite number of 0 or more, got"):
        run.predict(clicks(), strength=strength)


def model_of(run: isthmus.Run, change: str) -> tuple[Any, DomainModel]:
    """A model of the run's fields that nothing has trained, all its parameters random."""
    config = isthmus.load_config(settings(), [change])
    torch.manual_seed(0)
    model = build_model(config.model, run.bundle.encoder.fields, run.bundle.encoder.n_domains)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return config, model  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(("adapter", "name"), [(PLAIN, "none"), ("train.epochs=1", "hamur")])
def test_a_model_without_a_strength_is_refused_by_name(run: isthmus.Run, adapter: str, name: str):
    config, model = model_of(run, adapter)
    bundle = Bundle(config=config, encoder=run.bundle.encoder, model=model)
    text = f"strength must be given to a model with adapter modulation, got adapter {name}$"
    with pytest.raises(BundleError, match=text):
        bundle.at_strength(0.5)


def test_the_command_line_says_so_and_writes_nothing(folder: Path, tmp_path: Path):
    config = isthmus.load_config(settings(epochs=1), [PLAIN])
    plain = isthmus.fit(config, clicks(), out=tmp_path / "run", cache=folder / "cache")
    out = tmp_path / "out.parquet"
    words = ("predict", plain.path, folder / "clicks.parquet", "-o", out, "--strength", "0")
    assert "got adapter none" in told(isthmus_in_process(*words))
    assert not out.exists()


def test_models_of_single_domains_are_turned_where_they_can_be(run: isthmus.Run):
    config, plain = model_of(run, PLAIN)
    worn, own = model_of(run, "model.adapter={name: modulation}")
    bundle = Bundle(
        config=config,
        encoder=run.bundle.encoder,
        model=plain,
        parts={"home": Part(own, worn.model)},
        routes={"home": "home"},
    )
    home = np.array(clicks()["tab"].to_pylist()) == "home"
    moved = bundle.at_strength(0.5).score(clicks()) != bundle.score(clicks())
    assert moved[home].all()
    assert not moved[~home].any()
