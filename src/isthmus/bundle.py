"""A bundle: the folder that is shipped. Weights, vocabularies and settings; no pickle.

    bundle.json            format, versions, config, fields, domains, sha256 of every other file
    weights.safetensors    the model's tensors, and the calibration's
    encoder/               vocabularies and scalers, as fitted on the train rows

From raw row to served score there is one path, `Bundle.score_blocks`: `Bundle.score`, ``predict`` and
``evaluate --data`` all take it.

    logit = model(encode(row))                            on the scale of the table it was trained on
    logit = slope[domain] * logit + offset[domain]        where model.calibration is per_domain
    score = sigmoid(logit + log(negative_rate))           back to the rate before sampling

A bundle of ``hamur_released`` is marked ``reproduction``: that form scores a row by its neighbours and
answers nan to a row that comes alone, so `Bundle.load` refuses it unless asked for by that word.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.special import expit

from isthmus.calibrate import Calibration
from isthmus.config import Config, validate
from isthmus.data.batch import Batch
from isthmus.data.encode import EncodedRows, Encoder
from isthmus.data.read import Block, open_table
from isthmus.data.roles import needed
from isthmus.disk import sha256, whole_folder
from isthmus.errors import BundleError, ConfigError
from isthmus.models import DomainModel, build_model
from isthmus.train import score_batch
from isthmus.version import VERSION

FORMAT = 1
MANIFEST = "bundle.json"
WEIGHTS = "weights.safetensors"
ENCODER = "encoder"
NOT_FOR_SERVING = ("hamur_released",)
BLOCK_ROWS = 1 << 15

Role = Literal["label", "weight", "group"]


class Bundle:
    """A trained model with all that turns a raw row into a score.

    >>> bundle = Bundle.load("runs/clicks/bundle")              # doctest: +SKIP
    >>> bundle.score(pl.DataFrame({"user": [7], "tab": ["home"]}))  # doctest: +SKIP
    array([0.0431])
    """

    def __init__(
        self,
        *,
        config: Config,
        encoder: Encoder,
        model: DomainModel,
        calibration: Calibration | None = None,
    ) -> None:
        # Where the table stood on the training machine is nobody's business later.
        data = config.data.model_copy(update={"table": None})
        self.config = config.model_copy(update={"data": data})
        self.encoder = replace(encoder, config=data)
        self.model = model.eval()
        self.calibration = calibration

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains that were trained."""
        return self.encoder.domains

    @property
    def reproduction(self) -> bool:
        """Whether the model is of a form that must not be served."""
        return is_for_reproduction(self.config)

    def save(self, path: str | Path) -> None:
        """Write the folder, complete or not at all, in place of one of that name.

        Raises BundleError where the disk does not take it.
        """
        tensors = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}
        if self.calibration is not None:
            for name, tensor in self.calibration.to_tensors().items():
                tensors[f"calibration.{name}"] = tensor
        try:
            with whole_folder(Path(path)) as folder:
                save_file(tensors, folder / WEIGHTS)
                (folder / WEIGHTS).chmod(0o644)  # it comes readable by its owner only
                self.encoder.save(folder / ENCODER)
                self._write_manifest(folder)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"a bundle must be writable at {path}, got: {error}") from error

    def _write_manifest(self, folder: Path) -> None:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        body = {
            "isthmus": VERSION,
            "torch": torch.__version__,
            "reproduction": self.reproduction,
            "config": self.config.model_dump(mode="json"),
            "domains": self.domains,
            "fields": [asdict(field) for field in self.encoder.fields],
            "calibrated": self.calibration is not None,
            "files": {str(file.relative_to(folder)): sha256(file) for file in files},
        }
        content = {"format": FORMAT, "sha256": _checksum(body), **body}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, *, reproduction: bool = False) -> "Bundle":
        """Read a folder that `save` wrote, after checking the sha256 of every file in it.

        ``reproduction``: take a model that is for reproduction only, too. Raises `BundleError`,
        naming the file, where one is missing, damaged, or of another format.
        """
        folder = Path(path)
        content = _read_manifest(folder)
        for name, checksum in content["files"].items():
            _check_file(folder / name, checksum)
        if content["reproduction"] and not reproduction:
            raise BundleError(
                "a bundle to serve must score a row without its neighbours, got a model with adapter"
                f" {content['config']['model']['adapter']['name']!r}, which is for reproduction only,"
                f" in {folder}; evaluate and compare accept its run"
            )
        try:
            config = validate(Config, content["config"])
            encoder = Encoder.load(folder / ENCODER)
            model = build_model(config.model, encoder.fields, encoder.n_domains)
            tensors = load_file(folder / WEIGHTS)
            model.load_state_dict(_below(tensors, "model."))
            calibration = None
            if content["calibrated"]:
                calibration = Calibration.from_tensors(_below(tensors, "calibration."))
        except (ConfigError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            raise BundleError(
                f"the bundle {folder}, written by isthmus {content['isthmus']}, cannot be read by"
                f" isthmus {VERSION}: {error}"
            ) from error
        return cls(config=config, encoder=encoder, model=model, calibration=calibration)

    def score(self, table: Any) -> np.ndarray:
        """Probabilities (rows,) float64 of a positive label, in the table's order.

        ``table``: a frame of pandas or polars, an Arrow table, or a path. It needs the columns of
        the features and of the domain; a domain that was not trained, or a null one, gets the
        answer trained for the unknown domain. Raises SchemaError where a column is missing, of
        another type, or holds nan or inf.
        """
        return to_score(self.logits(table), self.config.data.negative_rate)

    def logits(self, table: Any) -> np.ndarray:
        """Calibrated logits (rows,) float64, not corrected for ``negative_rate``."""
        return np.concatenate([scored.logits for scored in self.score_blocks(table)])

    def score_blocks(
        self, table: Any, *, roles: tuple[Role, ...] = (), all_columns: bool = False
    ) -> Iterator["ScoredBlock"]:
        """Score a table block by block, in its order; memory is bounded by the block.

        ``roles``: which of label, weight and group to read as well, where the config names them.
        ``all_columns``: let the blocks hold every column of the table.
        """
        opened = open_table(table)
        wanted = needed(self.encoder.config, roles=roles)
        opened.check(wanted)
        columns = list(opened.columns) if all_columns else wanted
        for block in opened.blocks(columns, BLOCK_ROWS):
            encoded = self.encoder.encode(
                block.batch, block.first_row, block.file, file_row=block.file_row, roles=roles
            )
            yield ScoredBlock(block, encoded, self.logits_of(encoded.batch()))

    def logits_of(self, batch: Batch) -> np.ndarray:
        """Calibrated logits (rows,) float64 of encoded rows."""
        return self.calibrated(score_batch(self.model, batch), batch.domain.numpy())

    def calibrated(self, logits: np.ndarray, domain: np.ndarray) -> np.ndarray:
        """The model's logits after calibration. ``domain``: model ids, 0 for unknown."""
        return logits if self.calibration is None else self.calibration.apply(logits, domain)


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """Some rows of a table, as they stand there, encoded, and their calibrated logits."""

    block: Block
    encoded: EncodedRows
    logits: np.ndarray  # (rows,) float64


def is_for_reproduction(config: Config) -> bool:
    """Whether a config trains a model that must not be served."""
    return config.model.adapter.name in NOT_FOR_SERVING


def to_score(logits: np.ndarray, negative_rate: float) -> np.ndarray:
    """Probabilities float64. Keeping a share of negatives multiplies the odds by its inverse."""
    return expit(logits + np.log(negative_rate))


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _checksum(body: dict[str, Any]) -> str:
    """Of the manifest's content, however it is laid out."""
    text = json.dumps(body, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The content of ``bundle.json``, its own checksum checked."""
    file = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(f"bundle folder must exist, got {folder}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise BundleError(
                f"bundle must have format {FORMAT}, got {content['format']} in {file},"
                f" written by isthmus {content.get('isthmus')}"
            )
        body = {name: value for name, value in content.items() if name not in ("format", "sha256")}
        if _checksum(body) != content["sha256"]:
            raise BundleError(f"bundle file {file} is damaged: its checksum does not match")
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"bundle file {file} is damaged: {error}") from error
    return content


def _check_file(file: Path, checksum: str) -> None:
    try:
        found = sha256(file)
    except FileNotFoundError:
        raise BundleError(f"bundle file {file} is missing") from None
    if found != checksum:
        raise BundleError(f"bundle file {file} is damaged: its checksum does not match")
