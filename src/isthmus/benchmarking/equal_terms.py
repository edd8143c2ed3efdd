"""Equal terms: the config that each contender begins with, sized to one budget.

A backbone or an adapter that the config names keeps the config's settings. Any other begins with its
defaults, and takes the dropout and the norm that the config's backbone has beside its own defaults.
Towers are shared. The widths keep their proportions, and the trunk fills the budget: backbone, adapter
and head, parameters of domains counted once for each domain and once for the unknown one.

A recipe is put over the control, and says which backbone, adapter and method it has.

Every other network is trained by the config's ``train.method``. A network that the method does not suit, such
as one without the part that a phase trains, is trained jointly, and so is one that reads no domain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from isthmus.adapters import AdapterConfig
from isthmus.backbones import BackboneConfig
from isthmus.benchmarking.contenders import CONTROL, TREES, Contender
from isthmus.benchmarking.shared_rows import data_for_trees
from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.errors import ConfigError
from isthmus.experiments import Training
from isthmus.experiments.outcome import build, sized_for
from isthmus.family import members
from isthmus.models import AbstractModel, ModelConfig
from isthmus.models.abstract_model import ParameterReport
from isthmus.models.sizing import SizesConfig
from isthmus.train.methods import JointConfig
from isthmus.tuning.space import Space

CARRIED = ("dropout", "norm")
HELD = (
    "model.backbone.name",
    "model.backbone.widths",
    "model.adapter.name",
    "model.towers",
)


@dataclass(frozen=True, slots=True)
class Terms:
    """A contender with what it begins with.

    ``config``: with a budget in place of widths; of trees, without a network, and with the data that
    trees read. ``sizes``: parameters as it begins, of one network where there is one for each domain;
    None for trees.
    """

    contender: Contender
    config: Config
    sizes: ParameterReport | None

    @property
    def name(self) -> str:
        """The contender's name."""
        return self.contender.name

    @property
    def trunk(self) -> int | None:
        """The contender's budget; None for trees."""
        sizes = self.config.model.sizes
        return None if sizes is None else sizes.trunk

    def space(self, dataset: Dataset) -> Space:
        """What is searched: nothing that decides which network it is, or how large.

        ``dataset``: what the contender reads.
        """
        recipe = self.contender.recipe
        said = () if recipe is None else tuple(recipe.settings)
        return Space.of(self.config, dataset, held=(*HELD, *self._without, *said))

    @property
    def _without(self) -> list[str]:
        known = type(self.config.model.backbone).model_fields
        return [f"model.backbone.{key}" for key in CARRIED if key not in known]

    @property
    def sized_text(self) -> str:
        """The widths that the budget gave, as text; empty for trees."""
        return "" if self.sizes is None else f"{self.sizes.trunk:,} in the trunk"


def trunk_of(config: Config, dataset: Dataset) -> int:
    """Give the budget that a config stands for: its ``sizes``, or as many as its network has."""
    model = ModelConfig() if config.model.is_trees else config.model
    if model.sizes is not None:
        return model.sizes.trunk
    return build(Training(model=model, train=config.train), dataset).parameter_report().trunk


def terms_of(
    config: Config, contenders: Sequence[Contender], trunk: int, dataset: Dataset
) -> tuple[tuple[Terms, ...], dict[str, str]]:
    """Give the contenders with their terms, and those that are left out with the reason.

    Raises ConfigError for a network that cannot be built, and for a budget that is too small: each
    network that does not fit is named, with the smallest budget that it allows.
    """
    if trunk < 1:
        raise ConfigError(f"trunk must be 1 or more, got {trunk}")
    made: dict[str, Terms] = {}
    refused: list[str] = []
    left_out: dict[str, str] = {}
    for one in contenders:
        if one.name == TREES:
            made[one.name] = Terms(one, _of_trees(config), None)
        elif one.kind != "wide":
            try:
                made[one.name] = _sized(config, one, trunk, dataset)
            except ConfigError as fault:
                refused.append(f"{one.name}: {str(fault).removeprefix('model: ')}")
    if refused:
        raise ConfigError("\n".join(refused))
    for one in (one for one in contenders if one.kind == "wide"):
        found = _widened(config, one, trunk, dataset, list(made.values()))
        if isinstance(found, str):
            left_out[one.name] = found
        else:
            made[one.name] = found
    return tuple(made[one.name] for one in contenders if one.name in made), left_out


def _sized(config: Config, contender: Contender, trunk: int, dataset: Dataset) -> Terms:
    changed = _with(config, model_for(config.model, contender, trunk))
    if contender.recipe is not None:
        changed = contender.recipe.over(changed)
    training = Training(model=sized_for(changed.model, dataset), train=changed.train)
    network = build(training, dataset)
    return Terms(contender, _suited(changed, contender, network), network.parameter_report())


def _suited(config: Config, contender: Contender, network: AbstractModel) -> Config:
    """The config, by the joint method where its own does not suit the network."""
    train = config.train
    if contender.recipe is not None:
        train.method.check(network, train)
        return config
    try:
        train.method.check(network, train)
        if contender.kind not in ("blind", "solo"):
            return config
    except ConfigError:
        pass
    return _jointly(config)


def _jointly(config: Config) -> Config:
    train = config.train.model_copy(update={"method": JointConfig()})
    return config.model_copy(update={"train": train})


def _widened(
    config: Config, contender: Contender, trunk: int, dataset: Dataset, others: Sequence[Terms]
) -> Terms | str:
    """The control with as many parameters as the largest network, or why there is nothing to widen."""
    totals = {one.name: one.sizes.total for one in others if one.sizes is not None}
    largest = max(totals, key=lambda name: totals[name])
    more = totals[largest] - totals[CONTROL]
    control = next(one for one in others if one.name == CONTROL)
    wide = _sized(config, contender, trunk + more, dataset)
    assert wide.sizes is not None
    assert control.sizes is not None
    if wide.sizes.trunk == control.sizes.trunk:
        return f"no network here has more parameters in all than {CONTROL}"
    return wide


def model_for(own: ModelConfig, contender: Contender, trunk: int) -> ModelConfig:
    """Give a contender's network. ``own``: the ``model`` section of the config."""
    of = partial(_member, ModelConfig() if own.is_trees else own)
    backbone = of("backbone", BackboneConfig, contender.backbone)
    adapter = of("adapter", AdapterConfig, contender.adapter)
    return ModelConfig(backbone=backbone, adapter=adapter, sizes=SizesConfig(trunk=trunk))


def _member(own: ModelConfig, part: str, family: Any, name: str) -> Any:
    """A backbone or an adapter: the config's, or one with its defaults and what it takes over."""
    given = getattr(own, part)
    if given.name == name:
        return given
    made = members(family)[name]()  # pyright: ignore[reportCallIssue]  # each narrows its name
    if part == "adapter":
        return made
    fields, theirs = type(made).model_fields, type(given).model_fields
    taken = {
        key: getattr(given, key)
        for key in CARRIED
        if key in fields and key in theirs and getattr(given, key) != theirs[key].default
    }
    return made.model_copy(update=taken)


def _of_trees(config: Config) -> Config:
    data = data_for_trees(config.data)
    if isinstance(data, str):
        raise ConfigError(f"{TREES}: {data}")
    model = validate(ModelConfig, {"name": "trees"})
    return _jointly(config.model_copy(update={"data": data, "model": model}))


def _with(config: Config, model: ModelConfig) -> Config:
    return config.model_copy(update={"model": model})
