"""The folder of one run: what stands in it, who may write, and how far the run came.

    config.yaml          the config with every default filled in
    run.json             state (running, finished), data set, domains, threads
    metrics.jsonl        one line a look at the validation rows
    events.out.tfevents* the same for TensorBoard, where that is installed
    trackers.json        which runs at MLflow and Weights & Biases are this one, where they track it
    checkpoint/          what a resumed training needs
    bundle/              what is shipped
    scores/              logits of the validation and test rows
    gates.json           what share of each expert each domain uses, of a network with gates
    between_domains.json what an objective found between domains, where one looks for that
    report.md            the table of the test rows
    report.json          all that the page of the run shows, see `isthmus.run.reporting`
    report.html          the page

``config.yaml`` and ``run.json`` are the first files in a new folder. ``run.json`` says "finished"
only when all else is there.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from isthmus.config import Config, read_yaml, validate
from isthmus.data import Dataset, Table
from isthmus.disk import refusal, remove_leftovers, write_whole, writing
from isthmus.errors import IsthmusError, RunError
from isthmus.printable import printable
from isthmus.ranks import ALONE, RankError, Ranks
from isthmus.run.notice import Listener, Notice
from isthmus.tracking import Trackers
from isthmus.train import Look
from isthmus.version import VERSION

FORMAT = 1


@dataclass(frozen=True, slots=True)
class RunState:
    """What ``run.json`` holds. ``domains``: all domains of the table, the trained ones first."""

    state: Literal["running", "finished"]
    dataset_key: str
    table: str
    domains: tuple[str, ...]
    n_domains: int  # trained ones
    threads: int
    isthmus: str
    torch: str
    parameters: int = 0
    best_step: int | None = None
    steps: int = 0
    seconds: float = 0.0
    stopped: str = ""
    guard: str = ""  # strict, balanced, or none
    trunk: int = 0  # the budget in model.sizes that the run began with, or none
    recipe: str = ""  # which recipe was put over the config, in words, or none
    processes: int = 1  # that trained together at first
    format: int = FORMAT

    @classmethod
    def running(
        cls, dataset: Dataset, table: Table, *, guard: str = "", trunk: int = 0, recipe: str = ""
    ) -> "RunState":
        """Give the state of a run that begins now."""
        return cls(
            state="running",
            dataset_key=dataset.key,
            table=table.source,
            domains=dataset.domain_names,
            n_domains=dataset.n_domains,
            threads=torch.get_num_threads(),
            isthmus=VERSION,
            torch=torch.__version__,
            guard=guard,
            trunk=trunk,
            recipe=recipe,
        )


class RunFolder:
    """One run folder on disk. The class knows the names in the folder, and nothing of models."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self.bundle = path / "bundle"
        self.scores = path / "scores"
        self.metrics = path / "metrics.jsonl"
        self.config_file = path / "config.yaml"
        self.state_file = path / "run.json"
        self.report = path / "report.md"

    def create(self) -> None:
        """Make the folder. Raises RunError where the name is taken, or the disk refuses."""
        with writing("run folder", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.path.mkdir()
            except FileExistsError:
                raise RunError(f"run folder must not exist yet, got {self.path}") from None

    def begin(self, config: Config, state: RunState) -> None:
        """Write the config and the state."""
        write_whole(self.config_file, config.to_yaml())
        self.write_state(state)

    @property
    def how_to_go_on(self) -> str:
        """Say what to type after a stop."""
        return f"go on with --resume --out {printable(str(self.path))}"

    @contextmanager
    def kept_where(self, worth: Callable[[], bool], tell: Listener) -> Iterator[None]:
        """Fill the folder in a ``with`` block. After a fault, say how to go on, or remove it.

        ``worth``: whether the folder holds enough to be resumed. A folder that does not is removed.
        Raises RunError in place of what isthmus or the system refuses.
        """
        try:
            yield
        except KeyboardInterrupt:
            tell(Notice("train", f"stopped; {self.how_to_go_on}"))
            raise
        except Exception as fault:
            kept = worth()
            if not kept:
                shutil.rmtree(self.path, ignore_errors=True)
            if not isinstance(fault, OSError | IsthmusError):
                raise
            hint = f"; {self.how_to_go_on}" if kept else ""
            refused = isinstance(fault, OSError)
            text = refusal(fault, "run folder", self.path) if refused else str(fault)
            kind = RankError if isinstance(fault, RankError) else RunError
            raise kind(f"{text}{hint}") from fault

    @property
    def is_begun(self) -> bool:
        """Whether the folder can be resumed. A `create` that was killed leaves one that cannot."""
        return self.state_file.exists()

    @property
    def is_barely_made(self) -> bool:
        """Whether nothing is in the folder but what a killed `create` may leave."""
        known = {self.config_file.name, LOCK}
        return all(
            entry.name in known or entry.name.startswith(".") for entry in self.path.iterdir()
        )

    def read_config(self) -> Config:
        """Give the config that the folder was made for."""
        return validate(Config, read_yaml(self.config_file))

    def write_state(self, state: RunState) -> None:
        """Replace ``run.json``."""
        write_whole(self.state_file, json.dumps(asdict(state), indent=2) + "\n")

    def read_state(self) -> RunState:
        """Read ``run.json``. Raises RunError where the folder is no run, or of another version."""
        if not self.path.is_dir():
            raise RunError(f"run folder must exist, got {self.path}")
        try:
            values = json.loads(self.state_file.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise RunError(
                    f"run folder must have format {FORMAT}, got {values['format']} in"
                    f" {self.path}, written by isthmus {values.get('isthmus')}"
                )
            return replace(RunState(**values), domains=tuple(values["domains"]))
        except FileNotFoundError:
            raise RunError(f"{self.path} is not a run folder: it has no run.json") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f"{self.state_file} is damaged: {error}") from error

    def has_scores(self, split: str) -> bool:
        """Whether the folder holds scored rows of a split; a run whose domains went has none of theirs."""
        return (self.scores / f"{split}.parquet").exists()

    def write_report(self, text: str) -> None:
        """Replace ``report.md``."""
        write_whole(self.report, text + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that writes in the folder.

        The lock ends with the process, also when the process is killed. Raises RunError while
        another process holds the lock.
        """
        with writing("run folder", self.path):
            handle = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"run folder {self.path} is in use by another process") from None
            remove_leftovers(self.path)
            yield
        finally:
            os.close(handle)


LOCK = ".lock"


class LookWriter:
    """Writes each look at the validation rows once, to ``metrics.jsonl``."""

    def __init__(self, folder: RunFolder, history: tuple[Look, ...], *, method: str) -> None:
        self.method = method
        # Looks after the checkpoint come again; those before it are known to the checkpoint.
        write_whole(folder.metrics, "".join(map(self._line, history)))
        self.file = folder.metrics.open("a", encoding="utf-8")

    def write(self, look: Look) -> None:
        """Write one look."""
        self.file.write(self._line(look))
        self.file.flush()

    def _line(self, look: Look) -> str:
        values = {"method": self.method, **asdict(look)}
        metrics, losses, told = (values.pop(key) for key in ("metrics", "losses", "told"))
        beside = {f"loss_{name}": loss for name, loss in losses.items()}
        return json.dumps(values | beside | told | metrics, allow_nan=False) + "\n"

    def sync(self) -> None:
        """Make sure that the disk holds what was written."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def trackers_of(
    config: Config,
    folder: RunFolder,
    history: tuple[Look, ...],
    tell: Listener,
    ranks: Ranks = ALONE,
) -> Trackers:
    """Begin what a config names as trackers, for the run in ``folder``; of several ranks rank 0 alone."""
    return Trackers(
        config.trackers if ranks.is_first else (),
        folder=folder.path,
        config=config.model_dump(mode="json", exclude={"trackers"}),
        history=history,
        tell=lambda text: tell(Notice("train", text)),
    )
