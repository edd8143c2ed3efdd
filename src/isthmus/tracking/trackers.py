"""The trackers of one run. No training waits for a tracker, or ends with one.

A tracker that fails is told once and left alone from then on. Where a run goes on after a stop, each
tracker goes on with its own run, and a look that it was told before the stop is not told again:
``trackers.json`` in the run folder keeps both, by the tracker's name.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isthmus.errors import ConfigError
from isthmus.metrics import Evaluation
from isthmus.metrics.text_table import largest
from isthmus.tracking.tracker import AbstractTrackerConfig, Ending, TrackedRun, flattened
from isthmus.tracking.tracker_thread import Memory, TrackerThread
from isthmus.train import Look

FILE = "trackers.json"
TESTED = 100  # domains whose test metrics are told, those with the most rows
OF_TEST = ("auc", "logloss", "calibration")


def check_trackers(configs: Sequence[AbstractTrackerConfig]) -> None:
    """Raise ConfigError where a tracker is named twice, or its library is not installed."""
    names = [config.name for config in configs]
    for config in configs:
        if names.count(config.name) > 1:
            raise ConfigError(f"trackers must name each tracker once, got {config.name!r} twice")
        if config.required and not config.is_installed:
            raise ConfigError(
                f"trackers: {config.name!r} needs the package {config.library}, which is not"
                f" installed; pip install 'isthmus[{config.extra}]' brings it"
            )


class Trackers:
    """All trackers of a run, as `isthmus.fit` talks to them; without ``configs`` nothing is tracked.

    ``folder``: the run folder, which is there. ``config``: the config's plain values. ``history``: the
    looks that the run has had so far. ``tell``: is called with a sentence on each tracker that fails. A tracker
    that may be missing and is not installed takes no part, and says so.
    """

    def __init__(
        self,
        configs: Sequence[AbstractTrackerConfig],
        *,
        folder: Path,
        config: Mapping[str, Any],
        history: Sequence[Look],
        tell: Callable[[str], None],
    ) -> None:
        self.folder, self.tell = folder, tell
        self.looks = len(history)
        self.threads: list[TrackerThread] = []
        memory = Memory(folder / FILE)
        flat = flattened(config)
        step = history[-1].step if history else 0
        for one in configs:
            if one.is_installed:
                run = TrackedRun(folder, flat, mark=memory.of(one.name)[0], step=step)
                self.threads.append(TrackerThread(one, run, memory))
            else:
                tell(f"{one.library} is not installed: no events are written")

    @contextmanager
    def following(self) -> Iterator["Trackers"]:
        """Track what happens inside, and then tell each tracker how the run ended."""
        how: Ending = "failed"
        try:
            yield self
            how = "finished"
        except KeyboardInterrupt:
            how = "stopped"
            raise
        finally:
            for thread in self.threads:
                thread.close(how)
            for thread in self.threads:
                thread.wait()
            self._drop_faulty()

    def look(self, look: Look) -> None:
        """Tell a look at the validation rows."""
        self.looks += 1
        values = values_of_look(look)
        for thread in self.threads:
            thread.do(lambda tracker: tracker.log(values, look.step), look=self.looks)
        self._drop_faulty()

    def tested(self, evaluation: Evaluation, step: int) -> None:
        """Tell the metrics of the test rows, of a model that was trained for so many steps."""
        values = values_of_test(evaluation)
        for thread in self.threads:
            thread.do(lambda tracker: tracker.log(values, step))

    def keep(self) -> None:
        """Hand over what the finished run folder ships and shows: bundle, config, report, pages."""
        named = (self.folder / name for name in ("bundle", "config.yaml", "report.md"))
        for path in [*named, *sorted(self.folder.glob("*.html"))]:
            for thread in self.threads if path.exists() else ():
                thread.do(lambda tracker, path=path: tracker.keep(path))

    def _drop_faulty(self) -> None:
        for thread in [thread for thread in self.threads if thread.fault]:
            self.threads.remove(thread)
            self.tell(f"{thread.config.name} tracks this run no more: {thread.fault}")


def values_of_look(look: Look) -> dict[str, float]:
    """What a look tells, by the name that every tracker shows; what is undefined is left out.

    ``train/loss`` and ``train/NAME``, ``val/auc_pooled`` and the other monitors, ``val/auc/DOMAIN``.
    """
    values = {"train/loss": look.loss}
    values |= {f"train/loss_{name}": loss for name, loss in look.losses.items()}
    values |= {f"train/{name}": value for name, value in look.told.items()}
    scores = {f"val/{name}": value for name, value in look.metrics.items()}
    scores |= {f"val/auc/{domain}": value for domain, value in look.auc_by_domain.items()}
    return _finite(values | scores)


def values_of_test(evaluation: Evaluation) -> dict[str, float]:
    """AUC, logloss and calibration of the test rows: ``test/auc/DOMAIN``, ``test/auc_pooled``...

    ``pooled``, ``macro`` and ``weighted`` are those of the evaluation, ``auc_worst`` its lowest AUC. Of more
    than 100 domains, those with the most rows are told.
    """
    rows = {name: figures.rows for name, figures in evaluation.domains.items()}
    scopes = {f"test/{{}}/{name}": evaluation.domains[name] for name in largest(rows, TESTED)[0]}
    for name in ("pooled", "macro", "weighted"):
        scopes[f"test/{{}}_{name}"] = getattr(evaluation, name)
    values = {
        place.replace("{}", metric, 1): getattr(figures, metric)
        for place, figures in scopes.items()
        for metric in OF_TEST
    }
    return _finite(values | {"test/auc_worst": evaluation.worst.auc})


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }
