"""The encoder: fitted on train rows, then the same object turns rows into ids at fit and serve."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from isthmus.data.batch import Batch
from isthmus.data.encoding import encoder_file
from isthmus.data.encoding.block_layout import BlockLayout
from isthmus.data.encoding.clock import Clock
from isthmus.data.encoding.counted.trial import CrossTrial
from isthmus.data.encoding.feature_fields import fields_of
from isthmus.data.encoding.growth import Growth
from isthmus.data.encoding.numbers.fitted import AnyScaler
from isthmus.data.encoding.numbers.library import check_embeddings_installed
from isthmus.data.encoding.roles import DOMAIN, check_types, needed, vocabulary_name
from isthmus.data.encoding.taught import Taught
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.tables import columns as c
from isthmus.data.tables.plain import offsets_of, plain_batch
from isthmus.schema import (
    TREES,
    Categorical,
    CategoricalList,
    DataConfig,
    FittedField,
    Numeric,
    NumericList,
    Time,
    Vector,
    statistics_field,
)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """A block of rows as numbers. Columns stand in the order of the config's features, by kind."""

    categorical: np.ndarray  # (rows, n_categorical) int32
    numeric: np.ndarray  # (rows, n_numeric) float32
    lists: tuple[tuple[np.ndarray, np.ndarray], ...]  # values int32 or float32; offsets int64
    domain: np.ndarray  # (rows,) int32; 0 unknown or missing, 1..n_domains the trained ones
    domain_codes: np.ndarray  # (rows,) int32 into domain_names; -1 where the domain is missing
    domain_names: pa.Array  # distinct names of this block, text
    row: np.ndarray  # (rows,) int64: number of the row in the table
    label: np.ndarray | None = None  # (rows,) float32 in {0, 1}; nan where it is not known
    weight: np.ndarray | None = None  # (rows,) float32
    group: np.ndarray | None = None  # (rows,) int64

    def batch(self) -> Batch:
        """The rows as tensors. The labels are nan where no label was read."""
        label = self.label
        if label is None:
            label = np.full(len(self.row), np.nan, dtype=np.float32)
        return Batch.of_arrays(
            categorical=self.categorical,
            numeric=self.numeric,
            lists=self.lists,
            domain=self.domain,
            label=label,
            weight=self.weight,
        )


