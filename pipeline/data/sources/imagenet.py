"""Reads ImageNet's contests of 2012 and 2010 as they were published: in their archives, or unpacked by others.

Labels are the development kit's IDs minus one. Training images are ordered by label, then by name, the others by name,
whatever the layout: the same store comes out of each. Where no kit lies beside the images of 2012, its order of classes
comes from ilsvrc2012_classes.txt, which is the kit's list; the order of 2010 comes from its kit alone.

The split `test` is the official validation set of 2012, whose test labels were never published, and the official test
set of 2010 (the paper's Table 1). Validation images are held out of the training set for both; the official validation
set of 2010 is counted where it lies beside the others, and not used.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.sources import MOST_BYTES, Loaded, RawImages, decoding, devkit, tar_index
from pipeline.data.sources.contests import CONTESTS, KAGGLE, KAGGLE_TRUTH, Contest
from pipeline.data.sources.devkit import Classes
from pipeline.data.sources.listing import entries, few
from pipeline.data.sources.tar_index import Members
from pipeline.errors import UserError

REMEDY = (
    "fetch what is missing; or, for a part of ImageNet, set data.dataset to a name of your own: it is then read as "
    "anyone's images are, from train/<class>/<image> and test/<class>/<image> in data.folder"
)


@dataclass(frozen=True)
class Files:
    """One split. It consists of arrays, not of a million objects, so that worker processes receive it soon."""

    split: str
    wnids: list[str]
    place: Path  # archive or folder
    names: NDArray[np.bytes_]  # N
    labels: NDArray[np.int64]  # N

    def name(self, row: int) -> str:
        """Return the image's name in class folders, whatever the layout."""
        file = bytes(self.names[row]).decode(errors="backslashreplace")
        return f"{self.split}/{self.wnids[self.labels[row]]}/{file}"

    def load(self, row: int, image_size: int, most_bytes: int = MOST_BYTES) -> Loaded:
        return decoding.load(lambda: self.content(row), image_size, most_bytes)

    def content(self, row: int) -> bytes:
        """Return the image's file. Raises OSError."""
        raise NotImplementedError


@dataclass(frozen=True)
class InArchive(Files):
    """A split whose files lie in a tar archive, or in archives within one."""

    offsets: NDArray[np.int64]  # N
    sizes: NDArray[np.int64]  # N

    def content(self, row: int) -> bytes:
        return tar_index.read(self.place, int(self.offsets[row]), int(self.sizes[row]))


@dataclass(frozen=True)
class InFolder(Files):
    """A split whose files lie in a folder."""

    by_class: bool  # in a folder for each class

    def content(self, row: int) -> bytes:
        folder = self.place / self.wnids[self.labels[row]] if self.by_class else self.place
        return decoding.read_file(folder / os.fsdecode(bytes(self.names[row])))


def load(dataset: str, folder: Path) -> RawImages:
    """Return a contest's images. Raises UserError, naming folder, archive or class, where not all are there."""
    contest = CONTESTS[dataset]
    kit = devkit.contents(folder, *contest.kit)
    download = Download(contest, folder, kit, _classes(contest, folder, kit))
    found = {split: download.files(split) for split in contest.images}
    train, test = found["train"], found[contest.test]
    if train is None or test is None:
        absent = contest.test if train else "train"
        raise UserError(f"{folder}: holds no {absent} images of {contest.name}; {contest.layouts}")
    return RawImages(train, test, 3, download.classes.names(), {})


def _classes(contest: Contest, folder: Path, kit: dict[str, bytes]) -> Classes:
    if devkit.META in kit:
        return devkit.from_meta(kit[devkit.META], f"{folder}: {devkit.META} of the kit", f"{contest.name}_ID")
    if contest.table is None:
        raise UserError(
            f"{folder}: holds neither {contest.kit[0]} nor {contest.kit[1]}/data/{devkit.META}, which numbers the "
            f"classes; {contest.layouts}"
        )
    return devkit.from_table(contest.table)


