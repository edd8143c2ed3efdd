"""Diagnosis reports with every verdict, made by rule: six domains, a quick one, and forty."""

import math
from typing import Any

from example_domains import domain, domains
from example_sections import capacity, grouping, likeness, newcomers, pairs, plan, weighting

NAMES = ("home", "search", "sport", "live video", "kids & family", "weather")


def example() -> dict[str, Any]:
    """A full report of six domains with six verdicts."""
    held = domains()
    held["kids & family"]["auc"]["net"]["note"] = "4 of 5 replicates have a value"
    matched = pairs(NAMES, 0.009)
    del matched["home"]["sport"]
    leave = pairs(NAMES, 0.004)
    leave["weather"] = {
        name: {"estimate": None, "ci": None, "p": None, "p_bh": None, "reason": "not testable"}
        for name in NAMES[:-1]
    }
    return {
        "plan": plan(NAMES),
        "margin": 0.005,
        "margin_logloss": 0.005,
        "seeds": 5,
        "split": "test",
        "domains": held,
        "pooled": {"auc": {"joint": 0.7203, "solo": None}},
        "matrix": {
            "cross_score": pairs(NAMES, 0, own=0.7121),
            "pairwise": pairs(NAMES, 0.011),
            "pairwise_matched": matched,
            "leave_one_out": leave,
            "gradients": {
                a: {
                    b: {"estimate": math.cos(1.1 * (i - j)), "ci": None}
                    for j, b in enumerate(NAMES)
                }
                for i, a in enumerate(NAMES)
            },
            "spearman": {"cross_score~pairwise": 0.83, "likeness~pairwise": -0.41},
        },
        "capacity": capacity(NAMES),
        "groups": grouping(NAMES),
        "likeness": likeness(NAMES),
        "weighting": weighting(NAMES),
        "new_domain": newcomers(NAMES),
    }


def quick() -> dict[str, Any]:
    """Two domains at the level ``quick``: only N is known, and no verdict of harm."""
    full = domains()
    held = {name: full[name] for name in ("home", "live video")}
    for one in held.values():
        for metric in ("auc", "logloss"):
            for key in list(one[metric]):
                if key not in {"solo", "joint", "net", "net_seen"}:
                    one[metric][key] = None
    held["live video"] |= {
        "verdict": "no verdict of harm at this level",
        "verdict_auc": "no verdict of harm at this level",
        "why": "Training together lowers AUC from 0.6688 to 0.6482 (-0.0206), measured with 2 "
        "seeds.",
        "certainty": "a first look only",
        "config": None,
        "agree": True,
    }
    base = plan(("home", "live video"))
    base |= {"level": "quick", "seeds": 2, "sampled": None, "left_out": {}, "notes": []}
    base["stage_two"] = None
    return {
        "plan": base,
        "margin": 0.005,
        "margin_logloss": 0.005,
        "seeds": 2,
        "split": "test",
        "domains": held,
        "matrix": {
            "cross_score": {},
            "pairwise": None,
            "pairwise_matched": None,
            "leave_one_out": None,
            "gradients": None,
            "spearman": {},
        },
        "capacity": None,
        "groups": None,
        "likeness": None,
        "weighting": None,
        "new_domain": None,
    }


def many(count: int = 40) -> dict[str, Any]:
    """Forty domains with every verdict, some names long or hostile."""
    verdicts = (
        "share",
        "not enough data",
        "adapt",
        "share",
        "group",
        "own tower",
        "own tower, provisional",
    )
    names = tuple(
        ['a </script><b>very</b> long domain name / with ~ "signs" & more']
        + [f"market {place:02d}" for place in range(1, count)]
    )
    held = {}
    for place, name in enumerate(names):
        rows = round(90_000 / (1 + place) ** 1.3) + 300
        net = 0.012 * math.cos(1.9 * place)
        held[name] = domain(
            rows,
            0.68 + 0.002 * (place % 9),
            net,
            net + 0.005,
            verdicts[place % len(verdicts)],
            f"Training together changes AUC by {net:+.4f} (5 seeds).",
            "quite sure",
            **{"with": [names[(place + 1) % count]] if place % 7 == 4 else []},
        )
    report = example()
    return {
        **report,
        "plan": {**plan(names), "sampled": "200 of 780 pairs were drawn"},
        "domains": held,
        "matrix": {
            **report["matrix"],
            "cross_score": pairs(names, 0, own=0.74),
            "pairwise": pairs(names, 0.011),
            "pairwise_matched": None,
            "leave_one_out": pairs(names, 0.004),
            "gradients": None,
        },
        "capacity": capacity(names),
        "groups": grouping(names),
        "likeness": likeness(names),
        "weighting": weighting(names),
        "new_domain": newcomers(names),
    }
