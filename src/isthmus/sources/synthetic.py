"""Three planted domains whose relations are known: two that conflict and one that is unrelated."""

from pathlib import Path

from isthmus.inspect.template import model_and_train
from isthmus.sources.planted import angles, planted
from isthmus.sources.source_folder import Report, prepared, silent, write

_SYNTHETIC_CONFIG = """# Synthetic clicks with known truth: three domains over the same items and users.
# `north` and `south` conflict (what one likes, the other dislikes); `island` is unrelated to both.
#
# Train:  isthmus fit config.yaml

data:
  table: synthetic.parquet       # looked up beside this file
  domain: domain
  label: label                   # 0 or 1
  group: user_id                 # GAUC and intervals go by user
  features:
    user_id: categorical
    item_id: categorical
    domain: categorical          # left out, a shared network cannot tell the domains apart; HAMUR can
  split: {{by: random, fractions: [0.8, 0.1, 0.1], seed: 0}}   # random | time | user

{rest}"""


def write_synthetic(
    out: Path | str,
    *,
    seed: int = 0,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write three planted domains as ``OUT/synthetic.parquet`` and ``OUT/config.yaml``; give OUT.

    200,000 rows: ``north`` and ``south`` conflict, ``island`` is unrelated to both (see
    ``synthetic.planted``). Needs no network; the same seed gives the same rows.
    ``overwrite``: replace a ``config.yaml`` that was edited.

    Raises IsthmusError when it cannot be written; nothing is left half-written.
    """
    config = _SYNTHETIC_CONFIG.format(rest=model_and_train(widths=(32, 16)))
    folder = prepared(Path(out), {config}, overwrite=overwrite)
    made = planted(
        rows=(90_000, 70_000, 40_000),
        relation=angles((0, 180, 90)),
        items=1_000,
        offsets=(-0.3, 0.0, -0.6),
        names=("north", "south", "island"),
        seed=seed,
    )
    path = write(folder, made.table, "synthetic", config)
    (report or silent)(f"wrote {made.table.num_rows:,} synthetic rows to {path}")
    return folder
