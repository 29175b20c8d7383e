"""Some images of a split, through one view."""

from collections.abc import Iterator

import numpy as np
import torch

from pipeline.data.augmentation import Indices
from pipeline.data.loader import Batch, CropDataset, Preprocess, View, view_plans
from pipeline.data.store import SplitName, Store


def sample(images: int, at_most: int) -> Indices:
    """Indices spread evenly over a split of `images`, so that a split sorted by class is sampled in all its parts."""
    count = min(images, at_most)
    return np.arange(count) * images // count


def sample_batches(
    store: Store, split: SplitName, crop_px: int, batch_images: int, view: View, device: torch.device, indices: Indices
) -> Iterator[Batch]:
    """The images of `indices`, in that order, without noise, on `device`; labels on the CPU."""
    cuts, finish = CropDataset(store.split(split), crop_px), Preprocess(store.mean_image, crop_px)
    for plan in view_plans(len(indices), batch_images, view):
        cut = cuts[plan._replace(images=indices[plan.images])]
        yield finish(cut.to(device))[0], cut.labels
