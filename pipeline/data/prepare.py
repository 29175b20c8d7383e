"""From raw images to the image store: a stratified split, images on the canvas, statistics of the train split."""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline import files, paths
from pipeline.cores import usable_cores
from pipeline.data import sources
from pipeline.data.array_file import ArrayFile
from pipeline.data.chunks import Chunk, Each, Job, working
from pipeline.data.previous import is_current, key, remember, require_replaceable
from pipeline.data.progress import Progress, Rows, files_sha256
from pipeline.data.sources import Images, RawImages
from pipeline.data.sources.listing import few
from pipeline.data.space import ROOM, Space
from pipeline.data.store import ARRAYS, PART_BYTES, Meta, Skipped, SplitName, checksum, store_bytes
from pipeline.errors import UserError
from pipeline.locks import locked
from pipeline.params import Data

SKIPPED_SHARE = 0.01  # of a split's images, at most
SAVE_SECONDS = 10  # of work, at most, are lost by a kill
SAMPLE = 16  # images by which the time is foretold
STORE = "store"  # in the resume folder: the out as it grows


def prepare(data: Data, out: Path, workers: int | None = None) -> None:
    """Write the image store of data.dataset to `out`, whole or not at all; the same with any number of workers.

    It grows in the resume folder. Killed and called again, it goes on where it was: the bytes are the same. Where `out`
    holds that store already, its checksums are verified and nothing is written. Raises UserError where `out` holds
    files that are none of a store's.
    """
    with _refusals(out):
        require_replaceable(out, data)
        wanted = key(data)
        if is_current(out, wanted):
            print(
                f"prepare: {out} holds these images already; its checksums are verified, nothing is written", flush=True
            )
            return
    raw = sources.load(data)
    rows = split_rows(data, raw.train.labels, raw.test.labels)
    _name_unrepresented(raw, rows)
    folder = paths.state() / "prepare" / wanted
    needed_bytes = store_bytes(sum(map(len, rows.values())), data.canvas_px, raw.channels)
    with _refusals(out, needed_bytes), locked(folder.with_suffix(".lock"), f"prepare {data.dataset}"):
        space = Space.of(folder, out, needed_bytes)
        space.check()
        if not (folder / STORE / "meta.json").exists():
            _grow(folder, data, raw, rows, workers or usable_cores(), space)
        files.place_folder(folder / STORE, out.resolve())
        remember(out, wanted)
        shutil.rmtree(folder)


def _grow(folder: Path, data: Data, raw: RawImages, rows: Rows, workers: int, space: Space) -> None:
    store = folder / STORE
    job = _job(store, raw, rows, data.canvas_px, sources.most_bytes(workers))
    progress, sha256 = _write_images(job, rows, folder / "progress.npz", workers, space)
    counts = _write_labels(job, rows, progress.gaps)
    np.save(store / "mean_image.npy", progress.statistics.mean_image(), allow_pickle=False)
    eigenvectors, std = progress.statistics.rgb_components()
    meta = Meta(
        dataset=data.dataset,
        canvas_px=data.canvas_px,
        channels=raw.channels,
        classes=raw.classes,
        counts=counts,
        sources=raw.sources or files_sha256(progress, job.images, rows),
        rgb_eigenvectors=eigenvectors,
        rgb_std=std,
        skipped=progress.skipped,
        sha256={array: sha256.get(array) or checksum(store / array) for array in ARRAYS},
    )
    files.write_json(store / "meta.json", meta.model_dump())


