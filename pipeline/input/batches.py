"""Whole batches, cut from the memory map in one go: crops, mirrors, colour noise, minus the mean image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.data.store import Split, SplitName, Store
from pipeline.input.augment import Indices, crop_leaders, draw
from pipeline.paper import recipe as paper
from pipeline.params import Settings

Batch = tuple[Tensor, Tensor]  # (N, 3 or, where all are grey, 1, crop, crop) float32 and (N,) int64


class Plan(NamedTuple):
    """One batch to be cut: which images, and from where in each."""

    images: Indices
    top: Indices
    left: Indices
    mirror: NDArray[np.bool_]
    colour: NDArray[np.float32] | None  # N x 3
    divisor: float


class Share(NamedTuple):
    """Which part of each batch a process cuts, where several train one net: the rank-th of `size` equal ones."""

    rank: int = 0
    size: int = 1

    def rows(self, images: int) -> slice:
        """Of a batch of so many. Parts differ by one image where it cannot be divided, and may be empty."""
        return slice(images * self.rank // self.size, images * (self.rank + 1) // self.size)

    def of(self, plan: Plan) -> Plan:
        rows = self.rows(len(plan.images))
        colour = None if plan.colour is None else plan.colour[rows]
        return Plan(plan.images[rows], plan.top[rows], plan.left[rows], plan.mirror[rows], colour, plan.divisor)


WHOLE = Share()


class Crops(Dataset[Batch]):
    """A split from which batches are cut by a plan."""

    def __init__(self, split: Split, mean_image: NDArray[np.float32], crop_px: int) -> None:
        self._labels = torch.from_numpy(np.asarray(split.labels))
        self._windows = sliding_window_view(split.images, (crop_px, crop_px), axis=(1, 2))  # (N, y, x, C, crop, crop)
        self._mean_windows = sliding_window_view(mean_image, (crop_px, crop_px), axis=(0, 1))  # (y, x, C, crop, crop)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, plan: Plan) -> Batch:
        pixels = self._windows[plan.images, plan.top, plan.left]  # (N, C, crop, crop) uint8, a copy
        means = self._mean_windows[plan.top, plan.left]
        x = torch.from_numpy(pixels).float().sub_(torch.from_numpy(means))
        mirrored = torch.from_numpy(plan.mirror)
        if mirrored.any():
            x[mirrored] = x[mirrored].flip(3)
        if plan.colour is not None:
            colour = plan.colour[:, : x.shape[1]]  # grey pixels lie on the grey axis: all three numbers are equal
            x = (x + torch.from_numpy(colour)[:, :, None, None]).div_(plan.divisor)
        return x.contiguous(memory_format=torch.channels_last), self._labels[torch.from_numpy(plan.images)]


class Epochs(Sampler[Plan]):
    """The training batches of one epoch after another; Lightning names the epoch by `set_epoch`.

    They are the same whatever the number of processes; each cuts its share of every one.
    """

    def __init__(self, store: Store, settings: Settings, seed: int, share: Share = WHOLE) -> None:
        self._settings, self._seed, self._epoch = settings, seed, 0
        self.share = share
        self._images = store.meta.counts["train"]
        self._margin_px = store.meta.canvas_px - settings.net.crop_px
        self._rgb_axes = np.asarray(store.meta.rgb_eigenvectors) * np.asarray(store.meta.rgb_std)
        self._chunk = paper.item(settings.recipe, "crop_sharing")
        self._noise = paper.item(settings.recipe, "colour_noise")

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._images // self._settings.train.batch_images)

    def images_of(self, batch_index: int) -> int:
        """In the whole batch. The last one may be smaller."""
        batch_images = self._settings.train.batch_images
        return min(batch_images, self._images - batch_index * batch_images)

    def __iter__(self) -> Iterator[Plan]:
        train = self._settings.train
        order, draws = draw(self._seed, self._epoch, self._images, self._margin_px, self._rgb_axes, train.colour_sigma)
        noisy = train.colour_sigma > 0 and self._epoch < self._noise.until * train.epochs
        for start in range(0, self._images, train.batch_images):
            batch = order[start : start + train.batch_images]
            leaders = crop_leaders(batch, self._chunk)
            top, left = draws.top[leaders], draws.left[leaders]
            if not train.crops:
                top = left = np.full_like(batch, self._margin_px // 2)
            mirror = draws.mirror[leaders] & train.mirror
            colour = draws.colour[batch] if noisy else None
            yield self.share.of(Plan(batch, top, left, mirror, colour, self._noise.divisor))


@dataclass(frozen=True)
class View:
    """One of the crops that a test image is seen through (section 4.1). Offsets in pixels."""

    top: int
    left: int
    mirror: bool


def one_crop(canvas_px: int, crop_px: int) -> list[View]:
    centre = (canvas_px - crop_px) // 2
    return [View(centre, centre, False)]


def ten_crops(canvas_px: int, crop_px: int) -> list[View]:
    """Four corners and the centre, and their mirror images."""
    end, centre = canvas_px - crop_px, (canvas_px - crop_px) // 2
    corners = [(0, 0), (0, end), (end, 0), (end, end), (centre, centre)]
    return [View(top, left, mirror) for mirror in (False, True) for top, left in corners]


def view_plans(images: int, batch_images: int, view: View) -> list[Plan]:
    """All images in their order, through one view, without noise."""
    plans = []
    for start in range(0, images, batch_images):
        batch = np.arange(start, min(start + batch_images, images))
        place = np.full_like(batch, view.top), np.full_like(batch, view.left)
        plans.append(Plan(batch, *place, np.full(len(batch), view.mirror), None, 1.0))
    return plans


def train_loader(store: Store, settings: Settings, seed: int, share: Share = WHOLE) -> DataLoader[Batch]:
    crops = Crops(store.split("train"), store.mean_image, settings.net.crop_px)
    return DataLoader(crops, sampler=Epochs(store, settings, seed, share), batch_size=None)


def view_loader(
    store: Store, split: SplitName, crop_px: int, batch_images: int, view: View, share: Share = WHOLE
) -> DataLoader[Batch]:
    crops = Crops(store.split(split), store.mean_image, crop_px)
    plans = [share.of(plan) for plan in view_plans(len(crops), batch_images, view)]
    return DataLoader(crops, sampler=plans, batch_size=None)
