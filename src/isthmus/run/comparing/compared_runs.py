"""Several runs against the first of them: one account, which the terminal, JSON and page all tell."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isthmus.errors import RunError
from isthmus.metrics import Comparison
from isthmus.metrics import compare as compare_rows
from isthmus.report.comparison import comparison_page
from isthmus.run.result import Run
from isthmus.version import VERSION

COSTS = ("parameters", "steps", "best_step", "seconds", "processes", "threads")  # of `RunState`


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Runs, and the paired comparison of each later one with the first.

    ``names``: of the runs, as the comparisons tell them: the folder's name, or its path where two
    folders share a name.
    """

    runs: tuple[Run, ...]
    names: tuple[str, ...]
    split: str
    comparisons: tuple[Comparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            "isthmus": VERSION,
            "split": self.split,
            "runs": [_facts(*pair) for pair in zip(self.names, self.runs, strict=True)],
            "settings": _settings([run.config.model_dump(mode="json") for run in self.runs]),
            "comparisons": [one.to_dict() for one in self.comparisons],
        }

    def page(self, *, links: Mapping[str, str] | None = None) -> str:
        """Render `to_dict` as one self-contained HTML page. ``links``: where to go, if it is served."""
        return comparison_page(self.to_dict(), links=links)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.comparisons))


def compare_runs(runs: Sequence[Run | str | Path], *, split: str = "test") -> ComparedRuns:
    """Compare each later run with the first, paired on the same rows.

    ``runs``: two or more runs, or run folders. ``split``: ``test`` or ``validation``. Raises RunError,
    which says what differs, unless all runs scored the same rows of one table.
    """
    if len(runs) < 2:
        raise RunError(f"two runs or more must be given to compare, got {len(runs)}")
    opened = tuple(run if isinstance(run, Run) else Run.open(run) for run in runs)
    shared = Counter(run.name for run in opened)
    names = tuple(run.name if shared[run.name] == 1 else str(run.path) for run in opened)
    scored = [
        replace(run.scored(split), source=name) for run, name in zip(opened, names, strict=True)
    ]
    comparisons = tuple(compare_rows(scored[0], other) for other in scored[1:])
    return ComparedRuns(opened, names, split, comparisons)


def _facts(name: str, run: Run) -> dict[str, Any]:
    state = run.state
    return {
        "name": name,
        "path": str(run.path),
        "table": state.table,
        "split_by": run.config.data.split.by,
        "isthmus": state.isthmus,
        "recipe": state.recipe,
        "guard": state.guard,
        "stopped": state.stopped,
        **{key: getattr(state, key) for key in COSTS},
    }


def _settings(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keys whose values are not the same in all configs; None stands for a key that one lacks."""
    flat = [dict(_flat(config)) for config in configs]
    keys = sorted({key for one in flat for key in one})
    values = {key: [one.get(key) for one in flat] for key in keys}
    return [
        {"key": key, "values": held}
        for key, held in values.items()
        if any(one != held[0] for one in held)
    ]


def _flat(section: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a config by their whole key. An empty section is a leaf."""
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