def split_rows(data: Data, train_labels: NDArray[np.int64], test_labels: NDArray[np.int64]) -> Rows:
    """Return the source rows of each split, ascending. Each class gives a share that is in proportion to its size.

    Validation leaves at least one image of each class to train on, and a training subset has at least one of each.
    Raises UserError, naming the key and what is accepted, where a split cannot have as many images as asked for.
    """
    sizes, test_sizes = np.bincount(train_labels), np.bincount(test_labels)
    train, validation, test = _image_counts(data, sizes, test_sizes)
    shuffled = [_shuffled(np.flatnonzero(train_labels == label), data.split_seed, label) for label in range(len(sizes))]
    val_shares = _proportional_shares(validation, sizes, np.maximum(sizes - 1, 0))
    left = [rows[share:] for rows, share in zip(shuffled, val_shares, strict=True)]
    train_shares = _one_at_least(_proportional_shares(train, sizes, sizes - val_shares), sizes > 0)
    test_by_class = [np.flatnonzero(test_labels == label) for label in range(len(test_sizes))]
    test_shares = _proportional_shares(test, test_sizes, test_sizes)
    return {
        "train": _first(left, train_shares),
        "val": _first(shuffled, val_shares),
        "test": _first(test_by_class, test_shares),
    }


def _image_counts(data: Data, sizes: NDArray[np.intp], test_sizes: NDArray[np.intp]) -> tuple[int, int, int]:
    """Return how many images train, validation and test get, where each class has so many to give."""
    available, available_test, classes = int(sizes.sum()), int(test_sizes.sum()), np.count_nonzero(sizes)
    if data.validation_images > available - classes:
        raise UserError(
            f"data.validation_images = {data.validation_images}: accepted is at most {available - classes}, "
            f"which leaves one image of each of the {classes} classes to train on"
        )
    left = available - data.validation_images
    train = left if data.train_images is None else data.train_images
    if train > left:
        raise UserError(
            f"data.train_images = {train}: accepted is at most {left}, "
            f"what data.validation_images = {data.validation_images} leaves of {available}"
        )
    if train < classes:
        raise UserError(f"data.train_images = {train}: accepted is at least {classes}, one image of each class")
    test = available_test if data.test_images is None else data.test_images
    if test > available_test:
        raise UserError(f"data.test_images = {test}: accepted is at most {available_test}, all that {data.dataset} has")
    return train, data.validation_images, test


def _shuffled(rows: NDArray[np.intp], split_seed: int, label: int) -> NDArray[np.intp]:
    """Sorted by random keys: the stream of a bit generator is the same in each numpy version, permutation's is not."""
    return rows[np.argsort(np.random.PCG64([split_seed, label]).random_raw(len(rows)), kind="stable")]


