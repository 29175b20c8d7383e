"""Images of any origin: decoded as Pillow does, cut square and resized; what cannot be used is told, not raised."""

import hashlib
import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.sources import Loaded

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # known by their first bytes, whatever the file's name


def load(read: Callable[[], bytes], canvas_px: int) -> Loaded:
    """The image whose file `read` returns, on the canvas."""
    try:
        content = read()
    except OSError as error:
        return Loaded(None, f"cannot be read ({error.strerror})")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        return Loaded(on_canvas(decode(content), canvas_px), sha256=sha256)
    except UnidentifiedImageError:
        return Loaded(None, f"is none of {', '.join(FORMATS)}", sha256)
    except Exception as error:  # whatever a decoder raises on hostile bytes
        return Loaded(None, f"cannot be decoded ({error or type(error).__name__})", sha256)


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
