"""Reads Tiny ImageNet as Stanford's course CS231n published it: a zip archive, or the folder that it unpacks to.

It has 200 of ImageNet's classes with 500 training images each, 64 x 64 px. The labels of its own test images were never
published, so that its 10,000 validation images are the test split here. The archive is read in place. Labels are the
places of the WNIDs in ascending order; images are ordered by label, then by number, the test images by number alone:
the same store comes out of the archive and the folder.
"""

import errno
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.data.sources import MOST_BYTES, Loaded, RawImages, decoding, entries, require_published
from pipeline.data.sources.download import Refused, fetched, from_first, from_kept, from_web
from pipeline.data.sources.imagenet import Classes
from pipeline.errors import UserError
from pipeline.params import TINY_IMAGENET_CLASSES

URL = "http://cs231n.stanford.edu/"
ARCHIVE = "tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
ROOT = "tiny-imagenet-200"  # the folder that the archive unpacks to
WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
CLASSES, TRAIN_OF_CLASS, TEST_OF_CLASS = TINY_IMAGENET_CLASSES, 500, 50
WNID = re.compile(r"n\d{8}")
LAYOUT = f"accepted is {ARCHIVE}, or the {ROOT} that it unpacks to, with train/<WNID>/images, val and {WNIDS}"
AGAIN = f"unpack or fetch {ARCHIVE} again"