def _first(by_class: list[NDArray[np.intp]], shares: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.sort(np.concatenate([rows[:share] for rows, share in zip(by_class, shares, strict=True)]))


def _proportional_shares(total: int, sizes: NDArray[np.intp], available: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how many of `total` images each class gives: by its size, with the largest remainders rounded up.

    Equal remainders are rounded up in the first classes. Where a class has too few available, it gives them all, and
    the others make up for it by the same rule.
    """
    shares = np.zeros_like(sizes)
    while left := total - shares.sum():
        weights = np.where(shares < available, sizes, 0)
        more, remainders = np.divmod(left * weights, weights.sum())
        more[np.argsort(-remainders, kind="stable")[: left - more.sum()]] += 1
        shares = np.minimum(shares + more, available)
    return shares


def _one_at_least(shares: NDArray[np.intp], present: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the shares after every class that is present but got none has taken one image from the largest share."""
    shares = shares.copy()
    for label in np.flatnonzero(present & (shares == 0)):
        shares[shares.argmax()] -= 1
        shares[label] = 1
    return shares


def _name_unrepresented(raw: RawImages, rows: Rows) -> None:
    """Print the classes without a validation image, and those without a test image, with their sizes: a line each."""
    for title, images, taken in (("validation", raw.train, rows["val"]), ("test", raw.test, rows["test"])):
        sizes, shares = (
            np.bincount(labels, minlength=len(raw.classes)) for labels in (images.labels, images.labels[taken])
        )
        if names := [f"{raw.classes[label]} ({sizes[label]})" for label in np.flatnonzero(shares == 0)]:
            print(
                f"prepare: {len(names)} of {len(raw.classes)} classes get no {title} image, as they have too few "
                f"(in parentheses): {few(names)}"
            )


def _job(store: Path, raw: RawImages, rows: Rows, canvas_px: int, most_bytes: int) -> Job:
    shape = (canvas_px, canvas_px, raw.channels)
    images: dict[SplitName, Images] = {"train": raw.train, "val": raw.train, "test": raw.test}
    places = {name: ArrayFile(store / name / "images.npy", (len(picked), *shape)) for name, picked in rows.items()}
    for place in places.values():
        place.create()
    return Job(images, places, canvas_px, raw.channels, most_bytes)


def _write_images(job: Job, rows: Rows, path: Path, workers: int, space: Space) -> tuple[Progress, dict[str, str]]:
    """Every image to its row, or one error if too many cannot be used.

    Returns too the checksums of the arrays that were written in one go, taken while the workers went on.
    """
    chunks = job.chunks(rows)
    counts = {split: len(picked) for split, picked in rows.items()}
    progress = Progress.start(path, job.canvas_px, job.channels, counts)
    done = len(progress.crc32)
    running = {
        split: hashlib.sha256(place.header())
        for split, place in job.files.items()
        if not done and place.bytes_in_all <= PART_BYTES
    }
    with working(job, min(workers, len(chunks))) as each:
        _mend(chunks[:done], progress, each)
        print(space.plan(sum(counts.values()), _seconds(chunks[done:], each, workers)), flush=True)
        with _bar("prepare", chunks, done) as bar:
            saved = time.monotonic()
            try:
                for outcome in each(Job.write, chunks[done:]):
                    split = outcome.chunk.split
                    progress.add(outcome, job.images[split])
                    if split in running:
                        running[split].update(job.files[split].read(outcome.chunk.first, len(outcome.chunk.rows)))
                    if len(progress.gaps[split]) > SKIPPED_SHARE * counts[split]:
                        raise _too_many(split, counts[split], progress.skipped)
                    bar.update(len(outcome.chunk.rows))
                    if time.monotonic() > saved + SAVE_SECONDS:
                        progress.save()
                        saved = time.monotonic()
            finally:
                progress.save()
    whole = {f"{split}/images.npy": sums.hexdigest() for split, sums in running.items() if not progress.gaps[split]}
    return progress, whole


def _mend(chunks: list[Chunk], progress: Progress, each: Each) -> None:
    """What was written before the end of an earlier process may not have reached the disk."""
    damaged = []
    with _bar("check what is there", chunks, 0) as bar:
        for chunk, whole in zip(chunks, each(Job.is_written, zip(chunks, progress.crc32, strict=True)), strict=True):
            bar.update(len(chunk.rows))
            if not whole:
                damaged.append(chunk)
    for _ in each(Job.write, damaged):
        pass


def _seconds(chunks: list[Chunk], each: Each, workers: int) -> float:
    """That the workers take for the images of `chunks`, by a few of them."""
    if not chunks:
        return 0.0
    rows = np.concatenate([chunk.rows for chunk in chunks if chunk.split == chunks[0].split])
    sample = rows[:: -(-len(rows) // SAMPLE)]
    shares = [Chunk(chunks[0].split, 0, share) for share in (sample[k::workers] for k in range(workers)) if len(share)]
    return sum(each(Job.seconds, shares)) / len(sample) * sum(len(chunk.rows) for chunk in chunks) / workers


def _bar(work: str, chunks: list[Chunk], done: int) -> "tqdm[NoReturn]":
    images = [len(chunk.rows) for chunk in chunks]
    return tqdm(total=sum(images), initial=sum(images[:done]), unit=" images", desc=work, disable=None)


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
def _refusals(out: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Raises UserError, naming the bytes, where the store cannot be written."""
    try:
        if out.exists() and not out.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        yield
    except OSError as error:
        remedy = "give a folder that can be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"{needed_bytes} bytes are needed: {ROOM}"
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); {remedy}") from error
