"""Reads the binary release of CIFAR-10 (Krizhevsky 2009): an archive of six files of records, read in memory."""

import gzip
import hashlib
import io
import tarfile
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.data.sources import Arrays, RawImages, few
from pipeline.data.sources.download import Refused, fetched, from_first, from_kept, from_web
from pipeline.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE = "cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as the data's own page prints it
TRAIN = [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)]
TEST = "cifar-10-batches-bin/test_batch.bin"
NAMES = "cifar-10-batches-bin/batches.meta.txt"
CLASSES = 10
CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN_OF_CLASS, TEST_OF_CLASS = 5_000, 1_000
IMAGES = 10_000  # in each file
RECORD_BYTES = 1 + 3 * 32 * 32  # a label, then red, green and blue, each row by row
MOST_BYTES, MOST_MEMBERS, MOST_NAME_BYTES = 200_000_000, 100, 1_000  # an archive may unpack to anything


def load() -> RawImages:
    """Return the published images. Raises UserError where no place has them."""
    kept = paths.downloads() / "cifar-10"
    return from_first(
        "CIFAR-10",
        "its archive",
        {
            str(kept): partial(from_kept, kept, ARCHIVE, _read),
            URL: partial(fetched, partial(from_web, URL, [ARCHIVE]), partial(_read, URL + ARCHIVE), kept, [ARCHIVE]),
        },
        f"Connect to the network and run again, or put {ARCHIVE} (MD5 {MD5}) into {kept}, or name as data.folder a "
        "folder that holds its images as train/<class>/<image> and test/<class>/<image>",
    )


def require_copy(raw: RawImages, folder: Path) -> None:
    """Raise UserError unless a folder's images are as many of each of CIFAR-10's classes as were published."""
    train, test = (np.bincount(images.labels, minlength=len(raw.classes)) for images in (raw.train, raw.test))
    off = [
        f"{name} has {found_train} and {found_test}"
        for name, found_train, found_test in zip(raw.classes, train, test, strict=True)
        if (found_train, found_test) != (TRAIN_OF_CLASS, TEST_OF_CLASS)
    ]
    if raw.classes != CLASS_NAMES or off:
        found = few(off) if raw.classes == CLASS_NAMES else f"its classes are {few(raw.classes)}"
        raise UserError(
            f"data.folder: {folder} is not CIFAR-10 ({found}); accepted with data.dataset = 'cifar10' are "
            f"{TRAIN_OF_CLASS} training and {TEST_OF_CLASS} test images of each of {', '.join(CLASS_NAMES)}; for other "
            "images, set data.dataset to a name of your own"
        )


def _read(called: str, folder: Path) -> RawImages:
    """Return the images of the archive in `folder`, which messages call `called`."""
    packed = (folder / ARCHIVE).read_bytes()
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if found != MD5:
        raise Refused(f"{called}: {len(packed)} bytes, whose MD5 is {found}; accepted is {MD5}")
    try:
        return _images(_members(packed))
    except Refused as refusal:
        raise Refused(f"{called}: {refusal}") from refusal


def _members(packed: bytes) -> dict[str, bytes]:
    """Return the content of the files by their exact names. Whatever else the archive holds is passed over."""
    members = {}
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise Refused(f"unpacks to more than {MOST_BYTES} bytes; accepted is at most that")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in islice(archive, MOST_MEMBERS):
                if member.name not in (*TRAIN, TEST, NAMES):
                    continue
                member_file = archive.extractfile(member) if member.isreg() else None
                if member_file is None:
                    raise Refused(f"{member.name} is no file; accepted is a file")
                least, most = (1, MOST_NAME_BYTES) if member.name == NAMES else (IMAGES * RECORD_BYTES,) * 2
                if not least <= member.size <= most:
                    accepted = f"{least} to {most}" if least < most else most
                    raise Refused(f"{member.name} holds {member.size} bytes; accepted is {accepted}")
                members[member.name] = member_file.read()
    except Refused:
        raise
    except Exception as error:  # whatever an unpacker raises on hostile bytes
        raise Refused(f"cannot be unpacked ({error or type(error).__name__}); accepted is a tar.gz archive") from error
    for name in (*TRAIN, TEST, NAMES):
        if name not in members:
            raise Refused(f"{name} is not in it; accepted are all of its {len(TRAIN) + 2} files")
    return members


def _images(members: dict[str, bytes]) -> RawImages:
    """Return the images of the unpacked files. Raises Refused where classes or labels are not as published."""
    classes = members[NAMES].decode(errors="backslashreplace").split()
    if len(set(classes)) != CLASSES or len(classes) != CLASSES:
        raise Refused(f"{NAMES} names the classes {', '.join(classes)}; accepted are {CLASSES} different names")
    train = [_records(name, members[name]) for name in TRAIN]
    pixels, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    sources = {Path(name).name: hashlib.sha256(members[name]).hexdigest() for name in (*TRAIN, TEST)}
    return RawImages(Arrays(pixels, labels), Arrays(*_records(TEST, members[TEST])), 3, classes, sources)


def _records(name: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return pixels, N x 32 x 32 x 3, and N labels."""
    records = np.frombuffer(content, np.uint8).reshape(IMAGES, RECORD_BYTES)
    labels = records[:, 0]
    if wrong := np.flatnonzero(labels >= CLASSES).tolist():
        raise Refused(f"{name} gives image {wrong[0]} the label {labels[wrong[0]]}; accepted is 0 to {CLASSES - 1}")
    planes = records[:, 1:].reshape(IMAGES, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int64)
