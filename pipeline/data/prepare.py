"""From raw images to the image store: a split by class, images on the canvas, statistics of the training images."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline import paths
from pipeline.data import destination, sources
from pipeline.data.decoding_workers import Outcome, PixelSums, Rows, Writer, outcomes
from pipeline.data.sources import Images, RawImages, few
from pipeline.data.store import ARRAYS, Meta, Skipped, SplitName, checksum, store_bytes
from pipeline.errors import UserError
from pipeline.params import DATASETS, Data
from pipeline.runtime.cores import usable_cores
from pipeline.runtime.files import replacing_folder, write_json
from pipeline.runtime.locks import locked

SKIPPED_SHARE = 0.01  # of a split's images, at most
FEW_TO_LEARN = 10  # training images of a class

Counts = NDArray[np.intp]  # of images, by class


def prepare(data: Data, out: Path, workers: int | None = None) -> None:
    """Write the image store of data.dataset to `out`, whole or not at all; the same with any number of workers.

    Where `out` holds that store already, its checksums are verified and nothing is written. By default each usable
    core has a worker. Raises UserError where the images or the settings are not as they must be, where there is too
    little space, and where `out` holds files that no store holds.
    """
    workers = workers or usable_cores()
    most_bytes = sources.most_bytes(workers)
    with locked(paths.state() / "prepared" / f"{data.dataset}.lock", f"prepare {data.dataset}"):
        key = destination.key(data, most_bytes)
        with _refusals(out):
            destination.require_replaceable(out, data)
            if destination.is_current(out, key):
                print(f"prepare: {out} holds these images already; its checksums are verified, nothing is written")
                return
        raw = sources.load(data)
        rows = split_rows(data, raw.train.labels, raw.test.labels)
        for note in [*raw.notes, *_thin_classes(raw, rows)]:
            print(f"prepare: {note}")
        images = sum(map(len, rows.values()))
        needed_bytes = store_bytes(images, data.image_size, raw.channels)
        with _refusals(out, needed_bytes):
            with replacing_folder(out.resolve()) as store:
                print(f"prepare: {images} images; {destination.require_space(out, needed_bytes)}", flush=True)
                _write_store(store, data, raw, rows, most_bytes, workers)
            destination.remember(out, key)


def require_preparable(data: Data) -> None:
    """Raise UserError where a folder of somebody's own images, as it is listed, cannot be prepared as `data` says."""
    if data.folder is not None and data.dataset not in DATASETS:
        raw = sources.load(data)
        split_rows(data, raw.train.labels, raw.test.labels)


def _thin_classes(raw: RawImages, rows: Rows) -> Iterator[str]:
    """Say which classes have few images to train on, and which have none for validation or for the test."""
    of_split: dict[SplitName, Images] = {"train": raw.train, "val": raw.train, "test": raw.test}
    counts = {split: np.bincount(of_split[split].labels[of], minlength=len(raw.classes)) for split, of in rows.items()}
    kinds: tuple[tuple[SplitName, int, str], ...] = (
        ("train", FEW_TO_LEARN, f"have fewer than {FEW_TO_LEARN} training images, too few to learn much from"),
        ("val", 1, "get no validation image: the validation error says nothing of them"),
        ("test", 1, "get no test image: the test error says nothing of them"),
    )
    for split, least, what in kinds:
        there = np.bincount(of_split[split].labels, minlength=len(raw.classes))
        if names := [f"{raw.classes[label]} ({there[label]})" for label in np.flatnonzero(counts[split] < least)]:
            yield f"{len(names)} of {len(raw.classes)} classes {what} (with all that they have): {few(names)}"


