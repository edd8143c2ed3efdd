"""A fair opponent: what a training on some rows may choose from, and when it may stop."""

from isthmus.experiments.training import Training

MAX_EPOCHS = 200  # patience stops a training, not this
MIN_LOOKS = 4  # an epoch, at the validation rows
LOWER_LR = 0.3  # of the config's learning rate
MIN_BATCH = 32
SHARE = 50  # a small domain's epoch has about so many steps


def choices(training: Training, rows: int) -> list[Training]:
    """Two batches by two learning rates for a training on ``rows`` train rows.

    The first is the training's own batch (no larger than its rows) and rate. Four of them; two where
    the batch is so small that it cannot be made smaller.
    """
    train = training.train
    batch = min(train.batch_rows, max(2, rows))
    smaller = min(max(MIN_BATCH, rows // SHARE), max(2, batch // 2))
    return [
        training.with_recipe(batch_rows=size, lr=lr)
        for size in dict.fromkeys((batch, smaller))
        for lr in (train.lr, train.lr * LOWER_LR)
    ]
