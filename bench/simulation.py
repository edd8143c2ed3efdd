"""A model of a training step on many GPUs: docs/scale_simulation.md, out of its JSON.

    python -m bench.simulation                # writes the page again, out of docs/scale_simulation.json
    python -m bench.simulation --steps FILE   # takes measured steps over first: see bench.step_times

A step is computing, messages and bytes:

    seconds = work + waits * seconds a wait + bytes / bytes a second

The form is checked on measured steps of 1, 2 and 4 processes of this machine. The figures of GPUs and networks
are those of data sheets, with their sources in the JSON, or marked as assumed.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.sharding import lookup_bytes

PAGE = Path(__file__).parents[1] / "docs" / "scale_simulation.md"
RECORD = PAGE.with_suffix(".json")
TEXT = Path(__file__).with_name("simulation.md")
GPUS = (8, 16, 32, 64, 128, 256)
VALUE = 4  # bytes of a float32
FITTED_BATCHES = (1024, 4096)  # and 1 and 2 processes; all other cases are predicted
DAY = 86_400


def dense_bytes(numbers: float, world: int) -> float:
    """Bytes that one of ``world`` processes sends to sum so many float32 in a ring."""
    return 2 * VALUE * numbers * (world - 1) / world


def waits(sums: float, lookups: float, world: int) -> float:
    """How often one process waits for the others in a step of so many sums and trained look-ups.

    A look-up waits 4 times: how many rows, which, the rows, their gradients. Each wait counts once for every
    doubling of the processes.
    """
    return (sums + 4 * lookups) * math.log2(world)


def different(draws: float, values: int) -> float:
    """How many different values so many draws hold, of ``values`` whose r-th has a chance of about 1 / r."""
    edges = np.unique(np.concatenate([np.arange(1, 1001), np.geomspace(1000, values + 1, 4000)]))
    edges = edges[edges <= values + 1]
    if edges[-1] < values + 1:
        edges = np.append(edges, values + 1)
    first, width = edges[:-1], np.diff(edges)
    # The mean place of a stretch stands for all of it; up to 1,000 a stretch is one value.
    middle = np.where(width > 1, first + width / 2 - 0.5, first)
    chance = 1 / (middle * (math.log(values) + np.euler_gamma))
    return float((width * -np.expm1(-draws * chance)).sum())


@dataclass(frozen=True, slots=True)
class Fit:
    """What the measured cases say: a process needs ``fixed`` + rows * ``row`` seconds, and the rest to send."""

    fixed: float
    row: float
    wait: float
    byte: float

    @classmethod
    def of(cls, steps: Sequence[Mapping[str, float]]) -> "Fit":
        """The least sum of squared shares by which the cases of the fit are missed, no figure below 0.

        What a byte costs is the probe's of 2 processes.
        """
        from scipy.optimize import nnls

        (probe,) = (one for one in steps if not one["batch_rows"] and one["processes"] == 2)
        byte = probe["seconds"] / _sent(probe)
        fitted = [one for one in steps if is_fitted(one)]
        lines = np.array([_terms(one) for one in fitted])
        seconds = np.array([one["seconds"] for one in fitted])
        left = 1 - np.array([byte * _sent(one) for one in fitted]) / seconds
        scale = lines.max(axis=0)  # the terms differ by powers of ten
        found, _ = nnls(lines / seconds[:, None] / scale, left)
        fixed, row, wait = (float(value) for value in found / scale)
        return cls(fixed, row, wait, byte)

    def seconds(self, step: Mapping[str, float]) -> float:
        """Of a measured step, by the model."""
        told = np.dot(_terms(step), (self.fixed, self.row, self.wait))
        return float(told) + self.byte * _sent(step)


def is_fitted(step: Mapping[str, float]) -> bool:
    """Whether a measured step is one that the fit sees."""
    return step["processes"] <= 2 and step["batch_rows"] in FITTED_BATCHES


def _terms(step: Mapping[str, float]) -> list[float]:
    """How often each figure of the fit counts. The processes share a core, so all of their work adds up."""
    world = int(step["processes"])
    sums = 4  # the weight of the batch, who has gradients, the gradients; and the end of the step
    return [world, step["batch_rows"], world * waits(sums, 1, world)]


def _sent(step: Mapping[str, float]) -> float:
    """Bytes that all processes send in a measured case, by the formulas."""
    world = int(step["processes"])
    return world * (lookup_bytes(step["asked"], 16, world) + dense_bytes(step["dense"], world))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one of ``gpus`` GPUs, in seconds by part, and what the GPU holds."""

    gpus: int
    reading: float
    products: float
    memory: float
    launches: float
    waits: float
    bytes: float
    held: float  # bytes

    @property
    def parts(self) -> dict[str, float]:
        return {
            "reading": self.reading,
            "products": self.products,
            "memory": self.memory,
            "launches": self.launches,
            "waits": self.waits,
            "bytes": self.bytes,
        }

    @property
    def seconds(self) -> float:
        """All parts one after the other: nothing is taken to overlap."""
        return sum(self.parts.values())

    @property
    def longest(self) -> str:
        return max(self.parts, key=lambda name: self.parts[name])


