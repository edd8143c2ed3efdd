"""Advice: the config that follows from a verdict."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from isthmus.config import Config
from isthmus.diagnosis.study import Study
from isthmus.diagnosis.verdicts.verdict import Verdict
from isthmus.disk import write_whole
from isthmus.experiments import Training

LONGEST = 60  # characters of a name in a file name
KINDS = ("joint", "adapted", "own-*", "group-*")  # of configs


class Configs:
    """Writes each advice once, as a config that ``fit`` accepts. Gives its path from the report.

    A config is the arm that was measured. It has the arm's features, network and recipe, and the
    split of the user's own config. Configs of an earlier diagnosis that no advice asks for any more
    are removed.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study = study
        self.folder = folder
        self.written: dict[str, str] = {}
        folder.mkdir(exist_ok=True)
        for old in (path for kind in KINDS for path in folder.glob(f"{kind}.yaml")):
            old.unlink(missing_ok=True)

    def command(self, name: str, verdict: Verdict) -> str | None:
        """Say what to type for a verdict.

        Tuning is the guard's work, since the guard also holds tuning to a promise. None where there
        is no config, and for tuning where rows have weights, which the guard refuses.
        """
        path = self.of(name, verdict)
        tuning = verdict.remedy == "tuning"
        if path is None or (tuning and self.study.original.data.weight is not None):
            return None
        return f"isthmus fit {path}{' --guard strict' if tuning else ''}"

    def of(self, name: str, verdict: Verdict) -> str | None:
        """Write the config that a verdict asks for, and give its path. None without a config."""
        study, phases = self.study, self.study.phases
        if verdict.action == "adapt" and verdict.remedy == "adapter":
            return self._write("adapted", phases.arms.adapted(0, phases.recipes[None]))
        if verdict.action in ("share", "adapt"):
            return self._write("joint", phases.joint(0))
        if verdict.action == "group":
            group = (name, *verdict.group)
            members = [other for other in study.measured.names if other in group]
            return self._write(group_slug(members), phases.together(0, members), members)
        if verdict.action.startswith("own tower"):
            return self._write(f"own-{slug(name)}", phases.solo(0, name), [name])
        return None

    def _write(self, stem: str, training: Training, domains: Sequence[str] | None = None) -> str:
        if stem not in self.written:
            path = self.folder / f"{stem}.yaml"
            write_whole(path, self._config(training, domains).to_yaml())
            self.written[stem] = f"{self.folder.name}/{path.name}"
        return self.written[stem]

    def _config(self, training: Training, domains: Sequence[str] | None) -> Config:
        original = self.study.original
        features = {name: self.study.config.data.features[name] for name in original.data.features}
        data = original.data.model_copy(update={"features": features})
        if domains is not None:
            data = data.model_copy(update={"domains": tuple(domains)})
        calibration = {"calibration": original.model.calibration}
        return Config(
            data=data,
            model=training.model.model_copy(update=calibration),
            train=training.train.model_copy(update={"compile": original.train.compile}),
        )


def slug(text: str) -> str:
    """Make a file name of letters, digits and ``-``. Different texts get different names.

    A short and plain text stays as it is. Any other name ends in a hash.
    """
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
    if plain == text and 0 < len(text) < LONGEST:
        return text
    return f"{plain[:40]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def group_slug(members: Sequence[str]) -> str:
    """Make a file name for a group of domains. Different groups get different names."""
    plain = "+".join(members)
    if all(slug(name) == name for name in members) and len(plain) < LONGEST:
        return f"group-{plain}"
    return f"group-{slug(chr(31).join(members))}"
