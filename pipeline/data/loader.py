"""Batches: the order in which an epoch shows the images, the paper's augmentation (section 4.1), and their pixels.

`BatchSampler` plans an epoch's batches. `CropDataset` cuts a batch from the memory map in one go, `ResidentCrops` on a
GPU that holds the split. `Preprocess` finishes it on the net's device: minus the mean image, with color noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.data.store import Split, SplitName, Store
from pipeline.paper import recipe as paper
from pipeline.params import Settings
from pipeline.runtime.hardware import CPU, loader_workers, resident
from pipeline.runtime.random_streams import generator
from pipeline.runtime.signals import leave_to_parent

NOISY_DROPS = 2  # drops of the learning rate after which the source's color noise ends

Indices = NDArray[np.int64]
Batch = tuple[Tensor, Tensor]  # (N, 3 or, where all are grey, 1, crop, crop) float32 and (N,) int64


class Draws(NamedTuple):
    """What happens to each image of the split in an epoch, in the split's order."""

    top: Indices  # (N,) offset of the crop, pixels
    left: Indices
    mirror: NDArray[np.bool_]  # (N,)
    color: NDArray[np.float32]  # (N, 3) gray levels that are added to red, green and blue


def draw(
    seed: int, epoch: int, images: int, margin_px: int, rgb_axes: NDArray[np.float64], sigma: float
) -> tuple[Indices, Draws]:
    """Return the order in which an epoch shows the images, and what happens to each.

    Every draw is a function of (seed, epoch, index of the image): neither the batch size nor an interruption nor the
    number of processes changes what an image looks like in an epoch.

    margin_px: canvas side minus crop side; offsets run from 0 to it, inclusive. rgb_axes: 3 x 3, the covariance's
    eigenvectors (columns), each times its standard deviation. The paper prints eigenvalues there, which on gray levels
    of 0-255 would leave nothing of the image. The authors' source uses standard deviations, and so does this code.
    """
    rng = generator("augmentation", seed, epoch)
    order = rng.permutation(images)
    top, left = rng.integers(0, margin_px + 1, (2, images))
    mirror = rng.random(images) < 0.5
    color = (sigma * rng.standard_normal((images, 3)) @ rgb_axes.T).astype(np.float32)
    return order, Draws(top, left, mirror, color)


def shared_crops(batch: Indices, chunk: int) -> Indices:
    """Return, for each image of `batch`, the image whose crop and mirroring it takes: the first of its chunk."""
    return batch[np.arange(len(batch)) // chunk * chunk]


class BatchSpec(NamedTuple):
    """A batch that is to be cut: which images, and where in each."""

    images: Indices
    top: Indices
    left: Indices
    mirror: NDArray[np.bool_]
    color: NDArray[np.float32] | None  # (N, 3)
    divisor: float  # of the pixels, once the color noise is added


class Shard(NamedTuple):
    """The part of each batch that a process cuts where several train one net: the rank-th of `size` equal parts."""

    rank: int = 0
    size: int = 1

    def rows(self, images: int) -> slice:
        """Return the part's rows in a batch of so many images. Parts differ by one image at most, and may be empty."""
        return slice(images * self.rank // self.size, images * (self.rank + 1) // self.size)

    def of(self, plan: BatchSpec) -> BatchSpec:
        rows = self.rows(len(plan.images))
        color = None if plan.color is None else plan.color[rows]
        return BatchSpec(plan.images[rows], plan.top[rows], plan.left[rows], plan.mirror[rows], color, plan.divisor)


WHOLE = Shard()


class RawBatch(NamedTuple):
    """A batch as it was cut. `Preprocess` does the rest on the net's device, as bytes travel faster than floats."""

    pixels: Tensor  # (N, C, crop, crop) uint8, channels last; mirrored where the plan says so
    labels: Tensor  # (N,) int64
    top: Tensor  # (N,) int64, offsets in the canvas
    left: Tensor
    mirror: Tensor  # (N,) int64, 1 where the pixels are mirrored
    color: Tensor | None  # (N, C) float32
    divisor: float

    def to(self, device: torch.device) -> "RawBatch":
        tensors = [part.to(device, non_blocking=True) if isinstance(part, Tensor) else part for part in self]
        return RawBatch(*tensors)  # type: ignore[arg-type]


class CropDataset(Dataset[RawBatch]):
    """A split from which batches are cut by a plan."""

    def __init__(self, split: Split, crop_px: int) -> None:
        self._labels = torch.from_numpy(np.asarray(split.labels))
        windows = sliding_window_view(split.images, (crop_px, crop_px), axis=(1, 2))  # (N, y, x, C, crop, crop)
        self._windows = windows.transpose(0, 1, 2, 4, 5, 3)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, plan: BatchSpec) -> RawBatch:
        cut = self._windows[plan.images, plan.top, plan.left]  # (N, crop, crop, C), a copy
        cut[plan.mirror] = cut[plan.mirror, :, ::-1]
        images, top, left, mirror = (torch.from_numpy(np.asarray(part, np.int64)) for part in plan[:4])
        pixels = torch.from_numpy(cut).permute(0, 3, 1, 2)
        color = _noise_of(plan, pixels.shape[1])
        return RawBatch(pixels, self._labels[images], top, left, mirror, color, plan.divisor)


class ResidentCrops(Dataset[RawBatch]):
    """The same batches, cut on the device whose memory holds the whole split.

    What a plan says of a batch takes a few kilobytes: such a copy is queued, and the processor waits for nothing.
    """

    def __init__(self, split: Split, crop_px: int, device: torch.device) -> None:
        self._labels = torch.tensor(split.labels, device=device)
        images = torch.tensor(split.images, device=device)
        windows = images.unfold(1, crop_px, 1).unfold(2, crop_px, 1)  # (N, y, x, C, crop, crop)
        self._windows = windows.permute(0, 1, 2, 4, 5, 3)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, plan: BatchSpec) -> RawBatch:
        device = self._labels.device
        images, top, left, mirror = torch.from_numpy(np.stack(plan[:4])).to(device, non_blocking=True)
        cut = self._windows[images, top, left]  # (N, crop, crop, C)
        pixels = torch.where(mirror[:, None, None, None] == 1, cut.flip(2), cut).permute(0, 3, 1, 2)
        color = _noise_of(plan, pixels.shape[1])
        color = None if color is None else color.to(device, non_blocking=True)
        return RawBatch(pixels, self._labels[images], top, left, mirror, color, plan.divisor)