def simulated(gpus: int, record: Mapping[str, Any]) -> Step:
    """The step of the JSON's workload on so many of its GPUs."""
    work, machine, assumed = (
        record["workload"],
        {name: one["value"] for name, one in record["machine"].items()},
        {name: one["value"] for name, one in record["assumed"].items()},
    )
    rows = work["batch_rows"] / gpus
    asked = sum(
        one["columns"] * different(rows, one["values"] // one["columns"])
        for one in work["tables"].values()
    )
    dim, dense = work["dim"], dense_numbers(work)
    near = min(gpus, machine["gpus_of_a_machine"])
    far_share = (gpus - near) / (gpus - 1)
    rate = assumed["share_of_bandwidth"]
    sent = lookup_bytes(asked, dim, gpus)
    summed = dense_bytes(dense, gpus)
    slow = machine["network_bytes"] if gpus > near else machine["nvlink_bytes"]
    within = sent * (1 - far_share) / machine["nvlink_bytes"]
    across = sent * far_share / machine["network_bytes"]
    products = 6 * rows * work["products_of_a_row"]  # a product and a sum; forward, backward twice
    # A row of a table and its moments are read and written by Adam; Adam does the same to dense numbers. The
    # network's states of a row are written and read, forward and backward.
    moved = VALUE * (
        6 * dim * asked
        + 7 * dense
        + 4 * rows * (sum(work["widths"]) * work["states_of_a_unit"] + work["inputs"])
    )
    return Step(
        gpus=gpus,
        reading=rows / machine["reading_rows"],
        products=products / (machine["products"] * assumed["share_of_products"]),
        memory=moved / (machine["memory_bytes"] * rate),
        launches=assumed["launches"] * assumed["launch_seconds"],
        waits=waits(work["sums"], work["lookups"], gpus) * assumed["wait_seconds"],
        bytes=(within + across + summed / slow) / rate,
        held=held_bytes(gpus, record),
    )


def dense_numbers(work: Mapping[str, Any]) -> float:
    """Weights that every GPU holds: the network, and an adapter's two factors for every domain."""
    return work["products_of_a_row"] + work["domains"] * work["numbers_of_a_domain"]


def held_bytes(gpus: int, record: Mapping[str, Any]) -> float:
    """What one GPU holds: its rows of the tables and the network, each with two moments and the best look's."""
    work = record["workload"]
    ids = sum(one["values"] for one in work["tables"].values())
    copies = 4  # weights, both moments of Adam, the weights of the best look
    table = copies * VALUE * work["dim"] * ids / gpus
    dense = (copies + 1) * VALUE * dense_numbers(work)  # and the gradient
    rows = work["batch_rows"] / gpus
    states = VALUE * rows * (sum(work["widths"]) * work["states_of_a_unit"] + 3 * work["inputs"])
    return table + dense + states + record["assumed"]["context_bytes"]["value"]


def least_gpus(record: Mapping[str, Any]) -> int:
    """The fewest GPUs, a power of 2, whose memory holds the training."""
    gpus = 1
    while held_bytes(gpus, record) > record["machine"]["gpu_bytes"]["value"]:
        gpus *= 2
    return gpus


def day_of(step: Step, record: Mapping[str, Any]) -> dict[str, float]:
    """Seconds and dollars of one pass over a day's rows, and of what stands beside it."""
    machine = {name: one["value"] for name, one in record["machine"].items()}
    work = record["workload"]
    training = work["rows_of_a_day"] / work["batch_rows"] * step.seconds
    ids = sum(one["values"] for one in work["tables"].values())
    machines = max(1, step.gpus // machine["gpus_of_a_machine"])
    checkpoint = 4 * VALUE * work["dim"] * ids / (machines * machine["storage_bytes"])
    encoding = work["rows_of_a_day"] / (machine["encoding_rows"] * step.gpus)
    hour = step.gpus * machine["dollars_of_an_hour"]
    return {
        "training": training,
        "checkpoint": checkpoint,
        "encoding": encoding,
        "dollars": hour * (training + checkpoint) / 3600,
        "waiting": hour * encoding / 3600,
        "whole day": hour * 24,
    }


def check_table(steps: Sequence[Mapping[str, float]]) -> list[str]:
    """Measured and modelled steps."""
    fit = Fit.of(steps)
    lines = [
        "| processes | rows of the batch | measured, ms | model, ms | model / measured | fitted |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for one in (one for one in steps if one["batch_rows"]):
        model = fit.seconds(one)
        seen = "yes" if is_fitted(one) else ""
        lines.append(
            f"| {one['processes']} | {one['batch_rows']:,} | {one['seconds'] * 1e3:.1f}"
            f" | {model * 1e3:.1f} | {model / one['seconds']:.2f} | {seen} |"
        )
    return lines


def verdict(steps: Sequence[Mapping[str, float]]) -> str:
    """How far the model misses the cases that it was not fitted on, by number of processes."""
    fit = Fit.of(steps)
    told = []
    for world in sorted({int(one["processes"]) for one in steps}):
        missed = [
            abs(fit.seconds(one) / one["seconds"] - 1)
            for one in steps
            if one["processes"] == world and one["batch_rows"] and not is_fitted(one)
        ]
        told.append((world, max(missed)))
    text = ", ".join(f"{miss:.0%} with {world}" for world, miss in told)
    bound = "within the bound of 15 %" if max(m for _, m in told) <= 0.15 else "**beyond 15 %**"
    return f"The predicted cases are missed by at most {text}: {bound}."


def fit_text(steps: Sequence[Mapping[str, float]]) -> str:
    """The fitted figures, as a sentence."""
    fit = Fit.of(steps)
    return (
        f"A process needs {fit.fixed * 1e3:.1f} ms a step, {fit.row * 1e6:.1f} µs a row and"
        f" {fit.wait * 1e3:.2f} ms a wait; a second carries {1 / fit.byte / 1e6:,.0f} MB."
    )


def step_table(record: Mapping[str, Any]) -> list[str]:
    """Step time by part, and memory."""
    lines = [
        "| GPUs | GB a GPU | step, ms | reading | products | memory | launches | waits | bytes | longest |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for gpus in GPUS:
        step = simulated(gpus, record)
        parts = " | ".join(f"{value * 1e3:.2f}" for value in step.parts.values())
        lines.append(
            f"| {gpus} | {step.held / 1e9:.1f} | {step.seconds * 1e3:.2f} | {parts} | {step.longest} |"
        )
    return lines


def day_table(record: Mapping[str, Any]) -> list[str]:
    """A day's rows: time and money."""
    lines = [
        "| GPUs | one pass, min | one checkpoint, s | both, $ | encoding, min | GPUs that wait for it, $ | kept all day, $ |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for gpus in GPUS:
        day = day_of(simulated(gpus, record), record)
        lines.append(
            f"| {gpus} | {day['training'] / 60:.1f} | {day['checkpoint']:.1f} | {day['dollars']:.2f}"
            f" | {day['encoding'] / 60:.1f} | {day['waiting']:.2f} | {day['whole day']:,.0f} |"
        )
    return lines


def source_table(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each figure with its source or its reason."""
    lines = ["| figure | value | from |", "|---|---:|---|"]
    lines += [f"| {one['what']} | {one['told']} | {one['from']} |" for one in figures.values()]
    return lines


def page(record: Mapping[str, Any]) -> str:
    """The whole text: bench/simulation.md with the figures put in."""
    steps = record["steps"]
    put = {
        "CHECK": "\n".join(check_table(steps)),
        "VERDICT": verdict(steps),
        "FIT": fit_text(steps),
        "STEPS": "\n".join(step_table(record)),
        "DAY": "\n".join(day_table(record)),
        "LEAST": str(least_gpus(record)),
        "MACHINE": "\n".join(source_table(record["machine"])),
        "ASSUMED": "\n".join(source_table(record["assumed"])),
    }
    text = TEXT.read_text(encoding="utf-8")
    for name, value in put.items():
        text = text.replace("{" + name + "}", value)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=Path, help="measured steps, from bench.step_times")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    if options.steps is not None:
        record["steps"] = json.loads(options.steps.read_text(encoding="utf-8"))
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(record), encoding="utf-8")


if __name__ == "__main__":
    main()
