"""The folder of one benchmark: what stands in it, who may write, and what the benchmark is of.

    benchmark.json     the config, the datasets and the budget: what makes the benchmark this one
    studies/NAME/      the search of each contender, a folder as ``isthmus tune`` writes it
    trainings/         one outcome a training with the best recipe, by content
    costs/             what each contender costs, measured once
    report.json, report.md, report.html    the same content three times

``benchmark.json`` is the first file in a new folder. The last three are written when all is done.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isthmus.benchmarking.equal_terms import Terms
from isthmus.config import Config, differences, validate
from isthmus.disk import check_place, only_writer, remove_leftovers, write_whole, writing
from isthmus.errors import BundleError, ConfigError, RunError
from isthmus.run.fit_plan import FREE, without_table
from isthmus.version import VERSION

FORMAT = 1


class ContestFolder:
    """A benchmark's folder on disk. The class knows the names in the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity_file = path / "benchmark.json"
        self.trainings = path / "trainings"
        self.json = path / "report.json"
        self.markdown = path / "report.md"
        self.page = path / "report.html"

    def study(self, terms: Terms) -> Path:
        """The folder of a contender's search. A widened control is another one by its size."""
        name = terms.name.replace(":", "-")  # of a recipe
        wide = terms.contender.kind == "wide"
        return self.path / "studies" / (f"{name}-{terms.trunk}" if wide else name)

    def cost(self, key: str) -> Path:
        """The file of a contender's cost. ``key``: of the training that was measured."""
        return self.path / "costs" / f"{key}.json"

    def check(self, config: Config) -> None:
        """Raise RunError where the folder does not let a benchmark of this config begin or go on."""
        with writing("benchmark folder", self.path):
            if not self.path.exists():
                check_place(self.path)  # now, not after the table is encoded
                return
            if not self.path.is_dir():
                raise RunError(f"a benchmark folder must be a folder, got the file {self.path}")
            others = [one.name for one in self.path.iterdir() if not one.name.startswith(".")]
        if self.identity_file.exists():
            was = self._identity()["config"]
            found = differences(without_table(was), without_table(config))
            changed = [text for text in found if text.split(" ")[0] not in FREE]
            if changed:
                raise RunError(
                    f"benchmark {self.path} must go on with the config it began with, got:"
                    f" {'; '.join(changed)}"
                )
        elif others:
            raise RunError(
                f"a benchmark folder must be new or hold benchmark.json, got {self.path} with"
                f" {', '.join(sorted(others)[:3])}"
            )

    @contextmanager
    def opened(self, config: Config, key: str, trunk: int) -> Iterator[None]:
        """Be the only process that writes in the folder, which is made where it is missing.

        ``key``: of the encoded table. Raises RunError while another process holds the folder, and
        where the table or the budget is another one than the benchmark began with.
        """
        with writing("benchmark folder", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with only_writer(self.path), writing("benchmark folder", self.path):
            remove_leftovers(self.path)
            if not self.identity_file.exists():
                content = {
                    "format": FORMAT,
                    "isthmus": VERSION,
                    "dataset_key": key,
                    "trunk": trunk,
                    "config": config.model_dump(mode="json"),
                }
                text = json.dumps(content, indent=1, ensure_ascii=False)
                write_whole(self.identity_file, text + "\n")
            old = self._identity()
            for what, was, now in (
                ("table", old["dataset_key"], key),
                ("trunk", old["trunk"], trunk),
            ):
                if was != now:
                    raise RunError(
                        f"benchmark {self.path} must go on with the {what} it began with, {was},"
                        f" got {now}"
                    )
            yield

    def write_report(self, report: dict[str, Any], markdown: str, page: str) -> None:
        """Replace the files that people read; the JSON last, since it says that all is done."""
        write_whole(self.markdown, markdown + "\n")
        write_whole(self.page, page)
        text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
        write_whole(self.json, text + "\n")

    def _identity(self) -> dict[str, Any]:
        try:
            content = json.loads(self.identity_file.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise RunError(
                    f"a benchmark folder must have format {FORMAT}, got {content['format']} in"
                    f" {self.path}, written by isthmus {content.get('isthmus')}"
                )
            return {
                "dataset_key": content["dataset_key"],
                "trunk": content["trunk"],
                "config": validate(Config, content["config"]),
            }
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as fault:
            raise BundleError(f"{self.identity_file} is damaged: {fault}") from fault
