"""The ``train`` section of a config."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from isthmus.objectives import ObjectiveConfig
from isthmus.schema import Section
from isthmus.sharding import TablesChoice
from isthmus.train.methods import JointConfig, MethodConfig, PriorityConfig
from isthmus.train.scoring import Monitor
from isthmus.train.weighting import WeightingName

Precision = Literal["float32", "bfloat16"]
Exponent = Annotated[float, Field(ge=0, le=1)]


class TrainConfig(Section):
    """The ``train`` section.

    - ``embedding_l2``: strength of the L2 penalty on embedding tables.
    - ``embedding_update``: ``dense`` moves every row of a table at each step, ``lazy`` only the rows
      in the batch; ``auto`` is lazy above one million rows of table.
    - ``looks_per_epoch``: how often an epoch is interrupted to score the validation rows, evenly;
      the last look stands at its end. An epoch with fewer steps has a look at each.
    - ``monitor``: the validation metric that decides which look is the best.
    - ``tables``: where several processes train, ``replicated`` keeps every embedding table on each of
      them, ``sharded`` deals the rows out; ``auto`` is sharded where all tables with their moments
      take above 4 GiB.
    - ``patience``: training stops after so many epochs' worth of looks, ``patience *
      looks_per_epoch``, without a better one. Whatever stops it, the best look's weights come back.
    - ``domain_sampling``: domains are drawn in proportion to ``rows ** exponent``; ``proportional``
      is 1, ``uniform`` 0; ``{name: priority}`` lets those that lag come more often, see
      `isthmus.train.methods.priority`.
    - ``weighting``: how the domains' losses make one gradient; see `isthmus.train.weighting`.
    - ``objectives``: losses beside that of the rows, read from hidden states; see
      `isthmus.objectives`.
    - ``method``: which batches come, what is trained, and what happens between steps; see
      `isthmus.train.methods`.
    - ``domain_dropout``: share of train rows whose domain is hidden: it trains the unknown domain.
    - ``clip_norm``: largest norm of the whole gradient; none by default.
    - ``compile``: run the training step through torch.compile.
    - ``precision``: of the products in the network's forward and backward pass. ``bfloat16`` computes
      them in half the bits; weights, norms, loss, optimiser and looks stay in float32.
    - ``checkpoint_minutes``: time between two checkpoints; 0 asks for one after every step.
    - ``device``: ``auto`` takes a GPU when there is one.
    """

    model_config = ConfigDict(defer_build=True)  # members of other packages are found at first use

    batch_rows: int = Field(default=4096, ge=2)
    epochs: int = Field(default=20, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    embedding_l2: float = Field(default=5e-5, ge=0)
    embedding_update: Literal["auto", "dense", "lazy"] = "auto"
    tables: TablesChoice = "auto"
    patience: int = Field(default=2, ge=1)
    looks_per_epoch: int = Field(default=4, ge=1)
    monitor: Monitor = "auc_pooled"
    seed: int = Field(default=0, ge=0)
    domain_sampling: Literal["proportional", "uniform"] | Exponent | PriorityConfig = "proportional"
    weighting: WeightingName = "proportional"
    objectives: tuple[ObjectiveConfig, ...] = ()
    method: MethodConfig = Field(default_factory=JointConfig)
    domain_dropout: float = Field(default=0.02, ge=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)
    compile: bool = False
    precision: Precision = "float32"
    checkpoint_minutes: float = Field(default=5.0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def reads_unlabelled(self) -> bool:
        """Whether an objective learns from rows without a label."""
        return any(one.reads_unlabelled and one.weight for one in self.objectives)
