"""Some domains of a dataset, as if their rows were all that there is.

What a model of these rows could not know is hidden from it: a value that the chosen train rows hold
too few times becomes the unknown (id 0), and a domain that none of them belongs to becomes domain 0.
Statistics and forest are fitted again, on the chosen train rows alone. Rows are copied.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64

from isthmus.data.batch import Batch, DomainPlaces
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.taught import Taught
from isthmus.data.store.arrays import CHUNK
from isthmus.data.store.counting.out_of_fold import SplitRows, fill
from isthmus.data.store.dataset import Dataset
from isthmus.data.store.known import Known, by_ids
from isthmus.data.store.rows import Rows, TrainingRows, stopping_half
from isthmus.data.store.split import SplitName
from isthmus.data.store.teaching import teach
from isthmus.data.tables import values as v
from isthmus.data.tables.plain import ragged

SINGLE = 2  # a value that is there once only teaches the unknown
CAP_SEED = 0xCA9
UNKNOWN = 0  # stands for the unknown domain where a domain is named


class Subset:
    """A part of a dataset that `isthmus.train.train` takes in its place.

    ``domains``: whose train rows there are (None: all, with everything known). ``watch``: whose
    validation rows (None: the same). ``rows_per_domain``: at most so many train rows of each, drawn
    once and for all; the rows of a smaller number are among those of a larger. ``hide_domain``: the
    domain's column is no input of the model (what the model keeps per domain still follows it).
    ``blind``: the model reads no domain at all, and every row as one of the unknown domain: ids,
    statistics and the forest's score too. Only all domains together can be read so.
    ``half``: of the validation rows, keep those that `stopping_half` gives. ``all_known``: hide
    nothing, since the model has seen all domains before. ``after``: the part that a network has
    learnt from, which now stands still: the network reads what it knew then, and nothing more but
    that rows of ``domains`` are rows of their domains. ``watch_per_domain``: as ``rows_per_domain``,
    of the validation rows. Raises ValueError for names that are not the dataset's, for none at all,
    and for a number of rows below 1.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        domains: Sequence[str] | None = None,
        watch: Sequence[str] | None = None,
        rows_per_domain: int | None = None,
        hide_domain: bool = False,
        half: bool = False,
        all_known: bool = False,
        blind: bool = False,
        after: "Subset | None" = None,
        watch_per_domain: int | None = None,
    ) -> None:
        if blind and (domains is not None or rows_per_domain is not None):
            raise ValueError("blind must go with all train rows, got domains or rows_per_domain")
        caps = {"rows_per_domain": rows_per_domain, "watch_per_domain": watch_per_domain}
        for word, cap in caps.items():
            if cap is not None and cap < 1:
                raise ValueError(f"{word} must be at least 1, got {cap}")
        for word, names in (("domains", domains), ("watch", watch)):
            if names is not None and not names:
                raise ValueError(f"{word} must name at least one domain, got none")
        self._all_known = all_known
        self._dataset = dataset
        self._domains = None if domains is None else self._ids(domains)
        self._watch = self._domains if watch is None else self._ids(watch)
        self._cap = rows_per_domain
        self._hide = hide_domain
        self._half = half
        self._blind = blind
        self._after = after
        self._watch_cap = watch_per_domain

    @property
    def key(self) -> str:
        """Key of the whole dataset."""
        return self._dataset.key

    @property
    def encoder(self) -> Encoder:
        """The dataset's encoder: ids mean the same."""
        return self._dataset.encoder

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of all domains of the dataset: report ids mean the same."""
        return self._dataset.domain_names

    @property
    def n_domains(self) -> int:
        """Number of domains of which the dataset has train rows."""
        return self._dataset.n_domains

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """Names of the domains whose train rows there are."""
        names = self.domain_names
        if self._domains is None:
            return names[: self.n_domains]
        return tuple(names[number - 1] for number in self._domains)

    def rows(self, split: SplitName) -> Rows:
        """The rows of ``train``, or those of ``validation`` that are watched."""
        if split == "train":
            return self._train
        if split == "validation":
            return self._validation
        raise ValueError(f"split must be train or validation, got {split!r}")

    @cached_property
    def unlabelled(self) -> Rows | None:
        """The unlabelled train rows of the same domains, at most ``rows_per_domain`` of each.

        None where the dataset has none.
        """
        rows = self._dataset.unlabelled
        if rows is None:
            return None
        return self._view(rows, self._positions(rows), self._taught[2])

    @property
    def _train(self) -> Rows:
        return self._taught[0]

    @cached_property
    def _taught(self) -> tuple[Rows, Rows, Taught]:
        """The train rows, the validation rows, and what the train rows teach.

        Nothing where the rows' own numbers stay as they are.
        """
        given = None if self._after is None else self._after._taught[2]
        train = self._view(self._dataset.rows("train"), self._train_positions, given)
        validation = self._view(*self._watched, given)
        if given is not None:
            return train, validation, given
        config = self.encoder.config
        if self.masks is None or not config.taught:
            return train, validation, Taught()
        taught = teach(
            SplitRows.of(train, self.n_domains),
            SplitRows.of(validation, self.n_domains),
            self.encoder.fields,
            config,
        )
        return train, validation, taught

    @property
    def _validation(self) -> Rows:
        return self._taught[1]

    @property
    def _watched(self) -> tuple[Rows, Int64[np.ndarray, " rows"] | None]:
        """The validation rows of the dataset, and the positions of those that are watched."""
        rows = self._dataset.rows("validation")
        at = None if self._watch is None else np.flatnonzero(np.isin(rows.domain, self._watch))
        if self._half:
            kept = stopping_half(rows)
            at = np.flatnonzero(kept) if at is None else at[kept[at]]
        if self._watch_cap is not None:
            at = _at_most(np.arange(len(rows)) if at is None else at, rows, self._watch_cap)
        return rows, at

    def scored(
        self,
        split: SplitName,
        domains: Sequence[str] | None,
        *,
        as_of: str | Literal[0] | None = None,
    ) -> Rows:
        """The rows of some domains in a split, as a model of this part reads them. None: all domains.

        ``as_of``: read every row as one of this domain, or of the unknown one, 0. ``Rows.domain`` tells
        the true domain all the same.
        """
        rows = self._dataset.rows(split)
        at = None
        if domains is not None:
            at = np.flatnonzero(np.isin(rows.domain, self._ids(domains)))
        return self._view(rows, at, self._taught[2], as_of=as_of)

    def _ids(self, names: Sequence[str]) -> np.ndarray:
        number = {name: place for place, name in enumerate(self._dataset.domain_names, start=1)}
        unknown = [name for name in names if name not in number]
        if unknown:
            raise ValueError(
                f"domains must be among those of the dataset, {', '.join(number)}, got {unknown}"
            )
        return np.unique(np.array([number[name] for name in names], dtype=np.int32))

    @cached_property
    def _train_positions(self) -> Int64[np.ndarray, " rows"] | None:
        return self._positions(self._dataset.rows("train"))

    def _positions(self, rows: Rows) -> Int64[np.ndarray, " rows"] | None:
        """The positions of the chosen rows among train rows; None for all."""
        if self._domains is None and self._cap is None:
            return None
        chosen = self._domains
        if chosen is None:
            chosen = np.arange(1, self.n_domains + 1)
        at = np.flatnonzero(np.isin(rows.domain, chosen))
        return at if self._cap is None else _at_most(at, rows, self._cap)

    @cached_property
    def known(self) -> Known | None:
        """What a model of these rows knows; None where nothing is hidden from the model."""
        return None if self.masks is None else replace(self.masks, taught=self._taught[2])

    @cached_property
    def masks(self) -> Known | None:
        """The ids and domains that are known; None where all are."""
        if self._after is not None:
            return self._after.masks
        if self._all_known or self._train_positions is None:
            return None
        rows, at = self._dataset.rows("train"), self._train_positions
        fields = self.encoder.fields
        categorical, listed = by_ids(fields)
        counts = {
            field.table: np.zeros(field.table_rows, dtype=np.int64)
            for field in fields
            if field.table
        }
        for start in range(0, len(at), CHUNK):
            some = at[start : start + CHUNK]
            block = rows.arrays.categorical[some]
            for column, field in enumerate(categorical):
                counts[field.table] += np.bincount(block[:, column], minlength=field.table_rows)
            for field, (values, offsets) in zip(listed, rows.arrays.lists, strict=True):
                if field.kind == "categorical_list":
                    ids = values[ragged(offsets[some], offsets[some + 1] - offsets[some])]
                    counts[field.table] += np.bincount(ids, minlength=field.table_rows)
        kept = {name: count >= self._least(name) for name, count in counts.items()}
        domain = np.zeros(len(self.domain_names) + 1, dtype=bool)
        domain[np.unique(rows.domain[at])] = True
        return Known.of_tables(fields, kept, domain, Taught())

    def _least(self, table: str) -> int:
        """How often the chosen train rows must hold a value for it to be known.

        An hour or a weekday is no name of a single row, and is known from one row on.
        """
        feature = self.encoder.config.features.get(table)
        if feature is None:  # the table of a time's part
            return 1
        return max(SINGLE, getattr(feature, "min_count", 1))

    def _view(
        self,
        rows: Rows,
        at: Int64[np.ndarray, " rows"] | None,
        taught: Taught | None = None,
        *,
        as_of: str | Literal[0] | None = None,
    ) -> Rows:
        """Rows as the model reads them. ``taught``: write its numbers over what is there."""
        if self._blind:
            return self._unseen(rows, at)
        known, hidden = self.masks, self._hidden_columns
        if known is None and at is None and not hidden and as_of is None:
            return rows
        at = np.arange(len(rows)) if at is None else at
        arrays = rows.arrays.take(at)
        domain = np.asarray(rows.domain[at])
        seen = domain
        if known is not None:
            seen = known.forget(arrays.categorical, [each for each, _ in arrays.lists], domain)
        if as_of is not None:
            number, ids = self._told_domain(as_of)
            seen = np.full_like(domain, number)
            for column, value in ids.items():
                arrays.categorical[:, column] = value
        arrays = replace(arrays, domain=seen)
        if taught is not None:
            fill(taught, SplitRows(arrays, self.n_domains, rows.row))
        if self._after is not None and self._domains is not None:
            # After the numbers were written: they come from rows without these domains.
            own = np.isin(domain, self._domains)
            arrays = replace(arrays, domain=np.where(own, domain, arrays.domain))
        for column in hidden:
            arrays.categorical[:, column] = 0
        return Rows(
            arrays,
            row=np.asarray(rows.row[at]),
            group=None if rows.group is None else np.asarray(rows.group[at]),
            fold=None if rows.fold is None else np.asarray(rows.fold[at]),
            n_domains=self.n_domains,
            reported=domain,
        )

    def _unseen(self, rows: Rows, at: Int64[np.ndarray, " rows"] | None) -> Rows:
        """Rows as the unknown domain's: what `Batch.hide_domain` makes of them.

        The second score that it takes stands in train rows alone; other rows are scored here.
        """
        at = np.arange(len(rows)) if at is None else at
        arrays = rows.arrays.take(at)
        nowhere, places = np.zeros_like(arrays.domain), DomainPlaces.of(self.encoder.fields)
        arrays.categorical[:, list(places.categorical)] = 0
        if rows.fold is None:
            blinded = replace(arrays, domain=nowhere)
            fill(self.encoder.taught, SplitRows(blinded, self.n_domains, rows.row[at]))
        else:
            for effect in places.statistics:
                arrays.numeric[:, effect + 2] = arrays.numeric[:, effect]
                arrays.numeric[:, effect + 3] = 0
            if places.score is not None:
                arrays.numeric[:, places.score] = arrays.numeric[:, places.score + 1]
        return Rows(
            replace(arrays, domain=nowhere),
            row=np.asarray(rows.row[at]),
            group=None if rows.group is None else np.asarray(rows.group[at]),
            fold=None if rows.fold is None else np.asarray(rows.fold[at]),
            n_domains=self.n_domains,
            reported=np.asarray(rows.domain[at]),
        )

    def _told_domain(self, name: str | Literal[0]) -> tuple[int, dict[int, int]]:
        """The report id of a domain, and the id of its value in each column that tells the domain."""
        columns = DomainPlaces.of(self.encoder.fields).categorical
        if name == UNKNOWN:
            return 0, dict.fromkeys(columns, 0)
        number = int(self._ids([name])[0])
        rows = self._dataset.rows("train")
        first = np.flatnonzero(np.asarray(rows.domain) == number)[:1]
        return number, {
            column: int(rows.arrays.categorical[first, column][0]) for column in columns
        }

    @property
    def _hidden_columns(self) -> tuple[int, ...]:
        return DomainPlaces.of(self.encoder.fields).categorical if self._hide else ()


def hide(batch: Batch, known: Known) -> Batch:
    """The batch as a model that knows only ``known`` reads it.

    Model ids of domains are those of the dataset.
    """
    batch = replace(
        batch,
        categorical=batch.categorical.clone(),
        lists=tuple(replace(jagged, values=jagged.values.clone()) for jagged in batch.lists),
    )
    values = [jagged.values.numpy() for jagged in batch.lists]
    domain = known.forget(batch.categorical.numpy(), values, batch.domain.numpy())
    batch = replace(batch, numeric=batch.numeric.clone())
    lists = [(jagged.values.numpy(), jagged.offsets.numpy()) for jagged in batch.lists]
    known.taught.fill(
        batch.numeric.numpy(), batch.categorical.numpy(), lists, domain.astype(np.int32)
    )
    return replace(batch, domain=torch.from_numpy(domain))


def _at_most(at: np.ndarray, rows: Rows, cap: int) -> np.ndarray:
    """At most ``cap`` of the positions of each domain: those whose row numbers hash lowest."""
    hashed = v.mix(np.asarray(rows.row[at], dtype=np.int64), seed=CAP_SEED)
    order = np.lexsort((hashed, rows.domain[at]))
    domain = np.asarray(rows.domain[at])[order]
    first = np.searchsorted(domain, domain)
    return np.sort(at[order[np.arange(len(at)) - first < cap]])


AnyRows = Dataset | Subset | TrainingRows
"""What a training learns from; a table in memory is the third."""
