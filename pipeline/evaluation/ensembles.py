"""Table 2: the error of the mean prediction of several nets that differ only in their seeds."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any

import torch
from torch import Tensor

from pipeline.evaluation.predict import rank_of_label

MOST_SUBSETS = 35  # all of three or four nets out of seven


def ensemble_errors(probabilities: Mapping[int, Tensor], labels: Tensor) -> dict[str, Any]:
    """Return the top-1 and top-5 error in % by the number of nets: mean, lowest and highest over subsets of seeds.

    probabilities: by seed, (N, classes) float32; seven nets of ImageNet's 50,000 test images hold 1.4 GB.
    """
    found: dict[str, Any] = {}
    for size in range(1, len(probabilities) + 1):
        chosen = subsets(list(probabilities), size)
        ranks = []
        for seeds in chosen:
            total = torch.zeros_like(probabilities[seeds[0]])
            for seed in seeds:
                total += probabilities[seed]
            ranks.append(rank_of_label(total / size, labels))
        found[str(size)] = {"ensembles": len(chosen)}
        for k in (1, 5):
            errors = [100 * float((rank >= k).double().mean()) for rank in ranks]
            found[str(size)][f"error_top{k}"] = {
                "mean": sum(errors) / len(errors),
                "min": min(errors),
                "max": max(errors),
            }
    return found


def subsets(seeds: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Return all subsets of a size. Of more than MOST_SUBSETS, return those of successive seeds: all weigh the same."""
    if comb(len(seeds), size) <= MOST_SUBSETS:
        return list(combinations(seeds, size))
    ring = [*seeds, *seeds]
    return [tuple(ring[start : start + size]) for start in range(len(seeds))]
