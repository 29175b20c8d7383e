"""Response normalization (paper section 3.3), exact and several times faster than the formula spelled out.

Each activity a is divided by (k + alpha * sum of a**2 over its neighbors)**beta. Two neighborhoods occur:
n adjacent maps at the same position (the paper's), and an n x n patch of the same map (a second layer that
only the authors' source has). The sum is symmetric in both, so one analytic gradient serves the two.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WindowSum = Callable[[Tensor], Tensor]
PART_VALUES = 1 << 20  # 4 MB of float32
BETA = 0.75  # section 3.3; the power is taken by square roots below, which is why it is a constant


def sum_across_maps(x: Tensor, n: int, columns: int) -> Tensor:
    """Sum over the n maps around each map, by shifted additions.

    x: (N, C, H, W). Maps of different columns (section 3.2) are no neighbors.
    """
    maps = x.unflatten(1, (columns, -1))
    total = maps.clone()
    for shift in range(1, n // 2 + 1):
        total[:, :, shift:] += maps[:, :, :-shift]
        total[:, :, :-shift] += maps[:, :, shift:]
    flat: Tensor = total.flatten(1, 2)
    return flat


def sum_within_map(x: Tensor, n: int) -> Tensor:
    """Sum over the n x n patch around each position of the same map, zeros beyond the edge. x: (N, C, H, W)."""
    total: Tensor = F.avg_pool2d(x, n, stride=1, padding=n // 2, divisor_override=1)
    return total


def _parts(x: Tensor) -> list[slice]:
    """The batch in pieces whose intermediate results stay in a processor's cache; whole elsewhere, or in a graph."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(None)]
    images = max(1, PART_VALUES // math.prod(x.shape[1:]))
    return [slice(start, start + images) for start in range(0, len(x), images)]


class _Normalize(torch.autograd.Function):
    """With r = d**-0.5 (d: the denominator before its power), d**-0.75 = r**1.5 = r**2 / sqrt(r).

    On CPUs two reciprocal roots take a fifth of the time of a power. x and r are all that the gradient needs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window_sum: WindowSum, k: float, alpha: float) -> Tensor:
        y, r = torch.empty_like(x), torch.empty_like(x)
        for part in _parts(x):
            torch.rsqrt(window_sum(x[part] * x[part]).mul_(alpha).add_(k), out=r[part])
            torch.rsqrt(r[part], out=y[part]).mul_(r[part]).mul_(r[part]).mul_(x[part])
        ctx.save_for_backward(x, r)
        ctx.window_sum, ctx.alpha = window_sum, alpha
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, r = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        for part in _parts(x):
            inverse = r[part] * r[part]
            direct = torch.rsqrt(r[part], out=grad_x[part]).mul_(inverse).mul_(grad[part])
            shared = ctx.window_sum(inverse.mul_(direct).mul_(x[part]))
            direct.addcmul_(shared, x[part], value=-2 * ctx.alpha * BETA)
        return grad_x, None, None, None


def normalize(x: Tensor, window_sum: WindowSum, k: float, alpha: float) -> Tensor:
    """x / (k + alpha * window_sum(x**2))**beta. x: (N, C, H, W), floating point; window_sum must be symmetric."""
    y: Tensor = _Normalize.apply(x, window_sum, k, alpha)
    return y


class ResponseNorm(nn.Module):
    """Normalization across n adjacent maps (section 3.3). Input and output: (N, C, H, W), floating point.

    alpha multiplies the plain sum, as the paper prints it; the authors' source divides it by n first.
    """

    def __init__(self, n: int, k: float, alpha: float, columns: int = 1) -> None:
        super().__init__()
        self.n, self.k, self.alpha, self.columns = n, k, alpha, columns

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x, partial(sum_across_maps, n=self.n, columns=self.columns), self.k, self.alpha)

    def extra_repr(self) -> str:
        return f"n={self.n}, k={self.k:g}, alpha={self.alpha:g}, beta={BETA}, columns={self.columns}"


class WithinMapNorm(nn.Module):
    """Normalization over an n x n patch of the same map: in the authors' source after conv2, never printed."""

    def __init__(self, n: int, k: float, alpha: float) -> None:
        super().__init__()
        self.n, self.k, self.alpha = n, k, alpha

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x, partial(sum_within_map, n=self.n), self.k, self.alpha)

    def extra_repr(self) -> str:
        return f"n={self.n}, k={self.k:g}, alpha={self.alpha:g}, beta={BETA}"
