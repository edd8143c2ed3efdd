"""From effects to advice: the verdict of every domain, and the config that follows from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.config import Config
from isthmus.diagnosis.arms import Recipe
from isthmus.diagnosis.groups import Grouped
from isthmus.diagnosis.reading import METRICS
from isthmus.diagnosis.study import Study
from isthmus.diagnosis.verdict import DomainVerdict, Evidence, Verdict, join_verdicts, judge_domain
from isthmus.disk import write_whole
from isthmus.metrics.effects import Effect, EffectMetric

Found = Mapping[str, Mapping[str, Mapping[str, Any]]]


def verdicts(study: Study, found: Found, grouped: Grouped | None) -> dict[str, DomainVerdict]:
    """The verdict of every measured domain."""
    told = {}
    for name in study.measured.names:
        each = {
            metric: judge_domain(_evidence(study, name, metric, found, grouped))
            for metric in METRICS
        }
        told[name] = join_verdicts(each["auc"], each["logloss"])
    return told


def _evidence(
    study: Study, name: str, metric: EffectMetric, found: Found, grouped: Grouped | None
) -> Evidence:
    of = found[name][metric]
    group = () if grouped is None else grouped.members.get(name, ())
    return Evidence(
        metric=metric,
        margin=of["margin"],
        solo=of["solo"],
        joint=of["joint"],
        net=of["net"],
        transfer=of["transfer"],
        tuned_solo=of["tuned_solo"],
        tuned=of["tuned"],
        tuned_plus=of["interference"],
        adapted_solo=of["adapted_solo"],
        adapted=of["adapted"],
        adapted_plus=of["adapted_plus"],
        group_solo=_of_group(grouped, "solo", name, metric),
        group_joint=_of_group(grouped, "joint", name, metric),
        group=group,
        level=study.level.name,
        replicates=study.level.seeds,
        kind="folds" if study.folds else "seeds",
        rows=study.measured.support[name].rows,
    )


def _of_group(
    grouped: Grouped | None, against: str, name: str, metric: EffectMetric
) -> Effect | None:
    if grouped is None or not grouped.members.get(name):
        return None
    return getattr(grouped, against)[name][metric]


class Configs:
    """Writes each advice as a config that ``fit`` accepts, once; gives its path from the report."""

    def __init__(self, study: Study, folder: Path) -> None:
        self.study = study
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.written: dict[str, str] = {}

    def command(self, name: str, verdict: Verdict) -> str | None:
        """What to type for it: tuning is the guard's work, which also holds it to its promise."""
        path = self.of(name, verdict)
        if path is None:
            return None
        guard = " --guard strict" if verdict.remedy == "tuning" else ""
        return f"isthmus fit {path}{guard}"

    def of(self, name: str, verdict: Verdict) -> str | None:
        """The config that a domain's verdict asks for; None where it asks for none."""
        study, phases = self.study, self.study.phases
        if verdict.action == "adapt" and verdict.remedy == "adapter":
            return self._write("adapted", phases.recipes.joint, adapted=True)
        if verdict.action == "adapt":
            return self._write("joint", phases.recipes.joint)
        if verdict.action == "group":
            group = (name, *verdict.group)
            members = [other for other in study.measured.names if other in group]
            return self._write(
                f"group-{slug('-'.join(members))}", phases.recipe_of(members), domains=members
            )
        if verdict.action.startswith("own tower"):
            return self._write(f"own-{slug(name)}", phases.recipes.solo[name], domains=[name])
        if verdict.action == "share":
            return self._write("joint", phases.recipes.joint)
        return None

    def _write(
        self,
        stem: str,
        recipe: Recipe,
        *,
        adapted: bool = False,
        domains: list[str] | None = None,
    ) -> str:
        if stem not in self.written:
            config = self._config(recipe, adapted=adapted, domains=domains)
            path = self.folder / f"{stem}.yaml"
            write_whole(path, config.to_yaml())
            self.written[stem] = f"{self.folder.name}/{path.name}"
        return self.written[stem]

    def _config(self, recipe: Recipe, *, adapted: bool, domains: list[str] | None) -> Config:
        original = self.study.original
        features = {name: self.study.config.data.features[name] for name in original.data.features}
        data = original.data.model_copy(update={"features": features})
        if domains is not None:
            data = data.model_copy(update={"domains": tuple(domains)})
        arms = self.study.arms
        model = arms.model.model_copy(update={"calibration": original.model.calibration})
        if adapted:
            model = model.model_copy(update={"adapter": arms.adapter})
        looks = max(
            original.train.looks_per_epoch, self.study.joint[0].training.train.looks_per_epoch
        )
        train = original.train.model_copy(
            update=recipe.to_dict()
            | {"epochs": max(original.train.epochs, 200), "looks_per_epoch": looks}
        )
        return original.model_copy(update={"data": data, "model": model, "train": train})


def slug(text: str) -> str:
    """A name that every file system takes; different names stay different."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
    if plain == text and len(text) < 60:
        return text
    import hashlib

    return f"{plain[:40]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
