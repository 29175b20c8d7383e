"""Where raw images come from. Each source is a module whose `load` returns `RawImages`; download.py fetches."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from pipeline import paths
from pipeline.errors import UserError
from pipeline.params import TINY_IMAGENET, TINY_IMAGENET_CLASSES, Data

MOST_BYTES = 1 << 30  # of one decoded image, as 8-bit RGB: 358 megapixels
FEW = 10


class Loaded(NamedTuple):
    """One image, or the reason why there is none."""

    pixels: NDArray[np.uint8] | None  # canvas x canvas x C
    problem: str = ""
    sha256: str = ""  # of its file, where it has one


class Images(Protocol):
    """One split of a source. Labels are known from the start; an image is made when asked for, in any process."""

    @property
    def labels(self) -> NDArray[np.int64]: ...

    def name(self, row: int) -> str:
        """Return what the image is called in lists of files that could not be used."""
        ...

    def load(self, row: int, image_size: int, most_bytes: int = MOST_BYTES) -> Loaded:
        """Return the image on the canvas, or why there is none: for one, it would take more than `most_bytes`."""
        ...


@dataclass(frozen=True)
class Arrays:
    """A split whose images are in memory as one array."""

    pixels: NDArray[np.uint8]  # N x H x W x C
    labels: NDArray[np.int64]  # N

    def name(self, row: int) -> str:
        return str(row)

    def load(self, row: int, image_size: int, most_bytes: int = MOST_BYTES) -> Loaded:
        image = self.pixels[row]
        channels = image.shape[-1]
        picture = Image.fromarray(image[..., 0] if channels == 1 else image)
        resized = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
        return Loaded(np.asarray(resized).reshape(image_size, image_size, channels))


@dataclass(frozen=True)
class RawImages:
    """All that a source has."""

    train: Images
    test: Images
    channels: Literal[1, 3]  # gray or RGB
    classes: list[str]  # the name of each label
    sources: dict[str, str]  # SHA-256 of each source file, where they are known before the images are read
    notes: Sequence[str] = ()  # what a user should know of what was found


class Contents(NamedTuple):
    """How much a source has, before validation images are set apart."""

    train: int  # images
    test: int
    classes: int
    channels: int


# Data sets that are fetched where no folder of images is named.
PUBLISHED = {
    "fashion_mnist": Contents(60_000, 10_000, 10, 1),
    "cifar10": Contents(50_000, 10_000, 10, 3),
    TINY_IMAGENET: Contents(100_000, 10_000, TINY_IMAGENET_CLASSES, 3),
}


def contents(data: Data) -> Contents:
    """Return what was published of a data set, without reading it, or what a folder of images holds."""
    from pipeline.data.sources.imagenet import CONTESTS

    if contest := CONTESTS.get(data.dataset):
        return Contents(contest.images["train"], contest.images[contest.test], contest.classes, 3)
    if data.dataset == TINY_IMAGENET and data.classes is not None:
        whole, classes = PUBLISHED[TINY_IMAGENET], data.classes if isinstance(data.classes, int) else len(data.classes)
        return Contents(whole.train // whole.classes * classes, whole.test // whole.classes * classes, classes, 3)
    if data.folder is None or data.dataset == TINY_IMAGENET:
        return PUBLISHED[data.dataset]
    raw = load(data)
    return Contents(len(raw.train.labels), len(raw.test.labels), len(raw.classes), raw.channels)


def most_bytes(workers: int) -> int:
    """Return what one decoded image may take where so many processes decode: a quarter of a process's share of memory.

    It is 1 GiB at most. With its own buffers and copies, a decoder takes about twice that, WebP's five times.
    """
    return min(MOST_BYTES, psutil.virtual_memory().total // (4 * workers))


def load(data: Data) -> RawImages:
    """Return the images of data.dataset, from data.folder or from where they are published.

    Raises UserError where they are not there, or are not what the data set's name promises.
    """
    if data.folder is not None:
        from pipeline.data.sources import cifar10, folder, imagenet, tiny_imagenet

        place = paths.root() / Path(data.folder).expanduser()
        if data.dataset in imagenet.CONTESTS:
            return imagenet.load(data.dataset, place)
        if data.dataset == TINY_IMAGENET:
            return tiny_imagenet.read(place, data.classes)
        if data.dataset == "fashion_mnist":
            raise UserError(
                f"data.folder = {data.folder!r}: accepted is null, as Fashion-MNIST's images are fetched; for images "
                "of your own, set data.dataset to a name of your own"
            )
        own = folder.load(place)
        if data.dataset == "cifar10":
            cifar10.require_copy(own, place)
        return own
    if data.dataset not in PUBLISHED:
        raise UserError(
            f"data.dataset = {data.dataset!r}: cannot be fetched; accepted is {', '.join(PUBLISHED)}, or data.folder, "
            "a folder that holds train/<class>/<image> and test/<class>/<image>, or ImageNet as it was downloaded"
        )
    source = import_module(f"{__name__}.{data.dataset}")
    raw: RawImages = source.load() if data.classes is None else source.load(data.classes)
    return raw


def entries(folder: Path, layout: str, folders: bool = True) -> list[os.DirEntry[str]]:
    """Return a folder's folders, or else its files, by name and without hidden ones.

    Raises UserError, which states `layout`, where something else lies there.
    """
    try:
        found = sorted((entry for entry in os.scandir(folder) if entry.name[0] != "."), key=lambda entry: entry.name)
        for entry in found:
            if not (entry.is_dir() if folders else entry.is_file()):
                kind = "folder" if folders else "file"
                raise UserError(f"{entry.path}: is no {kind}; {layout}: move it away")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); {layout} in data.folder") from error
    return found


def require_published(place: Path | str, found: Iterable[str], published: list[str], remedy: str) -> None:
    """Raise UserError, which ends in `remedy` where some are missing, unless the names found are those published."""
    there, accepted = Counter(found), Counter(published)
    if missing := sorted((accepted - there).elements()):
        raise UserError(f"{place}: lacks {len(missing)} of the {len(published)} published, {few(missing)}: {remedy}")
    if surplus := sorted((there - accepted).elements()):
        raise UserError(f"{place}: {few(surplus)}: not among what was published, or there twice; move it away")


def printable(name: str) -> str:
    """Return a file's name with the bytes that are no UTF-8 escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")


def few(names: Sequence[str]) -> str:
    """Return the first ten names, and how many more there are."""
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")
