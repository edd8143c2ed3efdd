"""What share of each expert each domain uses: the mean weights of every gate of a network.

Gates are seen by hooks, so no network knows of it. A run keeps the shares of its validation and test
rows in ``gates.json``; a table can be looked at later, by its bundle.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.bundle import Bundle
from isthmus.data.tables import open_table, refuse_empty
from isthmus.disk import write_whole
from isthmus.errors import RunError
from isthmus.layers.gates import AbstractGate
from isthmus.metrics import TextTable
from isthmus.metrics.text_table import largest, number
from isthmus.models import AbstractModel
from isthmus.ranks import Ranks
from isthmus.run.notice import Listener, Notice

FILE = "gates.json"
UNKNOWN = "(unknown)"


@dataclass(frozen=True, slots=True)
class GateShare:
    """One gate. ``name``: its place in the network. ``experts``: what it mixes.

    ``shares``: for each domain the mean weight of each expert, which sum to 1; None for a domain
    without rows.
    """

    name: str
    experts: tuple[str, ...]
    shares: tuple[tuple[float, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class GateShares:
    """Mean weights of all gates of a network, domain by domain, over the rows of a split.

    ``domains``: names, the unknown domain last where it has rows. ``rows``: their numbers of rows.
    ``source``: the run. Every row counts once, whatever its weight in the loss.
    """

    split: str
    source: str
    domains: tuple[str, ...]
    rows: tuple[int, ...]
    gates: tuple[GateShare, ...]

    def tables(self) -> tuple[TextTable, ...]:
        """One table a gate; a line a domain, a column an expert."""
        names, note = largest(dict(zip(self.domains, self.rows, strict=True)))
        return tuple(self._table(gate, set(names), note) for gate in self.gates)

    def _table(self, gate: GateShare, kept: set[str], note: str | None) -> TextTable:
        lines = [
            (name, f"{rows:,}", *(number(share) for share in shares or [None] * len(gate.experts)))
            for name, rows, shares in zip(self.domains, self.rows, gate.shares, strict=True)
            if name in kept
        ]
        return TextTable(
            title=f"{self.source}, {self.split} rows: mean weight of each expert in {gate.name}",
            header=("domain", "rows", *gate.experts),
            rows=tuple(lines),
            notes=() if note is None else (note,),
        )

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON: the shares of a domain without rows are None."""
        return {
            "split": self.split,
            "domains": list(self.domains),
            "rows": list(self.rows),
            "gates": [
                {
                    "name": gate.name,
                    "experts": list(gate.experts),
                    "shares": [None if one is None else list(one) for one in gate.shares],
                }
                for gate in self.gates
            ],
        }

    @classmethod
    def of_dict(cls, content: Mapping[str, Any], source: str) -> "GateShares":
        """Take what `to_dict` gave. Raises KeyError and TypeError for anything else."""
        gates = tuple(
            GateShare(
                gate["name"],
                tuple(gate["experts"]),
                tuple(None if one is None else tuple(one) for one in gate["shares"]),
            )
            for gate in content["gates"]
        )
        return cls(
            content["split"], source, tuple(content["domains"]), tuple(content["rows"]), gates
        )

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables()))


def gates_of(model: nn.Module) -> dict[str, AbstractGate]:
    """Every gate of a network, by its dotted name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, AbstractGate)}


class GateWatch:
    """Sums of the gates' weights for each domain, over all batches that the model scores meanwhile.

    >>> watch = GateWatch(model)            # doctest: +SKIP
    >>> with watch.watching():              # doctest: +SKIP
    ...     score_rows(model, rows)
    >>> print(watch.shares("test", domains=names, source="clicks"))   # doctest: +SKIP
    """

    def __init__(self, model: AbstractModel) -> None:
        self.model = model
        self.gates = gates_of(model)
        sets = model.n_domains + 1
        self.rows = torch.zeros(sets, dtype=torch.int64)
        self.sums = {
            name: torch.zeros(sets, len(gate.experts), dtype=torch.float64)
            for name, gate in self.gates.items()
        }

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what the model scores in a ``with`` block, in eval mode."""
        domain = torch.empty(0, dtype=torch.int64)

        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            nonlocal domain
            domain = inputs[0].domain.cpu()
            self.rows += torch.bincount(domain, minlength=len(self.rows))

        def counting(name: str) -> Any:
            def after(_: nn.Module, __: tuple[Any, ...], weights: Tensor) -> None:
                self.sums[name].index_add_(0, domain, weights.detach().cpu().double())

            return after

        hooks = [self.model.register_forward_pre_hook(before)]
        hooks += [gate.register_forward_hook(counting(name)) for name, gate in self.gates.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def add_up(self, ranks: Ranks) -> None:
        """Count what the models of all ranks have scored. Together."""
        self.rows = ranks.sum(self.rows)
        self.sums = {name: ranks.sum(mine) for name, mine in self.sums.items()}

    def shares(self, split: str, *, domains: Sequence[str], source: str) -> GateShares:
        """Mean weights. ``domains``: names of the trained domains, in the order of their ids."""
        # The unknown domain, number 0, comes last, and only where it has rows.
        order = [*range(1, len(self.rows)), *([0] if self.rows[0] else [])]
        rows = self.rows.tolist()
        gates = []
        for name, gate in self.gates.items():
            mean = (self.sums[name] / self.rows.clamp(min=1).unsqueeze(1)).tolist()
            shares = tuple(tuple(mean[place]) if rows[place] else None for place in order)
            gates.append(GateShare(name, gate.experts, shares))
        return GateShares(
            split=split,
            source=source,
            domains=tuple(domains[place - 1] if place else UNKNOWN for place in order),
            rows=tuple(rows[place] for place in order),
            gates=tuple(gates),
        )


def external_gates(bundle: Bundle, table: Any, *, source: str, progress: Listener) -> GateShares:
    """Look at the gates of a bundle's network over a whole table, block by block."""
    opened = open_table(table)
    refuse_empty(opened)
    watch = GateWatch(bundle.model)
    with watch.watching():
        for scored in bundle.score_blocks(opened):
            done = scored.block.first_row + scored.block.batch.num_rows
            text = f"gates of {done:,} of {opened.rows:,} rows"
            progress(Notice("score", text, done / opened.rows))
    return watch.shares("external", domains=bundle.domains, source=source)


def write_gates(folder: Path, splits: Sequence[GateShares]) -> None:
    """Write the shares of a run's splits to ``gates.json``, whole or not at all."""
    content = {shares.split: shares.to_dict() for shares in splits}
    write_whole(folder / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_gates(folder: Path, split: str, *, source: str) -> GateShares | None:
    """Read what `write_gates` wrote; None where nothing was written.

    Raises RunError where the file is damaged.
    """
    path = folder / FILE
    try:
        return GateShares.of_dict(json.loads(path.read_text(encoding="utf-8"))[split], source)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as fault:
        raise RunError(f"{path} is damaged: {fault!r}") from fault
