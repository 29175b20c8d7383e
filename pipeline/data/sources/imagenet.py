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
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.sources import MOST_BYTES, Loaded, RawImages, decoding, entries, few, require_published
from pipeline.errors import UserError

KAGGLE = "ILSVRC/Data/CLS-LOC"
KAGGLE_TRUTH = "LOC_val_solution.csv"
META = "meta.mat"  # of a kit
MOST_KIT_BYTES = 50_000_000  # a hostile archive may unpack to anything
REMEDY = (
    "fetch what is missing; or, for a part of ImageNet, set data.dataset to a name of your own: it is then read as "
    "anyone's images are, from train/<class>/<image> and test/<class>/<image> in data.folder"
)


@dataclass(frozen=True)
class Contest:
    """What was published for one year's contest (ILSVRC), as the readme file of its development kit states it."""

    name: str  # how the names of its files begin
    images: dict[str, int]  # number of each split
    test: str  # the split that is measured at the end
    archive: str  # of a split
    kit: tuple[str, str]  # the development kit as an archive, and unpacked
    truth: dict[str, str]  # file with the classes of a split's images
    table: Path | None  # the classes, where no kit is needed to know them
    layouts: str
    classes: int = 1000


CONTESTS = {
    "imagenet2012": Contest(
        name="ILSVRC2012",
        images={"train": 1_281_167, "val": 50_000},
        test="val",
        archive="ILSVRC2012_img_{}.tar",
        kit=("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12"),
        truth={"val": "ILSVRC2012_validation_ground_truth.txt"},
        table=Path(__file__).with_name("ilsvrc2012_classes.txt"),
        layouts="accepted are ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz; or "
        f"Kaggle's {KAGGLE}/train, {KAGGLE}/val and {KAGGLE_TRUTH}; or train/<WNID>/<image> and val/<WNID>/<image>",
    ),
    "imagenet2010": Contest(
        name="ILSVRC2010",
        images={"train": 1_261_406, "val": 50_000, "test": 150_000},
        test="test",
        archive="ILSVRC2010_images_{}.tar",
        kit=("ILSVRC2010_devkit-1.0.tar.gz", "devkit-1.0"),
        truth={"val": "ILSVRC2010_validation_ground_truth.txt", "test": "ILSVRC2010_test_ground_truth.txt"},
        table=None,
        layouts="accepted are ILSVRC2010_devkit-1.0.tar.gz with ILSVRC2010_images_train.tar, "
        "ILSVRC2010_images_test.tar and ILSVRC2010_test_ground_truth.txt; or with train/<WNID>/<image> and "
        "test/<WNID>/<image>",
    ),
}


# ---- Splits ----------------------------------------------------------------------------------------------------------


class Members(NamedTuple):
    """The regular files of a tar archive, by name."""

    names: NDArray[np.bytes_]  # N, without folders
    offsets: NDArray[np.int64]  # N, bytes from the start of the outermost archive
    sizes: NDArray[np.int64]  # N, bytes


@dataclass(frozen=True)
class Files:
    """One split. It consists of arrays, not of a million objects, so that worker processes receive it soon."""

    split: str
    wnids: list[str]
    place: Path  # archive or folder
    names: NDArray[np.bytes_]  # N
    labels: NDArray[np.int64]  # N
    members: Members | None = None  # where the files lie in an archive, or in archives within one
    by_class: bool = False  # in a folder: whether there is a folder for each class

    def name(self, row: int) -> str:
        """Return the image's name in class folders, whatever the layout."""
        file = bytes(self.names[row]).decode(errors="backslashreplace")
        return f"{self.split}/{self.wnids[self.labels[row]]}/{file}"

    def load(self, row: int, image_size: int, most_bytes: int = MOST_BYTES) -> Loaded:
        return decoding.load(lambda: self.content(row), image_size, most_bytes)

    def content(self, row: int) -> bytes:
        """Return the image's file. Raises OSError."""
        if self.members is not None:
            with self.place.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), int(self.members.sizes[row]), int(self.members.offsets[row]))
        folder = self.place / self.wnids[self.labels[row]] if self.by_class else self.place
        return decoding.read_file(folder / os.fsdecode(bytes(self.names[row])))


def load(dataset: str, folder: Path) -> RawImages:
    """Return a contest's images. Raises UserError, naming folder, archive or class, where not all are there."""
    contest = CONTESTS[dataset]
    kit = kit_contents(folder, *contest.kit)
    if META in kit:
        classes = classes_from_meta(kit[META], f"{folder}: {META} of the kit", f"{contest.name}_ID")
    elif contest.table is not None:
        classes = classes_from_table(contest.table)
    else:
        raise UserError(
            f"{folder}: holds neither {contest.kit[0]} nor {contest.kit[1]}/data/{META}, which numbers the classes; "
            f"{contest.layouts}"
        )
    download = Download(contest, folder, kit, classes)
    found = {split: download.files(split) for split in contest.images}
    train, test = found["train"], found[contest.test]
    if train is None or test is None:
        absent = contest.test if train else "train"
        raise UserError(f"{folder}: holds no {absent} images of {contest.name}; {contest.layouts}")
    return RawImages(train, test, 3, classes.names(), {})


