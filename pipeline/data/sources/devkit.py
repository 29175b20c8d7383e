"""Reads an ImageNet contest's development kit: its classes in their order, and the class of each test image."""

import io
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

META = "meta.mat"
MOST_BYTES = 50_000_000  # of the kit; a hostile archive may unpack to anything


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


def contents(folder: Path, archive: str, unpacked: str) -> dict[str, bytes]:
    """Return the files of the kit's data/ by name, from its archive or where it was unpacked; none without a kit."""
    try:
        if (folder / archive).exists():
            return _of_archive(folder / archive)
        if (folder / unpacked / "data").is_dir():
            return {path.name: path.read_bytes() for path in (folder / unpacked / "data").iterdir() if path.is_file()}
    except OSError as error:
        raise UserError(f"{error.filename or folder / archive}: cannot be read ({error.strerror or error})") from error
    return {}


def _of_archive(path: Path) -> dict[str, bytes]:
    found, total = {}, 0
    try:
        with tarfile.open(path, "r|*") as kit:
            for member in kit:
                total += member.size
                if total > MOST_BYTES:
                    raise ValueError(f"it unpacks to more than {MOST_BYTES} bytes")
                file = kit.extractfile(member) if member.isreg() else None
                if file and PurePosixPath(member.name).parent.name == "data":
                    found[PurePosixPath(member.name).name] = file.read()
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever an unpacker raises on hostile bytes
        raise UserError(f"{path}: cannot be unpacked ({error}); copy or fetch it again") from error
    return found


def from_meta(content: bytes, called: str, key: str) -> Classes:
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


def from_table(path: Path) -> Classes:
    """Read a line for each class: its WNID, its number of training images, its words."""
    lines = [line.split(" ", 2) for line in path.read_text(encoding="utf-8").splitlines()]
    return Classes([line[0] for line in lines], [int(line[1]) for line in lines], [line[2] for line in lines])


def truth(content: bytes, called: str, images: int, classes: int) -> NDArray[np.int64]:
    """Return the label of each of `images` images. Line k is the ID, from 1, of the k-th by name."""
    lines = content.split()
    try:
        ids = np.array(lines, np.int64)
    except ValueError as error:
        raise UserError(f"{called}: holds other lines than numbers ({error}); fetch it again") from error
    if len(ids) != images:
        raise UserError(f"{called}: holds {len(ids)} lines; accepted are {images}, one for each image; fetch it again")
    if wrong := np.flatnonzero((ids < 1) | (ids > classes)).tolist():
        raise UserError(f"{called}: line {wrong[0] + 1} is {ids[wrong[0]]}; accepted is 1 to {classes}; fetch it again")
    return ids - 1
