"""From raw images to the image store: a stratified split, images on the canvas, statistics of the train split."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pipeline import files
from pipeline.data import sources
from pipeline.data.sources import RawImages
from pipeline.data.store import ARRAYS, Meta, SplitName
from pipeline.errors import UserError
from pipeline.params import Data

BATCH_IMAGES = 256
DECIMALS = 9  # of eigenvectors and deviations: beyond them, LAPACK's last bits differ between CPUs


def prepare(data: Data, out: Path) -> None:
    """Write the image store of data.dataset to `out`, whole or not at all."""
    raw = sources.load(data.dataset)
    rows = split_rows(data, raw.train_labels, raw.test_labels)
    channels = raw.train_images.shape[-1]
    counts: dict[SplitName, int] = {name: len(picked) for name, picked in rows.items()}
    image_values = data.canvas_px**2 * channels
    needed_bytes = sum(counts.values()) * (image_values + 8) + image_values * 4
    with _replacing_folder(out, needed_bytes) as folder:
        statistics = _write_arrays(folder, raw, rows, data.canvas_px)
        eigenvectors, std = statistics.rgb_components()
        meta = Meta(
            dataset=data.dataset,
            canvas_px=data.canvas_px,
            channels=channels,
            classes=raw.classes,
            counts=counts,
            sources=raw.sources,
            rgb_eigenvectors=eigenvectors,
            rgb_std=std,
            skipped=[],
            sha256={array: files.sha256(folder / array) for array in ARRAYS},
        )
        files.write_json(folder / "meta.json", meta.model_dump())


def split_rows(
    data: Data, train_labels: NDArray[np.int64], test_labels: NDArray[np.int64]
) -> dict[SplitName, NDArray[np.intp]]:
    """The source rows of each split, ascending; the same number of each class as far as the classes allow."""
    train, validation, test = _image_counts(data, len(train_labels), len(test_labels))
    by_class = [np.flatnonzero(train_labels == label) for label in range(train_labels.max() + 1)]
    shuffled = [_shuffled(rows, data.split_seed, label) for label, rows in enumerate(by_class)]
    val_shares = _equal_shares(validation, [len(rows) for rows in shuffled])
    rest = [rows[share:] for rows, share in zip(shuffled, val_shares, strict=True)]
    test_by_class = [np.flatnonzero(test_labels == label) for label in range(test_labels.max() + 1)]
    return {"train": _first(rest, train), "val": _first(shuffled, validation), "test": _first(test_by_class, test)}


def _image_counts(data: Data, available: int, available_test: int) -> tuple[int, int, int]:
    if data.validation_images >= available:
        raise UserError(
            f"data.validation_images = {data.validation_images}: accepted is at most {available - 1}, "
            f"which leaves 1 of {available} to train on"
        )
    left = available - data.validation_images
    train = left if data.train_images is None else data.train_images
    if train > left:
        raise UserError(
            f"data.train_images = {train}: accepted is at most {left}, "
            f"what data.validation_images = {data.validation_images} leaves of {available}"
        )
    test = available_test if data.test_images is None else data.test_images
    if test > available_test:
        raise UserError(f"data.test_images = {test}: accepted is at most {available_test}, all that {data.dataset} has")
    return train, data.validation_images, test


def _shuffled(rows: NDArray[np.intp], split_seed: int, label: int) -> NDArray[np.intp]:
    """Sorted by random keys: the stream of a bit generator is the same in each numpy version, permutation's is not."""
    return rows[np.argsort(np.random.PCG64([split_seed, label]).random_raw(len(rows)), kind="stable")]


def _first(by_class: list[NDArray[np.intp]], total: int) -> NDArray[np.intp]:
    shares = _equal_shares(total, [len(rows) for rows in by_class])
    return np.sort(np.concatenate([rows[:share] for rows, share in zip(by_class, shares, strict=True)]))


