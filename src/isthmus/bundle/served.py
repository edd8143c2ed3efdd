"""A bundle: the folder that is shipped. Weights, vocabularies and settings; no pickle.

    bundle.json            format, versions, config, fields, domains, sha256 of every other file
    weights.safetensors    the model's tensors, the calibration's, and the detector's
    parts/N.safetensors    where domains have models of their own: the tensors, and the ids it knows
    parts/N.trees.txt      and what its train rows taught: a forest, N.statistics.safetensors
    encoder/               vocabularies, scalers, statistics and forest, as fitted on the train rows
    profile.json           what each domain looked like on validation rows, see `isthmus.bundle.profile`

From raw row to served score there is one path, `Bundle.score_blocks`: `Bundle.score`, ``predict`` and
``evaluate --data`` all take it. `Bundle.score_rows` and the server have another encoder of the same
ids and numbers in front of it, for requests of few rows.

    logit = model(encode(row))                            the model of the row's domain, on the scale of
                                                          the table it was trained on
    logit = slope[domain] * logit + offset[domain]        where model.calibration is per_domain
    score = sigmoid(logit + log(negative_rate))           back to the rate before sampling

A bundle of a model that is ``unsound`` (`isthmus.family.Member`) is marked ``reproduction``. `Bundle.load`
refuses such a bundle unless it is asked for by that word.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.special import expit

from isthmus.bundle.calibration import Calibration
from isthmus.bundle.detector import DetectBy, Detector, Telling
from isthmus.bundle.manifest import read_manifest, write_manifest
from isthmus.bundle.parts import Part, Router, below, model_tensors
from isthmus.bundle.profile import Profile
from isthmus.bundle.strength import check_strength, has_strength, turned
from isthmus.config import Config, validate
from isthmus.data.batch import Batch
from isthmus.data.encoding.encoder import EncodedRows, Encoder
from isthmus.data.encoding.roles import as_used, needed
from isthmus.data.requests import RowEncoder
from isthmus.data.tables import Block, Table, ahead, open_table
from isthmus.disk import whole_folder
from isthmus.errors import BundleError, ConfigError
from isthmus.models import AbstractModel, ModelConfig, build_model
from isthmus.train.generators import turn
from isthmus.version import VERSION

WEIGHTS = "weights.safetensors"
PARTS = "parts"
ENCODER = "encoder"
PROFILE = "profile.json"
BLOCK_ROWS = 1 << 15  # read and encoded at once
SCORED_ROWS = 1 << 12  # scored at once: what passes between the layers stays near the core

Role = Literal["label", "weight", "group"]


class Bundle:
    """A trained model with all that turns a raw row into a score.

    >>> bundle = Bundle.load("runs/clicks/bundle")              # doctest: +SKIP
    >>> bundle.score(pl.DataFrame({"user": [7], "tab": ["home"]}))  # doctest: +SKIP
    array([0.0431])

    ``parts``: further models by name; ``routes``: the part that scores a domain's rows. All other
    rows, those of the unknown domain too, are scored by ``model``. ``profile``: what each domain looked
    like; None in bundles of an isthmus that did not measure it yet. ``checksum``: of the folder that
    the bundle was read from, which tells it from every other; None for one that was not read.
    ``history``: what was done to the bundle after its fit, in that order, as plain values
    (`isthmus.extending`). ``router``: sends each row to the model of its domain. Raises ValueError for a
    route from a domain or to a part that is not there.
    """

    def __init__(
        self,
        *,
        config: Config,
        encoder: Encoder,
        model: AbstractModel,
        calibration: Calibration | None = None,
        parts: Mapping[str, Part] | None = None,
        routes: Mapping[str, str] | None = None,
        detector: Detector | None = None,
        profile: Profile | None = None,
        checksum: str | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        # Where the table stood on the training machine is nobody's business later.
        data = config.data.model_copy(update={"table": None})
        self.config = config.model_copy(update={"data": data})
        self.encoder = replace(encoder, config=data)
        self.model = model.eval()
        self.calibration, self.detector = calibration, detector
        self.profile, self.checksum = profile, checksum
        self.parts, self.routes = dict(parts or {}), dict(routes or {})
        self.history = tuple(history)
        self.router = Router(self.model, self.parts, self.routes, self.encoder.domains)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains that were trained."""
        return self.encoder.domains

    @property
    def reproduction(self) -> bool:
        """Whether the model is of a form that must not be served."""
        return self.config.model.unsound is not None

    def at_strength(self, strength: float) -> "Bundle":
        """The same bundle, for scoring, with its adapters turned down or up; weights are shared.

        ``strength``: 1 as trained, 0 the shared network exactly, without the adapter. Models of
        domains without an adapter score as before; calibration and profile stay those of the bundle as
        trained. `save` writes the bundle as trained. Raises BundleError for a number below 0 or not
        finite, and where no model wears an adapter with a strength.
        """
        check_strength(strength)
        parts = self.parts.values()
        if not any(has_strength(model) for model in (self.model, *(part.model for part in parts))):
            worn = {self.config.model.adapter.name, *(part.config.adapter.name for part in parts)}
            raise BundleError(
                "strength must be given to a model with adapter modulation,"
                f" got adapter {' and '.join(sorted(worn))}"
            )
        return Bundle(
            config=self.config,
            encoder=self.encoder,
            model=turned(self.model, strength),
            calibration=self.calibration,
            parts={
                name: replace(part, model=turned(part.model, strength))
                for name, part in self.parts.items()
            },
            routes=self.routes,
            detector=self.detector,
            profile=self.profile,
            history=self.history,
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """What ``weights.safetensors`` holds, by name."""
        found = model_tensors(self.model)
        for part, held in (("calibration", self.calibration), ("detector", self.detector)):
            if held is not None:
                found |= {f"{part}.{name}": tensor for name, tensor in held.to_tensors().items()}
        return found

    def save(self, path: str | Path, *, weights: Path | None = None) -> None:
        """Write the folder, complete or not at all, in place of one of that name.

        ``weights``: a file of `tensors` to be moved there. Raises BundleError where the disk is full.
        """
        try:
            with whole_folder(Path(path)) as folder:
                if weights is not None:
                    weights.replace(folder / WEIGHTS)
                else:
                    save_file(self.tensors(), folder / WEIGHTS)
                (folder / WEIGHTS).chmod(0o644)  # it comes readable by its owner only
                if self.parts:
                    (folder / PARTS).mkdir()
                for number, part in enumerate(self.parts.values()):
                    part.save(folder / _part_file(number), self.encoder.fields)
                self.encoder.save(folder / ENCODER)
                if self.profile is not None:
                    (folder / PROFILE).write_text(self.profile.to_json(), encoding="utf-8")
                write_manifest(folder, 2 if self.parts else 1, self._content())
        except (OSError, SafetensorError) as error:
            raise BundleError(f"a bundle must be writable at {path}, got: {error}") from error

    def _content(self) -> dict[str, Any]:
        """What the manifest says, but for the files."""
        content = {
            "isthmus": VERSION,
            "torch": torch.__version__,
            "reproduction": self.reproduction,
            "config": self.config.model_dump(mode="json", exclude={"trackers"}),
            "domains": self.domains,
            "fields": [asdict(field) for field in self.encoder.fields],
            "calibrated": self.calibration is not None,
        }
        if self.detector is not None:
            content["detector"] = True
        if self.parts:
            content["parts"] = [
                {"name": name, "model": part.config.model_dump(mode="json")}
                for name, part in self.parts.items()
            ]
            content["routes"] = self.routes
        if self.history:
            content["history"] = self.history
        return content

    @classmethod
    def load(cls, path: str | Path, *, reproduction: bool = False) -> "Bundle":
        """Read a folder that `save` wrote, after checking the sha256 of every file in it.

        ``reproduction``: take a model that is for reproduction only, too. Raises `BundleError`,
        naming the file, where one is missing, damaged, or of another format.
        """
        folder = Path(path)
        content = read_manifest(folder)
        try:
            config = validate(Config, content["config"])
            if content["reproduction"] and not reproduction:
                raise BundleError(
                    f"a bundle to serve must be sound, but {config.model.unsound}, in {folder};"
                    " evaluate and compare accept its run"
                )
            encoder = Encoder.load(folder / ENCODER)
            with turn():  # its first weights are drawn, though others take their place
                model = build_model(config.model, encoder.fields, encoder.n_domains)
            tensors = load_file(folder / WEIGHTS)
            model.load_state_dict(below(tensors, "model."))
            calibration = None
            if content["calibrated"]:
                calibration = Calibration.from_tensors(below(tensors, "calibration."))
            detector = None
            if content.get("detector"):
                detector = Detector.of_tensors(below(tensors, "detector."), encoder)
            profile = None
            if PROFILE in content["files"]:
                profile = Profile.from_json((folder / PROFILE).read_text(encoding="utf-8"))
            # An older bundle may name its domains otherwise, in the same order.
            today = dict(zip(content["domains"], encoder.domains, strict=True))
            parts = {
                part["name"]: Part.load(
                    folder / _part_file(number), validate(ModelConfig, part["model"]), encoder
                )
                for number, part in enumerate(content.get("parts", []))
            }
            return cls(
                config=config,
                encoder=encoder,
                model=model,
                calibration=calibration,
                parts=parts,
                routes={today[name]: part for name, part in content.get("routes", {}).items()},
                detector=detector,
                profile=profile,
                checksum=content["sha256"],
                history=content.get("history", ()),
            )
        except (ConfigError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            raise BundleError(
                f"the bundle {folder}, written by isthmus {content['isthmus']}, cannot be read by"
                f" isthmus {VERSION}: {error}"
            ) from error

    def score(self, table: Any, *, detect_domain: DetectBy | None = None) -> np.ndarray:
        """Probabilities (rows,) float64 of a positive label, in the table's order.

        ``table``: a frame of pandas or polars (lazy too), whatever has the Arrow stream interface,
        or a path. It needs the columns of the features and of the domain; a domain that was not
        trained, or a null one, gets the answer trained for the unknown domain. A table without rows
        has no scores. ``detect_domain``: tell the domain of rows whose domain is null, each by itself
        (``row``) or together with all such rows of its group (``group``); see `isthmus.bundle.detector`.
        Raises SchemaError where a column is missing, of another type, or holds inf, or a nan that
        ``nan: missing`` does not allow; BundleError for ``detect_domain`` without a detector, ConfigError
        for groups where the config names none.
        """
        logits = self.logits(table, detect_domain=detect_domain)
        return to_score(logits, self.config.data.negative_rate)

    def logits(self, table: Any, *, detect_domain: DetectBy | None = None) -> np.ndarray:
        """Calibrated logits (rows,) float64, not corrected for ``negative_rate``; see `score`."""
        blocks = self.score_blocks(table, detect_domain=detect_domain)
        parts = [scored.logits for scored in blocks]
        return np.concatenate([np.empty(0), *parts])

    def score_rows(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Probabilities (rows,) float64 of single rows, each a mapping by column; no frame is built.

        >>> bundle.score_rows([{"user": 7, "tab": "home"}])     # doctest: +SKIP
        array([0.0431])

        The same as `score` gives for a table of them, for a fraction of its fixed cost: meant for one row
        to some thousands. None is a missing value; a date or a time may be a text as ISO 8601 has it.
        A row needs every column that `score` needs. Raises SchemaError, with column and row.
        """
        logits = self.logits_of(self.row_encoder.encode(rows).batch())
        return to_score(logits, self.config.data.negative_rate)

    def score_row(self, row: Mapping[str, Any]) -> float:
        """The probability of one row; see `score_rows`."""
        return float(self.score_rows([row])[0])

    @cached_property
    def row_encoder(self) -> RowEncoder:
        """What `score_rows` encodes by. Its dictionaries are made once, when it is first asked for."""
        return RowEncoder(self.encoder)

    def score_blocks(
        self,
        table: Any,
        *,
        roles: tuple[Role, ...] = (),
        all_columns: bool = False,
        detect_domain: DetectBy | None = None,
        first_row: int = 0,
    ) -> Iterator["ScoredBlock"]:
        """Score a table block by block, in its order; memory is bounded by a few blocks.

        While a block is scored, a thread reads and encodes the next one.

        ``roles``: which of label, weight and group to read as well, where the config names them.
        ``all_columns``: let the blocks hold every column of the table, as it is stored.
        ``detect_domain``: see `score`; by group, the table is read twice. ``first_row``: the blocks
        that begin before this row are read and left out.
        """
        opened = open_table(table)
        wanted = needed(self.encoder.config, roles=roles)
        used = as_used(opened, self.encoder.config, self.encoder.kinds)
        telling = None if detect_domain is None else self._telling(detect_domain)
        if telling is not None:
            wanted = list(dict.fromkeys([*wanted, *telling.columns]))
        used.check_usable(wanted)
        if telling is not None and detect_domain == "group":
            telling.see(used.blocks(telling.columns, BLOCK_ROWS))

        def encoded_blocks() -> Iterator[tuple[Block, EncodedRows, pa.Array | None]]:
            for block, known in _pairs(opened, used, wanted, all_columns):
                if block.first_row < first_row:
                    continue
                batch, told = (known.batch, None) if telling is None else telling.filled(known)
                encoded = self.encoder.encode(
                    batch, known.first_row, known.file, file_row=known.file_row, roles=roles
                )
                yield block, encoded, told

        several = opened.rows > BLOCK_ROWS  # a thread would cost a single block more than it brings
        for block, encoded, told in ahead(encoded_blocks()) if several else encoded_blocks():
            yield ScoredBlock(block, encoded, self.logits_of(encoded.batch()), told)

    def _telling(self, by: DetectBy) -> Telling:
        if by not in ("row", "group"):
            raise BundleError(f"detect_domain must be row or group, got {by!r}")
        if self.detector is None:
            raise BundleError(
                "the domain of rows can be told by a model that was trained with model.detector true,"
                " got one without a detector"
            )
        return Telling(self.detector, self.encoder, by)

    def logits_of(self, batch: Batch) -> np.ndarray:
        """Calibrated logits (rows,) float64 of encoded rows."""
        parts = [self.router.logits(piece) for piece in batch.pieces(SCORED_ROWS)]
        logits = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self.calibrated(logits, batch.domain.numpy())

    def calibrated(self, logits: np.ndarray, domain: np.ndarray) -> np.ndarray:
        """The model's logits after calibration. ``domain``: model ids, 0 for unknown."""
        return logits if self.calibration is None else self.calibration.apply(logits, domain)


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """Some rows of a table, as they stand there, encoded, and their calibrated logits.

    ``told``: (rows,) text, the domains that the detector told, null where a row names its own; None where
    nothing was to be told.
    """

    block: Block
    encoded: EncodedRows
    logits: np.ndarray  # (rows,) float64
    told: pa.Array | None = None


def to_score(logits: np.ndarray, negative_rate: float) -> np.ndarray:
    """Probabilities float64. Keeping a share of negatives multiplies the odds by its inverse."""
    return expit(logits + np.log(negative_rate))


def stored_blocks(table: Table) -> Iterator[Block]:
    """The blocks that `Bundle.score_blocks` scores, with every column as it is stored."""
    return table.blocks(list(table.columns), BLOCK_ROWS, stored=True)


def _pairs(
    opened: Table, used: Table, wanted: list[str], all_columns: bool
) -> Iterator[tuple[Block, Block]]:
    """Blocks to hand on, each with the block that is encoded."""
    if not all_columns:
        return ((block, block) for block in used.blocks(wanted, BLOCK_ROWS))
    stored = stored_blocks(opened)
    if not opened.is_csv:
        return ((block, block) for block in stored)
    # A CSV file is carried along as it stands, and read again as the model knows its columns.
    return zip(stored, used.blocks(wanted, BLOCK_ROWS), strict=True)


def _part_file(number: int) -> str:
    return f"{PARTS}/{number}.safetensors"
