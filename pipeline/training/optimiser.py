"""The paper's update rule (section 5), which torch's SGD is not once the learning rate changes.

    v <- momentum * v - weight_decay * lr * w - lr * gradient
    w <- w + v

Here the rate scales what enters the velocity; torch's SGD scales the velocity as it leaves, so that a drop of
the rate also shrinks the steps still under way.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.paper import recipe as paper
from pipeline.params import Settings


class PaperSGD(torch.optim.Optimizer):
    """Parameter groups: lr, momentum, weight_decay. Gradients are means over the batch."""

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr = group["lr"]
            weights: list[Tensor] = [w for w in group["params"] if w.grad is not None]
            gradients: list[Tensor] = [w.grad for w in weights if w.grad is not None]
            if not weights:
                continue
            velocities = [self._velocity(w) for w in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            if group["weight_decay"]:
                torch._foreach_add_(velocities, weights, alpha=-lr * group["weight_decay"])
            torch._foreach_add_(velocities, gradients, alpha=-lr)
            torch._foreach_add_(weights, velocities)
        return loss

    def _velocity(self, w: Tensor) -> Tensor:
        state = self.state[w]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(w)
        velocity: Tensor = state["velocity"]
        return velocity


def paper_sgd(model: nn.Module, settings: Settings) -> PaperSGD:
    """The rule for `model`, weights in the first group, biases in the second (which the source treats apart)."""
    train, bias = settings.train, paper.item(settings.recipe, "bias_rule")
    named = list(model.named_parameters())
    weights = {"params": [p for name, p in named if not name.endswith("bias")]}
    biases = {
        "params": [p for name, p in named if name.endswith("bias")],
        "lr": train.lr * bias.lr_factor,
        "weight_decay": train.weight_decay if bias.decays else 0.0,
    }
    return PaperSGD([weights, biases], train.lr, train.momentum, train.weight_decay)
