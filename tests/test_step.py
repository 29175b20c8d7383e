"""A step of training: its update rule against the paper's formula, its running errors against torchmetrics'."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.classification import MulticlassAccuracy

from pipeline.models.alexnet import build
from pipeline.training.module import RunningMetrics
from pipeline.training.optimizer import PaperSGD, optimizer
from tests.tiny import settings

MOMENTUM, DECAY = 0.9, 0.0005  # section 5
RATES = [0.01] * 4 + [0.001] * 4  # a drop half-way


def gradient_at(w: np.ndarray) -> np.ndarray:
    return np.array([3.0, -0.5]) * w + 0.1


def the_papers_weights() -> np.ndarray:
    """Section 5, step by step in float64."""
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    for lr in RATES:
        v = MOMENTUM * v - DECAY * lr * w - lr * gradient_at(w)
        w = w + v
    return w


def weights_after(make: type[torch.optim.Optimizer]) -> np.ndarray:
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = make([w], lr=RATES[0], momentum=MOMENTUM, weight_decay=DECAY)  # type: ignore[call-arg]
    for lr in RATES:
        optimizer.param_groups[0]["lr"] = lr
        w.grad = torch.from_numpy(gradient_at(w.detach().numpy()))
        optimizer.step()
    return w.detach().numpy()


def test_it_is_the_papers_rule_also_across_a_drop_of_the_rate() -> None:
    np.testing.assert_allclose(weights_after(PaperSGD), the_papers_weights(), rtol=1e-14)


def test_it_takes_the_same_steps_on_kernels_that_lie_channels_last() -> None:
    torch.manual_seed(0)
    w = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    x = torch.randn(2, 3, 9, 9)
    optimizer = PaperSGD([w], lr=RATES[0], momentum=MOMENTUM, weight_decay=DECAY)
    expected, v = w.detach().double(), torch.zeros(4, 3, 5, 5, dtype=torch.float64)
    for lr in RATES:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        torch.nn.functional.conv2d(x, w).square().mean().backward()
        assert w.grad is not None
        v = MOMENTUM * v - DECAY * lr * expected - lr * w.grad.double()
        expected = expected + v
        optimizer.step()
    torch.testing.assert_close(w.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_without_momentum_it_is_plain_gradient_descent_with_decay() -> None:
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    w.grad = torch.tensor([0.5, 0.25], dtype=torch.float64)
    PaperSGD([w], lr=0.1, momentum=0.0, weight_decay=0.01).step()
    np.testing.assert_allclose(w.detach(), [1 - 0.1 * (0.5 + 0.01), -2 - 0.1 * (0.25 - 0.02)], rtol=1e-14)


def test_torchs_sgd_is_another_rule_once_the_rate_has_dropped() -> None:
    assert np.abs(weights_after(torch.optim.SGD) - the_papers_weights()).max() > 1e-3


@pytest.mark.parametrize(("reading", "lr", "decay"), [("printed", 0.01, DECAY), ("coded", 0.02, 0.0)])
def test_biases_follow_the_reading_of_the_recipe(reading: str, lr: float, decay: float) -> None:
    chosen = settings(recipe={"bias_rule": reading})
    weights, biases = optimizer(build(chosen, classes=4), chosen).param_groups
    assert (weights["lr"], weights["weight_decay"]) == (0.01, DECAY)
    assert (biases["lr"], biases["weight_decay"]) == (lr, decay)
    assert all(p.ndim == 1 for p in biases["params"])
    assert all(p.ndim > 1 for p in weights["params"])


CLASSES = 12


def test_the_tally_of_unequal_batches_is_what_torchmetrics_counts() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(50, CLASSES), torch.randint(CLASSES, (50,))
    logits[torch.arange(50), labels] += 1.5
    tally = RunningMetrics()
    for part in (slice(0, 32), slice(32, 50)):
        tally.add(F.cross_entropy(logits[part], labels[part]), logits[part], labels[part])
    means = tally.means()
    for k in (1, 5):
        accuracy = MulticlassAccuracy(CLASSES, top_k=k, average="micro")(logits, labels)
        assert 0 < means[f"error_top{k}"] < 90
        torch.testing.assert_close(means[f"error_top{k}"], 100 - 100 * float(accuracy), rtol=1e-5, atol=0)
    torch.testing.assert_close(means["loss"], float(F.cross_entropy(logits, labels)), rtol=1e-5, atol=0)


def test_a_net_that_says_nothing_is_wrong() -> None:
    labels = torch.arange(CLASSES)
    for logits in (torch.zeros(CLASSES, CLASSES), torch.full((CLASSES, CLASSES), torch.nan)):
        tally = RunningMetrics()
        tally.add(F.cross_entropy(logits, labels), logits, labels)
        assert (tally.means()["error_top1"], tally.means()["error_top5"]) == (100, 100)
