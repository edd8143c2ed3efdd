"""Put an adapter into a network that somebody else wrote, and take it out again."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from torch import nn

from isthmus.adapters.adapter import (
    AbstractAdapter,
    AbstractAdapterConfig,
    AbstractConditionedConfig,
)
from isthmus.attaching.attachment import CHILD, Attachment, Read, holder_of
from isthmus.attaching.choosing_places import At, choose
from isthmus.attaching.found_sites import UNKNOWN, FoundSite, FoundSites, survey
from isthmus.attaching.picked import Key, Place
from isthmus.layers.sites import Site, SiteSpec


@overload
def attach(
    module: nn.Module,
    *,
    at: At,
    adapter: AbstractAdapter | AbstractAdapterConfig,
    n_domains: int | None = None,
    condition_width: int | None = None,
    read: Read | None = None,
    output: Key = None,
    example: Sequence[Any] = (),
    dry_run: Literal[False] = False,
) -> Attachment: ...
@overload
def attach(
    module: nn.Module,
    *,
    at: At,
    adapter: AbstractAdapter | AbstractAdapterConfig,
    n_domains: int | None = None,
    condition_width: int | None = None,
    read: Read | None = None,
    output: Key = None,
    example: Sequence[Any] = (),
    dry_run: Literal[True],
) -> FoundSites: ...
def attach(
    module: nn.Module,
    *,
    at: At,
    adapter: AbstractAdapter | AbstractAdapterConfig,
    n_domains: int | None = None,
    condition_width: int | None = None,
    read: Read | None = None,
    output: Key = None,
    example: Sequence[Any] = (),
    dry_run: bool = False,
) -> Attachment | FoundSites:
    """Put an adapter behind submodules of ``module``, whose code stays as it is.

    ``at``: names (``"dnn.3"``, ``"layers.*.linear2"`` with ``*`` for one part of a name), a type, or
    a function ``(name, submodule) -> bool``. A dict ``{"dnn.2": 0}`` says which of an adapter's sites
    goes where; otherwise sites are taken in the order of the module. A submodule must return (rows,
    width), (rows, steps, width), or a tuple or dict that holds one: ``"lstm[0]"``, ``"enc[hidden]"``;
    ``output`` names the tensor for all places that do not. ``adapter``: built, with the widths of its
    sites, or a config such as ``HamurConfig(rank=4)``, which is built with a cell at every place.
    ``n_domains`` and, for an adapter that reads features, ``condition_width`` are needed with a
    config. ``read``: called with what the module is called with, returns (domain, condition).
    ``example``: inputs of the module, which show widths that no type tells; they are run once.
    ``dry_run``: change nothing, and say where the adapter would sit and why not elsewhere.

    Raises ``ValueError`` for a name that the module does not have (the near ones are listed), for a
    place where no adapter can sit, for a width that is not that of its site, for a site that the
    adapter does not have, and for a module that is adapted already.
    """
    keys = {} if output is None else {name: output for name, _ in module.named_modules()}
    chosen = choose(module, at, survey(module, example, {}, keys), output)
    found = survey(module, example, {}, {place.name: place.key for place in chosen})
    for site in found.others:
        if site.place in chosen and site.why != UNKNOWN:
            raise ValueError(f"'{site.place}' must be a place where an adapter can sit: {site.why}")
    if dry_run:
        return _report(found, chosen)
    holder = holder_of(module, next(iter(chosen)).name)
    if CHILD in dict(holder.named_children()):
        raise ValueError("the module has an adapter already: detach it first")
    widths = {site.place: site.width for site in (*found.fitting, *found.others)}
    if isinstance(adapter, AbstractAdapter):
        built, places = adapter, _given_sites(chosen, adapter)
    else:
        built = _built(adapter, chosen, widths, n_domains, condition_width)
        places = dict(zip(chosen, built.sites, strict=True))
    if n_domains is not None and n_domains != built.spec.n_domains:
        raise ValueError(
            f"n_domains must be the adapter's own, {built.spec.n_domains}, got {n_domains}"
        )
    for place, site in places.items():
        width, expected = widths.get(place), built.spec.width(site)
        if width is not None and width != expected:
            raise ValueError(
                f"'{place}' must have the width of site {site}, {expected}, got {width}"
            )
    return Attachment(module, places, built, condition_width=condition_width, read=read)


def detach(module: nn.Module, attachment: Attachment) -> nn.Module:
    """Give back the module as it was before `attach`: the same objects, without hooks."""
    if attachment.module is not module:
        raise ValueError("this attachment belongs to another module")
    attachment.detach()
    return module


def _report(found: FoundSites, chosen: Mapping[Place, Site | None]) -> FoundSites:
    names = {place.name: place for place in chosen}
    fitting, others = [], []
    for site in (*found.fitting, *found.others):
        if site.place.name in names:
            fitting.append(FoundSite(names[site.place.name], site.kind, site.width, ""))
        else:
            others.append(
                FoundSite(site.place, site.kind, site.width, site.why or "at does not name it")
            )
    return FoundSites(tuple(fitting), tuple(others))


def _given_sites(
    chosen: Mapping[Place, Site | None], adapter: AbstractAdapter
) -> dict[Place, Site]:
    """Which site of a built adapter goes to which place."""
    given = [site for site in chosen.values() if site is not None]
    if not given:
        if len(chosen) != len(adapter.sites):
            places = ", ".join(map(str, chosen))
            raise ValueError(
                f"at must fit as many places as the adapter has sites, {len(adapter.sites)},"
                f" got {len(chosen)}: {places}"
            )
        return dict(zip(chosen, adapter.sites, strict=True))
    sites: dict[Place, Site] = {}
    for place, site in chosen.items():
        if site is None or site not in adapter.sites:
            raise ValueError(f"'{place}' must go to one of the sites {adapter.sites}, got {site}")
        sites[place] = site
    return sites


def _built(
    config: AbstractAdapterConfig,
    chosen: Mapping[Place, Site | None],
    widths: Mapping[Place, int | None],
    n_domains: int | None,
    condition_width: int | None,
) -> AbstractAdapter:
    """The adapter of a config with a cell at every place."""
    if "sites" in config.model_fields_set or any(site is not None for site in chosen.values()):
        raise ValueError(
            "a config gets a cell at every place that at fits: name places alone, without sites"
        )
    if n_domains is None:
        raise ValueError("n_domains must be given with an adapter's config, got None")
    if condition_width is None and isinstance(config, AbstractConditionedConfig):
        raise ValueError(
            f"condition_width must be given: {config.name!r} reads a condition, got None"  # pyright: ignore[reportAttributeAccessIssue]
        )
    known = tuple(widths.get(place) for place in chosen)
    for place, width in zip(chosen, known, strict=True):
        if width is None:
            raise ValueError(f"the width at '{place}' must be known: {UNKNOWN.split(': ')[1]}")
    spec = SiteSpec(tuple(width for width in known if width is not None), n_domains)
    every = config.model_copy(update={"sites": tuple(range(len(known)))})
    return every.build(spec, condition_width or 0)
