"""Which places in a network a caller means: by name, by pattern, by type or by predicate."""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from torch import nn

from isthmus.attaching.found_sites import UNKNOWN, FoundSite, FoundSites, parts_of
from isthmus.attaching.picked import Key, Place
from isthmus.layers.sites import Site

Predicate = Callable[[str, nn.Module], bool]
At = Mapping[str, Site] | str | Sequence[str] | type[nn.Module] | Predicate

NAMED = re.compile(r"(?P<name>.*?)(\[(?P<key>[^\[\]]+)\])?")
NEAR = 3


def choose(module: nn.Module, at: At, found: FoundSites, output: Key) -> dict[Place, Site | None]:
    """The places that ``at`` means, in the module's own order, and the adapter's site if it says so.

    Raises ``ValueError`` for a name that fits no submodule (the near ones are listed), for a type or
    a predicate that fits none, or none where an adapter can sit.
    """
    parts = parts_of(module)
    sites = {site.place.name: site for site in (*found.fitting, *found.others)}
    chosen: dict[Place, Site | None] = {}
    if isinstance(at, Mapping):
        for text, site in at.items():
            chosen |= dict.fromkeys(_named(text, sites, output), site)
    elif isinstance(at, str | Sequence):
        for text in [at] if isinstance(at, str) else at:
            chosen |= dict.fromkeys(_named(text, sites, output))
    else:
        return dict.fromkeys(_fitting(at, parts, sites))
    if not chosen:
        raise ValueError("at must name at least one submodule, got none")
    order = list(parts)
    return dict(sorted(chosen.items(), key=lambda item: order.index(item[0].name)))


def _named(text: str, sites: Mapping[str, FoundSite], output: Key) -> list[Place]:
    """The places of one name: ``lstm[0]``, or with a ``*`` for one part of a name."""
    match = NAMED.fullmatch(text)
    assert match is not None
    name, key = match["name"], match["key"]
    if key is not None:
        output = int(key) if key.lstrip("-").isdigit() else key.strip("'\"")
    pattern = re.escape(name).replace(r"\*", r"[^.]+")
    places = [
        Place(found, site.place.key if output is None else output)
        for found, site in sites.items()
        if re.fullmatch(pattern, found)
    ]
    if not places:
        names = list(sites)
        near = get_close_matches(name, names, n=NEAR, cutoff=0.0)
        listed = ", ".join(repr(found) for found in near)
        hint = f"; the nearest {'is' if len(near) == 1 else 'are'} {listed}" if near else ""
        raise ValueError(f"at must name submodules of the module, got {text!r}{hint}")
    return places


def _fitting(
    at: type[nn.Module] | Predicate,
    parts: Mapping[str, nn.Module],
    sites: Mapping[str, FoundSite],
) -> list[Place]:
    if isinstance(at, type):
        what = f"submodules of type {at.__name__}"
        meant = [name for name, part in parts.items() if isinstance(part, at)]
    else:
        what = "submodules for which the predicate is true"
        meant = [name for name, part in parts.items() if at(name, part)]
    if not meant:
        kinds = sorted({type(part).__name__ for part in parts.values()})
        raise ValueError(f"at must fit a submodule: no {what} among {', '.join(kinds)}")
    # Names are in the module's order; a place that cannot be adapted is passed over and reported.
    fitting = [sites[name].place for name in meant if sites[name].why in ("", UNKNOWN)]
    if not fitting:
        reasons = "; ".join(str(sites[name]) for name in meant)
        raise ValueError(f"at must fit a place where an adapter can sit, got {reasons}")
    return fitting
