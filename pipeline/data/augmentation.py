"""The paper's augmentation (section 4.1), drawn for a whole epoch at once.

Every draw is a function of (seed, epoch, index of the image): neither the batch's size nor an interruption nor the
number of processes changes what an image looks like in an epoch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.random_streams import generator

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """What happens to each image of the split, in the split's order."""

    top: Indices  # offset of the crop, pixels
    left: Indices
    mirror: NDArray[np.bool_]
    color: NDArray[np.float32]  # N x 3, grey levels added to red, green and blue


def draw(
    seed: int, epoch: int, images: int, margin_px: int, rgb_axes: NDArray[np.float64], sigma: float
) -> tuple[Indices, Draws]:
    """The order in which an epoch shows the images, and what happens to each.

    margin_px: canvas side minus crop side; offsets run from 0 to it, inclusive. rgb_axes: 3 x 3, the covariance's
    eigenvectors (columns), each times its standard deviation. The paper prints eigenvalues there, which on grey
    levels of 0-255 would leave nothing of the image; the authors' source uses standard deviations, and so do we.
    """
    rng = generator("augmentation", seed, epoch)
    order = rng.permutation(images)
    top, left = rng.integers(0, margin_px + 1, (2, images))
    mirror = rng.random(images) < 0.5
    color = (sigma * rng.standard_normal((images, 3)) @ rgb_axes.T).astype(np.float32)
    return order, Draws(top, left, mirror, color)


def shared_crops(batch: Indices, chunk: int) -> Indices:
    """For each image of `batch`, the image whose crop and mirroring it takes: the first of its chunk."""
    return batch[np.arange(len(batch)) // chunk * chunk]