@dataclass(frozen=True)
class Place:
    """The published tree of files."""

    path: Path  # the archive, or the folder that holds train/ and val/
    zipped: bool

    def called(self, name: str) -> str:
        """Return what messages call a file or folder of the tree."""
        return f"{self.path}: {ROOT}/{name}" if self.zipped else str(self.path / name)

    def read(self, name: str) -> bytes:
        """Return a file's content. Raises OSError where it is missing, damaged or larger than any image accepted."""
        if not self.zipped:
            return decoding.read_file(self.path / name)
        archive = _opened(self.path, os.getpid())
        try:
            member = archive.getinfo(f"{ROOT}/{name}")
        except KeyError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        if member.file_size > decoding.MOST_FILE_BYTES:
            raise OSError(errno.EFBIG, f"it has {member.file_size} bytes")
        try:
            return archive.read(member)
        except Exception as error:  # whatever an unpacker raises on hostile bytes
            raise OSError(errno.EIO, f"damaged in the archive: {error}") from error

    def text(self, name: str) -> str:
        """Return a text file's content. Raises UserError where it cannot be read."""
        try:
            return self.read(name).decode(errors="backslashreplace")
        except OSError as error:
            raise UserError(f"{self.called(name)}: cannot be read ({error.strerror}); {LAYOUT}; {AGAIN}") from error

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, without hidden ones. Raises UserError where there is none."""
        if not self.zipped:
            return [entry.name for entry in entries(self.path / folder, LAYOUT, folders=False)]
        return [name for name in _members(self.path).get(f"{ROOT}/{folder}", []) if name[0] != "."]


@dataclass(frozen=True)
class Files:
    """One split."""

    place: Place
    names: list[str]  # below the tree's root
    labels: NDArray[np.int64]

    def name(self, row: int) -> str:
        return self.names[row]

    def load(self, row: int, image_size: int, most_bytes: int = MOST_BYTES) -> Loaded:
        return decoding.load(lambda: self.place.read(self.names[row]), image_size, most_bytes)


def load(classes: int | Sequence[str] | None = None) -> RawImages:
    """Return the published images, of all `classes` or as `chosen`. Raises UserError where no place has them."""
    kept, fetched_whole = paths.downloads() / "tiny-imagenet", partial(_require_checksum, URL + ARCHIVE)
    from_first(
        "Tiny ImageNet",
        "its archive",
        {
            str(kept): partial(from_kept, kept, ARCHIVE, _require_checksum),
            URL: partial(fetched, partial(from_web, URL, [ARCHIVE]), fetched_whole, kept, [ARCHIVE]),
        },
        f"Connect to the network and run again, or put {ARCHIVE} (MD5 {MD5}) into {kept}, or name as data.folder the "
        "archive or the folder that it unpacks to",
    )
    return read(kept / ARCHIVE, classes)


def read(path: Path, classes: int | Sequence[str] | None = None) -> RawImages:
    """Return the images of an archive or an unpacked folder, of all classes or as `chosen`.

    Raises UserError where not all that was published is there, also of classes that are not chosen.
    """
    place = Place(path / ROOT if (path / ROOT).is_dir() else path, path.is_file())
    wnids = _wnids(place)
    taken = chosen(wnids, classes)
    words = dict(line.split("\t", 1) for line in place.text(WORDS).splitlines() if "\t" in line)
    if unnamed := [wnid for wnid in taken if wnid not in words]:
        raise UserError(f"{place.called(WORDS)}: has no line for {unnamed[0]}; {AGAIN}")
    for wnid in wnids:
        folder = f"train/{wnid}/images"
        require_published(place.called(folder), place.names(folder), _train_names(wnid), AGAIN)
    train = [f"train/{wnid}/images/{name}" for wnid in taken for name in _train_names(wnid)]
    label = {wnid: label for label, wnid in enumerate(taken)}
    test = {name: label[wnid] for name, wnid in _annotated(place, wnids).items() if wnid in label}
    return RawImages(
        Files(place, train, np.repeat(np.arange(len(taken)), TRAIN_OF_CLASS)),
        Files(place, [f"val/images/{name}" for name in test], np.array(list(test.values()), np.int64)),
        3,
        Classes(taken, [TRAIN_OF_CLASS] * len(taken), [words[wnid] for wnid in taken]).names(),
        {},
    )


def chosen(wnids: Sequence[str], classes: int | Sequence[str] | None) -> list[str]:
    """Return the WNIDs of `classes`, ascending: so many, spread evenly over all of them; those listed; or all (None).

    Raises UserError where a listed one is unknown.
    """
    known = sorted(wnids)
    if classes is None:
        return known
    if isinstance(classes, int):
        return [known[place * len(known) // classes] for place in range(classes)]
    if unknown := sorted(set(classes) - set(known)):
        raise UserError(f"data.classes: Tiny ImageNet has no class {unknown[0]!r}; accepted are the WNIDs in {WNIDS}")
    return sorted(classes)


def _train_names(wnid: str) -> list[str]:
    return [f"{wnid}_{number}.JPEG" for number in range(TRAIN_OF_CLASS)]


def _wnids(place: Place) -> list[str]:
    """Return the classes, ascending. Raises UserError where they are not as many as were published."""
    wnids = place.text(WNIDS).split()
    if wrong := [wnid for wnid in wnids if not WNID.fullmatch(wnid)]:
        raise UserError(f"{place.called(WNIDS)}: holds {wrong[0]!r}; accepted are WNIDs such as n01443537; {AGAIN}")
    if len(wnids) != CLASSES or len(set(wnids)) != CLASSES:
        found = f"{len(wnids)} WNIDs, {len(set(wnids))} of them different"
        raise UserError(f"{place.called(WNIDS)}: holds {found}; accepted are {CLASSES}; {AGAIN}")
    return sorted(wnids)


def _annotated(place: Place, wnids: Sequence[str]) -> dict[str, str]:
    """Return the WNID of each validation image, in order of their numbers.

    Raises UserError at an image or a class that was not published, or is there too often or not at all.
    """
    published = [f"val_{number}.JPEG" for number in range(CLASSES * TEST_OF_CLASS)]
    require_published(place.called("val/images"), place.names("val/images"), published, AGAIN)
    called, known, found = place.called(ANNOTATIONS), set(published), {}
    for number, line in enumerate(place.text(ANNOTATIONS).splitlines(), start=1):
        name, wnid = [*line.split("\t"), ""][:2]
        if name not in known or name in found:
            accepted = f"{published[0]} to {published[-1]}, each once"
            raise UserError(f"{called}: line {number} is about {name!r}; accepted are {accepted}; {AGAIN}")
        if wnid not in wnids:
            raise UserError(f"{called}: line {number} has the class {wnid!r}; accepted are those in {WNIDS}; {AGAIN}")
        found[name] = wnid
    if missing := [name for name in published if name not in found]:
        raise UserError(f"{called}: has no line for {missing[0]}; {AGAIN}")
    counts = Counter(found.values())
    if off := [f"{wnid} has {counts[wnid]}" for wnid in wnids if counts[wnid] != TEST_OF_CLASS]:
        raise UserError(f"{called}: gives {off[0]} images; accepted are {TEST_OF_CLASS} of each class; {AGAIN}")
    return {name: found[name] for name in published}


def _require_checksum(called: str, folder: Path) -> None:
    """Raise Refused unless the archive in `folder`, which messages call `called`, is the one published."""
    with (folder / ARCHIVE).open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != MD5:
        raise Refused(f"{called}: {(folder / ARCHIVE).stat().st_size} bytes, whose MD5 is {found}; accepted is {MD5}")


@cache
def _opened(path: Path, process: int) -> ZipFile:
    """Return the archive, opened once by each process: a forked one would share its parent's place in the file."""
    try:
        return ZipFile(path)
    except Exception as error:  # whatever a damaged directory makes zipfile raise
        raise UserError(f"{path}: is no whole zip archive ({error}); {AGAIN}") from error


@cache
def _members(path: Path) -> dict[str, list[str]]:
    """Return the names of an archive's files by the folder that they lie in."""
    found: dict[str, list[str]] = {}
    for member in _opened(path, os.getpid()).namelist():
        folder, _, name = member.rpartition("/")
        if name:
            found.setdefault(folder, []).append(name)
    return found
