"""Diagnosis reports with every verdict, made by rule: six domains, a quick one, and forty."""

import math
from typing import Any

ROUGH = "two trainings tell little of retraining: the interval is rough"
NAMES = ("home", "search", "sport", "live video", "kids & family", "weather")


def effect(
    estimate: float | None,
    se: float = 0.002,
    *,
    tests: int = 6,
    reason: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """An Effect as the report holds it, with normal intervals."""
    if estimate is None:
        empty = dict.fromkeys(
            ("estimate", "se", "df", "ci", "ci90", "p", "p_holm", "detectable", "rows_needed")
        )
        return {**empty, "reason": reason, "note": None}
    p = math.erfc(abs(estimate) / se / math.sqrt(2))
    return {
        "estimate": estimate,
        "se": se,
        "df": 41.5,
        "ci": [estimate - 1.96 * se, estimate + 1.96 * se],
        "ci90": [estimate - 1.645 * se, estimate + 1.645 * se],
        "p": p,
        "p_holm": min(1.0, tests * p),
        "detectable": 2.93 * se,
        "rows_needed": round(4e9 * se * se),
        "reason": reason,
        "note": note,
    }


def measured(
    solo: float | None, net: float, transfer: float, se: float, reason: str | None = None
) -> dict[str, Any]:
    """All effects of one domain in one metric; N+ = T - I."""
    polish_joint, polish_solo = 0.0011, 0.0004
    plus = net + polish_joint - polish_solo
    values = {
        "net": net,
        "net_plus": plus,
        "transfer": transfer,
        "interference": transfer - plus,
        "net_seen": net * 0.9,
        "polish_joint": polish_joint,
        "polish_solo": polish_solo,
        "adapted": 0.4 * (transfer - plus),
        "adapted_solo": net + 0.4 * (transfer - plus),
        "adapted_plus": 0.4 * (transfer - plus) - polish_joint,
        "tuned_solo": transfer + polish_solo,
        "tuned": transfer + polish_solo - net,
    }
    out: dict[str, Any] = {"solo": solo, "joint": None if solo is None else solo + net}
    for key, value in values.items():
        out[key] = effect(None, reason=reason) if reason else effect(value, se)
    return out


def domain(
    rows: int,
    solo: float,
    net: float,
    transfer: float,
    verdict: str,
    why: str,
    certainty: str,
    **more: Any,
) -> dict[str, Any]:
    """One domain of the report."""
    se = 0.42 / math.sqrt(rows)
    reason = more.pop("reason", None)
    logloss = measured(0.46, net * 1.6, transfer * 1.6, se * 1.3, reason)
    if not reason:
        logloss["joint"] = 0.46 - net * 1.6
    return {
        "rows": rows,
        "positives": round(rows * 0.17),
        "clusters": max(12, rows // 11),
        "train_rows": rows * 8,
        "auc": measured(None if reason else solo, net, transfer, se, reason),
        "logloss": logloss,
        "verdict": verdict,
        "finding": None,
        "certainty": certainty,
        "why": why,
        "with": [],
        "verdict_auc": verdict,
        "verdict_logloss": verdict,
        "agree": True,
        "config": None,
        "command": None,
        "remedy": None,
        "flags": [],
        **more,
    }


def domains() -> dict[str, Any]:
    """Six domains, six verdicts."""
    return {
        "home": domain(
            84_210,
            0.7121,
            0.0121,
            0.0138,
            "share",
            "Training together lifts AUC from 0.7121 to 0.7242 (+0.0121, 95 % interval +0.0093 to "
            "+0.0149, 5 seeds).",
            "very sure",
            finding="gains",
            config="configs/joint.yaml",
            command="isthmus fit configs/joint.yaml",
        ),
        "search": domain(
            41_780,
            0.7419,
            -0.0098,
            0.0061,
            "adapt",
            "Training together lowers AUC from 0.7419 to 0.7321 (-0.0098). With an adapter of its "
            "own it reaches 0.7428, which is not worse than alone and better than together.",
            "quite sure",
            config="configs/joint.yaml",
            command="isthmus fit configs/joint.yaml --guard strict",
            remedy="tuning",
        ),
        "sport": domain(
            23_904,
            0.6902,
            -0.0112,
            0.0008,
            "group",
            "Trained with all others it loses 0.0112 AUC. Trained only with live video it gains "
            "0.0074; the group was chosen on validation and confirmed on test.",
            "quite sure",
            config="configs/group-1.yaml",
            command="isthmus fit configs/group-1.yaml",
            **{"with": ["live video"]},
        ),
        "live video": domain(
            18_455,
            0.6688,
            -0.0206,
            -0.0079,
            "own tower",
            "Training together lowers AUC from 0.6688 to 0.6482 (-0.0206), and the other domains' "
            "rows teach it nothing: transfer is below the margin.",
            "very sure",
            config="configs/own/live-video.yaml",
            command="isthmus fit configs/own/live-video.yaml",
            agree=False,
            verdict_logloss="own tower, provisional",
        ),
        "kids & family": domain(
            9_120,
            0.7033,
            -0.0191,
            0.0062,
            "own tower, provisional",
            "Training together lowers AUC from 0.7033 to 0.6842 (-0.0191). Whether an adapter would "
            "mend this could not be told with these rows.",
            "fairly sure of the harm, unsure of the remedy",
            config="configs/own/kids-family.yaml",
            command="isthmus fit configs/own/kids-family.yaml",
            flags=["solo ended at the epoch cap"],
        ),
        "weather": domain(
            212,
            0.6612,
            0.0089,
            0.004,
            "not enough data",
            "Only 31 of its 212 test rows are positive; 50 are needed before anything can be said.",
            "nothing can be said",
            reason="not testable: 31 positives in 212 test rows, 50 are needed",
        ),
    }


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
    }


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
    }
