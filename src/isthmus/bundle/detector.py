"""The detector: which domain a row comes from that names none.

Source: Abed Azad and Beigy, Multi-BERT, WNUT 2025, arXiv:2404.02335, which finds the domain of a whole
document by a classifier and then takes the parameters of that domain. Here a row is to a group of rows,
such as all rows of a user, what a sentence is to a document:

    row      argmax_d log p_d(row)
    group    argmax_d mean of log p_d over the rows of the group that name no domain

p is the softmax of a small network of its own (`isthmus.models.domain_teller`), trained on the train rows
after the model. It reads all features but the domain, and no label. It knows how frequent domains are.

What is told is written into the column of the domain, where a row has none, before the row is encoded.
So the model answers as if the row had named that domain, and all other rows keep every bit of their
scores.

Departure: the paper's classifier is a fine-tuned language model that reads whole documents.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from isthmus.bundle.named_values import values_named
from isthmus.config import Config
from isthmus.data import Batch, Dataset
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.roles import needed
from isthmus.data.store.by_domain import RowsByDomain
from isthmus.data.tables import Block
from isthmus.data.tables import columns as c
from isthmus.data.tables.plain import plain
from isthmus.errors import ConfigError, SchemaError
from isthmus.models.domain_teller import DomainTeller
from isthmus.train.generators import seeded
from isthmus.train.methods.telling import LEAST_ROWS, learn_to_tell

DetectBy = Literal["row", "group"]
"""How the domain of a row that names none is told: by the row alone, or by all rows of its group."""
ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A classifier of the trained domains. ``accuracy``: on train rows that it did not learn from."""

    teller: DomainTeller
    accuracy: float

    @torch.no_grad()
    def log_chances(self, batch: Batch) -> Float64[np.ndarray, "rows domains"]:
        """The logarithm of each domain's chance; the domain of a row is not read."""
        return self.teller(batch).double().log_softmax(dim=1).numpy()

    def to_tensors(self) -> dict[str, Tensor]:
        """What `of_tensors` reads."""
        accuracy = torch.tensor(self.accuracy, dtype=torch.float64)
        weights = {name: tensor.contiguous() for name, tensor in self.teller.state_dict().items()}
        return {ACCURACY: accuracy, **{f"teller.{name}": w for name, w in weights.items()}}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], encoder: Encoder) -> Self:
        """Read what `to_tensors` gave. Raises what torch does where it does not fit."""
        with seeded(0):  # its first weights are drawn, though others take their place
            teller = DomainTeller(fields=encoder.fields, classes=encoder.n_domains)
        weights = {n.removeprefix("teller."): w for n, w in tensors.items() if n != ACCURACY}
        teller.load_state_dict(weights)
        return cls(teller.eval(), float(tensors[ACCURACY]))


def check_detector(config: Config, dataset: Dataset) -> None:
    """Raise ConfigError where ``model.detector`` is true and there is nothing to tell, or to tell by."""
    if not config.model.detector:
        return
    if dataset.n_domains < 2:
        raise ConfigError(
            f"model.detector tells domains apart, of 2 or more with train rows, got {dataset.n_domains}"
        )
    if len(dataset.rows("train")) < LEAST_ROWS:
        raise ConfigError(
            f"model.detector needs {LEAST_ROWS} train rows, got {len(dataset.rows('train'))}"
        )
    if all(one.is_domain for one in dataset.encoder.fields):
        raise ConfigError("model.detector tells by other features, got none beside the domain")


def fit_detector(config: Config, dataset: Dataset) -> Detector | None:
    """Train the detector on the train rows, where the config wants one; see `check_detector`.

    Takes 8 bytes a row for their order. The seed is the training's.
    """
    if not config.model.detector:
        return None
    rows = RowsByDomain(dataset.rows("train"), dataset.n_domains)
    seed = config.train.seed
    with seeded(seed + 2**44):
        teller = DomainTeller(fields=dataset.encoder.fields, classes=dataset.n_domains)
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 5])))
    accuracy = learn_to_tell(teller, rows, np.arange(1, dataset.n_domains + 1), random)
    return Detector(teller.eval(), accuracy)


