"""An adapter from its config. A new adapter is one file, one line here, one contract test."""

from isthmus.adapters._base import AbstractAdapter, AdapterConfig
from isthmus.adapters.hamur import Hamur
from isthmus.adapters.hamur_released import HamurReleased

ADAPTERS: dict[str, type[Hamur] | type[HamurReleased]] = {
    "hamur": Hamur,
    "hamur_released": HamurReleased,
}


def build_adapter(
    config: AdapterConfig, *, site_widths: tuple[int, ...], condition_width: int, n_domains: int
) -> AbstractAdapter | None:
    """The adapter that ``config`` names for a backbone with these sites; ``None`` for ``none``.

    ``condition_width``: width of the features that ``config.condition`` names, which the caller
    gathers. Raises ``ValueError`` for sites that the backbone does not have.
    """
    if config.name == "none":
        return None
    return ADAPTERS[config.name](
        site_widths=site_widths,
        condition_width=condition_width,
        n_domains=n_domains,
        sites=config.sites,
        bottleneck=config.bottleneck,
        rank=config.rank,
        hyper_widths=config.hyper_widths,
    )
