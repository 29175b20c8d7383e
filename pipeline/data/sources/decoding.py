"""Decodes images of any origin as Pillow does, cuts them square and resizes them.

What is wrong with a file that cannot be used is returned, not raised.
"""

import errno
import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.sources import MOST_BYTES, Loaded

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # known by their first bytes, whatever the file's name
MOST_FILE_BYTES = 2 * MOST_BYTES  # uncompressed, four channels and metadata; a folder of photographs has films, too
BAND_ROWS = 256


def read_file(path: Path) -> bytes:
    """Return a file's content. Raises OSError, also where it is larger than any image that would be accepted."""
    size = path.stat().st_size
    if size > MOST_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it has {size} bytes; accepted are at most {MOST_FILE_BYTES}")
    return path.read_bytes()


def load(read: Callable[[], bytes], image_size: int, most_bytes: int = MOST_BYTES) -> Loaded:
    """Return the image whose file `read` returns, on the canvas, or why there is none."""
    try:
        content = read()
    except OSError as error:
        return Loaded(None, f"cannot be read ({error.strerror})")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        return Loaded(on_canvas(central_square(content, most_bytes), image_size), sha256=sha256)
    except UnidentifiedImageError:
        return Loaded(None, f"is none of {', '.join(FORMATS)}", sha256)
    except Exception as error:  # whatever a decoder raises on hostile bytes
        return Loaded(None, f"cannot be decoded ({error or type(error).__name__})", sha256)


def central_square(content: bytes, most_bytes: int = MOST_BYTES) -> NDArray[np.uint8]:
    """Return the central square of an image file, S x S x 3, as it is stored: not rotated by EXIF.

    Raises ValueError, before it decodes anything, where the image would take more than `most_bytes` as 8-bit RGB; else
    whatever a decoder raises.
    """
    with suppress(ValueError):  # Pillow decides about files that are not quite right
        return _jpeg_square(content, most_bytes)
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # Pillow's own, in place of which there is ours
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)  # reads the header alone
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    pixels = image.width * image.height
    if 3 * pixels > most_bytes:
        raise ValueError(
            f"it has {pixels / 1e6:.0f} megapixels, {3 * pixels} bytes as 8-bit RGB; accepted are at most "
            f"{most_bytes / 3e6:.0f} megapixels, {most_bytes} bytes"
        )
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"it has Pillow's mode {image.mode}; accepted are 8 bits for each channel")
    image.load()
    left, top, side = _central(image.width, image.height)
    square = np.empty((side, side, 3), np.uint8)
    for first in range(0, side, BAND_ROWS):  # a conversion of the whole would take its memory several times
        end = min(first + BAND_ROWS, side)
        band = image.crop((left, top + first, left + side, top + end))
        square[first:end] = np.asarray(band.convert("RGB"))
    return square


def _jpeg_square(content: bytes, most_bytes: int) -> NDArray[np.uint8]:
    """Return the same pixels as Pillow, sooner. Raises ValueError where the file is not as usual, or too large."""
    height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    if colors not in ("YCbCr", "Gray") or 3 * height * width > most_bytes:
        raise ValueError
    left, top, side = _central(width, height)
    return np.ascontiguousarray(simplejpeg.decode_jpeg(content)[top : top + side, left : left + side])


def _central(width: int, height: int) -> tuple[int, int, int]:
    """Return the central square's left and upper edge, and its side."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def on_canvas(square: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Resize S x S x 3 bilinearly, with antialiasing where it shrinks (section 2)."""
    torch = _torch()
    batch = torch.from_numpy(square)[None].permute(0, 3, 1, 2)  # 1 x 3 x S x S in the memory order N S S C
    resized = torch.nn.functional.interpolate(batch, size=(image_size, image_size), mode="bilinear", antialias=True)
    pixels: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return pixels


@cache
def _torch() -> Any:
    """Return torch, which resizes several times faster than Pillow. It gets one thread, as each core has a worker."""
    import torch

    torch.set_num_threads(1)
    return torch
