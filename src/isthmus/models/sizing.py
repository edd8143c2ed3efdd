"""Widths from a budget: the largest network of a family whose trunk has at most so many parameters."""

from collections.abc import Callable

from pydantic import Field

from isthmus.backbones import AbstractBackboneConfig
from isthmus.schema import Section

LEAST = 1e-9  # times any width: each width is then as small as it may be
CLOSE = 1e-9  # two factors as near as this give the same widths, but for a coincidence


class SizesConfig(Section):
    """How large a network is, in place of its widths."""

    trunk: int = Field(
        ge=1,
        description="parameters of the trunk at most; the widths keep their proportions, and are made"
        " as large as that allows",
    )


def widths_for(
    backbone: AbstractBackboneConfig,
    trunk: int,
    count: Callable[[AbstractBackboneConfig], int],
) -> AbstractBackboneConfig:
    """The same backbone, ``scaled`` as far as a trunk of ``trunk`` parameters allows.

    ``count``: the parameters of the trunk of a network with that backbone; more with larger widths.
    A backbone whose widths do not grow is returned as it is. Raises ``ValueError``, which names the
    smallest possible, for a budget that no size meets.
    """
    counted: dict[str, int] = {}

    def fits(factor: float) -> bool:
        scaled = backbone.scaled(factor)
        key = scaled.model_dump_json()
        if key not in counted:
            counted[key] = count(scaled)
        return counted[key] <= trunk

    if not fits(LEAST):
        (least,) = counted.values()
        sizes = ", ".join(map(str, backbone.scaled(LEAST).sizes))
        raise ValueError(
            f"sizes.trunk must be {least} or more here, as many as backbone {backbone.name!r} has"
            f" with widths of {sizes}, got {trunk}"
        )
    low, high = LEAST, 1.0
    while fits(high):
        low, high = high, 2 * high
        if low > trunk:  # a width of 1 would be past the budget by now: no width grows
            return backbone.scaled(low)
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return backbone.scaled(low)
