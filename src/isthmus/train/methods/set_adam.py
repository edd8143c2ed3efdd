"""Adam on one domain's set of every bank, as if each domain had an optimiser of its own.

Source: Kingma and Ba, Adam, ICLR 2015, arXiv:1412.6980, algorithm 1, with the numbers of
`isthmus.optimisers`. The dense form would move the sets of all domains by what is left of their momentum.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from isthmus.optimisers import BETAS, EPS


class SetAdam:
    """Adam on parameters whose first axis counts domains, one domain a step.

    ``parameters``: by name, each (sets, ...). Each domain counts its own steps.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, sets: int, lr: float) -> None:
        self.parameters, self.lr = dict(parameters), lr
        self.first = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.second = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.steps = torch.zeros(sets)  # (sets,) float32, on the CPU: nobody waits for a device

    @torch.no_grad()
    def step(self, domain: int) -> None:
        """Move the domain's set by its gradient, and drop all gradients."""
        moved = {name: p for name, p in self.parameters.items() if p.grad is not None}
        if moved:
            done = self.steps[domain].item()
            some = next(iter(moved.values()))
            adam(
                [parameter.detach()[domain] for parameter in moved.values()],
                [
                    parameter.grad[domain]
                    for parameter in moved.values()
                    if parameter.grad is not None
                ],
                [self.first[name][domain] for name in moved],
                [self.second[name][domain] for name in moved],
                [],
                [torch.tensor(done, device=some.device) for _ in moved],
                fused=True,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=self.lr,
                weight_decay=0.0,
                eps=EPS,
                maximize=False,
            )
            self.steps[domain] += 1
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and step counts; the tensors are living ones."""
        moments = {f"first.{name}": m for name, m in self.first.items()}
        moments |= {f"second.{name}": m for name, m in self.second.items()}
        return {**moments, "steps": self.steps} if moments else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave; the tensors are copied."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