@dataclass(frozen=True)
class Download:
    """What somebody downloaded of a contest."""

    contest: Contest
    folder: Path
    kit: dict[str, bytes]
    classes: "Classes"

    def files(self, split: str) -> Files | None:
        """Return a split's files from the first place that is there; None where there is none."""
        archive, wnids = self.folder / self.contest.archive.format(split), self.classes.wnids
        if archive.exists() and split == "train":
            return self._archive_of_archives(archive)
        if archive.exists():
            members = index_tar(archive, str(archive))
            labels = self._flat_labels(split, archive, members.names)
            return Files(split, wnids, archive, members.names, labels, members)
        for place in (self.folder / split, self.folder / KAGGLE / split):
            if place.exists() and (split == "train" or any(path.is_dir() for path in place.glob("[!.]*"))):
                return self._class_folders(split, place)
            if place.exists():
                names = self._names(place)
                return Files(split, wnids, place, names, self._flat_labels(split, place, names))
        return None

    def _archive_of_archives(self, place: Path) -> Files:
        """Return the training images: an archive of archives has one for each class."""
        wnids, outer = self.classes.wnids, index_tar(place, str(place))
        row = {os.fsdecode(name): row for row, name in enumerate(outer.names.tolist())}
        require_published(place, map(os.fsdecode, outer.names.tolist()), [f"{wnid}.tar" for wnid in wnids], REMEDY)
        inner = []
        for wnid in tqdm(wnids, unit=" classes", desc=f"headers of {place.name}", disable=None):
            start, size = (int(values[row[f"{wnid}.tar"]]) for values in (outer.offsets, outer.sizes))
            inner.append(index_tar(place, f"{place}: {wnid}.tar", start, start + size))
        labels = self._labels("train", place, [len(members.names) for members in inner])
        members = Members(*map(np.concatenate, zip(*inner, strict=True)))
        return Files("train", wnids, place, members.names, labels, members)

    def _class_folders(self, split: str, place: Path) -> Files:
        wnids = self.classes.wnids
        require_published(place, [entry.name for entry in entries(place, self.contest.layouts)], wnids, REMEDY)
        listed = [self._names(place / wnid) for wnid in wnids]
        labels, names = self._labels(split, place, list(map(len, listed))), np.concatenate(listed)
        if split != "train":
            order = np.argsort(names, kind="stable")
            names, labels = names[order], labels[order]
        return Files(split, wnids, place, names, labels, by_class=True)

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
        require_published(place, map(os.fsdecode, names.tolist()), published, REMEDY)
        truth = self.contest.truth[split]
        if (content := self.kit.get(truth) or _content(self.folder / truth)) is not None:
            return labels_from_truth(content, f"{self.folder}: {truth}", len(names), len(self.classes.wnids))
        path = self.folder / KAGGLE_TRUTH
        if (content := _content(path)) is None:
            raise UserError(f"{self.folder}: holds no {truth}, which labels {place}; {self.contest.layouts}")
        # Kaggle's table has a line for each image, with a WNID and a box for each object.
        label = {wnid: label for label, wnid in enumerate(self.classes.wnids)}
        lines = csv.reader(io.StringIO(content.decode(errors="backslashreplace")))
        found = {line[0]: label.get(line[1].split(" ")[0]) for line in lines if len(line) == 2}
        labels = [found.get(name.removesuffix(".JPEG")) for name in published]
        if None in labels:
            image = published[labels.index(None)]
            raise UserError(f"{path}: has no line with {image} and a known WNID; copy or fetch it again")
        return np.array(labels, np.int64)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


# ---- The development kit: the classes in their order, and the class of each test image -------------------------------


@dataclass(frozen=True)
class Classes:
    """The classes by label, which is the kit's ID minus one; this is not the order of the WNIDs."""

    wnids: list[str]  # WordNet's number of each, as in the names of files
    train_images: list[int]
    words: list[str]  # its synonyms, separated by commas

    def names(self) -> list[str]:
        """Return each first synonym, with the WNID where two classes share it (there are two cranes)."""
        first = [words.split(",")[0] for words in self.words]
        shared = Counter(first)
        return [f"{name} ({wnid})" if shared[name] > 1 else name for name, wnid in zip(first, self.wnids, strict=True)]


