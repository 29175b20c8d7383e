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
from pipeline.data.decoding_workers import Outcome, Rows, Writer, outcomes
from pipeline.data.sources import Images, RawImages
from pipeline.data.split import print_unrepresented, split_rows
from pipeline.data.statistics import PixelStatistics
from pipeline.data.store import ARRAYS, PART_BYTES, Meta, Skipped, SplitName, checksum, store_bytes
from pipeline.errors import UserError
from pipeline.params import Data
from pipeline.runtime.cores import usable_cores
from pipeline.runtime.files import replacing_folder, write_json
from pipeline.runtime.locks import locked

SKIPPED_SHARE = 0.01  # of a split's images, at most


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
        print_unrepresented(raw, rows)
        images = sum(map(len, rows.values()))
        needed_bytes = store_bytes(images, data.image_size, raw.channels)
        with _refusals(out, needed_bytes):
            with replacing_folder(out.resolve()) as store:
                print(f"prepare: {images} images; {destination.require_space(out, needed_bytes)}", flush=True)
                _write_store(store, data, raw, rows, most_bytes, workers)
            destination.remember(out, key)


def _write_store(store: Path, data: Data, raw: RawImages, rows: Rows, most_bytes: int, workers: int) -> None:
    images: dict[SplitName, Images] = {"train": raw.train, "val": raw.train, "test": raw.test}
    writer = Writer(images, store, data.image_size, raw.channels, most_bytes)
    writer.create(rows)
    records = {split: Record(writer, split, rows[split]) for split in rows}
    statistics = PixelStatistics(data.image_size, raw.channels)
    with (
        outcomes(writer, writer.batches(rows), workers) as written,
        tqdm(total=sum(map(len, rows.values())), unit=" images", desc="prepare", disable=None) as bar,
    ):
        for outcome in written:
            records[outcome.batch.split].add(outcome)
            if outcome.sums is not None:
                statistics.add(outcome.sums)
            bar.update(len(outcome.batch.rows))
    labels = {split: record.write_labels() for split, record in records.items()}
    for label in np.flatnonzero(np.bincount(labels["train"], minlength=len(raw.classes)) == 0).tolist():
        raise UserError(
            f"data.folder: no training image of {raw.classes[label]} can be used; accepted is at least one of each "
            f"class. Replace such files, or remove the class: {_first(records['train'].skipped(label))}"
        )
    np.save(store / "mean_image.npy", statistics.mean_image(), allow_pickle=False)
    eigenvectors, std = statistics.rgb_components()
    known = {f"{split}/images.npy": record.checksum() for split, record in records.items()}
    meta = Meta(
        dataset=data.dataset,
        image_size=data.image_size,
        channels=raw.channels,
        classes=raw.classes,
        counts={split: len(those) for split, those in labels.items()},
        sources=raw.sources
        or {"train": _files_sha256(records["train"], records["val"]), "test": _files_sha256(records["test"])},
        rgb_eigenvectors=eigenvectors,
        rgb_std=std,
        skipped=[file for record in records.values() for file in record.skipped()],
        sha256={array: known.get(array) or checksum(store / array) for array in ARRAYS},
    )
    write_json(store / "meta.json", meta.model_dump())


class Record:
    """Collects what becomes known of a split's images while the workers write them."""

    def __init__(self, writer: Writer, split: SplitName, rows: NDArray[np.intp]) -> None:
        self.writer, self.split = writer, split
        self.images, self.rows = writer.images[split], rows  # of the source
        self.path = writer.path(split)
        self.problems: dict[int, str] = {}  # why there is no image, by its row in the store
        self.file_sha256 = np.zeros((len(rows), 32), np.uint8)  # of each image's file, 0 where it could not be read
        self._digest = hashlib.sha256() if self.path.stat().st_size <= PART_BYTES else None

    def add(self, outcome: Outcome) -> None:
        """Take in the next batch. Raises UserError, naming files, where too many of the split cannot be used."""
        first, rows = outcome.batch.first, outcome.batch.rows
        self.problems |= outcome.problems
        self.file_sha256[first : first + len(rows)] = outcome.sha256
        if self._digest is not None:  # small arrays: the workers go on meanwhile
            for content in self.writer.content(outcome.batch):
                self._digest.update(content)
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
        """Leave out the images that are missing; write, and return, the labels of the others."""
        labels = self.images.labels[self.rows]
        if self.problems:
            labels = labels[_leave_out(self.path, sorted(self.problems))]
        np.save(self.path.with_name("labels.npy"), labels, allow_pickle=False)
        return labels

    def checksum(self) -> str:
        """Return what store.checksum returns for the array of images, sooner where none is missing."""
        return checksum(self.path) if self._digest is None or self.problems else self._digest.hexdigest()


def _first(skipped: list[Skipped]) -> str:
    return "; ".join(f"{file.file}: {file.reason}" for file in skipped[:3]) + ("; …" if len(skipped) > 3 else "")


def _leave_out(path: Path, missing: list[int]) -> NDArray[np.intp]:
    """Shorten an array file: its last rows take the places of those that are missing.

    Returns which row now stands where.
    """
    images = np.lib.format.open_memmap(path, "r+")
    kept = len(images) - len(missing)
    order = np.arange(len(images))
    order[[row for row in missing if row < kept]] = np.setdiff1d(order[kept:], missing)
    order = order[:kept]
    for place in np.flatnonzero(order != np.arange(kept)):
        images[place] = images[order[place]]
    with path.open("r+b") as file:  # the header of a shorter array is as long: the format leaves room for digits
        description = {"descr": "|u1", "fortran_order": False, "shape": (kept, *images.shape[1:])}
        np.lib.format.write_array_header_1_0(file, description)
        file.truncate(file.tell() + images[:kept].nbytes)
    return order


def _files_sha256(*records: Record) -> str:
    """Return the checksum of the files of the source's split: that of what sha256sum prints, sorted by name."""
    names = [record.images.name(row) for record in records for row in record.rows.tolist()]
    digests = np.concatenate([record.file_sha256 for record in records])
    lines = hashlib.sha256()
    for place in sorted(np.flatnonzero(digests.any(1)).tolist(), key=names.__getitem__):
        lines.update(f"{digests[place].tobytes().hex()}  {names[place]}\n".encode())
    return lines.hexdigest()


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