@dataclass(frozen=True)
class Encoder:
    """Everything that turns rows of a table into ids and scaled numbers.

    ``config``: what the columns mean. ``vocabularies``: each vocabulary by its name, which
    ``roles.vocabulary_name`` gives. ``scalers``: each scaler by its feature. ``domains``: names of
    the trained domains; id ``i`` is ``domains[i - 1]``. ``domain_kind``: kind of the values of the
    domain column. ``bins``: edges of each piecewise embedding, by its feature. ``crosses``: what
    validation rows said of each pair of columns that the config asks for, once they were asked; only
    confirmed pairs are inputs. ``taught``: statistics and forest, where the config asks for them.
    While they are not fitted yet, their columns hold 0. ``clocks``: how each time is taken apart.
    ``growth``: what came after the fit, and which rows see it; None while nothing came.
    """

    config: DataConfig
    vocabularies: Mapping[str, Vocabulary]
    scalers: Mapping[str, AnyScaler]
    domains: tuple[str, ...]
    domain_kind: str = "string"
    crosses: tuple[CrossTrial, ...] = ()
    taught: Taught = field(default_factory=Taught)
    bins: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    growth: Growth | None = field(default=None, compare=False)
    _domain_index: Vocabulary = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = pa.array(self.domains, pa.large_string())
        object.__setattr__(self, "_domain_index", Vocabulary("string", names))

    @property
    def n_domains(self) -> int:
        """Number of domains that have train rows."""
        return len(self.domains)

    @property
    def fields(self) -> tuple[FittedField, ...]:
        """What a model must know of each feature, in the order of the config; what is taught last."""
        own = tuple(field for name in self.config.features for field in self._fields(name))
        return (
            *(own if self.growth is None else self.growth.fields(own)),
            *(statistics_field(name) for name in self.config.with_statistics),
            *(statistics_field(one.left, one.right) for one in self.crosses if one.confirmed),
            *([FittedField(TREES, "trees", 1)] if self.config.trees else []),
        )

    def _fields(self, name: str) -> tuple[FittedField, ...]:
        bins, clock = self.bins.get(name, ()), self.clocks.get(name)
        return fields_of(self.config, name, self.vocabularies, bins, clock)

    def encode(
        self,
        batch: pa.RecordBatch,
        first_row: int,
        file: str,
        *,
        file_row: int | None = None,
        kept: np.ndarray | None = None,
        roles: Iterable[str] = ("label", "weight", "group"),
        workers: Executor | None = None,
    ) -> EncodedRows:
        """Encode one block of rows.

        ``first_row``: number of the block's first row in the table. ``file``, ``file_row``: its
        file and its first row there, for errors. ``kept``: of a block that lost rows, the places
        int64 (rows,) that these rows had in it. ``roles``: which of label, weight and group to
        read, where the config names them; predicting needs none. Raises ``SchemaError`` for what
        the schema does not allow; a null or unknown domain has id 0 and raises nothing.
        """
        types = {field.name: field.type for field in batch.schema}
        check_types(self.config, types, file, roles=roles, fitted=self.kinds)
        batch = plain_batch(batch.select(needed(self.config, roles=roles)))
        origin = c.Origin(file, first_row if file_row is None else file_row, kept)
        config, rows = self.config, batch.num_rows
        features = config.features
        fields = self.fields
        ids, x, into = BlockLayout.of(fields).empty(rows)
        tasks = [
            self._task(name, batch.column(name), origin, into)
            for kind in (Categorical, Numeric, Vector, Time)
            for name, feature in features.items()
            if isinstance(feature, kind)
        ]
        run_tasks(tasks, workers)
        column = {"weight": config.weight, "group": config.group}
        column = {role: name for role, name in column.items() if name and role in roles}
        codes, names = c.domains(batch.column(config.domain), self.domain_kind)
        domain = np.append(self.domain_ids(names), np.int32(0)).take(codes)
        lists = tuple(
            self._list(name, batch.column(name), origin)
            for name, feature in features.items()
            if isinstance(feature, CategoricalList | NumericList)
        )
        if self.growth is not None:
            self.growth.hide(fields, ids, lists, domain)
        self.taught.fill(x, ids, lists, domain)
        return EncodedRows(
            categorical=ids,
            numeric=x,
            lists=lists,
            domain=domain,
            domain_codes=codes,
            domain_names=names,
            row=first_row + (np.arange(rows, dtype=np.int64) if kept is None else kept),
            label=c.labels(
                config.label,
                batch.column(config.label.column),
                origin,
                unlabelled=config.keeps_unlabelled,
            )
            if "label" in roles
            else None,
            weight=c.weights(column["weight"], batch.column(column["weight"]), origin)
            if "weight" in column
            else None,
            group=c.groups(column["group"], batch.column(column["group"]), origin)
            if "group" in column
            else None,
        )

    def domain_ids(self, names: pa.Array) -> np.ndarray:
        """Ids int32 (n,) of domain names; 0 for a name that was not trained."""
        return self._domain_index.ids(names)

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of the values of every vocabulary, and under `DOMAIN` of the domain."""
        kinds = {name: vocabulary.kind for name, vocabulary in self.vocabularies.items()}
        return {**kinds, DOMAIN: self.domain_kind}

    def _task(
        self, name: str, array: pa.Array, origin: c.Origin, into: Mapping[str, np.ndarray]
    ) -> partial[None]:
        """Fill the columns of one feature; ``into``: the columns by the name of their field."""
        feature = self.config.features[name]
        if isinstance(feature, Time):
            return partial(self.clocks[name].fill, into, name, array, origin)
        if isinstance(feature, Vector):
            return partial(_put, into[name], _vectors, name, array, feature.width, origin)
        if isinstance(feature, Numeric):
            return partial(_put, into[name][:, 0], self._scaled, name, array, origin)
        return partial(_put, into[name], self._ids, name, array)

    def _ids(self, name: str, array: pa.Array) -> np.ndarray:
        return self.vocabularies[vocabulary_name(self.config, name)].ids(array)

    def _scaled(
        self, name: str, array: pa.Array, origin: c.Origin, lengths: np.ndarray | None = None
    ) -> np.ndarray:
        """Scaled numbers, the missing ones filled; ``lengths`` of the lists that they are of.

        Refuses numbers that are not finite, or that float32 cannot hold once they are scaled.
        """
        feature, scaler = self.config.features[name], self.scalers[name]
        assert isinstance(feature, Numeric | NumericList)
        x, missing = c.numbers_and_missing(array, feature.nan)
        out = scaler.apply(x)
        wrong = ~np.isfinite(out)
        if wrong.any():
            c.check_finite(name, x, origin, lengths)
            origin.refuse(name, "fit in 32-bit floats once scaled", wrong, x, lengths=lengths)
        if missing is not None:
            out[missing] = scaler.fill
        return out

    def _list(self, name: str, array: pa.Array, origin: c.Origin) -> tuple[np.ndarray, np.ndarray]:
        feature = self.config.features[name]
        assert isinstance(feature, CategoricalList | NumericList)
        if pa.types.is_null(array.type):
            array = pa.nulls(len(array), pa.list_(pa.int64()))
        items, lengths = c.list_items(array, feature.max_length)
        if isinstance(feature, CategoricalList):
            return self._ids(name, items), offsets_of(lengths)
        return self._scaled(name, items, origin, lengths), offsets_of(lengths)

    def save(self, folder: str | Path) -> None:
        """Write the encoder to a folder: JSON and one Parquet file for each vocabulary."""
        encoder_file.save(
            Path(folder),
            config=self.config,
            domains=self.domains,
            domain_kind=self.domain_kind,
            scalers=self.scalers,
            vocabularies=self.vocabularies,
            crosses=self.crosses,
            taught=self.taught,
            bins=self.bins,
            clocks=self.clocks,
            growth=self.growth,
        )

    @classmethod
    def load(cls, folder: str | Path) -> "Encoder":
        """Read an encoder.

        Raises ``BundleError`` for a damaged folder or another version, ``ConfigError`` where a
        library that it needs is missing.
        """
        path = Path(folder)
        encoder = cls(**encoder_file.load(path))
        check_embeddings_installed(encoder.config.features.values())
        rate = encoder.config.negative_rate
        taught = encoder_file.load_taught(path, encoder.fields, rate, encoder.growth)
        return replace(encoder, taught=taught)


def run_tasks(tasks: list[partial[None]], workers: Executor | None) -> None:
    """Run tasks, side by side where there are workers; the first fault is raised."""
    for _ in map(_call, tasks) if workers is None else workers.map(_call, tasks):
        pass


def _call(task: partial[None]) -> None:
    task()


def _put(out: np.ndarray, make: Callable[..., np.ndarray], *given: object) -> None:
    out[:] = make(*given)


def _vectors(name: str, array: pa.Array, width: int, origin: c.Origin) -> np.ndarray:
    if pa.types.is_null(array.type):
        return np.zeros((len(array), width), dtype=np.float32)
    return c.vectors(name, array, width, origin)
