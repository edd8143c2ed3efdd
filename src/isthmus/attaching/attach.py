"""Put an adapter into a network that somebody else wrote, and take it out again."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from torch import nn

from isthmus.adapters.adapter import (
    AbstractAdapter,
    AbstractAdapterConfig,
    AbstractConditionedConfig,
    AbstractLinearConfig,
)
from isthmus.attaching.attachment import Attachment, Read, is_adapted, widths_at
from isthmus.attaching.choosing_places import At, choose
from isthmus.attaching.found_sites import (
    REMEDY,
    UNKNOWN,
    FoundSite,
    FoundSites,
    Tried,
    survey,
    try_out,
)
from isthmus.attaching.picked import Key, Place
from isthmus.layers.sites import Site, SiteSpec

AnyAdapter = AbstractAdapter | AbstractAdapterConfig | AbstractLinearConfig
Example = Sequence[Any] | Mapping[str, Any]


@overload
def attach(
    module: nn.Module,
    *,
    at: At,
    adapter: AnyAdapter,
    n_domains: int | None = None,
    condition_width: int | None = None,
    read: Read | None = None,
    output: Key = None,
    example: Example = (),
    dry_run: Literal[False] = False,
) -> Attachment: ...
@overload
def attach(
    module: nn.Module,
    *,
    at: At,
    adapter: AnyAdapter,
    n_domains: int | None = None,
    condition_width: int | None = None,
    read: Read | None = None,
    output: Key = None,
    example: Example = (),
    dry_run: Literal[True],
) -> FoundSites: ...
def attach(
    module: nn.Module,
    *,
    at: At,
    adapter: AnyAdapter,
    n_domains: int | None = None,
    condition_width: int | None = None,
    read: Read | None = None,
    output: Key = None,
    example: Example = (),
    dry_run: bool = False,
) -> Attachment | FoundSites:
    """Put an adapter behind submodules of ``module``, whose code stays as it is.

    ``at``: names (``"dnn.3"``, ``"layers.*.linear2"`` with ``*`` for one part of a name), a type, or
    a function ``(name, submodule) -> bool``. A dict ``{"dnn.2": 0}`` says which of an adapter's sites
    goes where; otherwise sites are taken in the order of the module. A submodule must return (rows,
    width), (rows, steps, width), or a tuple, list, dict or dataclass that holds one: ``"lstm[0]"``,
    ``"enc[hidden]"``; ``output`` names the tensor for all places that do not. ``adapter``: built,
    with the widths of its sites, or a config such as ``HamurConfig(rank=4)``, which is built with a
    cell at every place. An adapter at Linears (``MLoraConfig()``) sits at `nn.Linear` alone.
    ``n_domains`` and, for an adapter that reads features, ``condition_width`` are needed with a
    config. ``read``: called with what the module is called with, returns (domain, condition).
    ``example``: inputs of the module, a tuple, or a dict of named ones, which show widths that no
    type tells; they are run once. ``dry_run``: change nothing, and say where the adapter would sit
    and why not elsewhere.

    Raises ``ValueError`` for a name that the module does not have (the near ones are listed), for a
    place where no adapter can sit, for a width that is not that of its site, for a site that the
    adapter does not have, for an adapter that belongs to no network but its own, and for a module
    that is adapted already.

    >>> from isthmus.adapters import FilmConfig
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> attach(net, at=nn.ReLU, adapter=FilmConfig(), n_domains=3, condition_width=4).places
    (Place(name='1', key=None),)
    """
    linears = _sits_at_linears(adapter)
    tried = _tried(module, example)
    keys = {} if output is None else {name: output for name, _ in module.named_modules()}
    chosen = choose(module, at, survey(module, tried, keys, linears=linears), output)
    keys = {place.name: place.key for place in chosen}
    found = survey(module, tried, keys, linears=linears)
    for site in found.others:
        if site.place in chosen and site.why != UNKNOWN:
            raise ValueError(f"'{site.place}' must be a place where an adapter can sit: {site.why}")
    if dry_run:
        return _report(found, chosen)
    if is_adapted(module, next(iter(chosen)).name):
        raise ValueError("the module has an adapter already: detach it first")
    widths = {
        site.place: _widths(module, site, linears) for site in (*found.fitting, *found.others)
    }
    if isinstance(adapter, AbstractAdapter):
        built, places = adapter, _given_sites(chosen, adapter)
    else:
        built = _built(adapter, chosen, widths, n_domains, condition_width)
        places = dict(zip(chosen, built.linears or built.sites, strict=True))
    if n_domains is not None and n_domains != built.spec.n_domains:
        raise ValueError(
            f"n_domains must be the adapter's own, {built.spec.n_domains}, got {n_domains}"
        )
    for place, site in places.items():
        width, expected = widths.get(place), widths_at(built, site)
        if width is not None and width != expected:
            what = f"the widths of Linear {site}" if linears else f"the width of site {site}"
            raise ValueError(f"'{place}' must have {what}, {_told(expected)}, got {_told(width)}")
    return Attachment(module, places, built, condition_width=condition_width, read=read)


def detach(module: nn.Module, attachment: Attachment) -> nn.Module:
    """Give back the module as it was before `attach`: the same objects, without hooks.

    Raises ``ValueError`` for an attachment of another module.
    """
    if attachment.module is not module:
        raise ValueError("this attachment belongs to another module")
    attachment.detach()
    return module


def _sits_at_linears(adapter: Any) -> bool:
    if isinstance(adapter, AbstractAdapter):
        if adapter.linears and adapter.sites:
            raise ValueError("adapter must have cells at sites or at Linears, got one with both")
        return bool(adapter.linears)
    if isinstance(adapter, AbstractConditionedConfig) and adapter.condition != "all":
        raise ValueError(
            "adapter must name no features, as the call gives the condition,"
            f" got condition={adapter.condition}"
        )
    if not isinstance(adapter, AbstractAdapterConfig | AbstractLinearConfig):
        kind = getattr(adapter, "__name__", type(adapter).__name__)
        got = repr(getattr(adapter, "name", kind))
        raise ValueError(
            "adapter must be built, or the config of one with cells at sites or Linears of any"
            f" network, got {got}"
        )
    return isinstance(adapter, AbstractLinearConfig)


def _tried(module: nn.Module, example: Example) -> Tried | None:
    if isinstance(example, Mapping):
        return try_out(module, (), example)
    if not isinstance(example, tuple | list):
        raise ValueError(
            "example must be a tuple of the module's inputs, or a dict of its named ones,"
            f" got {type(example).__name__}"
        )
    return try_out(module, example, {})


def _widths(module: nn.Module, site: FoundSite, linears: bool) -> tuple[int, ...] | None:
    """What `widths_at` should say of a place; None where that is not known."""
    part = module.get_submodule(site.place.name)
    if linears and isinstance(part, nn.Linear):
        return part.in_features, part.out_features
    return None if site.width is None else (site.width,)


def _told(widths: tuple[int, ...]) -> str:
    return " x ".join(map(str, widths))


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
    """Which site, or Linear, of a built adapter goes to which place."""
    own: tuple[Site, ...] = adapter.linears or adapter.sites
    what = "Linears" if adapter.linears else "sites"
    given = [site for site in chosen.values() if site is not None]
    if not given:
        if len(chosen) != len(own):
            places = ", ".join(map(str, chosen))
            raise ValueError(
                f"at must fit as many places as the adapter has {what}, {len(own)},"
                f" got {len(chosen)}: {places}"
            )
        return dict(zip(chosen, own, strict=True))
    sites: dict[Place, Site] = {}
    for place, site in chosen.items():
        if site is None or site not in own:
            raise ValueError(f"'{place}' must go to one of the {what} {own}, got {site}")
        sites[place] = site
    return sites


def _built(
    config: AbstractAdapterConfig | AbstractLinearConfig,
    chosen: Mapping[Place, Site | None],
    widths: Mapping[Place, tuple[int, ...] | None],
    n_domains: int | None,
    condition_width: int | None,
) -> AbstractAdapter:
    """The adapter of a config with a cell at every place."""
    named = {"sites", "linears"} & config.model_fields_set
    if named or any(site is not None for site in chosen.values()):
        raise ValueError(
            "a config gets a cell at every place that at fits: name places alone, without sites"
        )
    if n_domains is None:
        raise ValueError("n_domains must be given with an adapter's config, got None")
    if condition_width is None and isinstance(config, AbstractConditionedConfig):
        raise ValueError(
            f"condition_width must be given: {config.name!r} reads a condition, got None"
        )
    known: list[tuple[int, ...]] = []
    for place in chosen:
        width = widths.get(place)
        if width is None:
            raise ValueError(f"the width at '{place}' must be known: {REMEDY}")
        known.append(width)
    if isinstance(config, AbstractLinearConfig):
        linears = {number: (width[0], width[-1]) for number, width in enumerate(known)}
        return config.build(SiteSpec((), n_domains, linears=linears), 0)
    spec = SiteSpec(tuple(width for (width,) in known), n_domains)
    every = config.model_copy(update={"sites": tuple(range(len(known)))})
    return every.build(spec, condition_width or 0)