@contextmanager
def _refusals(out: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Raise UserError, naming the bytes, where the store cannot be written."""
    try:
        if out.exists() and not out.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        yield
    except OSError as error:
        remedy = "give a folder that can be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"{needed_bytes} bytes are needed: {destination.ROOM}"
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); {remedy}") from error


# ---- Which images go to which split ----------------------------------------------------------------------------------


def split_rows(data: Data, train_labels: NDArray[np.int64], test_labels: NDArray[np.int64]) -> Rows:
    """Return the source rows of each split, ascending. Each class gives a share that is in proportion to its size.

    Validation leaves at least one image of each class to train on, and a training subset has at least one of each.
    Raises UserError, naming the key and what is accepted, where a split cannot have as many images as asked for.
    """
    sizes, test_sizes = np.bincount(train_labels), np.bincount(test_labels)
    train, test = _image_counts(data, sizes, test_sizes)
    shuffled = []
    for label in range(len(sizes)):
        # Rows are sorted by random keys: numpy keeps a bit generator's stream in all versions, but not `permutation`'s.
        rows = np.flatnonzero(train_labels == label)
        keys = np.random.PCG64([data.split_seed, label]).random_raw(len(rows))
        shuffled.append(rows[np.argsort(keys, kind="stable")])
    val_shares = _proportional_shares(data.validation_images, sizes, np.maximum(sizes - 1, 0))
    train_shares = _proportional_shares(train, sizes, sizes - val_shares)
    for label in np.flatnonzero((sizes > 0) & (train_shares == 0)).tolist():  # each takes one from the largest share
        train_shares[train_shares.argmax()] -= 1
        train_shares[label] = 1
    test_shares = _proportional_shares(test, test_sizes, test_sizes)
    by_class: dict[SplitName, list[NDArray[np.intp]]] = {
        "train": [own[val : val + n] for own, val, n in zip(shuffled, val_shares, train_shares, strict=True)],
        "val": [own[:val] for own, val in zip(shuffled, val_shares, strict=True)],
        "test": [np.flatnonzero(test_labels == label)[:n] for label, n in enumerate(test_shares)],
    }
    return {split: np.sort(np.concatenate(rows)) for split, rows in by_class.items()}


def _image_counts(data: Data, sizes: Counts, test_sizes: Counts) -> tuple[int, int]:
    """Return how many images training and test get, where each class has so many to give."""
    available, available_test, classes = int(sizes.sum()), int(test_sizes.sum()), np.count_nonzero(sizes)
    left = available - data.validation_images
    train = left if data.train_images is None else data.train_images
    test = available_test if data.test_images is None else data.test_images
    if left < classes:
        raise UserError(
            f"data.validation_images = {data.validation_images}: accepted is at most {available - classes}, "
            f"which leaves one image of each of the {classes} classes to train on; a tenth of all is "
            f"{max(1, available // 10)}"
        )
    if train > left:
        raise UserError(
            f"data.train_images = {train}: accepted is at most {left}, "
            f"what data.validation_images = {data.validation_images} leaves of {available}"
        )
    if train < classes:
        raise UserError(f"data.train_images = {train}: accepted is at least {classes}, one image of each class")
    if test > available_test:
        raise UserError(f"data.test_images = {test}: accepted is at most {available_test}, all that {data.dataset} has")
    return train, test


def _proportional_shares(total: int, sizes: Counts, available: Counts) -> Counts:
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


# ---- The store -------------------------------------------------------------------------------------------------------


def _write_store(store: Path, data: Data, raw: RawImages, rows: Rows, most_bytes: int, workers: int) -> None:
    images: dict[SplitName, Images] = {"train": raw.train, "val": raw.train, "test": raw.test}
    writer = Writer(images, store, data.image_size, raw.channels, most_bytes)
    writer.create(rows)
    records = {split: Record(split, images[split], rows[split], writer.path(split)) for split in rows}
    sums = PixelSums.zero(data.image_size, raw.channels)
    with (
        outcomes(writer, writer.batches(rows), workers) as written,
        tqdm(total=sum(map(len, rows.values())), unit=" images", desc="prepare", disable=None) as bar,
    ):
        for outcome in written:
            records[outcome.batch.split].add(outcome)
            if outcome.sums is not None:
                sums.add(outcome.sums)
            bar.update(len(outcome.batch.rows))
    labels = {split: record.write_labels() for split, record in records.items()}
    for label in np.flatnonzero(np.bincount(labels["train"], minlength=len(raw.classes)) == 0).tolist():
        raise UserError(
            f"data.folder: no training image of {raw.classes[label]} can be used; accepted is at least one of each "
            f"class. Replace such files, or remove the class: {_first(records['train'].skipped(label))}"
        )
    np.save(store / "mean_image.npy", sums.mean_image(), allow_pickle=False)
    eigenvectors, std = sums.rgb_components()
    of_files = {"train": [records["train"], records["val"]], "test": [records["test"]]}
    meta = Meta(
        dataset=data.dataset,
        image_size=data.image_size,
        channels=raw.channels,
        classes=raw.classes,
        counts={split: len(those) for split, those in labels.items()},
        sources=raw.sources or {split: _files_sha256(parts) for split, parts in of_files.items()},
        rgb_eigenvectors=eigenvectors,
        rgb_std=std,
        skipped=[file for record in records.values() for file in record.skipped()],
        sha256={array: checksum(store / array) for array in ARRAYS},
    )
    write_json(store / "meta.json", meta.model_dump())


class Record:
    """Collects what becomes known of a split's images while the workers write them."""

    def __init__(self, split: SplitName, images: Images, rows: NDArray[np.intp], path: Path) -> None:
        self.split, self.images, self.rows, self.path = split, images, rows, path  # rows: of the source
        self.problems: dict[int, str] = {}  # why there is no image, by its row in the store
        self.file_sha256 = np.zeros((len(rows), 32), np.uint8)  # of each image's file, 0 where it could not be read

    def add(self, outcome: Outcome) -> None:
        """Take in a batch. Raises UserError, naming files, where too many of the split cannot be used."""
        first, rows = outcome.batch.first, outcome.batch.rows
        self.problems |= outcome.problems
        self.file_sha256[first : first + len(rows)] = outcome.sha256
        if len(self.problems) > SKIPPED_SHARE * len(self.rows):
            raise UserError(
                f"data.folder: more than {SKIPPED_SHARE:.0%} of the {len(self.rows)} {self.split} images cannot be "
                f"used; accepted is at most that. Replace or remove such files: {_first(self.skipped())}"
            )

    def skipped(self, label: int | None = None) -> list[Skipped]:
        """Return the files that cannot be used, of one class or of all."""
        rows = [row for row in self.problems if label is None or self.images.labels[self.rows[row]] == label]
        return [Skipped(file=self.images.name(int(self.rows[row])), reason=self.problems[row]) for row in rows]

    def write_labels(self) -> NDArray[np.int64]:
        """Leave out the images that are missing. Write and return the labels of the others.

        The last images take the places of those that are missing, and the array file becomes shorter.
        """
        labels, missing = self.images.labels[self.rows], sorted(self.problems)
        if missing:
            images = np.lib.format.open_memmap(self.path, "r+")
            kept = len(images) - len(missing)
            order = np.arange(len(images))
            order[[row for row in missing if row < kept]] = np.setdiff1d(order[kept:], missing)
            labels = labels[order[:kept]]
            for place in np.flatnonzero(order[:kept] != np.arange(kept)):
                images[place] = images[order[place]]
            with self.path.open("r+b") as file:  # the shorter array's header is as long: it has room for digits
                description = {"descr": "|u1", "fortran_order": False, "shape": (kept, *images.shape[1:])}
                np.lib.format.write_array_header_1_0(file, description)
                file.truncate(file.tell() + images[:kept].nbytes)
        np.save(self.path.with_name("labels.npy"), labels, allow_pickle=False)
        return labels


def _first(skipped: list[Skipped]) -> str:
    return "; ".join(f"{file.file}: {file.reason}" for file in skipped[:3]) + ("; …" if len(skipped) > 3 else "")


def _files_sha256(records: list[Record]) -> str:
    """Return the SHA-256 of what sha256sum prints of the files, sorted by name."""
    names = [record.images.name(row) for record in records for row in record.rows.tolist()]
    digests = np.concatenate([record.file_sha256 for record in records])
    lines = hashlib.sha256()
    for place in sorted(np.flatnonzero(digests.any(1)).tolist(), key=names.__getitem__):
        lines.update(f"{digests[place].tobytes().hex()}  {names[place]}\n".encode())
    return lines.hexdigest()