@dataclass(slots=True)
class Telling:
    """What a detector says of the rows of one table that name no domain."""

    detector: Detector
    encoder: Encoder
    by: DetectBy
    _keys: Int64[np.ndarray, " groups"] = field(default_factory=lambda: np.empty(0, np.int64))
    _sums: Float64[np.ndarray, "groups domains"] = field(default_factory=lambda: np.empty((0, 0)))
    _values: dict[pa.DataType, pa.Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.encoder.config
        if self.by == "group" and config.group is None:
            raise ConfigError("the domain of a group can be told where data.group names its column")
        self._sums = np.empty((0, self.encoder.n_domains))

    @property
    def columns(self) -> list[str]:
        """What must be read of a table."""
        return needed(self.encoder.config, roles=self._roles)

    @property
    def _roles(self) -> tuple[Literal["group"], ...]:
        return ("group",) if self.by == "group" else ()

    def see(self, blocks: Iterable[Block]) -> None:
        """Gather what the rows of each group say. Memory: a sum for each group and domain."""
        for block in blocks:
            if (where := self._nameless(block)).any():
                keys, chances = self._read(block, where)
                every, place = np.unique(np.append(self._keys, keys), return_inverse=True)
                sums = np.zeros((len(every), self.encoder.n_domains))
                np.add.at(sums, place, np.concatenate([self._sums, chances]))
                self._keys, self._sums = every, sums

    def filled(self, block: Block) -> tuple[pa.RecordBatch, pa.Array]:
        """The rows with what is told in the domain's column, and what is told: text, null for others."""
        where = self._nameless(block)
        names = np.full(block.batch.num_rows, -1)
        if not where.any():
            return block.batch, pa.nulls(len(names), pa.string())
        keys, chances = self._read(block, where)
        if self.by == "group":
            chances = self._sums[np.searchsorted(self._keys, keys)]
        names[where] = chances.argmax(axis=1)
        told = pa.array(names, mask=~where)
        place = block.batch.schema.get_field_index(self.encoder.config.domain)
        column = plain(block.batch.column(place))
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        values = self._of_type(column.type, block.file)
        if pa.types.is_null(column.type):
            column = values.take(told)
        else:
            at = np.where(where, len(column) + names, np.arange(len(column)))
            column = pa.concat_arrays([column, values]).take(pa.array(at))
        batch = block.batch.set_column(place, self.encoder.config.domain, column)
        return batch, pa.array(self.encoder.domains, pa.string()).take(told)

    def _nameless(self, block: Block) -> Bool[np.ndarray, " rows"]:
        """Which rows name no domain; a domain that was not trained is a name."""
        column = plain(block.batch.column(self.encoder.config.domain))
        return c.domains(column, self.encoder.domain_kind)[0] < 0

    def _read(
        self, block: Block, where: Bool[np.ndarray, " rows"]
    ) -> tuple[Int64[np.ndarray, " chosen"], Float64[np.ndarray, "chosen domains"]]:
        """Keys of the groups (0 by row) and log-chances of these rows."""
        at = np.flatnonzero(where)
        encoded = self.encoder.encode(
            block.batch.take(pa.array(at)),
            block.first_row,
            block.file,
            file_row=block.file_row,
            kept=at,
            roles=self._roles,
        )
        keys = np.zeros(len(at), np.int64) if encoded.group is None else encoded.group
        return keys, self.detector.log_chances(encoded.batch())

    def _of_type(self, dtype: pa.DataType, file: str) -> pa.Array:
        """The domains' values in the type of a column, such that they are named as they were fitted."""
        if dtype not in self._values:
            values = values_named(self.encoder.domains, self.encoder.domain_kind, dtype)
            if values is None:
                raise SchemaError(
                    f"column {self.encoder.config.domain!r} must be text or whole numbers where its"
                    f" values are to be told, got {dtype} in {file}"
                )
            self._values[dtype] = values
        return self._values[dtype]
