"""The paper's update rule (section 5), which torch's SGD is not once the learning rate changes.

    v <- momentum * v - weight_decay * lr * w - lr * gradient
    w <- w + v

Here the rate scales what enters the velocity; torch's SGD scales the velocity as it leaves, so that a drop of
the rate also shrinks the steps still under way. With its rate held at 1 and the paper's entering through its
dampening (1 - lr, from a velocity of zero) torch's fused kernel takes the paper's steps, in one pass over memory.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from pipeline.paper import recipe as paper
from pipeline.paper.small_nets import small_nets
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
            # without momentum there is no velocity to dampen
            rate, dampening = (1.0, 1 - lr) if group["momentum"] else (lr, 0.0)
            sgd(
                weights,
                gradients,
                [self._buffer(w) for w in weights],
                fused=True,
                lr=rate,
                dampening=dampening,
                momentum=group["momentum"],
                weight_decay=group["weight_decay"],
                nesterov=False,
                maximize=False,
            )
        return loss

    def _buffer(self, w: Tensor) -> Tensor:
        """Minus the paper's velocity."""
        state = self.state[w]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(w)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The rule for `model`, weights in the first group (the rate that is reported is theirs)."""
    train = settings.train
    groups = _groups(model, settings)
    if train.optimizer == "adam":
        return torch.optim.Adam(groups, train.lr, fused=True)
    return PaperSGD(groups, train.lr, train.momentum, train.weight_decay)


def _groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Weights of equal decay together, then the biases, which the source treats apart."""
    train, bias = settings.train, paper.item(settings.recipe, "bias_rule")
    table = small_nets().get(settings.net.architecture)
    factors = {layer.name: layer.decay for layer in table.layers} if table else {}
    by_factor: dict[float, list[nn.Parameter]] = {}
    biases = []
    for name, parameter in model.named_parameters():
        layer, kind = name.rsplit(".", 1)
        if kind == "bias":
            biases.append(parameter)
        else:
            by_factor.setdefault(factors.get(layer, 1.0), []).append(parameter)
    weights = [{"params": same, "weight_decay": train.weight_decay * factor} for factor, same in by_factor.items()]
    decay = train.weight_decay if bias.decays else 0.0
    return [*weights, {"params": biases, "lr": train.lr * bias.lr_factor, "weight_decay": decay}]
