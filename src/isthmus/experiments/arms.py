"""The arms: which network each kind of training has, and with what settings it is trained.

Said here once, for the guard of a fit and for the diagnosis:

- *joint* learns from all rows, without an adapter. *adapted* is joint with an adapter: the config's,
  or HAMUR with its defaults where the config names none.
- *solo* learns from one domain's own rows. Solo is a serious opponent: stopped by patience and not by
  epochs, looked at often, and the best of two batches by two learning rates on validation rows.
- *tuned* begins with joint's weights and goes on with one domain's own rows, more slowly.

What a training of one domain cannot have, it does without: weighting and sampling of domains, and
objectives that compare domains.
"""

from collections.abc import Mapping, Sequence

from isthmus.adapters import HamurConfig, NoAdapterConfig
from isthmus.data.store.dataset import DomainCount
from isthmus.experiments.outcome import Outcome
from isthmus.experiments.training import Training
from isthmus.models import ModelConfig
from isthmus.train import Monitor, TrainConfig

MAX_EPOCHS = 200  # patience stops a training, not this
MIN_LOOKS = 4  # an epoch, at the validation rows
LOWER_LR = 0.3  # of the config's learning rate
MIN_BATCH = 32
SHARE = 50  # a small domain's epoch has about so many steps


def joint_and_adapted(model: ModelConfig) -> tuple[ModelConfig, ModelConfig]:
    """The network of the joint arm, and that of the adapted arm."""
    joint = model.model_copy(update={"adapter": NoAdapterConfig()})
    worn = model.adapter if has_adapter(model) else HamurConfig()
    return joint, joint.model_copy(update={"adapter": worn})


def has_adapter(model: ModelConfig) -> bool:
    """Whether the config names an adapter."""
    return not isinstance(model.adapter, NoAdapterConfig)


def patient(train: TrainConfig) -> TrainConfig:
    """The ``train`` section of an arm that patience stops, in which every row weighs alike."""
    looks = max(MIN_LOOKS, train.looks_per_epoch)
    changes = {"epochs": MAX_EPOCHS, "looks_per_epoch": looks, "weighting": "proportional"}
    return train.model_copy(update=changes)


def of_few(training: Training, watched: Mapping[str, DomainCount]) -> Training:
    """The same training as far as the domains that it watches allow.

    Rows are drawn alike. A monitor that the validation labels leave undefined gives way to logloss.
    Where the train rows are of one domain, objectives that compare domains are left out. ``watched``:
    counts of the validation rows that may stop the training, by domain.
    """
    train = training.train
    changes: dict[str, object] = {"domain_sampling": "proportional"}
    counts = [watched[name] for name in training.watch or training.domains or watched]
    if not _is_defined(train.monitor, counts):
        changes["monitor"] = "logloss_pooled"
    if training.domains is not None and len(training.domains) == 1:
        kept = tuple(one for one in train.objectives if not one.compares_domains)
        changes["objectives"] = kept
    return training.trained_with(**changes)


def _is_defined(monitor: Monitor, counts: Sequence[DomainCount]) -> bool:
    """Whether rows of these counts have a value of the monitor: an AUC needs both classes."""
    if monitor == "auc_pooled":
        both = sum(one.positives for one in counts), sum(one.rows for one in counts)
        return 0 < both[0] < both[1]
    return monitor.startswith("logloss") or any(0 < one.positives < one.rows for one in counts)


def choices(training: Training, rows: int) -> list[Training]:
    """Two batches by two learning rates for a training on ``rows`` train rows.

    The first is the training's own batch (no larger than its rows) and rate. Four of them; two where
    the batch is so small that it cannot be made smaller.
    """
    train = training.train
    batch = min(train.batch_rows, max(2, rows))
    smaller = min(max(MIN_BATCH, rows // SHARE), max(2, batch // 2))
    return [
        training.trained_with(batch_rows=size, lr=lr)
        for size in dict.fromkeys((batch, smaller))
        for lr in (train.lr, train.lr * LOWER_LR)
    ]


def best(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome with the best look by its monitor; the first of equals."""
    return max(outcomes, key=_rank)


def _rank(outcome: Outcome) -> float:
    found = outcome.told.best
    return -found if outcome.training.train.monitor.startswith("logloss") else found
