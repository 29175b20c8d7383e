"""Some images of a split, through one view."""

import numpy as np
from torch.utils.data import DataLoader

from pipeline.data.store import SplitName, Store
from pipeline.input.augment import Indices
from pipeline.input.batches import Batch, Crops, View, view_plans


def sample(images: int, at_most: int) -> Indices:
    """Indices spread evenly over a split of `images`, so that a split sorted by class is sampled in all its parts."""
    count = min(images, at_most)
    return np.arange(count) * images // count


def sample_loader(
    store: Store, split: SplitName, crop_px: int, batch_images: int, view: View, indices: Indices
) -> DataLoader[Batch]:
    """The images of `indices`, in that order, without noise."""
    crops = Crops(store.split(split), store.mean_image, crop_px)
    plans = [plan._replace(images=indices[plan.images]) for plan in view_plans(len(indices), batch_images, view)]
    return DataLoader(crops, sampler=plans, batch_size=None)