def _noise_of(plan: BatchSpec, channels: int) -> Tensor | None:
    """Return (N, channels). A gray image has one channel, and its noise lies on the gray axis: all three are equal."""
    return None if plan.color is None else torch.from_numpy(plan.color[:, :channels])


class Preprocess:
    """Makes a batch of what was cut, on its device: minus the mean image, with color noise."""

    def __init__(self, mean_image: NDArray[np.float32], crop_px: int) -> None:
        mean = torch.from_numpy(mean_image)
        self._means = torch.stack([mean, mean.flip(1)])  # the second for mirrored crops
        self._margin_px, self._crop_px = len(mean) - crop_px, crop_px

    def __call__(self, cut: RawBatch) -> Batch:
        """Return the batch. Each device gives the same numbers: these are single fp32 operations, rounded by IEEE."""
        self._means = self._means.to(cut.pixels.device)
        windows = self._means.unfold(1, self._crop_px, 1).unfold(2, self._crop_px, 1)  # (2, y, x, C, crop, crop)
        left = torch.where(cut.mirror == 1, self._margin_px - cut.left, cut.left)
        means = windows.permute(0, 1, 2, 4, 5, 3)[cut.mirror, cut.top, left].permute(0, 3, 1, 2)
        x = cut.pixels.float().sub_(means)
        if cut.color is not None:
            x.add_(cut.color[:, :, None, None])
            if cut.divisor != 1:
                x.div_(cut.divisor)
        return x, cut.labels


