"""Reads anyone's images from <folder>/train/<class>/<image> and <folder>/test/<class>/<image>, each of any size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sources import MOST_BYTES, Loaded, RawImages, decoding, entries, few, printable
from pipeline.errors import UserError

SPLITS = ("train", "test")
LAYOUT = "accepted is train/<class>/<image> and test/<class>/<image>"
VALIDATION = "validation images are taken from train/"
VALIDATION_FOLDERS = ("val", "valid", "validation")


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
    if len(classes) == 1:
        raise UserError(f"{folder / 'train'}: holds one class, {printable(classes[0])}; accepted are at least two")
    if others := [name for name in VALIDATION_FOLDERS if (folder / name).is_dir() and not (folder / "test").exists()]:
        raise UserError(f"{folder}: has {others[0]}/ and no test/; call it test/, as {VALIDATION}")
    labels = {name: label for label, name in enumerate(classes)}
    train, test = (_files(folder, split, labels) for split in SPLITS)
    if without := sorted(set(range(len(classes))) - set(train.labels.tolist())):
        names = few([printable(classes[label]) for label in without])
        raise UserError(f"{folder / 'train'}: holds no image of {names}; add some, or remove the class")
    unread = sorted(
        printable(path.name) for path in folder.iterdir() if path.name not in SPLITS and path.name[0] != "."
    )
    read = f"accepted is train/ and test/, and {VALIDATION}"
    notes = [f"{folder}: not read is {few(unread)}; {read}"] if unread else []
    return RawImages(train, test, 3, [printable(name) for name in classes], {}, notes)


def _files(folder: Path, split: str, labels: dict[str, int]) -> Files:
    names, found = [], []
    classes = entries(folder / split, LAYOUT)
    if unknown := [printable(entry.name) for entry in classes if entry.name not in labels]:
        known = few([*map(printable, labels)])
        raise UserError(
            f"{folder / split}: holds {few(unknown)}, which {folder / 'train'} has not; accepted is one of {known}"
        )
    for entry in classes:
        for image in entries(Path(entry.path), LAYOUT, folders=False):
            names.append(f"{split}/{entry.name}/{image.name}")
            found.append(labels[entry.name])
    if not names:
        raise UserError(f"{folder / split}: holds no image; {LAYOUT}")
    return Files(folder, names, np.array(found, np.int64))
