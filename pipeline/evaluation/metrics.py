"""Error rates from predictions, and which seed stands for its variant."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.data.store import SplitName

Metrics = dict[str, float]
PROBABILITY_TOLERANCE = 1e-4  # of sums of ten views in single precision


def metrics(predictions: pd.DataFrame) -> Metrics:
    """Return the top-1 and top-5 error in percent, and the mean negative log likelihood in nats.

    Raises ValueError where a rank or a probability is missing or impossible.
    """
    p_label, rank = (predictions[name].to_numpy(dtype=float) for name in ("p_label", "rank"))
    if not ((rank >= 0) & (p_label >= 0) & (p_label <= 1 + PROBABILITY_TOLERANCE)).all():
        raise ValueError("a prediction has no rank, or a probability that is not a number from 0 to 1")
    return {
        "error_top1": 100 * float((rank >= 1).mean()),
        "error_top5": 100 * float((rank >= 5).mean()),
        "loss": float(-np.log(np.maximum(p_label, np.finfo(np.float32).tiny)).mean()),
    }


def mean_of(trees: Sequence[Mapping[SplitName, dict[str, Metrics]]]) -> dict[SplitName, dict[str, Metrics]]:
    """Return the mean over seeds of metrics nested as split, views, metric, to the four decimals that DVC shows."""
    first = trees[0] if trees else {}
    return {
        split: {
            views: {name: round(sum(tree[split][views][name] for tree in trees) / len(trees), 4) for name in values}
            for views, values in by_views.items()
        }
        for split, by_views in first.items()
    }


def median_seed(errors: Mapping[int, float]) -> int | None:
    """Return the seed with the middle validation error: the better of two middle ones, the first of equal ones."""
    ranked = sorted(errors, key=lambda seed: (errors[seed], seed))
    return ranked[(len(ranked) - 1) // 2] if ranked else None
