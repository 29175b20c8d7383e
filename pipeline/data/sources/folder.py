"""Reads anyone's images from <folder>/train/<class>/<image> and <folder>/test/<class>/<image>, each of any size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sources import MOST_BYTES, Loaded, RawImages, decoding, entries, few, printable
from pipeline.errors import UserError

LAYOUT = "accepted is train/<class>/<image> and test/<class>/<image>"


@dataclass(frozen=True)
class Files:
    """One split."""

    folder: Path
    names: list[str]  # <split>/<class>/<file>, ascending
    labels: NDArray[np.int64]

    def name(self, row: int) -> str:
        return printable(self.names[row])

    def load(self, row: int, image_size: int, most_bytes: int = MOST_BYTES) -> Loaded:
        return decoding.load(lambda: decoding.read_file(self.folder / self.names[row]), image_size, most_bytes)


def load(folder: Path) -> RawImages:
    """Return the images of a folder, with classes numbered by name. Raises UserError at anything but the layout."""
    classes = [entry.name for entry in entries(folder / "train", LAYOUT)]
    labels = {name: label for label, name in enumerate(classes)}
    train, test = (_files(folder, split, labels) for split in ("train", "test"))
    without = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    if without:
        raise UserError(f"{folder / 'train' / classes[without[0]]}: holds no image; add some, or remove the class")
    return RawImages(train, test, 3, [printable(name) for name in classes], {})


def _files(folder: Path, split: str, labels: dict[str, int]) -> Files:
    names, found = [], []
    for entry in entries(folder / split, LAYOUT):
        if entry.name not in labels:
            raise UserError(
                f"{entry.path}: {folder / 'train'} has no such class; accepted is one of {few(list(labels))}"
            )
        for image in entries(Path(entry.path), LAYOUT, folders=False):
            names.append(f"{split}/{entry.name}/{image.name}")
            found.append(labels[entry.name])
    if not names:
        raise UserError(f"{folder / split}: holds no image; {LAYOUT}")
    return Files(folder, names, np.array(found, np.int64))
