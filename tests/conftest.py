"""Shape and type annotations of the torch parts are checked while the tests run, only there."""

import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import forking
from chromium import Browser

forking.install()
CHECKED = ["isthmus.layers", "isthmus.backbones", "isthmus.adapters", "isthmus.models"]
install_import_hook(CHECKED, "beartype.beartype")
# Files that take half a minute and more. They come first, so that no process is alone with one at the end.
LONGEST = ("new_domain", "ranks_fit", "contracts", "carriers", "exported_models", "tune", "diagnose", "benchmark",
           "attach_graphs", "attention_served", "export", "ranks")  # fmt: skip
# No test asserts a time: a busy machine is no fault.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    place = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def tests_networks(module: Any) -> bool:
    """Whether a file of tests builds parts of networks by itself: whether it imports one."""
    from torch import nn

    parts = [
        one for one in vars(module).values() if isinstance(one, type) and issubclass(one, nn.Module)
    ]
    return any(part.__module__.startswith(tuple(CHECKED)) for part in parts)


@pytest.fixture(scope="module", autouse=True)
def shape_checks(request: pytest.FixtureRequest) -> None:
    """Annotations are checked in the tests of networks and their parts.

    Other tests train and serve the same networks. There the checks took half of the time: a step has 145
    annotated calls.
    """
    jaxtyping.config.update("jaxtyping_disable", not tests_networks(request.module))


@pytest.fixture(scope="session", autouse=True)
def cache_of_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what fixtures of a whole module encode out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders, each given once. `mktemp` reads the names of all folders before, 7 ms at 3,000 of them."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def isolated_cache(caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    folder = next(caches)
    folder.mkdir()
    monkeypatch.setenv("ISTHMUS_CACHE", str(folder))
    return folder


@pytest.fixture
def executed() -> Iterator[None]:
    """Processes of this test are executed anew, because their start itself is tested."""
    with forking.executed():
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums over several threads have other last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compilation traces through the checks of the test run and stumbles there."""
    from isthmus.layers.routing import Routing
    from isthmus.models import domain_model

    for made_inside in (Routing, domain_model._Passing):
        for name in vars(made_inside).keys() & {"__init__", "__call__", "judge", "meet"}:
            monkeypatch.setattr(made_inside, name, inspect.unwrap(getattr(made_inside, name)))
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Example diagnoses as pages."""
    import example_pages

    return example_pages.write_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, opened once."""
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        # The page keeps the focus, also after a test has stepped out of it by the Tab key.
        opened.call("Emulation.setFocusEmulationEnabled", enabled=True)
        yield opened


@pytest.fixture(scope="session")
def runs_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs to view, and pages beside them. Tests that write copy it."""
    from viewed import write_home

    return write_home(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="session")
def view_server(runs_home: Path) -> Iterator[Any]:
    """`isthmus view` of that folder, as a `viewed.Viewed`."""
    from viewed import viewed

    with viewed(runs_home) as running:
        yield running
