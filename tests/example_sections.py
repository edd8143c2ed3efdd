"""What an example report holds beside its domains, made by rule: plan, matrices, curves, groups."""

import math
from typing import Any

from example_domains import effect

ROUGH = "two trainings tell little of retraining: the interval is rough"


def pairs(names: tuple[str, ...], scale: float, *, own: float | None = None) -> dict[str, Any]:
    """A matrix by rule: neighbours help, distant domains hurt."""
    out: dict[str, Any] = {}
    for i, target in enumerate(names):
        out[target] = {}
        for j, source in enumerate(names):
            if i == j:
                if own is not None:
                    level = own - 0.05 * (i % 3)
                    out[target][source] = {"estimate": level, "ci": [level - 0.008, level + 0.008]}
                continue
            value = scale * math.cos(2.2 * abs(i - j)) * (1 + 0.1 * ((3 * i + j) % 4))
            if own is not None:
                value = own - 0.05 * (i % 3) - 0.018 * abs(i - j) - 0.001 * ((3 * i + j) % 4)
                value += 0.03 * ((i, j) == (1, 0))  # one source beats the target's own model
            cell: dict[str, Any] = {
                "estimate": value,
                "ci": [value - 0.006, value + 0.006],
            }
            if own is None:
                cell["p"] = math.erfc(abs(value) / 0.003 / math.sqrt(2))
                cell["p_bh"] = min(1.0, 2 * cell["p"])
            out[target][source] = cell
    return out


