"""The dataset: encoded rows on disk, made once, memory-mapped, trained on many times."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from isthmus.data.encoding.alike import alike
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.store import passes
from isthmus.data.store.cache import META, entry_folder, room_in_cache, writing
from isthmus.data.store.rows import Rows
from isthmus.data.store.split import SPLITS, SplitName
from isthmus.data.tables import BLOCK_ROWS, Source, Table, open_table
from isthmus.errors import BundleError, RunError, SchemaError
from isthmus.ranks import ALONE, Ranks
from isthmus.schema import DataConfig


@dataclass(frozen=True, slots=True)
class DomainCount:
    """Rows of one domain in one split."""

    rows: int
    positives: int

    @property
    def label_rate(self) -> float | None:
        """Share of positive rows; ``None`` without rows."""
        return self.positives / self.rows if self.rows else None


class Dataset:
    """A table encoded on disk. ``Dataset.from_table`` encodes a table or finds it encoded before.

    ``Dataset.open`` reads an encoded table.

    ``domain_names``: all domains of the table, first the trained ones (ids 1 to ``n_domains``),
    then those without a train row.
    """

    def __init__(self, folder: Path, encoder: Encoder, meta: Mapping[str, Any]) -> None:
        self.folder = folder
        self.encoder = encoder
        self._meta = meta
        n_lists = sum(field.kind.endswith("_list") for field in encoder.fields)
        # Mapped now: a cache that is cleared later takes nothing away from who has it open.
        self._splits = {
            name: Rows.open(folder / name, self.n_domains, n_lists)
            for name in passes.folders(self.config)
        }

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {count}" for name, count in self._meta["rows"].items())
        return f"Dataset({rows} rows, {len(self.domain_names)} domains, {str(self.folder)!r})"

    @classmethod
    def from_table(
        cls,
        config: DataConfig,
        table: Source | Table | None = None,
        *,
        cache: str | Path | None = None,
        verify_content: bool = False,
        progress: passes.Progress | None = None,
        block_rows: int = BLOCK_ROWS,
        ranks: Ranks = ALONE,
    ) -> "Dataset":
        """Encode a table, or open what an equal table gave before.

        ``table``: defaults to ``config.table``. ``cache``: folder, ``cache_folder()`` by default.
        ``verify_content``: know the table again by every byte, not by size, time and footer.
        ``block_rows``: rows that are held at once; bounds the memory. ``ranks``: processes that share
        the work out among them, where the table has more files than one, or a large Parquet file of
        several row groups. They must all see the same files and the same cache. The result is that of
        one process, bit for bit. Together. Raises ``SchemaError`` for
        a table that does not hold what the config says, ``IsthmusError`` when the cache cannot be
        written; neither leaves anything behind.
        """
        given = config.table if table is None else table
        if given is None:
            raise SchemaError("data.table must name a table, or a table must be given, got neither")
        opened = open_table(given)
        key = ranks.first(
            lambda: dataset_key(config, opened.fingerprint(verify_content=verify_content))
        )
        folder = entry_folder(key, cache)
        if not ranks.first(lambda: cls._is_whole(folder)):
            build = partial(
                passes.build, config=config, table=opened, block_rows=block_rows, progress=progress
            )
            if ranks.many and len(opened.stretches) > 1:
                cls._build_together(folder, build, ranks)
            else:
                ranks.first(lambda: cls._build(folder, build))
        if ranks.is_first:
            return ranks.every(lambda: cls._opened(folder))
        return ranks.every(lambda: cls._seen_by_another(folder))

    @classmethod
    def _build(cls, folder: Path, build: Callable[..., None]) -> None:
        """Write the encoded table, unless another process has done so meanwhile."""
        with room_in_cache(folder), writing(folder, cls._is_whole) as temporary:
            if temporary is not None:
                build(temporary)

    @classmethod
    def _build_together(cls, folder: Path, build: Callable[..., None], ranks: Ranks) -> None:
        """The same by several processes. The first one holds the right to write. Together."""
        with ExitStack() as holding:

            def begin() -> str | None:
                made = holding.enter_context(writing(folder, cls._is_whole))
                return None if made is None else made.name

            name = ranks.first(begin)
            if name is None:
                return
            temporary = folder.with_name(name)
            ranks.every(lambda: _check_shared(temporary))
            with room_in_cache(folder):
                build(temporary, ranks=ranks)
            ranks.first(holding.close)

    @classmethod
    def _seen_by_another(cls, folder: Path) -> "Dataset":
        """Open what the first of several processes has opened, too."""
        try:
            return cls.open(folder)
        except BundleError as fault:
            raise RunError(f"{_SHARED}, but: {fault} {_PLACE}") from fault

    @classmethod
    def _opened(cls, folder: Path) -> "Dataset":
        """Open what was asked for by a table; warn of domains that a person would read as one."""
        dataset = cls.open(folder)
        counts = dataset.summary().values()
        rows = {name: sum(split[name].rows for split in counts) for name in dataset.domain_names}
        for text in alike(dataset.config.domain, rows):
            warnings.warn(text, UserWarning, stacklevel=3)
        return dataset

    @classmethod
    def _is_whole(cls, folder: Path) -> bool:
        try:
            cls.open(folder)
        except BundleError:
            return False
        return True

    @classmethod
    def open(cls, folder: str | Path) -> "Dataset":
        """Open an encoded table. Raises ``BundleError`` for a damaged one or another version."""
        folder = Path(folder)
        path = folder / META
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            if meta["version"] != passes.VERSION:
                raise BundleError(
                    f"a dataset must be of version {passes.VERSION}, got {meta['version']}"
                    f" in {folder}"
                )
            for name, size in meta["sizes"].items():
                found = (folder / name).stat().st_size
                if found != size:
                    raise BundleError(
                        f"a dataset's {name} must have {size} bytes, got {found} in {folder}"
                    )
            return cls(folder, Encoder.load(folder / "encoder"), meta)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
            raise BundleError(f"a dataset must be whole, got none in {folder}: {fault}") from fault

    @property
    def key(self) -> str:
        """Key of the dataset in the cache: config, encoding version and files."""
        return self.folder.name

    @property
    def config(self) -> DataConfig:
        """What the columns mean."""
        return self.encoder.config

    @property
    def n_domains(self) -> int:
        """Number of domains that have train rows."""
        return self.encoder.n_domains

    @cached_property
    def domain_names(self) -> tuple[str, ...]:
        """Names of all domains. The domain with report id ``i`` stands at place ``i - 1``."""
        return tuple(self._meta["domain_names"])

    @property
    def weightless(self) -> int:
        """Rows of the table that were left out because their weight is 0."""
        return self._meta["weightless"]

    def rows(self, split: SplitName) -> Rows:
        """The rows of ``train``, ``validation`` or ``test``, all of which have a label."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        return self._splits[split]

    @property
    def unlabelled(self) -> Rows | None:
        """The train rows without a label, whose labels are nan. None where the table has none.

        They are no part of ``rows("train")``.
        """
        rows = self._splits.get(passes.UNLABELLED_ROWS)
        return rows if rows is not None and len(rows) else None

    @property
    def unlabelled_left_out(self) -> int:
        """Rows without a label that were left out, because the split does not train them."""
        return self._meta.get("unlabelled_left_out", 0)

    def summary(self) -> dict[SplitName, dict[str, DomainCount]]:
        """Rows and positives of every domain in every split."""
        return {
            split: {
                name: DomainCount(rows, positives)
                for name, rows, positives in zip(
                    self.domain_names,
                    self._meta["domain_rows"][i],
                    self._meta["domain_positives"][i],
                    strict=True,
                )
            }
            for i, split in enumerate(SPLITS)
        }


_SHARED = (
    "every process must see the encoded table, so the cache must lie where all machines can write"
)
_PLACE = "(the environment variable ISTHMUS_CACHE names it)"


def _check_shared(temporary: Path) -> None:
    """Raise RunError unless this process sees the folder that the first one has made."""
    if not temporary.is_dir():
        raise RunError(f"{_SHARED}, got no {temporary} {_PLACE}")


def dataset_key(config: DataConfig, files: tuple[dict[str, Any], ...]) -> str:
    """Key of an encoded table: equal for equal config, encoding and files.

    The path that the config gives for the table has no part in the key.
    """
    content = {
        "config": config.content(),
        "version": passes.VERSION,
        "files": files,
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
