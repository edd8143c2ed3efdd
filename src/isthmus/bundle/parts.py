"""The parts of a bundle with several models: each model, what it knows, and whose rows it scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from safetensors.torch import load_file, save_file
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.taught import Taught
from isthmus.data.store.known import Known
from isthmus.data.store.subset import hide
from isthmus.models import AbstractModel, ModelConfig, build_model
from isthmus.schema import FittedField
from isthmus.train import score_batch
from isthmus.train.generators import turn


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One model of several. ``config``: what the model was built from.

    ``known``: the ids and domains that the train rows of the model taught. All others become unknown
    (id 0) before the model reads a row. None where the model knows all that the encoder knows.
    """

    model: AbstractModel
    config: ModelConfig
    known: Known | None = None

    def logits(self, batch: Batch) -> Float64[np.ndarray, " rows"]:
        """Logits of encoded rows, not calibrated."""
        return score_batch(self.model, self.read(batch))

    def read(self, batch: Batch) -> Batch:
        """Encoded rows as the model reads them: what it does not know is unknown."""
        return batch if self.known is None else hide(batch, self.known)

    def save(self, path: Path, fields: Sequence[FittedField]) -> None:
        """Write the weights, as uint8 what is known by table and by domain, and beside it what is taught."""
        tensors = model_tensors(self.model)
        if self.known is not None:
            masks = {f"table.{table}": mask for table, mask in self.known.tables(fields).items()}
            for name, mask in {"domain": self.known.domain, **masks}.items():
                tensors[f"known.{name}"] = torch.from_numpy(mask.astype(np.uint8))
            self.known.taught.save(path.with_suffix(""))
        save_file(tensors, path)
        path.chmod(0o644)  # it comes readable by its owner only

    @classmethod
    def load(cls, path: Path, config: ModelConfig, encoder: Encoder) -> "Part":
        """Read what `save` wrote. Raises what safetensors, torch and `Taught` do where it does not fit."""
        tensors = load_file(path)
        with turn():
            model = build_model(config, encoder.fields, encoder.n_domains)
        model.load_state_dict(below(tensors, "model."))
        masks = {name: mask.numpy() > 0 for name, mask in below(tensors, "known.").items()}
        known = None
        if masks:
            tables = {name.removeprefix("table."): mask for name, mask in masks.items()}
            stem, rate = path.with_suffix(""), encoder.config.negative_rate
            taught = Taught.load(stem, encoder.fields, rate, encoder.growth)
            known = Known.of_tables(encoder.fields, tables, masks["domain"], taught)
        return cls(model.eval(), config, known)


class Router:
    """Sends every row to the model of its domain; no Python step per row or per domain.

    ``domains``: names of the trained domains, model ids from 1. ``routes``: domain -> name of a
    part; the rows of all others, of the unknown domain too, go to ``model``. Raises ValueError for
    a route from a domain or to a part that is not there.
    """

    def __init__(
        self,
        model: AbstractModel,
        parts: Mapping[str, Part],
        routes: Mapping[str, str],
        domains: Sequence[str],
    ) -> None:
        self.model = model
        self.parts = list(parts.values())
        number = {name: place for place, name in enumerate(parts, start=1)}
        ids = {name: place for place, name in enumerate(domains, start=1)}
        self.part_of = np.zeros(len(domains) + 1, dtype=np.int64)
        for domain, part in routes.items():
            if domain not in ids or part not in number:
                raise ValueError(
                    f"a route must lead from a trained domain to a part, got {domain!r} to {part!r}"
                )
            self.part_of[ids[domain]] = number[part]

    def logits(self, batch: Batch) -> Float64[np.ndarray, " rows"]:
        """Logits (rows,) of encoded rows, each by the model of its domain; not calibrated."""
        return self.by_part(batch, self._logits)

    def by_part(
        self, batch: Batch, score: Callable[[int, Batch], Float64[np.ndarray, " some"]]
    ) -> Float64[np.ndarray, " rows"]:
        """What ``score`` gives for each row. It is asked once a part, for all the part's rows.

        Number 0 is ``model``, and 1 the first of ``parts``.
        """
        if not self.parts:
            return score(0, batch)
        part = self.part_of[batch.domain.numpy()]
        order = np.argsort(part, kind="stable")
        used, first = np.unique(part[order], return_index=True)
        found = np.empty(len(part), dtype=np.float64)
        for number, at in zip(used.tolist(), np.split(order, first[1:]), strict=True):
            rows = batch if len(used) == 1 else batch.take(torch.from_numpy(at))
            found[at] = score(number, rows)
        return found

    def _logits(self, number: int, batch: Batch) -> Float64[np.ndarray, " rows"]:
        return self.parts[number - 1].logits(batch) if number else score_batch(self.model, batch)


def model_tensors(model: AbstractModel) -> dict[str, Tensor]:
    """A model's tensors under ``model.``, as the files of a bundle hold them."""
    return {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, by their names without the prefix."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
