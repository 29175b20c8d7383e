"""Section 6.1, Figure 3: do the kernels of the first layer's two columns differ in how much they see color?"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data.store import Store
from pipeline.runtime.random_streams import generator

PERMUTATIONS = 10_000


def color_by_column(net: nn.Module, store: Store, seed: int) -> dict[str, Any]:
    """Mean color score of the first layer's kernels, by half: the first is column 1's where the net has columns.

    The statement credits the restricted connectivity, so that a net without columns is its control. `by_chance` is
    what the difference would be if the same kernels were dealt to the columns at random.
    """
    if store.meta.channels == 1:
        return {"reason": "the images are grey"}
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    scores = color_score(first.weight.detach()).cpu().numpy()
    columns = [float(scores[: len(scores) // 2].mean()), float(scores[len(scores) // 2 :].mean())]
    by_chance = _differences_by_chance(scores, seed)
    return {
        "column_1": columns[0],
        "column_2": columns[1],
        "difference": abs(columns[0] - columns[1]),
        "by_chance": {"mean": float(by_chance.mean()), "quantile_95": float(np.quantile(by_chance, 0.95))},
    }


def color_score(kernels: Tensor) -> Tensor:
    """Shard of each kernel's energy that is off the grey axis: 0 where all channels are equal, at most 1.

    kernels: (maps, 3, height, width). Returns (maps,) float64.
    """
    energy = kernels.double().square().sum((1, 2, 3))
    grey = 3 * kernels.double().mean(1).square().sum((1, 2))
    return torch.where(energy > 0, 1 - grey / energy, 0).clamp(min=0)


def _differences_by_chance(scores: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Absolute differences of the halves' means, one for each of PERMUTATIONS random orders of the kernels."""
    dealt = generator("permuted kernels", seed).permuted(np.tile(scores, (PERMUTATIONS, 1)), axis=1)
    half = len(scores) // 2
    differences: NDArray[np.float64] = np.abs(dealt[:, :half].mean(1) - dealt[:, half:].mean(1))
    return differences
