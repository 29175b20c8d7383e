"""What an ingredient gains, where each seed gives one number for each image: paired over both, both drawn at random.

The difference on image i between the two nets of seed s is d_si = mu + S_s + I_i + E_si. Other seeds would have given
other nets, and other test images other images on which one arm is better: the interval allows for both. How, says
margins.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.claims.effects import Effect, interval_over_seeds

PER_CENT = 100.0


@dataclass(frozen=True)
class MeanSquares:
    """Of a two-way analysis of variance without replication, seeds × images."""

    seeds: float
    images: float
    residual: float


def mean_squares(differences: np.ndarray) -> MeanSquares:
    """`differences` (seeds, images), two of each at least."""
    n, m = differences.shape
    seeds, images = (float(differences.mean(axis).var(ddof=1)) for axis in (1, 0))
    total = float(np.einsum("si,si->", differences, differences)) - differences.size * float(differences.mean()) ** 2
    rest = total - (n - 1) * m * seeds - (m - 1) * n * images
    return MeanSquares(m * seeds, n * images, max(0.0, rest) / ((n - 1) * (m - 1)))


def image_variance(differences: np.ndarray) -> float:
    """The part of the variance of the mean of `differences` (seeds, images) that comes from the choice of images."""
    found = mean_squares(differences)
    return max(0.0, found.images - found.residual) / differences.size


def crossed_effect(parts: Sequence[np.ndarray]) -> Effect:
    """The sum of the means of the parts, each (seeds, images of its own), the same seeds in the same order.

    One part, control minus treatment, is an effect on one split. Overfitting has two: the differences on test images,
    and minus those on training images. A seed with a NaN in any part is left out and counted.
    """
    complete = np.logical_and.reduce([np.isfinite(part).all(1) for part in parts])
    kept = [np.asarray(part, float)[complete] for part in parts]
    by_seed = np.sum([part.mean(1) for part in kept], axis=0)
    variance = sum(map(image_variance, kept)) if by_seed.size > 1 else 0.0
    interval = interval_over_seeds(by_seed, variance)
    return Effect(
        interval=interval,
        sd=interval.sd,
        left_out=int((~complete).sum()),
        image_variance=variance,
    )


def errors_by_seed(
    predictions: pd.DataFrame, seeds: Sequence[int], *, split: str, views: str = "one_crop", top: int = 1
) -> np.ndarray:
    """Top-1 (or top-5) error on each image, 0 or 100 %: (seeds, images) in the images' order.

    `predictions` has the columns seed, split, views, index, rank. A seed that is not in it gives a row of NaN, and no
    seed at all one column of them.
    """
    nothing = np.full((len(seeds), 1), np.nan)
    if predictions.empty:
        return nothing
    chosen = predictions[(predictions["split"] == split) & (predictions["views"] == views)]
    if chosen.empty:
        return nothing
    table = chosen.pivot(index="seed", columns="index", values="rank")  # noqa: PD010 (raises where an image is twice)
    ranks = table.reindex(list(seeds)).to_numpy(float)
    if (ranks < 0).any():  # a rank that NaN had once
        raise ValueError("a rank is below 0")
    return np.where(np.isnan(ranks), np.nan, PER_CENT * (ranks >= top))