def kit_contents(folder: Path, archive: str, unpacked: str) -> dict[str, bytes]:
    """Return the files of the kit's data/ by name, from its archive or where it was unpacked; none without a kit."""
    path, data = folder / archive, folder / unpacked / "data"
    found, total, archived = {}, 0, False
    try:
        archived = path.exists()
        if not archived:
            return {file.name: file.read_bytes() for file in data.iterdir() if file.is_file()} if data.is_dir() else {}
        with tarfile.open(path, "r|*") as kit:
            for member in kit:
                total += member.size
                if total > MOST_KIT_BYTES:
                    raise ValueError(f"it unpacks to more than {MOST_KIT_BYTES} bytes")
                content = kit.extractfile(member) if member.isreg() else None
                if content and PurePosixPath(member.name).parent.name == "data":
                    found[PurePosixPath(member.name).name] = content.read()
    except Exception as error:  # whatever an unpacker raises on hostile bytes
        if isinstance(error, OSError) and not archived:
            raise UserError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
        raise UserError(f"{path}: cannot be unpacked ({error}); copy or fetch it again") from error
    return found


def classes_from_meta(content: bytes, called: str, key: str) -> Classes:
    """Return the synsets of meta.mat that have no children. `key` is the field of their IDs, which run from 1."""
    from scipy.io import loadmat

    try:
        file: Any = io.BytesIO(content)  # scipy's annotation knows paths alone
        synsets = loadmat(file, squeeze_me=True, variable_names=["synsets"])["synsets"]
        leaves = sorted(
            (int(synset[key]), str(synset["WNID"]), int(synset["num_train_images"]), str(synset["words"]))
            for synset in synsets
            if synset["num_children"] == 0
        )
        ids, wnids, train_images, words = (list(column) for column in zip(*leaves, strict=True))
    except Exception as error:  # whatever a damaged file makes scipy raise
        raise UserError(f"{called}: is not the kit's list of synsets ({error!r}); copy or fetch it again") from error
    if ids != list(range(1, len(ids) + 1)):
        raise UserError(f"{called}: gives its {len(ids)} classes other IDs than 1 to {len(ids)}; fetch it again")
    return Classes(wnids, train_images, words)


def classes_from_table(path: Path) -> Classes:
    """Read a line for each class: its WNID, its number of training images, its words."""
    lines = [line.split(" ", 2) for line in path.read_text(encoding="utf-8").splitlines()]
    return Classes([line[0] for line in lines], [int(line[1]) for line in lines], [line[2] for line in lines])


def labels_from_truth(content: bytes, called: str, images: int, classes: int) -> NDArray[np.int64]:
    """Return the label of each of `images` images. Line k is the ID, from 1, of the k-th by name."""
    try:
        ids = np.array(content.split(), np.int64)
    except ValueError as error:
        raise UserError(f"{called}: holds other lines than numbers ({error}); fetch it again") from error
    if len(ids) != images:
        raise UserError(f"{called}: holds {len(ids)} lines; accepted are {images}, one for each image; fetch it again")
    if wrong := np.flatnonzero((ids < 1) | (ids > classes)).tolist():
        raise UserError(f"{called}: line {wrong[0] + 1} is {ids[wrong[0]]}; accepted is 1 to {classes}; fetch it again")
    return ids - 1


# ---- Archives, which are read in place and never unpacked ------------------------------------------------------------


def index_tar(path: Path, called: str, start: int = 0, end: int | None = None) -> Members:
    """Find each file of the archive in bytes `start` to `end` of a file, by default all of it, by its headers alone.

    Messages call the archive `called`. Raises UserError, naming the member, where it is cut off or damaged.
    """
    names, places = [], []
    name, after = "its start", start
    try:
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size if end is None else end
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while after <= end and (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # would grow by an object for each file
                    name = PurePosixPath(member.name).name
                    after = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                    if member.isreg():
                        names.append(os.fsencode(name))
                        places.append((member.offset_data, member.size))
            file.seek(after)
            closing = file.read(max(0, min(tarfile.BLOCKSIZE, end - after)))
    except OSError as error:
        raise UserError(f"{called}: cannot be read ({error.strerror})") from error
    except Exception as error:  # whatever tarfile raises on hostile bytes
        raise UserError(f"{called}: is no tar archive ({error}); copy or fetch it again") from error
    if after > end:
        raise UserError(f"{called}: ends inside {name}, at byte {end} instead of {after}; copy or fetch it again")
    if closing != bytes(tarfile.BLOCKSIZE):
        raise UserError(f"{called}: is cut off or damaged after {name}, at byte {after}; copy or fetch it again")
    order = np.argsort(np.array(names, np.bytes_), kind="stable")
    offsets, sizes = np.array(places, np.int64).reshape(-1, 2)[order].T
    return Members(np.array(names, np.bytes_)[order], offsets, sizes)
