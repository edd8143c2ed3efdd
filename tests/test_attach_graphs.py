"""An adapted network as one graph: compiled, exported, and in ONNX with the domain as an input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import graphs
from isthmus.layers.routing import Routing, Tiles, _lay_out_fixed


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each check said, all in one process: tracing does not get through the shape checks here."""
    run = [sys.executable, "graphs.py", str(tmp_path_factory.mktemp("graphs"))]
    done = subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("check", [check.__name__ for check in graphs.CHECKS])
def test_a_graph_gives_what_the_network_gives(check: str, outcomes: dict[str, str]):
    assert outcomes[check] == "", outcomes[check]


@pytest.mark.parametrize(("n_domains", "count"), [(3, 1), (3, 70), (40, 50), (40, 300), (400, 64)])
def test_tiles_of_a_graph_route_as_those_outside(n_domains: int, count: int):
    generator = torch.Generator().manual_seed(count)
    for _ in range(5):
        domain = torch.randint(0, n_domains + 1, (count,), generator=generator)
        h = torch.randn(count, 5, generator=generator)
        weight = torch.randn(n_domains + 1, 5, 4, generator=generator)
        tiles = _lay_out_fixed(domain, n_domains)
        found = tiles.join(torch.bmm(tiles.split(h), tiles.pick(weight)))
        torch.testing.assert_close(found, Routing(domain, n_domains).apply(h, weight))
        assert copies_stay_at_home(tiles, domain)
        assert len(tiles.source) <= count + (n_domains + 1) * (tiles.length - 1) + tiles.length


def copies_stay_at_home(tiles: Tiles, domain: Tensor) -> bool:
    """Whether every slot of a tile, the copies too, holds a row of the tile's own domain."""
    held = domain.index_select(0, tiles.source).view(-1, tiles.length)
    return bool((held == tiles.domain.unsqueeze(1)).all())
