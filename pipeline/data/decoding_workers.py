"""Decodes images, measures them and writes them to their places in the store, in worker processes."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sources import Images
from pipeline.data.store import SplitName
from pipeline.errors import UserError
from pipeline.runtime.signals import leave_to_parent, only_at_check

BATCH_BYTES = 4 << 20  # of pixels: what a core's caches hold
AHEAD = 4  # batches for each worker that are under way at a time: more would pile up where the parent is slower
BLOCK_PIXELS = 65536  # 255² times as many fit 32 bits
DECIMALS = 9  # of eigenvectors and deviations: beyond them, LAPACK's last bits differ between CPUs

Rows = dict[SplitName, NDArray[np.intp]]  # of the source, for each split of the store

_writer: "Writer"  # of this process, where it is a worker


class Batch(NamedTuple):
    """Consecutive images of a split: in the store they begin at row `first`, in the source they are at `rows`."""

    split: SplitName
    first: int
    rows: NDArray[np.intp]


@dataclass
class PixelSums:
    """Sums over images, in integers: they are the same whatever the batches, their order and the machine."""

    images: int
    values: NDArray[np.uint32] | NDArray[np.int64]  # H x W x C
    products: NDArray[np.int64]  # C x C, over all pixels

    @classmethod
    def zero(cls, image_size: int, channels: int) -> "PixelSums":
        values = np.zeros((image_size, image_size, channels), np.int64)
        return cls(0, values, np.zeros((channels, channels), np.int64))

    @classmethod
    def of(cls, batch: NDArray[np.uint8]) -> "PixelSums":
        """Return the sums of a batch, N x H x W x C, of fewer than 2^24 images."""
        channels = batch.shape[-1]
        products = np.zeros((channels, channels), np.int64)
        pixels = batch.reshape(-1, channels)
        for start in range(0, len(pixels), BLOCK_PIXELS):
            block = pixels[start : start + BLOCK_PIXELS]
            planes = [block[:, channel].astype(np.uint16) for channel in range(channels)]
            for row in range(channels):
                for column in range(row, channels):
                    products[row, column] += (planes[row] * planes[column]).sum(dtype=np.uint32)
        lower = np.tril_indices(channels, -1)
        products[lower] = products.T[lower]
        return cls(len(batch), batch.sum(0, dtype=np.uint32), products)

    def add(self, other: "PixelSums") -> None:
        self.images += other.images
        self.values += other.values
        self.products += other.products

    def mean_image(self) -> NDArray[np.float32]:
        """Return the mean at each pixel, H x W x C."""
        return (self.values / self.images).astype(np.float32)

    def rgb_components(self) -> tuple[list[list[float]], list[float]]:
        """Return section 4.1's eigenvectors (columns, by falling eigenvalue) and the square roots of eigenvalues."""
        pixels = self.images * self.values[..., 0].size
        sums, products = (
            self.values.sum((0, 1)).astype(object),
            self.products.astype(object),
        )  # exact: Python's integers
        exact = (pixels * products - np.outer(sums, sums)) / pixels**2
        covariance = np.broadcast_to(exact.astype(np.float64), (3, 3))  # gray counts as R = G = B
        if len(self.products) == 1:  # two eigenvalues are 0, so that their vectors are ours to choose
            vectors = np.array([[1, 1, 1], [1, -1, 1], [1, 0, -2]]) / np.sqrt([3, 2, 6])
            values = np.array([covariance.trace(), 0, 0])
        else:
            values, vectors = np.linalg.eigh(covariance)
            values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        vectors = vectors.round(DECIMALS)
        leading = np.take_along_axis(vectors, (vectors != 0).argmax(0)[np.newaxis], 0)  # first that is not 0: 1 x 3
        return (vectors * np.sign(leading) + 0.0).tolist(), np.sqrt(values).round(DECIMALS).tolist()


class Outcome(NamedTuple):
    """What is known of a batch once its images are written."""

    batch: Batch
    problems: dict[int, str]  # why there is no image, by its row in the store
    sha256: NDArray[np.uint8]  # N x 32: of each image's file, 0 where it has none
    sums: PixelSums | None  # of the usable images, for the train split


@dataclass(frozen=True)
class Writer:
    """Writes images to the array files of a store that lie in `folder`. Several processes may do so at once."""

    images: dict[SplitName, Images]
    folder: Path
    image_size: int
    channels: int
    most_bytes: int  # of one decoded image

    def create(self, rows: Rows) -> None:
        """Create the array files, with their disk space allocated: where a memory map finds none, it ends the process.

        Raises OSError where the disk has too little.
        """
        for split, picked in rows.items():
            path, shape = self.path(split), (len(picked), self.image_size, self.image_size, self.channels)
            path.parent.mkdir()
            np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            if hasattr(os, "posix_fallocate"):  # macOS has none
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def path(self, split: SplitName) -> Path:
        return self.folder / split / "images.npy"

    def batches(self, rows: Rows) -> list[Batch]:
        """Return all work, in order. It is divided the same way whatever the number of workers."""
        step = max(1, BATCH_BYTES // (self.image_size**2 * self.channels))
        return [
            Batch(split, first, picked[first : first + step])
            for split, picked in rows.items()
            for first in range(0, len(picked), step)
        ]

    def write(self, batch: Batch) -> Outcome:
        """Decode the batch's images and write them to their rows. The row of one that cannot be used stays zero."""
        split, first, rows = batch
        written = np.lib.format.open_memmap(self.path(split), "r+")[first : first + len(rows)]
        problems, sha256 = {}, np.zeros((len(rows), 32), np.uint8)
        for place, row in enumerate(rows.tolist()):
            loaded = self.images[split].load(row, self.image_size, self.most_bytes)
            if loaded.sha256:
                sha256[place] = np.frombuffer(bytes.fromhex(loaded.sha256), np.uint8)
            if loaded.pixels is None:
                problems[first + place] = loaded.problem
            else:
                written[place] = loaded.pixels
        usable = np.delete(written, [row - first for row in problems], 0) if problems else written
        return Outcome(batch, problems, sha256, PixelSums.of(usable) if split == "train" else None)


@contextmanager
def outcomes(writer: Writer, batches: list[Batch], workers: int) -> Iterator[Iterator[Outcome]]:
    """Yield the outcomes in the order of the batches, which `workers` processes write; a single one is this process.

    Raises UserError where a worker is killed.
    """
    if workers == 1:
        yield map(writer.write, batches)
        return
    pool = ProcessPoolExecutor(min(workers, len(batches)), initializer=_begin, initargs=(writer,))
    try:
        yield _in_order(pool, batches, AHEAD * workers)
    except BrokenProcessPool as error:
        raise UserError(
            "prepare: a worker process was killed, maybe for want of memory; close other programs, or lower "
            "hardware.workers, and run it again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, batches: list[Batch], ahead: int) -> Iterator[Outcome]:
    """Yield what pool.map would. That submits all batches at once, so its results would pile up in memory."""
    left = iter(batches)
    with only_at_check():  # a pool that is half started can neither work nor end
        waiting = deque(pool.submit(_write, batch) for batch in islice(left, ahead))
    while waiting:
        outcome = waiting.popleft().result()
        waiting.extend(pool.submit(_write, batch) for batch in islice(left, 1))
        yield outcome


def _begin(writer: Writer) -> None:
    """Prepare a worker: it leaves Ctrl-C to its parent, and ends with it."""
    global _writer
    _writer = writer
    leave_to_parent()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _write(batch: Batch) -> Outcome:
    return _writer.write(batch)
