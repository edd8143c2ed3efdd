"""A training that is stopped and taken up again from disk, as often as wanted."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from isthmus import checkpoint
from isthmus.data import Dataset
from isthmus.train import CheckpointDue, End, Look, TrainConfig, TrainState, train


def in_pieces(
    make: Callable[[int], nn.Module],
    dataset: Dataset,
    config: TrainConfig,
    stops: Sequence[int],
    folder: Path,
) -> tuple[nn.Module, list[Look], End]:
    """Train ``make(1)``, stop after each of ``stops`` steps, and go on in ``make(99)``.

    ``config`` must want a checkpoint after every step. Gives the last model, all looks, and the end.
    """
    state: TrainState | None = None
    looks: list[Look] = []
    for stop in (*stops, None):
        model = make(1 if state is None else 99)
        for event in train(model, dataset, config, state=state):
            if isinstance(event, Look):
                looks.append(event)
            if isinstance(event, CheckpointDue) and event.state.step == stop:
                checkpoint.save(folder, event.state)
                break
            if isinstance(event, End):
                assert stop is None
                return model, looks, event
        state = checkpoint.load(folder)
        assert state.step == stop
    raise AssertionError("the training must come to its end")
