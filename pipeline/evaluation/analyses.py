"""What the paper says about trained nets beyond their errors: sections 4.2 and 6.1, under the claims' names."""

import math
from typing import Any

from torch import nn

from pipeline.data.store import Store
from pipeline.evaluation.dropout_ensemble import halved_against_thinned
from pipeline.evaluation.filter_color import color_by_column
from pipeline.evaluation.nearest_neighbors import nearest_training_images
from pipeline.evaluation.off_center import error_when_shifted

DECIMALS = 4


def analyze(net: nn.Sequential, store: Store, crop_px: int, seed: int, batch_images: int) -> dict[str, Any]:
    """One net's results by claim. What cannot be measured on it holds a `reason` and nothing else."""
    return {
        "nn_4096": nearest_training_images(net, store, crop_px, batch_images),
        "off_centre": error_when_shifted(net, store, crop_px, batch_images),
        "dropout_test_half": halved_against_thinned(net, store, crop_px, seed, batch_images),
        "gpu_specialisation": color_by_column(net, store, seed),
    }


def rounded(tree: Any) -> Any:
    """The tree with its floats to DECIMALS, so that the file's bytes do not hang on the last bits.

    Raises ValueError at one that is not a number.
    """
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        raise ValueError("an analysis came to what is not a number")
    return round(tree, DECIMALS) if isinstance(tree, float) else tree
