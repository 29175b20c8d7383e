"""Response normalisation (paper section 3.3), exact and several times faster than the formula spelled out.

Each activity a is divided by (k + alpha * sum of a**2 over its neighbours)**beta. Two neighbourhoods occur:
n adjacent maps at the same position (the paper's), and an n x n patch of the same map (a second layer that
only the authors' source has). The sum is symmetric in both, so one analytic gradient serves the two.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WindowSum = Callable[[Tensor], Tensor]
BETA = 0.75  # section 3.3; the power is taken by square roots below, which is why it is a constant


def sum_across_maps(x: Tensor, n: int, columns: int) -> Tensor:
    """Sum over the n maps around each map, as a 1x1 convolution with a band matrix.

    x: (N, C, H, W). Maps of different columns (section 3.2) are no neighbours.
    """
    maps = x.shape[1] // columns
    distance = torch.arange(maps, device=x.device)
    band = ((distance[:, None] - distance[None, :]).abs() <= n // 2).to(x.dtype)
    total: Tensor = F.conv2d(x, band.repeat(columns, 1)[:, :, None, None], groups=columns)
    return total


def sum_within_map(x: Tensor, n: int) -> Tensor:
    """Sum over the n x n patch around each position of the same map, zeros beyond the edge. x: (N, C, H, W)."""
    total: Tensor = F.avg_pool2d(x, n, stride=1, padding=n // 2, divisor_override=1)
    return total


def _to_minus_beta(d: Tensor) -> Tensor:
    """d**-0.75. On CPUs two reciprocal roots take a fifth of the time of a power."""
    r = d.rsqrt()
    return r.rsqrt().mul_(r).mul_(r)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window_sum: WindowSum, k: float, alpha: float) -> Tensor:
        d = window_sum(x * x).mul_(alpha).add_(k)
        ctx.save_for_backward(x, d)
        ctx.window_sum, ctx.alpha = window_sum, alpha
        return _to_minus_beta(d).mul_(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, d = ctx.saved_tensors
        direct = _to_minus_beta(d).mul_(grad)
        shared = ctx.window_sum((direct * x).div_(d))
        return direct.sub_(shared.mul_(x).mul_(2 * ctx.alpha * BETA)), None, None, None


def normalise(x: Tensor, window_sum: WindowSum, k: float, alpha: float) -> Tensor:
    """x / (k + alpha * window_sum(x**2))**beta. x: (N, C, H, W), floating point; window_sum must be symmetric."""
    y: Tensor = _Normalise.apply(x, window_sum, k, alpha)
    return y


class ResponseNorm(nn.Module):
    """Normalisation across n adjacent maps (section 3.3). Input and output: (N, C, H, W), floating point.

    alpha multiplies the plain sum, as the paper prints it; the authors' source divides it by n first.
    """

    def __init__(self, n: int, k: float, alpha: float, columns: int = 1) -> None:
        super().__init__()
        self.n, self.k, self.alpha, self.columns = n, k, alpha, columns

    def forward(self, x: Tensor) -> Tensor:
        return normalise(x, partial(sum_across_maps, n=self.n, columns=self.columns), self.k, self.alpha)

    def extra_repr(self) -> str:
        return f"n={self.n}, k={self.k:g}, alpha={self.alpha:g}, beta={BETA}, columns={self.columns}"


class WithinMapNorm(nn.Module):
    """Normalisation over an n x n patch of the same map: in the authors' source after conv2, never printed."""

    def __init__(self, n: int, k: float, alpha: float) -> None:
        super().__init__()
        self.n, self.k, self.alpha = n, k, alpha

    def forward(self, x: Tensor) -> Tensor:
        return normalise(x, partial(sum_within_map, n=self.n), self.k, self.alpha)

    def extra_repr(self) -> str:
        return f"n={self.n}, k={self.k:g}, alpha={self.alpha:g}, beta={BETA}"
