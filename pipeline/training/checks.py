"""Exact statements of the paper, checked on the very code that trains."""

import torch

from pipeline.training.optimizer import PaperSGD

MOMENTUM, DECAY = 0.9, 0.0005  # section 5


def update_rule_holds() -> bool:
    """Whether PaperSGD takes the steps of section 5, in float64 and across a drop of the learning rate."""
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    optimizer = PaperSGD([w], 0.01, MOMENTUM, DECAY)
    expected, v = w.detach().clone(), torch.zeros(3, dtype=torch.float64)
    for lr in (0.01, 0.01, 0.01, 0.001, 0.001):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = torch.sin(w.detach())
        v = MOMENTUM * v - DECAY * lr * expected - lr * torch.sin(expected)
        expected = expected + v
        optimizer.step()
    return torch.allclose(w.detach(), expected, rtol=1e-14, atol=0)
