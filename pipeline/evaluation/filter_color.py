"""Section 6.1, Figure 3: do the kernels of the first layer's two columns differ in how much they see color?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.store import Store
from pipeline.runtime.random_streams import generator

PERMUTATIONS = 10_000


def color_by_column(net: nn.Module, store: Store, seed: int) -> dict[str, Any]:
    """Return the mean color score of the first layer's kernels, by half: the halves are the net's two columns.

    The paper's statement credits the restricted connectivity, so a net without columns is its control. `by_chance` is
    the difference that PERMUTATIONS random orders of the same kernels make.
    """
    if store.meta.channels == 1:
        return {"reason": "the images are grey"}
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    scores = color_score(first.weight.detach()).cpu().numpy()
    half = len(scores) // 2
    columns = [float(scores[:half].mean()), float(scores[half:].mean())]
    dealt = generator("permuted kernels", seed).permuted(np.tile(scores, (PERMUTATIONS, 1)), axis=1)
    by_chance = np.abs(dealt[:, :half].mean(1) - dealt[:, half:].mean(1))
    return {
        "column_1": columns[0],
        "column_2": columns[1],
        "difference": abs(columns[0] - columns[1]),
        "by_chance": {"mean": float(by_chance.mean()), "quantile_95": float(np.quantile(by_chance, 0.95))},
    }


def color_score(kernels: Tensor) -> Tensor:
    """Return the share of each kernel's energy that is off the gray axis: 0 if all channels are equal, at most 1.

    kernels: (maps, 3, height, width). Returns (maps,) float64.
    """
    energy = kernels.double().square().sum((1, 2, 3))
    grey = 3 * kernels.double().mean(1).square().sum((1, 2))
    return torch.where(energy > 0, 1 - grey / energy, 0).clamp(min=0)
