"""From raw images to the image store: a stratified split, images on the canvas, statistics of the train split."""

import errno
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline import files
from pipeline.data import sources
from pipeline.data.array_file import ArrayFile
from pipeline.data.chunks import Job, Outcome, cores, outcomes
from pipeline.data.sources import Images, RawImages
from pipeline.data.statistics import PixelStatistics
from pipeline.data.store import ARRAYS, Meta, Skipped, SplitName
from pipeline.errors import UserError
from pipeline.params import Data

SKIPPED_SHARE = 0.01  # of a split's images, at most

Rows = dict[SplitName, NDArray[np.intp]]  # of the source, for each split


def prepare(data: Data, out: Path, workers: int | None = None) -> None:
    """Write the image store of data.dataset to `out`, whole or not at all; the same with any number of workers."""
    raw = sources.load(data)
    rows = split_rows(data, raw.train.labels, raw.test.labels)
    image_values = data.canvas_px**2 * raw.channels
    needed_bytes = sum(map(len, rows.values())) * (image_values + 8) + image_values * 4
    with _new_store(out, needed_bytes) as folder:
        job = _job(folder, raw, rows, data.canvas_px)
        result = _write_images(job, rows, workers or cores())
        counts = _write_labels(job, rows, result.gaps)
        np.save(folder / "mean_image.npy", result.statistics.mean_image(), allow_pickle=False)
        eigenvectors, std = result.statistics.rgb_components()
        meta = Meta(
            dataset=data.dataset,
            canvas_px=data.canvas_px,
            channels=raw.channels,
            classes=raw.classes,
            counts=counts,
            sources=raw.sources or result.sources(),
            rgb_eigenvectors=eigenvectors,
            rgb_std=std,
            skipped=result.skipped,
            sha256={array: result.sha256.get(array) or files.sha256(folder / array) for array in ARRAYS},
        )
        files.write_json(folder / "meta.json", meta.model_dump())


def split_rows(data: Data, train_labels: NDArray[np.int64], test_labels: NDArray[np.int64]) -> Rows:
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


def _job(folder: Path, raw: RawImages, rows: Rows, canvas_px: int) -> Job:
    shape = (canvas_px, canvas_px, raw.channels)
    images: dict[SplitName, Images] = {"train": raw.train, "val": raw.train, "test": raw.test}
    places = {name: ArrayFile(folder / name / "images.npy", (len(picked), *shape)) for name, picked in rows.items()}
    for place in places.values():
        place.path.parent.mkdir()
        place.create()
    return Job(images, places, canvas_px, raw.channels)


@dataclass
class Result:
    """What is known once the images are written."""

    statistics: PixelStatistics
    gaps: dict[SplitName, list[int]] = field(default_factory=lambda: defaultdict(list))  # rows without an image
    skipped: list[Skipped] = field(default_factory=list)
    file_lines: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # as sha256sum prints them
    sha256: dict[str, str] = field(default_factory=dict)  # of array files without gaps

    def add(self, outcome: Outcome, names: list[str]) -> None:
        split, first, _ = outcome.chunk
        self.gaps[split] += [first + place for place in outcome.problems]
        self.skipped += [Skipped(file=names[place], reason=reason) for place, reason in outcome.problems.items()]
        lines = [f"{sha256}  {name}\n" for sha256, name in zip(outcome.sha256, names, strict=True) if sha256]
        self.file_lines["test" if split == "test" else "train"] += lines
        if outcome.sums:
            self.statistics.add(outcome.sums)

    def sources(self) -> dict[str, str]:
        """One checksum for the files of a folder: that of their lines, sorted by name."""
        sorted_lines = {name: sorted(lines, key=lambda line: line[66:]) for name, lines in self.file_lines.items()}
        return {name: hashlib.sha256("".join(lines).encode()).hexdigest() for name, lines in sorted_lines.items()}


def _write_images(job: Job, rows: Rows, workers: int) -> Result:
    """Every image to its row, or one error if too many cannot be used."""
    result = Result(PixelStatistics(job.canvas_px, job.channels))
    hashes = {split: hashlib.sha256(file.header()) for split, file in job.files.items()}
    images = sum(map(len, rows.values()))
    with (
        closing(outcomes(job, job.chunks(rows), workers)) as done,
        tqdm(total=images, unit=" images", desc="prepare", disable=None) as progress,
    ):
        for outcome in done:
            split, first, chunk_rows = outcome.chunk
            result.add(outcome, [job.images[split].name(row) for row in chunk_rows.tolist()])
            if len(result.gaps[split]) > SKIPPED_SHARE * len(rows[split]):
                raise _too_many(split, len(rows[split]), result.skipped)
            hashes[split].update(job.files[split].read(first, len(chunk_rows)))  # while the workers go on
            progress.update(len(chunk_rows))
    result.sha256 = {
        f"{split}/images.npy": hash.hexdigest() for split, hash in hashes.items() if not result.gaps[split]
    }
    return result


def _too_many(split: SplitName, images: int, skipped: list[Skipped]) -> UserError:
    first = "; ".join(f"{file.file}: {file.reason}" for file in skipped[:3])
    return UserError(
        f"data.folder: more than {SKIPPED_SHARE:.0%} of the {images} {split} images cannot be used; accepted is "
        f"at most that. Replace or remove such files: {first}" + ("; …" if len(skipped) > 3 else "")
    )


def _write_labels(job: Job, rows: Rows, gaps: dict[SplitName, list[int]]) -> dict[SplitName, int]:
    """Labels of the images that are there; returns their number. Where an image is missing, the split's last stands."""
    counts = {}
    for split, picked in rows.items():
        if gaps[split]:
            picked = picked[job.files[split].leave_out(gaps[split])]
        np.save(job.files[split].path.with_name("labels.npy"), job.images[split].labels[picked], allow_pickle=False)
        counts[split] = len(picked)
    return counts


@contextmanager
def _new_store(out: Path, needed_bytes: int) -> Iterator[Path]:
    """A new folder that takes the place of `out`. Raises UserError, naming the bytes, where it cannot be written."""
    try:
        if out.exists() and not out.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with files.replacing_folder(out) as new:
            if shutil.disk_usage(new).free < needed_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield new
    except OSError as error:
        remedy = "give a folder that can be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"{needed_bytes} bytes are needed: make room, or lower data.train_images or data.canvas_px"
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); {remedy}") from error
