"""Anyone's images: <folder>/train/<class>/<image> and <folder>/test/<class>/<image>, each of any size."""

import hashlib
import io
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.sources import Loaded, RawImages
from pipeline.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # known by their first bytes, whatever the file's name
LAYOUT = "accepted is train/<class>/<image> and test/<class>/<image>"


@dataclass(frozen=True)
class Files:
    folder: Path
    names: list[str]  # <split>/<class>/<file>, ascending
    labels: NDArray[np.int64]

    def name(self, row: int) -> str:
        return _printable(self.names[row])

    def load(self, row: int, canvas_px: int) -> Loaded:
        try:
            content = (self.folder / self.names[row]).read_bytes()
        except OSError as error:
            return Loaded(None, f"cannot be read ({error.strerror})")
        sha256 = hashlib.sha256(content).hexdigest()
        try:
            return Loaded(on_canvas(decode(content), canvas_px), sha256=sha256)
        except UnidentifiedImageError:
            return Loaded(None, f"is none of {', '.join(FORMATS)}", sha256)
        except Exception as error:  # whatever a decoder raises on hostile bytes
            return Loaded(None, f"cannot be decoded ({error or type(error).__name__})", sha256)


def load(folder: Path) -> RawImages:
    classes = [entry.name for entry in _entries(folder / "train")]
    labels = {name: label for label, name in enumerate(classes)}
    train, test = (_files(folder, split, labels) for split in ("train", "test"))
    without = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    if without:
        raise UserError(f"{folder / 'train' / classes[without[0]]}: holds no image; add some, or remove the class")
    return RawImages(train, test, 3, [_printable(name) for name in classes], {})


def decode(content: bytes) -> NDArray[np.uint8]:
    """The pixels, H x W x 3, as they are stored: not rotated by EXIF. Raises whatever a decoder raises."""
    with suppress(ValueError):  # Pillow decides about files that are not quite right
        return _jpeg(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"it has Pillow's mode {image.mode}; accepted are 8 bits for each channel")
        return np.asarray(image.convert("RGB"))


def _jpeg(content: bytes) -> NDArray[np.uint8]:
    """The same pixels as Pillow's, sooner. Raises ValueError where the file is not as usual."""
    height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    if colours not in ("YCbCr", "Gray") or height * width > (Image.MAX_IMAGE_PIXELS or 0):
        raise ValueError
    return np.asarray(simplejpeg.decode_jpeg(content))


def on_canvas(image: NDArray[np.uint8], canvas_px: int) -> NDArray[np.uint8]:
    """Section 2: the central square of H x W x 3, resized bilinearly, with antialiasing where it shrinks."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.array(image[top : top + side, left : left + side])
    torch = _torch()
    batch = torch.from_numpy(square)[None].permute(0, 3, 1, 2)  # 1 x 3 x H x W in the memory order N H W C
    resized = torch.nn.functional.interpolate(batch, size=(canvas_px, canvas_px), mode="bilinear", antialias=True)
    pixels: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return pixels


@cache
def _torch() -> Any:
    """Its resizing is several times faster than Pillow's; with one thread, as there are as many workers as cores."""
    import torch

    torch.set_num_threads(1)
    return torch


def _files(folder: Path, split: str, labels: dict[str, int]) -> Files:
    names, found = [], []
    for entry in _entries(folder / split):
        if entry.name not in labels:
            raise UserError(f"{entry.path}: {folder / 'train'} has no such class; accepted is one of {_few(labels)}")
        for image in _entries(Path(entry.path), folders=False):
            names.append(f"{split}/{entry.name}/{image.name}")
            found.append(labels[entry.name])
    if not names:
        raise UserError(f"{folder / split}: holds no image; {LAYOUT}")
    return Files(folder, names, np.array(found, np.int64))


def _entries(folder: Path, folders: bool = True) -> list[os.DirEntry[str]]:
    """What a folder holds, hidden entries left out, by name: folders alone, or files alone."""
    try:
        entries = sorted((entry for entry in os.scandir(folder) if entry.name[0] != "."), key=lambda entry: entry.name)
        for entry in entries:
            if not (entry.is_dir() if folders else entry.is_file()):
                kind = "folder" if folders else "file"
                raise UserError(f"{entry.path}: is no {kind}; {LAYOUT}: move it away")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); {LAYOUT} in data.folder") from error
    return entries


def _printable(name: str) -> str:
    """A file's name, with the bytes that are no UTF-8 escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _few(names: dict[str, int]) -> str:
    first = list(names)[:10]
    return ", ".join(first) + (", …" if len(names) > len(first) else "")
