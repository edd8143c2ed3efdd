"""What a training has seen of itself: its losses since the last look, its looks, its best weights."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from isthmus.errors import RunError
from isthmus.train.events import Look, TrainState
from isthmus.train.scoring import Monitor

TOLD = "told "  # before the names of what a model tells, among the sums of losses


class Record:
    """Losses and looks of one training. The losses wait for the device only when they are read."""

    def __init__(self, monitor: Monitor, device: torch.device) -> None:
        self.monitor, self.device = monitor, device
        self.history: tuple[Look, ...] = ()
        self.best_look: Look | None = None  # of the phase under way
        self.best: dict[str, Tensor] = {}
        self.stale_looks = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.loss_sums: dict[str, Tensor] = {}
        self.loss_steps = 0

    def add(self, loss: Tensor, losses: Mapping[str, Tensor], told: Mapping[str, Tensor]) -> None:
        """Count the losses of a step, and what the model told beside."""
        self.loss_sum += loss
        more = {f"{TOLD}{name}": value for name, value in told.items()}
        for name, one in {**losses, **more}.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0) + one.detach().double()
        self.loss_steps += 1

    def loss(self, step: int) -> float:
        """Mean loss of the rows since the last look. Raises RunError where it is not finite."""
        return self._finite("the training loss", self.loss_sum, step)

    def losses(self, step: int) -> dict[str, float]:
        """Means likewise, of the objectives and of the model's own losses by name."""
        return {
            name: self._finite(f"the loss {name!r}", total, step)
            for name, total in self.loss_sums.items()
            if not name.startswith(TOLD)
        }

    def told(self, step: int) -> dict[str, float]:
        """Means likewise, of what the model told by name."""
        told = {
            name.removeprefix(TOLD): total
            for name, total in self.loss_sums.items()
            if name.startswith(TOLD)
        }
        return {n: self._finite(f"{n!r}, told by the model,", s, step) for n, s in told.items()}

    def _finite(self, what: str, total: Tensor, step: int) -> float:
        loss = total.item() / max(self.loss_steps, 1)
        if not math.isfinite(loss):
            raise RunError(
                f"{what} must stay finite, got {loss} by step {step};"
                " a lower train.lr or a train.clip_norm may help"
            )
        return loss

    def is_better(self, metrics: Mapping[str, float | None]) -> bool:
        """Whether a look with these metrics would be the best of its phase; a tie is not."""
        if self.best_look is None:
            return True
        now, best = metrics[self.monitor], self.best_look.metrics[self.monitor]
        assert now is not None  # defined by the labels alone, which were checked at the start
        assert best is not None
        return now < best if self.monitor.startswith("logloss") else now > best

    def keep(self, look: Look, model: nn.Module) -> None:
        """Keep a look, and the weights of ``model`` where it is the best; losses begin at 0 again."""
        self.history += (look,)
        self.stale_looks += 1
        if look.better:
            self.stale_looks = 0
            self.best_look = look
            for name, tensor in model.state_dict().items():
                if name in self.best:
                    self.best[name].copy_(tensor)
                else:
                    self.best[name] = tensor.detach().clone()
        self.loss_sum.zero_()
        self.loss_sums = {}
        self.loss_steps = 0

    def begin_phase(self) -> Look:
        """Forget which look was the best, whose weights stay; give that look."""
        assert self.best_look is not None  # each phase has a look at its end
        last, self.best_look = self.best_look, None
        self.stale_looks = 0
        return last

    def restore(self, state: TrainState) -> None:
        """Take back what a state holds; the tensors are copied."""
        self.best = {name: tensor.to(self.device, copy=True) for name, tensor in state.best.items()}
        self.loss_sums = {
            name: total.to(self.device, copy=True) for name, total in state.loss_sums.items()
        }
        self.loss_sum.copy_(state.loss_sum)
        self.loss_steps = state.loss_steps
        self.history = state.history
        self.best_look = next((look for look in reversed(state.history) if look.better), None)
        self.stale_looks = state.stale_looks
