"""The text of a config that a newcomer starts from: commented YAML, ready for ``fit``."""

import math
import re
from typing import Any

import yaml

from isthmus.adapters import AdapterConfig
from isthmus.backbones import BackboneConfig
from isthmus.family import members

NAMES = "<names>"  # stands in a text for the members of the adapters' family
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")

_MODEL_AND_TRAIN = """\
model:
  backbone: {{name: mlp, widths: {widths}, dropout: {dropout}{norm}}}   # {backbones}
  towers: shared                 # shared | per_domain: every domain has a tower of its own
{adapter}
  calibration: none              # none | per_domain: slope and offset fitted on validation

train:
  batch_rows: {batch_rows}
  epochs: 20                     # at most: training stops early and keeps the best weights
{looks}  lr: 1.0e-3
  embedding_l2: {l2}           # pulls embeddings towards zero
  embedding_update: auto         # dense | lazy | auto: lazy above 1 million rows of embedding table
  patience: 2                    # epochs without a better validation score before it stops
  monitor: auc_pooled            # the validation score that decides
  seed: 0                        # of the start and the shuffling; the split has a seed of its own
"""


_ADAPTER = "  adapter: {name: hamur, bottleneck: 32, rank: 8}   # " + NAMES
_NO_ADAPTER = "  adapter: {name: none}          # " + NAMES
_LOOKS = "  looks_per_epoch: 4             # at validation rows: networks with ids overfit within an epoch\n"
SMALL = 500_000  # rows of a table below which batches are small
SHOWN = 4  # members that a comment names
MANY = 200  # values of a column from which on its statistics are inputs


def plain_recipe(rows: int) -> str:
    """Give the sections of a first config for a table of so many rows: no adapter, no norm.

    docs/accuracy.md compares the recipe with others.
    """
    return model_and_train(
        adapter=_NO_ADAPTER,
        norm="none",
        looks=True,
        batch_rows=1024 if rows < SMALL else 4096,
        l2="5.0e-4",
    )


def model_and_train(
    *,
    widths: tuple[int, ...] = (256, 128),
    dropout: float = 0.2,
    adapter: str = _ADAPTER,
    batch_rows: int = 4096,
    norm: str | None = None,
    looks: bool = False,
    l2: str = "5.0e-5",
) -> str:
    """Give the ``model`` and ``train`` sections, HAMUR on an MLP, with a comment on each key.

    ``adapter``: the line or lines of ``model.adapter``, indented, where it is not the plain one.
    ``norm``: of the backbone, left to the default where None. ``looks``: look four times an epoch. ``l2``: of
    the embeddings.
    """
    return _MODEL_AND_TRAIN.format(
        widths=list(widths),
        dropout=dropout,
        backbones=_names(BackboneConfig),
        adapter=adapter.replace(NAMES, _names(AdapterConfig)),
        batch_rows=batch_rows,
        norm="" if norm is None else f", norm: {norm}",
        looks=_LOOKS if looks else "",
        l2=l2,
    )


def _names(family: Any) -> str:
    """The members of a family, as a comment lists them: the first few, where there are many."""
    found = list(members(family))
    more = "" if len(found) <= SHOWN else f" | and {len(found) - SHOWN} more"
    return " | ".join(found[:SHOWN]) + more


def scalar(text: str) -> str:
    """Write a string as one YAML value or key: plain where that reads back the same, else quoted.

    >>> scalar("user_id"), scalar("yes"), scalar("a: b")
    ('user_id', '"yes"', '"a: b"')
    """
    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    return yaml.safe_dump(text, default_style='"', width=math.inf, allow_unicode=True).strip()
