"""Whether the library that embeds numbers is there: ``rtdl-num-embeddings``, an extra."""

from collections.abc import Iterable
from importlib.util import find_spec

from isthmus.errors import ConfigError
from isthmus.schema import Feature, Numeric


def check_embeddings_installed(features: Iterable[Feature]) -> None:
    """Raise ConfigError, which says how to install it, where a number needs the missing library."""
    wanted = any(isinstance(one, Numeric) and one.embedding != "none" for one in features)
    if wanted and find_spec("rtdl_num_embeddings") is None:
        raise ConfigError(
            "the embedding of a number needs rtdl-num-embeddings: pip install 'isthmus[numbers]'"
        )
