"""What a first look at a table found, in print and as the config that follows from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import isabs, relpath
from pathlib import Path
from typing import Any

import yaml

from isthmus.data.encoding.trees import is_installed
from isthmus.inspect.look import DomainCounts
from isthmus.inspect.template import plain_recipe, scalar
from isthmus.schema import Label
from isthmus.schema.address import Address

_SHOWN = 20  # domains that the text shows
_PAD = 36  # where the comments of the config begin


@dataclass(frozen=True, slots=True)
class Column:
    """One column, judged.

    ``use``: a kind of feature, ``weight`` or ``drop``. ``dtype``: its Arrow type.
    ``note``: why. ``settings``: keys of the feature. ``auc``: what the column reaches alone in
    telling the label, in either direction; None where it was not asked.
    """

    name: str
    dtype: str
    use: str
    note: str
    settings: dict[str, Any]
    auc: float | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a table holds, and the config that follows from it. Prints as text.

    ``rows`` of the table and its ``domains``, largest first, are counted in full; the columns are
    judged on ``drawn`` rows, taken at random when the table has more than about 500,000.
    ``columns``: all but domain and label, in the order of the table. ``warnings``: what a user
    should look at before trusting a model of this table. ``path``: of the table; None of a frame.
    """

    source: str
    rows: int
    drawn: int
    domain: str
    label: Label
    columns: tuple[Column, ...]
    domains: tuple[DomainCounts, ...]
    warnings: tuple[str, ...]
    time: str | None = None
    group: str | None = None
    weight: str | None = None
    split: str = "random"
    path: str | None = None

    @property
    def positives(self) -> int:
        """Rows whose label is positive."""
        return sum(found.positives for found in self.domains)

    def config_text(self, table: str | None = None, *, folder: Path | str | None = None) -> str:
        """Write the config as commented YAML that ``fit`` accepts unchanged.

        ``table``: what stands for the path of the table; default the path as it was given, seen
        from ``folder``, where the config will stand (default: the working directory). A frame has
        no path: ``fit`` is given the frame too.
        """
        path = table if table is not None else self.path
        if table is None and path is not None and folder is not None:
            is_relative = Address.of(path) is None and not isabs(path)
            path = relpath(path, folder) if is_relative else path
        return "\n".join(
            [*_header(self), "", *_data_section(self, path), "", plain_recipe(self.rows)]
        )

    def __str__(self) -> str:
        return "\n".join(_summary(self))


def _label_text(label: Label) -> str:
    if label.equals is not None:
        return f"{label.column} = {label.equals}"
    return label.column if label.above is None else f"{label.column} > {_number(label.above)}"


def _number(value: float) -> str:
    """A number as YAML reads it back."""
    plain = int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)
    return yaml.safe_dump(plain).split("\n")[0]


def _read_text(found: Inspection) -> str:
    if found.drawn == found.rows:
        return f"columns judged on all {found.rows:,} rows"
    return f"columns judged on {found.drawn:,} rows drawn at random from {found.rows:,}"


def _header(found: Inspection) -> list[str]:
    rate = found.positives / found.rows
    return [
        f"# Guessed from {_one_line(found.source)}: {found.rows:,} rows,"
        f" {len(found.domains):,} domains, {rate:.1%} positive;",
        f"# {_read_text(found)}. Read it through, then: isthmus fit",
        *(f"# Warning: {_one_line(warning)}" for warning in found.warnings),
    ]


def _data_section(found: Inspection, path: str | None) -> list[str]:
    label = scalar(found.label.column)
    if found.label.above is not None:
        label = f"{{column: {label}, above: {_number(found.label.above)}}}"
    elif found.label.equals is not None:
        equals = found.label.equals
        value = scalar(equals) if isinstance(equals, str) else yaml.safe_dump(equals).split("\n")[0]
        label = f"{{column: {label}, equals: {value}}}"
    positive = f"positive: {_one_line(_label_text(found.label))}"
    lines = [
        "data:",
        f"  table: {scalar(path)}" if path is not None else "  # table:  given to fit from Python",
        _line(f"  domain: {scalar(found.domain)}", f"{len(found.domains):,} values"),
        _line(f"  label: {label}", "0 or 1" if label == scalar(found.label.column) else positive),
        *_role("time", found.time, "for the split by time"),
        *_role("group", found.group, "whom a row belongs to: GAUC, intervals, split by user"),
        *_role("weight", found.weight, "of a row in loss and metrics"),
        _line("  # negative_rate: 1.0", "share of negatives that was kept when the table was made"),
        _line(
            "  features:", "categorical | numeric | time | categorical_list | numeric_list | vector"
        ),
        _line(
            f"    {scalar(found.domain)}: categorical",
            "the domain: left out, only adapters and towers know it",
        ),
    ]
    for column in found.columns:
        entry = f"{scalar(column.name)}: {_feature(column)}"
        if column.use == "drop":
            lines.append(_line(f"    # {scalar(column.name)}:", f"left out: {column.note}"))
        elif column.name == found.time:  # docs/log.md: its parts bring nothing
            lines.append(_line(f"    # {entry}", f"{column.note}: its parts would be features"))
        elif column.use != "weight":
            lines.append(_line(f"    {entry}", column.note))
    lines.append(_trees())
    split = f"  split: {{by: {found.split}, fractions: [0.8, 0.1, 0.1], seed: 0}}"
    lines.append(_line(split, "random | time | user"))
    return lines


def _trees() -> str:
    if is_installed():
        return _line(
            "  trees: true", "the score of a boosted forest is an input; false serves faster"
        )
    return _line(
        "  trees: false", "true is better on numbers, and needs pip install 'isthmus[trees]'"
    )


def _role(role: str, column: str | None, comment: str) -> Iterator[str]:
    name = f"  # {role}:" if column is None else f"  {role}: {scalar(column)}"
    yield _line(name, comment)


def _feature(column: Column) -> str:
    if not column.settings:
        return column.use
    texts = {key: _setting(value) for key, value in column.settings.items()}
    settings = "".join(f", {key}: {text}" for key, text in texts.items())
    return f"{{kind: {column.use}{settings}}}"


def _setting(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value).lower()


def _line(text: str, comment: str) -> str:
    return f"{text:<{_PAD}} # {_one_line(comment)}" if comment else text


def _one_line(text: str) -> str:
    """Text that cannot end the comment it stands in."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _summary(found: Inspection) -> Iterator[str]:
    yield (
        f"{found.source}: {found.rows:,} rows, label {_label_text(found.label)}"
        f" ({found.positives / found.rows:.1%} positive), {_read_text(found)}"
    )
    width = max([len(found.domain), *(len(d.name) for d in found.domains[:_SHOWN])])
    yield f"\n{found.domain:<{width}} {'rows':>12} {'label rate':>11} {'rare values':>12}"
    for one in found.domains[:_SHOWN]:
        rate = one.positives / one.rows
        yield f"{one.name:<{width}} {one.rows:>12,} {rate:>11.2%} {one.rare:>12.2%}"
    if len(found.domains) > _SHOWN:
        yield f"and {len(found.domains) - _SHOWN:,} smaller domains"
    width = max((len(column.name) for column in found.columns), default=6)
    yield f"\n{'column':<{width}} {'use':<17} {'alone (AUC)':>11}  why"
    for column in found.columns:
        alone = "" if column.auc is None else f"{column.auc:.3f}"
        yield f"{column.name:<{width}} {column.use:<17} {alone:>11}  {column.note}"
    for warning in found.warnings:
        yield f"warning: {warning}"