class BatchSampler(Sampler[BatchSpec]):
    """Plans the training batches of one epoch after another; Lightning names the epoch by `set_epoch`.

    They are the same for any number of processes, each of which cuts its share of every batch.
    """

    def __init__(self, store: Store, settings: Settings, seed: int, share: Shard = WHOLE) -> None:
        self._settings, self._seed, self._epoch = settings, seed, 0
        self.lr_drops = 0  # so far; the schedule sets it
        self.share = share
        self._images = store.meta.counts["train"]
        self._margin_px = store.meta.image_size - settings.net.crop_px
        self._rgb_axes = np.asarray(store.meta.rgb_eigenvectors) * np.asarray(store.meta.rgb_std)
        self._chunk = paper.item(settings.recipe, "crop_sharing")
        self._noise = paper.item(settings.recipe, "color_noise")

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._images // self._settings.train.batch_images)

    def images_of(self, batch_index: int) -> int:
        """Return the number of images in the whole batch. The last batch may be smaller."""
        batch_images = self._settings.train.batch_images
        return min(batch_images, self._images - batch_index * batch_images)

    def _noise_is_over(self) -> bool:
        """Return whether the epoch has no color noise: the source leaves it out in the last quarter of training.

        Where plateaus end training, nobody knows that quarter in advance. There the noise ends with the second drop.
        """
        train = self._settings.train
        if self._noise.until == 1:
            return False
        if train.schedule == "plateau" and train.lr_drops >= NOISY_DROPS:
            return self.lr_drops >= NOISY_DROPS
        return bool(self._epoch >= self._noise.until * train.epochs)

    def __iter__(self) -> Iterator[BatchSpec]:
        train = self._settings.train
        std = train.pca_jitter_std
        order, draws = draw(self._seed, self._epoch, self._images, self._margin_px, self._rgb_axes, std)
        noisy = std > 0 and not self._noise_is_over()
        for start in range(0, self._images, train.batch_images):
            batch = order[start : start + train.batch_images]
            leaders = shared_crops(batch, self._chunk)
            top, left = draws.top[leaders], draws.left[leaders]
            if not train.random_crop:
                top = left = np.full_like(batch, self._margin_px // 2)
            mirror = draws.mirror[leaders] & train.hflip
            color = draws.color[batch] if noisy else None
            yield self.share.of(BatchSpec(batch, top, left, mirror, color, self._noise.divisor))


@dataclass(frozen=True)
class View:
    """One of the crops that a test image is seen through (section 4.1). Offsets in pixels."""

    top: int
    left: int
    mirror: bool


def one_crop(image_size: int, crop_px: int) -> list[View]:
    center = (image_size - crop_px) // 2
    return [View(center, center, False)]


def ten_crops(image_size: int, crop_px: int) -> list[View]:
    """Return the four corners and the center, and their mirror images."""
    end, center = image_size - crop_px, (image_size - crop_px) // 2
    corners = [(0, 0), (0, end), (end, 0), (end, end), (center, center)]
    return [View(top, left, mirror) for mirror in (False, True) for top, left in corners]


def view_plans(images: Indices, batch_images: int, view: View) -> list[BatchSpec]:
    """Plan batches of some images in the given order, through one view, without noise."""
    plans = []
    for start in range(0, len(images), batch_images):
        batch = images[start : start + batch_images]
        place = np.full_like(batch, view.top), np.full_like(batch, view.left)
        plans.append(BatchSpec(batch, *place, np.full(len(batch), view.mirror), None, 1.0))
    return plans


def train_loader(
    store: Store, settings: Settings, seed: int, share: Shard = WHOLE, device: torch.device = CPU
) -> DataLoader[RawBatch]:
    plans = BatchSampler(store, settings, seed, share)
    return _loader(store.split("train"), settings.net.crop_px, plans, device)


def view_loader(
    store: Store,
    split: SplitName,
    crop_px: int,
    batch_images: int,
    view: View,
    share: Shard = WHOLE,
    device: torch.device = CPU,
    images: Indices | None = None,
) -> DataLoader[RawBatch]:
    """Load `images` of a split, by default all in their order, through one view and without noise."""
    chosen = np.arange(store.meta.counts[split]) if images is None else images
    plans = [share.of(plan) for plan in view_plans(chosen, batch_images, view)]
    return _loader(store.split(split), crop_px, plans, device)


def view_batches(
    store: Store,
    split: SplitName,
    crop_px: int,
    batch_images: int,
    view: View,
    device: torch.device,
    images: Indices | None = None,
) -> Iterator[Batch]:
    """Yield what `view_loader` loads as batches on `device`; labels stay on the CPU."""
    finish = Preprocess(store.mean_image, crop_px)
    for cut in view_loader(store, split, crop_px, batch_images, view, device=device, images=images):
        yield finish(cut.to(device))[0], cut.labels


def _loader(
    split: Split, crop_px: int, plans: Sampler[BatchSpec] | list[BatchSpec], device: torch.device
) -> DataLoader[RawBatch]:
    if resident(device, split.images.nbytes):
        return DataLoader(ResidentCrops(split, crop_px, device), sampler=plans, batch_size=None)
    return DataLoader(CropDataset(split, crop_px), sampler=plans, batch_size=None, **_ahead(device))


def _ahead(device: torch.device) -> dict[str, Any]:
    """Return DataLoader's options. For a GPU, other processes cut the next batches into memory that it can read."""
    processes = loader_workers(device)
    if not processes:
        return {}
    options = {"worker_init_fn": leave_to_parent, "multiprocessing_context": "fork"}  # fork copies no image
    return options | {"num_workers": processes, "persistent_workers": True, "pin_memory": device.type == "cuda"}
