"""Table 2: error of the mean prediction of several nets that differ in their seed alone."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any

import torch
from torch import Tensor

from pipeline.evaluation.predict import rank_of_label

MOST_SUBSETS = 35  # all of three or four nets out of seven


def ensemble_errors(probabilities: Mapping[int, Tensor], labels: Tensor) -> dict[str, Any]:
    """Top-1 and top-5 error in % by the number of nets: mean, lowest and highest over the subsets of seeds.

    probabilities: by seed, (N, classes) float32; seven nets of ImageNet's 50,000 test images hold 1.4 GB.
    """
    found: dict[str, Any] = {}
    for size in range(1, len(probabilities) + 1):
        chosen = subsets(list(probabilities), size)
        ranks = [rank_of_label(_mean([probabilities[seed] for seed in seeds]), labels) for seeds in chosen]
        errors = {
            f"error_top{k}": _spread([100 * float((rank >= k).double().mean()) for rank in ranks]) for k in (1, 5)
        }
        found[str(size)] = {"ensembles": len(chosen), **errors}
    return found


def subsets(seeds: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """All of a size; of more than MOST_SUBSETS those of successive seeds, in which each is equally often."""
    if comb(len(seeds), size) <= MOST_SUBSETS:
        return list(combinations(seeds, size))
    ring = [*seeds, *seeds]
    return [tuple(ring[start : start + size]) for start in range(len(seeds))]


def _mean(probabilities: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(probabilities[0])
    for one in probabilities:
        total += one
    return total / len(probabilities)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}