def _equal_shares(total: int, available: list[int]) -> list[int]:
    """`total` spread equally over the classes; one that has too few gives all, a remainder goes to the first ones."""
    shares = [0] * len(available)
    while left := total - sum(shares):
        unfilled = [label for label, share in enumerate(shares) if share < available[label]]
        for label in unfilled[:left]:
            shares[label] = min(shares[label] + max(left // len(unfilled), 1), available[label])
    return shares


class PixelStatistics:
    """Sums over images, in integers: the same whatever the batches, the order and the machine."""

    def __init__(self, canvas_px: int, channels: int) -> None:
        self.images = 0
        self.sums = np.zeros((canvas_px, canvas_px, channels), np.int64)
        self.products = np.zeros((channels, channels), np.int64)

    def add(self, batch: NDArray[np.uint8]) -> None:
        self.images += len(batch)
        self.sums += batch.sum(0, dtype=np.int64)
        pixels = batch.reshape(-1, batch.shape[-1]).astype(np.float64)  # N·H·W x C
        self.products += (pixels.T @ pixels).astype(np.int64)  # exact: integers below 2^53

    def mean_image(self) -> NDArray[np.float32]:
        return (self.sums / self.images).astype(np.float32)

    def rgb_covariance(self) -> NDArray[np.float64]:
        """3 x 3, of the pixels' colours; grey counts as R = G = B."""
        pixels = self.images * self.sums[..., 0].size
        sums = [int(total) for total in self.sums.sum((0, 1))]
        products = self.products.tolist()
        covariance = np.array(
            [
                [(pixels * product - row * column) / pixels**2 for column, product in zip(sums, line, strict=True)]
                for row, line in zip(sums, products, strict=True)
            ]
        )
        return np.array(np.broadcast_to(covariance, (3, 3)))

    def rgb_components(self) -> tuple[list[list[float]], list[float]]:
        """Section 4.1: eigenvectors (columns, by falling eigenvalue) and the square roots of the eigenvalues."""
        covariance = self.rgb_covariance()
        if len(self.products) == 1:  # two eigenvalues are 0, so that their vectors are ours to choose
            vectors = np.array([[1, 1, 1], [1, -1, 1], [1, 0, -2]]) / np.sqrt([3, 2, 6])
            values = np.array([covariance.trace(), 0, 0])
        else:
            values, vectors = np.linalg.eigh(covariance)
            values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        vectors = vectors.round(DECIMALS)
        leading = np.take_along_axis(vectors, (vectors != 0).argmax(0)[np.newaxis], 0)  # first that is not 0: 1 x 3
        return (vectors * np.sign(leading) + 0.0).tolist(), np.sqrt(values).round(DECIMALS).tolist()


def on_canvas(image: NDArray[np.uint8], canvas_px: int) -> NDArray[np.uint8]:
    """H x W x C to canvas_px x canvas_px x C, bilinearly."""
    channels = image.shape[-1]
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    resized = picture.resize((canvas_px, canvas_px), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(canvas_px, canvas_px, channels)


def _write_arrays(
    folder: Path, raw: RawImages, rows: dict[SplitName, NDArray[np.intp]], canvas_px: int
) -> PixelStatistics:
    """Every array of the store; returns the statistics of the train split."""
    channels = raw.train_images.shape[-1]
    statistics = PixelStatistics(canvas_px, channels)
    with tqdm(total=sum(map(len, rows.values())), unit=" images", desc="prepare", disable=None) as progress:
        for split, picked in rows.items():
            images, labels = (
                (raw.test_images, raw.test_labels) if split == "test" else (raw.train_images, raw.train_labels)
            )
            (folder / split).mkdir()
            np.save(folder / split / "labels.npy", labels[picked], allow_pickle=False)
            with (folder / split / "images.npy").open("wb") as file:
                _write_header(file, (len(picked), canvas_px, canvas_px, channels))
                for start in range(0, len(picked), BATCH_IMAGES):
                    chosen = images[picked[start : start + BATCH_IMAGES]]
                    batch = np.stack([on_canvas(image, canvas_px) for image in chosen])
                    _append(file, batch)
                    if split == "train":
                        statistics.add(batch)
                    progress.update(len(batch))
    np.save(folder / "mean_image.npy", statistics.mean_image(), allow_pickle=False)
    return statistics


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Files are written in order, not through a memory map: there a full disk kills the process by a signal."""
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)


def _append(file: BinaryIO, batch: NDArray[np.uint8]) -> None:
    file.write(batch.tobytes())


@contextmanager
def _replacing_folder(out: Path, needed_bytes: int) -> Iterator[Path]:
    """Yield a new folder beside `out`; it takes its place by rename, and is removed if the block raises."""
    partial = out.with_name(f".{out.name}.partial")  # what a killed run left is removed by the next
    new, old = partial / "new", partial / "old"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        if out.exists() and not out.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        new.mkdir(parents=True)
        if shutil.disk_usage(new).free < needed_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    except OSError as error:
        remedy = "give a folder that can be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"{needed_bytes} bytes are needed: make room, or lower data.train_images or data.canvas_px"
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); {remedy}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