def capacity(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """N at four widths, with the domain as an input and without."""
    out = []
    for known in (True, False):
        for step, width in enumerate((4, 16, 64, 256)):
            held = {}
            for place, name in enumerate(names):
                value = 0.008 - 0.006 * (place % 6) + (0.005 if known else 0.002) * step
                held[name] = {
                    "auc": effect(value, 0.002 + 0.0009 * (place % 6), note=ROUGH),
                    "joint": 0.7 + value,
                    "solo": 0.7,
                }
            out.append(
                {
                    "widths": [width, width // 2],
                    "parameters": 4000 * width + 96 * known,
                    "domain_input": known,
                    "domains": held,
                }
            )
    return out


def weighting(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Every weighting against proportional; one could not be used, one says more."""
    methods = ("uniform", "uncertainty", "dwa", "gradnorm", "pcgrad", "random")
    why = "the tables are lazy: cagrad needs whole gradients"
    refused = {"name": "cagrad", "domains": None, "macro": None, "reason": why, "note": None}
    return [
        refused,
        *_weighed(names, methods),
    ]


def _weighed(names: tuple[str, ...], methods: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": method,
            "domains": {
                name: effect(0.0012 * (step - 3) - 0.001 * place + 0.002, 0.0021)
                for place, name in enumerate(names)
            },
            "macro": effect(0.0012 * (step - 3), 0.0014),
            "reason": None,
            "note": "its weights stayed even" if method == "dwa" else None,
        }
        for step, method in enumerate(methods)
    ]


def newcomers(names: tuple[str, ...]) -> dict[str, Any]:
    """A new domain by rule: the first needs no rows, the next ones more, the last is not testable."""
    held: dict[str, Any] = {}
    for place, name in enumerate(names):
        lack = -0.004 - 0.012 * place
        why = "not testable: 31 positives in 212 test rows, 50 are needed"

        def told(value: float, reason: str | None) -> dict[str, Any]:
            found = effect(None, reason=reason) if reason else effect(value, 0.0012, note=ROUGH)
            return {"score": 0.72 + value, "minus_joint": found}

        reason = why if place == len(names) - 1 and place > 1 else None
        beside = {
            arm: {
                **told(lack + gain, reason),
                "minus_unknown": effect(gain, 0.002, tests=3 * len(names)),
            }
            for arm, gain in (("nearest", 0.011), ("mixture", 0.004), ("trees", -0.03))
        }
        curve = [
            {
                "rows": rows,
                "all": rows == 8_000,
                "extended": told(lack * (1 - 0.33 * step), reason),
                "solo": told(-0.2 / (1 + step) ** 2 + 0.012 * (place % 2), reason),
                "extended_minus_solo": effect(0.1 / (1 + step) - 0.03, 0.004),
            }
            for step, rows in enumerate((100, 500, 2_000, 8_000))
        ]
        held[name] = {
            "joint": 0.72,
            "nearest": [names[place - 1], names[place - 1], names[place - 2]],
            "day_one": {"unknown": {**told(lack, reason), "minus_unknown": None}, **beside},
            "curve": curve,
        }
    return {"replicates": 3, "trees": None, "domains": held}


def plan(names: tuple[str, ...]) -> dict[str, Any]:
    """What was run."""
    tried = [
        {"batch_rows": 4096, "lr": 0.001, "validation": 0.7181, "stopped": "patience"},
        {"batch_rows": 1024, "lr": 0.0003, "validation": 0.7177, "stopped": "patience"},
    ]
    return {
        "level": "full",
        "table": "clicks.parquet",
        "split": "time",
        "replicates": "seeds",
        "seeds": 5,
        "trainings": 412,
        "trained": 389,
        "cached": 23,
        "estimate_seconds": 1500.0,
        "seconds": 1422.6,
        "jobs": 2,
        "threads": 1,
        "monitor": "auc_pooled",
        "looks_per_epoch": 4,
        "choices": {
            "joint": {"batch_rows": 4096, "lr": 0.001, "tried": tried},
            "solo": {name: {"batch_rows": 512, "lr": 0.001, "tried": tried[:1]} for name in names},
        },
        "stage_two": {
            name: {"steps": 120 + 40 * place, "looks": 8, "batch_rows": 512, "lr": 0.0003}
            for place, name in enumerate(names)
        },
        "measured": list(names),
        "left_out": {"archive": "one class only: 0 positives in 98 test rows"},
        "sampled": None,
        "clusters": "user_id",
        "item": "item_id",
        "notes": ["Validation rows were read 1,204 times; test rows once."],
        "isthmus": "0.1.0",
        "torch": "2.13.0",
    }


def grouping(names: tuple[str, ...]) -> dict[str, Any]:
    """Two groups and singles, confirmed."""
    groups = [list(names[2:4]), list(names[:1]), list(names[1:2]), *([n] for n in names[4:])]
    return {
        "groups": groups,
        "lambda": 0.005,
        "method": "exact",
        "confirmed": {
            "against_all": effect(0.0094, 0.0021, note="3 of 5 replicates have a value"),
            "against_none": effect(0.0031, 0.0011),
            "random": [0.6921, 0.6944, 0.6902, 0.6960, 0.6931],
            "score": 0.7012,
            "score_all": 0.6921,
            "score_none": 0.6977,
            "replicates_of_scores": 3,
            "domains": {
                name: {"solo": effect(0.0074, 0.003), "joint": effect(0.0186, 0.003)}
                for name in names[2:4]
            },
        },
    }


def likeness(names: tuple[str, ...]) -> dict[str, Any]:
    """Distances and a map by rule."""
    turn = 2 * math.pi / len(names)
    spot = {
        name: [
            math.cos(turn * i) * (1 + 0.3 * (i % 3)),
            0.7 * math.sin(turn * i) * (1 + 0.2 * (i % 2)),
        ]
        for i, name in enumerate(names)
    }
    return {
        "distance": {a: {b: math.dist(spot[a], spot[b]) for b in names} for a in names},
        "map": spot,
        "spearman_pairwise": -0.41,
        "parts": ["hidden mean", "hidden second moment", "label rate", "feature marginals"],
        "domain2vec": {
            "distance": {a: {b: math.dist(spot[a], spot[b]) for b in names} for a in names},
            "spearman_pairwise": -0.27,
        },
    }
