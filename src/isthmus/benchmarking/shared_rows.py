"""The rows that all contenders share: one table, one split, encoded once for all networks.

The control reads the domain, so the domain is a feature. Trees read rates in place of columns with
many values (`DataConfig.for_trees`). Where the config does not ask for the rates, trees have an
encoding of their own, of the same rows and split.
"""

from importlib.util import find_spec

from isthmus.config import Config
from isthmus.schema import Categorical, DataConfig


def with_domain(config: Config) -> Config:
    """Give the config with the domain as a feature."""
    features = dict(config.data.features)
    features.setdefault(config.data.domain, Categorical())
    data = config.data.model_copy(update={"features": features})
    return config.model_copy(update={"data": data})


def data_for_trees(data: DataConfig) -> DataConfig | str:
    """Give what trees read, or why there can be no trees. ``trees: false`` speaks of networks."""
    if find_spec("lightgbm") is None:
        return "LightGBM is not installed: pip install 'isthmus[trees]'"
    said = data.model_fields_set - {"trees"}
    unsaid = type(data).model_construct(said, **dict(data))
    try:
        return unsaid.for_trees()
    except ValueError as fault:
        return str(fault)
