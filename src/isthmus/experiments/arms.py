"""The arms: which network each kind of training has, and with what settings it is trained.

The guard of a fit and the diagnosis both read this file:

- *joint* learns from all rows, without an adapter. *adapted* is joint with an adapter: the config's
  adapter, or HAMUR with its defaults where the config names no adapter.
- *solo* learns from one domain's own rows. Solo is a serious opponent. Patience stops solo, not a
  number of epochs. Solo looks at the validation rows often. Solo is the best, on validation rows,
  of two batches by two learning rates.
- *tuned* begins with joint's weights and goes on with one domain's own rows, more slowly.
- *extended* begins with a network that never met the domain. The network stands still. What belongs to
  the domain learns from its own rows: a bottleneck on top, and towers or norms where there are some.

A training of one domain does without weighting of domains, sampling of domains, and objectives that
compare domains. Its method is joint: there is one domain to learn from.
"""

from collections.abc import Mapping, Sequence

from isthmus.adapters import BottleneckConfig, HamurConfig, NoAdapterConfig
from isthmus.data.store.dataset import DomainCount
from isthmus.experiments.outcome import Outcome
from isthmus.experiments.training import Training
from isthmus.layers.sites import INPUT
from isthmus.models import ModelConfig
from isthmus.train import Monitor, TrainConfig
from isthmus.train.methods import JointConfig

MAX_EPOCHS = 200  # patience stops a training, not this
MIN_LOOKS = 4  # an epoch, at the validation rows
LOWER_LR = 0.3  # of the config's learning rate
MIN_BATCH = 32
SHARE = 50  # a small domain's epoch has about so many steps


def joint_and_adapted(model: ModelConfig) -> tuple[ModelConfig, ModelConfig]:
    """Give the network of the joint arm and the network of the adapted arm.

    Trees wear no adapter: both are the trees.
    """
    if model.is_trees:
        return model, model
    joint = model.model_copy(update={"adapter": NoAdapterConfig()})
    worn = model.adapter if has_adapter(model) else HamurConfig()
    return joint, joint.model_copy(update={"adapter": worn})


def extending(model: ModelConfig) -> ModelConfig:
    """Give the network of the extended arm: the joint network with a bottleneck of each domain on top.

    Whatever adapter the config names: a network that stands still takes this one at the embedded row
    and behind the last block. At the last block alone it learnt next to nothing of planted domains.
    """
    joint, _ = joint_and_adapted(model)
    return joint.model_copy(update={"adapter": BottleneckConfig(sites=(INPUT, -1))})


def has_adapter(model: ModelConfig) -> bool:
    """Whether the config names an adapter."""
    return not isinstance(model.adapter, NoAdapterConfig)


def patient(train: TrainConfig) -> TrainConfig:
    """Give the ``train`` section of an arm that patience stops. Every row weighs alike in it."""
    looks = max(MIN_LOOKS, train.looks_per_epoch)
    changes = {"epochs": MAX_EPOCHS, "looks_per_epoch": looks, "weighting": "proportional"}
    return train.model_copy(update=changes)


def of_few(training: Training, watched: Mapping[str, DomainCount]) -> Training:
    """Give the training as far as a few domains allow it.

    Every row is drawn with the same chance. Logloss takes the place of a monitor that the
    validation labels leave undefined. A training on the rows of one domain does without objectives
    that compare domains, and by the joint method. ``watched``: by domain, the counts of the validation rows that may stop
    the training.
    """
    train = training.train
    changes: dict[str, object] = {"domain_sampling": "proportional"}
    counts = [watched[name] for name in training.watch or training.domains or watched]
    if not _is_defined(train.monitor, counts):
        changes["monitor"] = "logloss_pooled"
    if training.domains is not None and len(training.domains) == 1:
        kept = tuple(one for one in train.objectives if not one.compares_domains)
        changes |= {"objectives": kept, "method": JointConfig()}
    return training.trained_with(**changes)


def _is_defined(monitor: Monitor, counts: Sequence[DomainCount]) -> bool:
    """Whether rows of these counts have a value of the monitor: an AUC needs both classes."""
    if monitor == "auc_pooled":
        both = sum(one.positives for one in counts), sum(one.rows for one in counts)
        return 0 < both[0] < both[1]
    return monitor.startswith("logloss") or any(0 < one.positives < one.rows for one in counts)


def choices(training: Training, rows: int) -> list[Training]:
    """Give the grid of a training on ``rows`` train rows: two batches by two learning rates.

    The first choice has the training's own batch, no larger than ``rows``, and its own rate. There
    are four choices, or two where the batch is too small to be made smaller. Trees have neither
    batch nor rate, and one choice.
    """
    if training.model.is_trees:
        return [training]
    train = training.train
    batch = min(train.batch_rows, max(2, rows))
    smaller = min(max(MIN_BATCH, rows // SHARE), max(2, batch // 2))
    return [
        training.trained_with(batch_rows=size, lr=lr)
        for size in dict.fromkeys((batch, smaller))
        for lr in (train.lr, train.lr * LOWER_LR)
    ]


def best(outcomes: Sequence[Outcome]) -> Outcome:
    """Give the outcome with the best look by its monitor, and the first of equal ones."""
    return max(outcomes, key=_rank)


def _rank(outcome: Outcome) -> float:
    found = outcome.told.best
    return -found if outcome.training.train.monitor.startswith("logloss") else found
