"""The content of a run's page without a fit: drawn rows, and looks and importances written out."""

from pathlib import Path
from typing import Any

import numpy as np

import isthmus
from isthmus.metrics import ScoredRows, evaluate_rows
from isthmus.run.folder import RunState
from isthmus.run.reporting.gathering import RunContent, shown_domains
from small_runs import settings


def drawn(names: tuple[str, ...], rows: int, *, seed: int = 0, **more: Any) -> ScoredRows:
    """Rows of calibrated scores; the last domain, where there are several, holds negatives only."""
    rng = np.random.default_rng(seed)
    domain = rng.integers(1, len(names) + 1, rows)
    logits = rng.normal(-1.5, 1.2, rows)
    label = rng.random(rows) < 1 / (1 + np.exp(-logits))
    if len(names) > 1:
        label &= domain < len(names)
    return ScoredRows(
        split="test",
        row=np.arange(rows),
        logits=logits,
        label=label,
        domain=domain,
        names=names,
        source="run",
        **more,
    )


def looks(names: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """Looks of a training that gets better and then worse."""
    found = []
    for place in range(count):
        value = 0.6 + 0.1 * np.sin(3 * place / count)
        found.append(
            {
                "step": 10 * (place + 1),
                "epoch": 0.5 * (place + 1),
                "loss": 0.7 - 0.01 * place,
                "better": place <= count // 2,
                "phase": 1,
                "start": False,
                **{f"auc_{scope}": value for scope in ("pooled", "macro", "weighted", "worst")},
                **{f"logloss_{scope}": 1 - value for scope in ("pooled", "macro", "worst")},
                "auc_by_domain": dict.fromkeys(names[:-1], value) | {names[-1]: None},
            }
        )
    return found


def importances(names: list[str], columns: int) -> dict[str, Any]:
    """What the model reads, written out."""

    def told(fall: float) -> dict[str, Any]:
        return {
            "fall": fall,
            "spread": 0.004,
            "repeats": 5,
            "domains": {name: (fall if at % 2 else -fall) for at, name in enumerate(names)}
            | {names[-1]: None},
            "spreads": dict.fromkeys(names, 0.01) | {names[-1]: None},
        }

    return {
        "split": "validation",
        "metric": "auc",
        "rows": 1600,
        "of": 12000,
        "repeats": 5,
        "seed": 0,
        "auc": dict.fromkeys(names, 0.7),
        "columns": [
            {"name": f"column <{at}> & more", **told(0.05 / (at + 1) - 0.004)}
            for at in range(columns)
        ],
        "domain": told(0.02) if len(names) > 1 else None,
        "left_out": ["slow & last"],
        "rough": names[:1],
    }


def content(
    names: tuple[str, ...] = ("home", "a < b & c", "mail"),
    rows: int = 3_000,
    *,
    columns: int = 6,
    count: int = 8,
    scored: ScoredRows | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What ``report.json`` holds of such a run. ``more``: of `RunContent`."""
    scored = drawn(names, rows) if scored is None else scored
    state = RunState(
        state="finished",
        dataset_key="key",
        table="/data/clicks.parquet",
        domains=names,
        n_domains=len(names),
        threads=1,
        isthmus="0.1.0",
        torch="2.13.0",
        parameters=12_345,
        best_step=40,
        steps=80,
        seconds=12.5,
        stopped="epochs",
    )
    cost = {
        "parameters": 12_345,
        "parts": {"embedding": 12_000, "backbone": 345, "adapter": 0, "head": 0, "inputs": 0},
        "of_each_domain": 17,
        "seconds": 12.5,
        "steps": 80,
        "epochs": 4.0,
        "stopped": "epochs",
        "rows_per_second": 54_321.0,
        "peak_mebibytes": 456.0,
        "gpu_peak_mebibytes": None,
        "threads": 1,
        "processes": 1,
    }
    given: dict[str, Any] = {
        "looks": looks(names, count),
        "importance": importances(shown_domains(scored), columns),
        "missing": {"gates": "the network has no gates"},
    }
    return RunContent(
        name="clicks-1",
        config=isthmus.load_config(settings()),
        state=state,
        model="backbone mlp, towers shared, adapter hamur, calibration none",
        scored=scored,
        evaluation=evaluate_rows(scored),
        cost=cost,
        **given | more,
    ).to_dict()


def write_pages(folder: Path) -> dict[str, Path]:
    """Example pages: a few domains with all sections, one domain, and a hundred."""
    from isthmus.report.fitted import fitted_page
    from isthmus.run.gate_shares import GateShare, GateShares

    names = ("home", "a < b & c", "mail")
    gate = GateShare("backbone.gate", ("shared 1", "shared 2"), ((0.25, 0.75), (0.5, 0.5), None))
    gates = GateShares("test", "clicks-1", names, (10, 20, 0), (gate,))
    many = tuple(f"shop {at:03d} & co" for at in range(100))
    pages = {
        "few": content(names, gates=gates),
        "one": content(("home",), 400, looks=[], missing={"curves": "why <not>", "gates": "none"}),
        "many": content(many, 40_000, columns=40, count=40),
    }
    paths = {}
    for name, report in pages.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(fitted_page(report), encoding="utf-8")
    return paths
