"""A public data set that a user downloads by hand: its files, its domains, and what others counted.

Every set follows Scenario-Wise Rec (Li et al., arXiv:2412.17374): the same domains, labels and splits,
so that results stand beside those of the benchmark.
"""

import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from isthmus.errors import IsthmusError
from isthmus.sources.brought.raw_files import BroughtFile
from isthmus.sources.source_folder import Report, prepared, silent, write_parts


@dataclass(frozen=True, slots=True)
class Download:
    """One data set that a user brings.

    ``table``: name of the Parquet file, without its suffix. ``home``: the page that offers it.
    ``domain`` and ``label``: columns of the table; a row is positive where the label exceeds
    ``above``. ``published``: rows of each domain in Scenario-Wise Rec. ``config``: the text of
    ``config.yaml``, where ``{source}`` stands for what `about` says.
    """

    data: str
    table: str
    home: str
    domain: str
    label: str
    above: int
    published: Mapping[str, int]
    config: str

    @property
    def about(self) -> str:
        """Where the rows come from and on whose terms."""
        return (
            f"{self.data} is yours to download and not passed on here; its page has its terms"
            f" ({self.home})."
        )

    def file(self, folder: Path | str, name: str, pattern: str | None = None) -> BroughtFile:
        """Find one file in a folder or anywhere below, packed with gzip (``NAME.gz``) or not.

        ``pattern``: what else is the file, such as ``*train/news.tsv``. Raises IsthmusError where the
        folder is none, or where it holds no such file or several.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise IsthmusError(f"{self.data} must be in a folder that exists, got {folder}")
        pattern = pattern or name
        found = _files(folder, pattern) or _files(folder, f"{pattern}.gz")
        if not found:
            raise IsthmusError(
                f"{folder} must hold {name} of {self.data}, got no such file in the folder or below;"
                f" download {self.data} from {self.home} and unpack it there"
            )
        if len(found) > 1:
            raise IsthmusError(
                f"{folder} must hold one {name} of {self.data}, got {len(found)}:"
                f" {', '.join(str(path.relative_to(folder)) for path in found)}"
            )
        return BroughtFile(found[0], found[0].relative_to(folder).as_posix())

    def bring(
        self,
        parts: Iterable[pl.DataFrame],
        out: Path | str,
        *,
        overwrite: bool,
        report: Report | None,
    ) -> Path:
        """Write ``OUT/TABLE.parquet`` and ``OUT/config.yaml``, part by part; give OUT.

        ``parts``: frames of one schema. Reports rows and label rate of every domain. Warns where the
        rows of a domain are not as many as published: downloads have versions, so this is no error.
        Raises IsthmusError where a part does, or where nothing can be written; then no file changes.
        """
        tell = report or silent
        lines = "\n# ".join(textwrap.wrap(self.about, 94))
        config = self.config.replace("{source}", lines)
        folder = prepared(Path(out), {config}, overwrite=overwrite)
        tell(self.about)
        rows: Counter[str] = Counter()
        positives: Counter[str] = Counter()
        counted = self._counted(parts, rows, positives)
        path = write_parts(folder, counted, self.table, config)
        tell(f"wrote {rows.total():,} rows to {path}")
        width = max(len(self.domain), *map(len, rows))
        positive = f"{self.label} > {self.above}" if self.above else self.label
        tell(f"{self.domain:>{width}} {'rows':>12} {positive:>12}")
        for name in sorted(rows):
            rate = 100 * positives[name] / rows[name]
            tell(f"{name:>{width}} {rows[name]:>12,} {rate:>10.1f} %")
        self._warn_of_other_counts(rows)
        return folder

    def _counted(
        self, parts: Iterable[pl.DataFrame], rows: Counter[str], positives: Counter[str]
    ) -> Iterator[pa.Table]:
        """The parts as they come, while rows and positives of every domain are added up."""
        for part in parts:
            found = part.group_by(pl.col(self.domain).cast(pl.String)).agg(
                pl.len().alias("rows"), (pl.col(self.label) > self.above).sum().alias("positives")
            )
            rows.update(dict(found.select(self.domain, "rows").iter_rows()))
            positives.update(dict(found.select(self.domain, "positives").iter_rows()))
            yield part.to_arrow()

    def _warn_of_other_counts(self, rows: Mapping[str, int]) -> None:
        others = [
            f"{rows.get(name, 0):,} for {published:,} in {self.domain} {name}"
            for name, published in self.published.items()
            if rows.get(name, 0) != published
        ]
        if others:
            warnings.warn(
                f"rows of {self.data} must be as many as Scenario-Wise Rec counts, got"
                f" {'; '.join(others)}. Results of another version, or of a part, do not stand beside"
                " published ones",
                UserWarning,
                stacklevel=4,
            )


def _files(folder: Path, name: str) -> list[Path]:
    return sorted(path for path in folder.rglob(name) if path.is_file())
