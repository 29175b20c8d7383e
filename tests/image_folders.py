"""Images of the tests' own: photographs in any format, files that only look like images, and folders of classes."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.sources import Arrays, RawImages, decoding
from pipeline.params import Data

# Real ImageNet files, which are not a part of the repository.
SHARED = Path(__file__).parents[1].parent / "shared/data"
REAL = SHARED / "imagenet-sample-200.tar"

CLASSES = ["ash", "birch", "cedar"]
IMAGE_SIZE = 16
FETCHED: dict[str, Any] = {"folder": None, "dataset": "fashion_mnist", "image_size": 12, "split_seed": 3}
FETCHED |= {"train_images": 100, "validation_images": 40, "test_images": 50}


def settings(folder: Path | str, **changes: Any) -> Data:
    """Those of somebody's own folder."""
    values = {"folder": str(folder), "dataset": "trees", "image_size": IMAGE_SIZE, "split_seed": 0}
    return Data(**{**values, "train_images": None, "validation_images": 30, "test_images": None, **changes})


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shapes and some grain."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + random.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **{"format": "JPEG", "quality": 92, **options})
    return file.getvalue()


def turned(image: Image.Image) -> bytes:
    """A JPEG file whose EXIF data ask for a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, exif=exif)


def png(width: int, height: int) -> bytes:
    """A PNG file that announces a size and holds one byte."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0")) + part(b"IEND", b"")


def absurd_jpeg() -> bytes:
    """A JPEG file whose header announces 65,500 x 65,500 pixels."""
    content = bytearray(encoded(photograph(40, 40)))
    size = content.index(b"\xff\xc0") + 5
    content[size : size + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(content)


def central(image: Image.Image) -> Image.Image:
    """Its central square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def assert_as_pillow(image: Image.Image, image_size: int, found: NDArray[np.uint8] | None = None) -> None:
    """`found`, or what is made of the image."""
    square = central(image)
    expected = np.asarray(square.resize((image_size, image_size), Image.Resampling.BILINEAR)).astype(int)
    found = decoding.on_canvas(np.array(square), image_size) if found is None else found
    assert found.dtype == np.uint8
    difference = np.abs(found - expected)  # both work in fixed point, with weights of different precision
    assert difference.max() <= 2
    assert (difference == 0).mean() > 0.95


def write_folder(folder: Path, train: int = 40, test: int = 5) -> Path:
    """`train` and `test` images of each class, of one color that tells class and number, and of many sizes."""
    for split, count in {"train": train, "test": test}.items():
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (20 + number % 30, 50 - number % 30), (80 * label, 2 * number, 100))
                (folder / split / name / f"{number:03d}.jpg").write_bytes(encoded(image))
    return folder


def write_squares(folder: Path, px: int = 12, **splits: dict[str, int]) -> Path:
    """PNG files of one size: of each split, so many of each class."""
    for split, sizes in splits.items():
        for label, (name, count) in enumerate(sizes.items()):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (px, px), (20 * label, number, 200)).save(folder / split / name / f"{number}.png")
    return folder


def raw_images(channels: Literal[1, 3]) -> RawImages:
    """What a source returns: 400 and 200 images of ten classes."""
    random = np.random.default_rng(0)
    labels = np.arange(600) % 10
    images = random.integers(0, 256, (600, 8, 8, channels), np.uint8)
    images[..., 0] //= 3
    train, test = Arrays(images[:400], labels[:400]), Arrays(images[400:], labels[400:])
    return RawImages(train, test, channels, list("abcdefghij"), {"file": "0" * 64})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
