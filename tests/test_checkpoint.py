"""Checkpoints: exact, whole or not there, and a damaged one is named."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from isthmus import checkpoint
from isthmus.errors import BundleError, RunError
from isthmus.train import Look, TrainState


def make_state(step: int = 7, size: int = 12) -> TrainState:
    generator = torch.Generator().manual_seed(step)
    table = torch.randn(size, 4, generator=generator)
    metrics = {"auc_pooled": 1 / 3, "auc_worst": None}
    return TrainState(
        step=step,
        epoch=1,
        step_in_epoch=2,
        # Two halves of one storage, as tables of one fused parameter are.
        model={"first": table[: size // 2], "second": table[size // 2 :], "n": torch.tensor(3)},
        best={"first": torch.zeros(2), "empty": torch.zeros(0, 3)},
        optimiser={
            "state": {0: {"step": torch.tensor(2.0), "exp_avg": table * 2}},
            "param_groups": [{"lr": 1e-3, "betas": [0.9, 0.999], "fused": True, "params": [0]}],
        },
        random={"cpu": generator.get_state()},
        loss_sum=torch.tensor(0.1, dtype=torch.float64),
        loss_steps=3,
        history=(Look(step=5, epoch=0.5, loss=0.7, metrics=metrics, better=True),),
        stale_looks=1,
        seconds=1.25,
        dataset_key="abc",
        threads=2,
        torch_version="2.13.0",
        config={"lr": 0.1, "clip_norm": None, "domain_sampling": "uniform"},
    )


def assert_equal(a, b):
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)
    else:
        assert a == b
        assert type(a) is type(b)


def assert_same_state(a: TrainState, b: TrainState):
    for field in fields(TrainState):
        assert_equal(getattr(a, field.name), getattr(b, field.name))


def test_a_state_comes_back_exactly(tmp_path: Path):
    state = make_state()
    assert not checkpoint.exists(tmp_path / "new")
    checkpoint.save(tmp_path / "new", state)
    assert checkpoint.exists(tmp_path / "new")
    assert_same_state(checkpoint.load(tmp_path / "new"), state)


def test_only_the_last_state_stays(tmp_path: Path):
    (tmp_path / ".tensors-0.safetensors.part-17").write_bytes(b"left by a writer that was killed")
    for step in (1, 2, 2):
        checkpoint.save(tmp_path, make_state(step))
    assert checkpoint.load(tmp_path).step == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_the_loaded_tensors_outlive_the_next_save(tmp_path: Path):
    checkpoint.save(tmp_path, make_state(1))
    loaded = checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, make_state(2))
    assert_same_state(loaded, make_state(1))


@pytest.mark.parametrize("moment", ["save_file", "os.replace:1", "write_bytes", "os.replace:2"])
def test_a_writer_that_fails_at_any_moment_keeps_the_former_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
):
    checkpoint.save(tmp_path, make_state(1))
    calls = {"n": 0}
    replace_file = os.replace

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    def replace_some(source, target):
        calls["n"] += 1
        if moment == f"os.replace:{calls['n']}":
            full()
        replace_file(source, target)

    with monkeypatch.context() as patch:
        if moment == "save_file":
            patch.setattr(checkpoint, "save_file", full)
        elif moment == "write_bytes":
            patch.setattr(Path, "write_bytes", full)
        else:
            patch.setattr(os, "replace", replace_some)
        with pytest.raises(RunError, match="No space left on device"):
            checkpoint.save(tmp_path, make_state(2))
    assert_same_state(checkpoint.load(tmp_path), make_state(1))
    checkpoint.save(tmp_path, make_state(3))
    assert_same_state(checkpoint.load(tmp_path), make_state(3))
    assert len(list(tmp_path.iterdir())) == 2


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from isthmus import checkpoint
from test_checkpoint import make_state
step = 0
while True:
    step += 1
    checkpoint.save(sys.argv[1], make_state(step, size=200_000))
    sys.stdout.write(f"{step}\\n")
    sys.stdout.flush()
"""


def test_kill_9_at_any_moment_leaves_a_whole_state(tmp_path: Path):
    source = str(Path(checkpoint.__file__).parents[1])
    for attempt in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        )
        assert writer.stdout is not None
        with writer.stdout:
            writer.stdout.readline()
            done = int(writer.stdout.readline())
            time.sleep(0.006 * attempt)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            done = [done, *map(int, writer.stdout.read().split())][-1]
        state = checkpoint.load(tmp_path)
        assert state.step in (done, done + 1)
        assert_same_state(state, make_state(state.step, size=200_000))


def test_a_damaged_file_is_named(tmp_path: Path):
    with pytest.raises(BundleError, match=r"must hold checkpoint\.json"):
        checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, make_state())
    tensors = next(tmp_path.glob("*.safetensors"))
    sound = tensors.read_bytes()

    turned = bytearray(sound)
    turned[-1] ^= 1
    for damage in (bytes(turned), sound[:-10], b""):
        tensors.write_bytes(damage)
        with pytest.raises(BundleError, match=tensors.name):
            checkpoint.load(tmp_path)
    tensors.unlink()
    with pytest.raises(BundleError, match=f"{tensors.name} is missing"):
        checkpoint.load(tmp_path)
    tensors.write_bytes(sound)

    numbers = tmp_path / checkpoint.FILE
    sound_text = numbers.read_text()
    for text in (sound_text.replace("abc", "abd"), sound_text[:50], "[]", "", "{}"):
        numbers.write_text(text)
        with pytest.raises(BundleError, match=r"checkpoint\.json"):
            checkpoint.load(tmp_path)
    numbers.write_text(json.dumps({**json.loads(sound_text), "format": 99}))
    with pytest.raises(BundleError, match=r"must have format 2 to 5, got 99 in .*checkpoint\.json"):
        checkpoint.load(tmp_path)
    numbers.write_text(sound_text)
    assert_same_state(checkpoint.load(tmp_path), make_state())


def of_format(number: int, folder: Path, *unknown: str) -> None:
    """Make the checkpoint in a folder one of an older format, whose state has no such fields."""
    numbers = folder / checkpoint.FILE
    body = json.loads(json.loads(numbers.read_text())["body"])
    for name in unknown:
        del body["state"][name]
    for look in body["state"]["history"]:
        look.pop("losses")
    text = json.dumps(body)
    digest = hashlib.sha256(text.encode()).hexdigest()
    numbers.write_text(json.dumps({"format": number, "sha256": digest, "body": text}))


def test_a_checkpoint_from_before_objectives_is_read(tmp_path: Path):
    checkpoint.save(tmp_path, make_state())
    of_format(2, tmp_path, "objectives", "loss_sums")
    assert_same_state(checkpoint.load(tmp_path), make_state())


def test_a_checkpoint_from_before_weightings_is_named(tmp_path: Path):
    """Its state has no `weighting`; format 1 says that it is an older one."""
    checkpoint.save(tmp_path, make_state())
    of_format(1, tmp_path, "objectives", "loss_sums", "weighting")
    with pytest.raises(BundleError, match="must have format 2 to 5, got 1"):
        checkpoint.load(tmp_path)


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path):
    odd = replace(make_state(), optimiser={"state": object()})
    with pytest.raises(TypeError, match=r"at optimiser\.state"):
        checkpoint.save(tmp_path / "new", odd)
    assert not (tmp_path / "new").exists()
