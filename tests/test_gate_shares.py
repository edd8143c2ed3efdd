"""What share of each expert each domain uses: counted by hand, kept by fit, shown by evaluate."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

import isthmus
import small_runs
from command_line import isthmus_in_process, told
from fake_batches import EVEN, make_batch
from isthmus.errors import RunError
from isthmus.layers.bank import BankLinear
from isthmus.models import DomainModel, ModelConfig, build_model
from isthmus.run.gate_shares import GateShares, GateWatch, gates_of, read_gates, write_gates
from isthmus.train import score_batch

NAMES = ("home", "search")


def model(name: str = "mmoe", **backbone) -> DomainModel:
    torch.manual_seed(0)
    section = {"backbone": {"name": name, "widths": [4, 3], **backbone}}
    return build_model(ModelConfig.model_validate(section), EVEN, 2)  # pyright: ignore[reportReturnType]


def settled(gate_of: DomainModel) -> None:
    """Gates that say the same of every row of a domain: the weights below, whatever the row."""
    gate = gates_of(gate_of)["backbone.gate"]
    assert isinstance(gate.linear, BankLinear)
    assert gate.linear.bias is not None
    with torch.no_grad():
        gate.linear.weight.zero_()
        gate.linear.bias.copy_(torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]).log())


def batch_of(*domain: int):
    return replace(make_batch(EVEN, len(domain)), domain=torch.tensor(domain))


def watched(*batches, of: DomainModel) -> GateShares:
    watch = GateWatch(of)
    with watch.watching():
        for batch in batches:
            score_batch(of, batch)
    return watch.shares("test", domains=NAMES, source="run")


def test_shares_of_known_gates():
    net = model(experts=2)
    settled(net)
    found = watched(batch_of(1, 2, 1), batch_of(0, 1), of=net)
    assert found.domains == ("home", "search", "(unknown)")
    assert found.rows == (3, 1, 1)
    (gate,) = found.gates
    assert (gate.name, gate.experts) == ("backbone.gate", ("shared 1", "shared 2"))
    assert gate.shares[0] == pytest.approx((0.9, 0.1))
    assert gate.shares[1] == pytest.approx((0.2, 0.8))
    assert gate.shares[2] == pytest.approx((0.5, 0.5))


def test_shares_are_means_over_the_rows_of_a_domain():
    net = model(experts=3)
    batch = batch_of(1, 2, 1, 2, 2, 1, 1)
    found = watched(batch, of=net)
    weights = []
    gate = gates_of(net)["backbone.gate"]
    hook = gate.register_forward_hook(lambda *call: weights.append(call[-1]))
    score_batch(net, batch)
    hook.remove()
    for place in (0, 1):
        mean = weights[0][batch.domain == place + 1].mean(0)
        assert found.gates[0].shares[place] == pytest.approx(mean.tolist(), abs=1e-6)
    assert found.domains == NAMES  # no unknown rows, no line for them


def test_a_domain_without_rows_has_no_shares():
    found = watched(batch_of(2, 2), of=model())
    assert found.gates[0].shares[0] is None
    assert found.to_dict()["gates"][0]["shares"][0] is None
    line = found.tables()[0].rows[0]
    assert line == ("home", "0", "–", "–", "–", "–")


def test_a_watch_leaves_nothing_behind():
    net = model()
    watch = GateWatch(net)
    with watch.watching():
        score_batch(net, batch_of(1, 2))
    score_batch(net, batch_of(1, 2))
    assert watch.rows.tolist() == [0, 1, 1]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


@pytest.mark.parametrize(
    ("name", "gates"),
    [
        ("mlp", []),
        ("shared_bottom", []),
        ("mmoe", ["backbone.gate"]),
        (
            "ple",
            [
                "backbone.levels.level_1.own_gate",
                "backbone.levels.level_1.shared_gate",
                "backbone.levels.level_2.own_gate",
            ],
        ),
        ("hinet", ["backbone.shared.gate", "backbone.own.gate", "backbone.others.gate"]),
        ("m3oe", ["backbone.gate"]),
        ("adl", ["backbone.gate"]),
    ],
)
def test_every_gate_is_found_by_its_place(name, gates):
    net = model(name)
    assert list(gates_of(net)) == gates
    for gate in watched(batch_of(1, 2, 2, 1), of=net).gates:
        for shares in gate.shares:
            assert sum(shares or ()) == pytest.approx(1)


def test_shares_are_kept_as_they_were(tmp_path):
    found = watched(batch_of(2, 2, 0), of=model("ple"))
    write_gates(tmp_path, [found])
    assert read_gates(tmp_path, "test", source="run") == found
    assert read_gates(tmp_path / "nowhere", "test", source="run") is None
    (tmp_path / "gates.json").write_text("{}")
    with pytest.raises(RunError, match=r"gates\.json is damaged"):
        read_gates(tmp_path, "test", source="run")


# A run.


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> isthmus.Run:
    folder = tmp_path_factory.mktemp("gates")
    raw = small_runs.settings()
    raw["model"] = {"backbone": {"name": "ple", "widths": [6, 4], "tower_widths": [3]}}
    return isthmus.fit(raw, small_runs.write_table(folder), out=folder / "run")


def test_a_run_keeps_the_shares_of_both_splits(run):
    for split in ("test", "validation"):
        shares = run.gates(split)
        rows = run.scored(split)
        assert shares.split == split
        assert dict(zip(shares.domains, shares.rows, strict=True)) == {
            name: int((rows.domain == place).sum())
            for place, name in enumerate(rows.names, start=1)
        }
    with pytest.raises(RunError, match="split must be test or validation, got 'train'"):
        run.gates("train")


def test_a_table_of_the_test_rows_has_the_shares_of_the_test_rows(run):
    rows = small_runs.clicks().take(pa.array(run.scored().row))
    kept, looked = run.gates(), run.gates(data=rows)
    assert looked.split == "external"
    for a, b in zip(kept.gates, looked.gates, strict=True):
        np.testing.assert_allclose(a.shares, b.shares, atol=1e-6)


def test_a_domain_that_was_never_trained_counts_as_unknown(run):
    rows = small_runs.clicks().slice(0, 40)
    place = rows.column_names.index("tab")
    rows = rows.set_column(place, "tab", pa.array(["moon"] * 40))
    shares = run.gates(data=rows)
    assert (shares.domains[-1], shares.rows) == ("(unknown)", (0, 0, 0, 40))


def test_evaluate_shows_the_gates_everywhere(run, tmp_path):
    plain = isthmus_in_process("evaluate", run.path)
    assert "mean weight" not in plain.stdout
    result = isthmus_in_process("evaluate", run.path, "--gates", "--json", tmp_path / "out.json")
    assert result.stdout.startswith(plain.stdout.rstrip())
    shown = str(run.gates()).splitlines()
    assert "run, test rows: mean weight of each expert in backbone.levels.level_1.own_gate" in shown
    assert all(line in result.stdout for line in shown)
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["gates"] == run.gates().to_dict()
    assert {key: content[key] for key in content if key != "gates"} == run.evaluate().to_dict()
    report = (run.path / "report.md").read_text()
    assert "| domain | rows | own 1 | own 2 | shared 1 | shared 2 |" in report


def test_gates_of_a_table_by_the_command_line(run, tmp_path):
    result = isthmus_in_process(
        "evaluate", run.path, "--gates", "--data", run.state.table, "--json", "-"
    )
    assert json.loads(result.stdout)["gates"]["split"] == "external"


def test_a_network_without_gates_is_refused(run, tmp_path):
    raw = small_runs.settings(epochs=1)
    other = isthmus.fit(raw, run.state.table, out=tmp_path / "plain")
    assert not (other.path / "gates.json").exists()
    fault = told(isthmus_in_process("evaluate", other.path, "--gates"))
    assert fault == (
        f"gates can be shown of a network that has some, got backbone 'mlp' in run {other.path}"
    )


def test_a_run_that_kept_none_says_how_to_look_now(run):
    kept = run.path / "gates.json"
    content = kept.read_text()
    kept.unlink()
    try:
        with pytest.raises(RunError, match="--data TABLE looks at them now"):
            run.gates()
    finally:
        kept.write_text(content)