@dataclass(frozen=True)
class Download:
    """What somebody downloaded of a contest."""

    contest: Contest
    folder: Path
    kit: dict[str, bytes]
    classes: Classes

    def files(self, split: str) -> Files | None:
        """Return a split's files from the first place that is there; None where there is none."""
        archive = self.folder / self.contest.archive.format(split)
        if archive.exists():
            return self._archive_of_archives(archive) if split == "train" else self._flat_archive(split, archive)
        for place in (self.folder / split, self.folder / KAGGLE / split):
            if place.exists():
                by_class = split == "train" or any(path.is_dir() for path in place.glob("[!.]*"))
                return self._class_folders(split, place) if by_class else self._flat_folder(split, place)
        return None

    def _archive_of_archives(self, place: Path) -> Files:
        """Return the training images: an archive of archives has one for each class."""
        outer = tar_index.index(place, str(place))
        row = {os.fsdecode(name): row for row, name in enumerate(outer.names.tolist())}
        _match(place, map(os.fsdecode, outer.names.tolist()), [f"{wnid}.tar" for wnid in self.classes.wnids])
        inner = []
        for wnid in tqdm(self.classes.wnids, unit=" classes", desc=f"headers of {place.name}", disable=None):
            start, size = (int(values[row[f"{wnid}.tar"]]) for values in (outer.offsets, outer.sizes))
            inner.append(tar_index.index(place, f"{place}: {wnid}.tar", start, start + size))
        labels = self._labels("train", place, [len(members.names) for members in inner])
        members = Members(*map(np.concatenate, zip(*inner, strict=True)))
        return InArchive("train", self.classes.wnids, place, members.names, labels, members.offsets, members.sizes)

    def _flat_archive(self, split: str, place: Path) -> Files:
        members = tar_index.index(place, str(place))
        labels = self._flat_labels(split, place, members.names)
        return InArchive(split, self.classes.wnids, place, members.names, labels, members.offsets, members.sizes)

    def _class_folders(self, split: str, place: Path) -> Files:
        _match(place, [entry.name for entry in entries(place, self.contest.layouts)], self.classes.wnids)
        listed = [self._names(place / wnid) for wnid in self.classes.wnids]
        labels = self._labels(split, place, list(map(len, listed)))
        names = np.concatenate(listed)
        if split != "train":
            order = np.argsort(names, kind="stable")
            names, labels = names[order], labels[order]
        return InFolder(split, self.classes.wnids, place, names, labels, by_class=True)

    def _flat_folder(self, split: str, place: Path) -> Files:
        names = self._names(place)
        return InFolder(split, self.classes.wnids, place, names, self._flat_labels(split, place, names), by_class=False)

    def _names(self, folder: Path) -> NDArray[np.bytes_]:
        listed = entries(folder, self.contest.layouts, folders=False)
        return np.array(sorted(os.fsencode(entry.name) for entry in listed), np.bytes_)

    def _labels(self, split: str, place: Path, counts: list[int]) -> NDArray[np.int64]:
        """Return the labels of images that are in order of their classes.

        Raises UserError, naming classes, where they are not all there.
        """
        total, classes = self.contest.images[split], self.classes
        if sum(counts) != total:
            accepted = classes.train_images if split == "train" else [total // len(counts)] * len(counts)
            pairs = zip(classes.wnids, counts, accepted, strict=True)
            off = [f"{wnid} has {count} of {published}" for wnid, count, published in pairs if count != published]
            raise UserError(f"{place}: holds {sum(counts)} images; accepted is {total} ({few(off)}): {REMEDY}")
        return np.repeat(np.arange(len(counts)), counts)

    def _flat_labels(self, split: str, place: Path, names: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return the labels of images that lie together, in order of their names."""
        numbers = range(1, self.contest.images[split] + 1)
        published = [f"{self.contest.name}_{split}_{number:08d}.JPEG" for number in numbers]
        _match(place, map(os.fsdecode, names.tolist()), published)
        truth = self.contest.truth[split]
        content = self.kit.get(truth) or _content(self.folder / truth)
        if content is not None:
            return devkit.truth(content, f"{self.folder}: {truth}", len(names), len(self.classes.wnids))
        solution = _content(self.folder / KAGGLE_TRUTH)
        if solution is not None:
            return self._solved(solution, published)
        raise UserError(f"{self.folder}: holds no {truth}, which labels {place}; {self.contest.layouts}")

    def _solved(self, solution: bytes, names: list[str]) -> NDArray[np.int64]:
        """Return the labels by Kaggle's table, where each image has a line with a WNID and a box for each object."""
        label = {wnid: label for label, wnid in enumerate(self.classes.wnids)}
        lines = csv.reader(io.StringIO(solution.decode(errors="backslashreplace")))
        found = {line[0]: label.get(line[1].split(" ")[0]) for line in lines if len(line) == 2}
        labels = [found.get(name.removesuffix(".JPEG")) for name in names]
        if None in labels:
            image, path = names[labels.index(None)], self.folder / KAGGLE_TRUTH
            raise UserError(f"{path}: has no line with {image} and a known WNID; copy or fetch it again")
        return np.array(labels, np.int64)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _match(place: Path, found: Iterable[str], published: list[str]) -> None:
    there, accepted = Counter(found), Counter(published)
    if missing := sorted((accepted - there).elements()):
        raise UserError(f"{place}: lacks {len(missing)} of the {len(published)} published, {few(missing)}: {REMEDY}")
    if surplus := sorted((there - accepted).elements()):
        raise UserError(f"{place}: {few(surplus)}: not among what was published, or there twice; move it away")
