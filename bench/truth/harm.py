"""Self-checks 2, 3 and 6: false alarms, planted conflict, copies."""

from typing import Any

import numpy as np

from bench.truth.repeat import Result, study_of
from isthmus.diagnosis.verdicts.verdict import CLAIM_P
from isthmus.metrics.equivalence import with_holm
from isthmus.sources.planted import angles, conflict, planted


def solo_against_solo(seed: int) -> Result:
    """Three unrelated domains; N is measured between two sets of solos that differ in seeds only."""
    made = planted(rows=4000, relation=np.eye(3), seed=1000 + seed, items=400)
    with study_of(made, seed=seed, widths=[16], seeds=3) as study:
        phases, names = study.phases, study.measured.names
        effects = {}
        for name in names:
            first = [phases.arms.solo(k, name) for k in range(3)]
            # The same folds, other training seeds.
            second = [t.with_recipe(seed=t.train.seed + 50) for t in first]
            arms = [study.engine.run(arm, "solo") for arm in (first, second)]
            effects[name] = study.reading(name).difference(arms[1], arms[0])
        effects = with_holm(effects)
    held = [effect for effect in effects.values() if effect.p_holm is not None]
    return {
        "alarm": any((effect.p_holm or 1.0) <= CLAIM_P for effect in held),
        "outside": [effect.p is not None and effect.p <= CLAIM_P for effect in held],
        "p": [effect.p for effect in held],
    }


def conflicting(seed: int, widths: list[int], domain_input: bool) -> Result:
    """Two domains at 180 degrees: what one likes, the other dislikes."""
    made = planted(rows=4000, relation=conflict(2), seed=2000 + seed, items=400)
    with study_of(made, seed=seed, widths=widths, domain_input=domain_input) as study:
        found = measured(study)
    nets = [found[name]["auc"]["net"] for name in found]
    return {
        "harm": [bool((n.p_holm or 1.0) <= CLAIM_P and n.estimate < 0) for n in nets],
        "net": [n.estimate for n in nets],
    }


def stages_of(seed: int, kind: str) -> Result:
    """T and I of copies (width 16, the domain seen) or of a conflict (width 2, the domain seen)."""
    if kind == "copies":
        made = planted(rows=5000, relation=angles([0, 0, 0]), seed=3000 + seed)
        widths = [16]
    else:
        made = planted(rows=4000, relation=conflict(2), seed=3000 + seed, items=400)
        widths = [2]
    with study_of(made, seed=seed, widths=widths, stages=True) as study:
        found = measured(study)
    told: dict[str, Any] = {}
    for effect in ("net", "net_plus", "transfer", "interference"):
        held = [found[name]["auc"][effect] for name in found]
        told[effect] = [e.estimate for e in held]
        told[f"{effect}_ci90"] = [e.ci90 for e in held]
    return told


def measured(study: Any) -> Any:
    """Choices, arms and effects, as a diagnosis makes them."""
    study.choose()
    study.train_arms()
    return study.effects()
