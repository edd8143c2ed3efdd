"""Effects as a report of a diagnosis holds them, and six domains with six verdicts."""

import math
from typing import Any


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
