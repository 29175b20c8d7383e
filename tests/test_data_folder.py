"""A folder of anyone's images: read as Pillow reads them, square, in order of names; what is no image is named."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.data import sources
from pipeline.data.prepare import prepare
from pipeline.data.sources import decoding
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import Data

REAL = Path(__file__).parents[1].parent / "shared/data/imagenet-sample-200.tar"
CLASSES = ["ash", "birch", "cedar"]
IMAGE_SIZE = 16


def settings(folder: Path, **changes: Any) -> Data:
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


def central(image: Image.Image) -> Image.Image:
    """Its central square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def write_folder(folder: Path, train: int = 40, test: int = 5) -> Path:
    """`train` and `test` images of each class, of one color that tells class and number, and of many sizes."""
    for split, count in {"train": train, "test": test}.items():
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (20 + number % 30, 50 - number % 30), (80 * label, 2 * number, 100))
                (folder / split / name / f"{number:03d}.jpg").write_bytes(encoded(image))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(encoded(photograph(91, 67), subsampling=0), id="4:4:4"),
        pytest.param(encoded(photograph(91, 67), subsampling=1), id="4:2:2"),
        pytest.param(encoded(photograph(91, 67), subsampling=2), id="4:2:0"),
        pytest.param(encoded(photograph(91, 67), progressive=True), id="progressive"),
        pytest.param(encoded(photograph(91, 67).convert("L")), id="grey"),
        pytest.param(encoded(photograph(91, 67).convert("CMYK")), id="CMYK"),
        pytest.param(encoded(photograph(91, 67), format="PNG"), id="PNG"),
        pytest.param(encoded(photograph(91, 67).quantize(32), format="PNG"), id="palette"),
        pytest.param(encoded(photograph(91, 67).convert("LA"), format="PNG"), id="transparent"),
        pytest.param(encoded(photograph(91, 67), format="WEBP"), id="WebP"),
        pytest.param(encoded(photograph(91, 67)) + b"what a camera left behind", id="bytes after the end"),
    ],
)
def test_pixels_are_those_that_pillow_reads(content: bytes) -> None:
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    assert np.array_equal(decoding.central_square(content), np.asarray(central(expected)))


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "JPEG"}])
@pytest.mark.parametrize("size", [(700, 300), (300, 701), (513, 512)])
def test_a_larger_image_is_put_together_from_bands_without_a_seam(
    size: tuple[int, int], options: dict[str, str]
) -> None:
    image = photograph(*size).convert("CMYK" if options["format"] == "JPEG" else "RGBA")  # not simplejpeg's
    expected = Image.open(io.BytesIO(encoded(image, **options))).convert("RGB")
    assert np.array_equal(decoding.central_square(encoded(image, **options)), np.asarray(central(expected)))


def test_rotation_by_exif_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = decoding.central_square(encoded(photograph(91, 67), exif=exif))
    assert np.array_equal(turned, decoding.central_square(encoded(photograph(91, 67))))


@pytest.mark.parametrize(
    ("width", "height", "image_size"),
    [(32, 32, 76), (500, 375, 256), (375, 500, 256), (301, 256, 256), (86, 130, 256), (1600, 1203, 256), (1, 900, 8)],
)
def test_the_central_square_is_resized_as_pillow_does(width: int, height: int, image_size: int) -> None:
    assert_as_pillow(photograph(width, height), image_size)


def assert_as_pillow(image: Image.Image, image_size: int, found: NDArray[np.uint8] | None = None) -> None:
    """`found`, or what is made of the image."""
    square = central(image)
    expected = np.asarray(square.resize((image_size, image_size), Image.Resampling.BILINEAR)).astype(int)
    found = decoding.on_canvas(np.array(square), image_size) if found is None else found
    assert found.dtype == np.uint8
    difference = np.abs(found - expected)  # both work in fixed point, with weights of different precision
    assert difference.max() <= 2
    assert (difference == 0).mean() > 0.95


@pytest.mark.skipif(not REAL.is_file(), reason="the sample of real ImageNet files is not beside the repository")
def test_real_imagenet_files_are_read_and_resized_as_pillow_does(tmp_path: Path) -> None:
    subprocess.run(["tar", "xf", REAL, "-C", tmp_path], check=True)
    for file in sorted(tmp_path.rglob("*.JPEG"))[::4]:
        image = Image.open(file).convert("RGB")
        assert np.array_equal(decoding.central_square(file.read_bytes()), np.asarray(central(image)))
        assert_as_pillow(image, 256)


def test_classes_are_numbered_by_name_and_each_image_has_its_own_label(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images")
    prepare(settings(folder, validation_images=30), tmp_path / "out")
    store = Store.open(tmp_path / "out")
    assert store.meta.classes == CLASSES
    assert store.meta.counts == {"train": 90, "val": 30, "test": 15}
    for split in ("train", "val", "test"):
        assert_labels_fit(store, split)
    green = store.split("test").images[:, 0, 0, 1].reshape(3, 5)
    assert np.allclose(green, [0, 2, 4, 6, 8], atol=3)  # in order of the names


def assert_labels_fit(store: Store, split: Any) -> None:
    arrays = store.split(split)
    assert np.array_equal((arrays.images[:, 0, 0, 0] + 40) // 80, arrays.labels)


def test_formats_are_known_by_content_and_hidden_files_are_no_images(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images")
    prepare(settings(folder), tmp_path / "before")
    photo = Image.open(folder / "test/ash/000.jpg")
    photo.save(folder / "test/ash/000.jpg", "PNG")
    (folder / "test/ash/.DS_Store").write_bytes(b"left by a file manager")
    (folder / "train/.thumbnails").mkdir()
    prepare(settings(folder), tmp_path / "after")
    before, after = (Store.open(tmp_path / name) for name in ("before", "after"))
    assert np.array_equal(before.split("test").images, after.split("test").images)
    assert after.meta.skipped == []


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_no_byte(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.decoding_workers.BATCH_BYTES", 7 * IMAGE_SIZE**2 * 3)
    folder = write_folder(tmp_path / "images", test=40)
    (folder / "test/ash/010.jpg").write_bytes(b"no image")
    prepare(settings(folder), tmp_path / "one", workers=1)
    prepare(settings(folder), tmp_path / "many", workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_sources_are_the_checksum_of_what_sha256sum_prints(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", test=40)
    (folder / "test/birch/007.jpg").write_bytes(b"no image")
    prepare(settings(folder), tmp_path / "out")
    for split, found in Store.open(tmp_path / "out").meta.sources.items():
        command = f"find {split} -type f | LC_ALL=C sort | xargs sha256sum"
        printed = subprocess.run(command, shell=True, cwd=folder, capture_output=True, check=True).stdout
        assert found == hashlib.sha256(printed).hexdigest()


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


BAD: dict[str, tuple[bytes, str]] = {
    "truncated": (encoded(photograph(200, 200))[:2000], "cannot be decoded (image file is truncated"),
    "text": (b"<html>404 not found</html>", "is none of JPEG, PNG, WEBP, GIF, BMP, TIFF"),
    "empty": (b"", "is none of JPEG, PNG, WEBP, GIF, BMP, TIFF"),
    "bomb": (
        png(60000, 60000),
        "cannot be decoded (it has 3600 megapixels, 10800000000 bytes as 8-bit RGB; accepted are",
    ),
    "absurd header": (
        absurd_jpeg(),
        "cannot be decoded (it has 4290 megapixels, 12870750000 bytes as 8-bit RGB; accepted are",
    ),
    "no size": (png(0, 5), "is none of JPEG, PNG"),
    "little in it": (png(5000, 5000), "cannot be decoded ("),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is none of JPEG, PNG"),
    "16 bits": (encoded(Image.new("I;16", (9, 9)), format="PNG"), "accepted are 8 bits for each channel"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_image_is_left_out_and_listed_with_its_reason(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "images", test=40)
    content, reason = BAD[kind]
    (folder / "test/birch/020.jpg").write_bytes(content)
    prepare(settings(folder), tmp_path / "out", workers=1)
    store = Store.open(tmp_path / "out")
    (skipped,) = store.meta.skipped
    assert skipped.file == "test/birch/020.jpg"
    assert reason in skipped.reason
    assert store.meta.counts == {"train": 90, "val": 30, "test": 119}
    assert_labels_fit(store, "test")
    assert np.bincount(store.split("test").labels).tolist() == [40, 39, 40]


def test_the_last_image_takes_the_place_of_one_left_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", train=110, test=70)
    prepare(settings(folder), tmp_path / "whole")
    for name in ("ash/003", "cedar/069"):  # in the test split the 4th of 210, and the last
        (folder / f"test/{name}.jpg").write_bytes(b"no image")
    prepare(settings(folder), tmp_path / "out")
    whole, found = (Store.open(tmp_path / name).split("test") for name in ("whole", "out"))
    order = [*range(208)]
    order[3] = 208
    assert np.array_equal(found.images, whole.images[order])
    assert np.array_equal(found.labels, whole.labels[order])


def test_what_is_left_out_counts_in_no_statistic(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", train=60)
    (folder / "train/ash/003.jpg").write_bytes(b"no image")
    prepare(settings(folder, validation_images=3), tmp_path / "out")
    store = Store.open(tmp_path / "out")
    assert [skipped.file for skipped in store.meta.skipped] == ["train/ash/003.jpg"]
    images = store.split("train").images.astype(np.float64)
    assert store.mean_image == pytest.approx(images.mean(0), rel=1e-6)
    assert sum(np.square(store.meta.rgb_std)) == pytest.approx(images.reshape(-1, 3).var(0).sum(), abs=1e-4)


def test_more_than_one_in_a_hundred_is_one_message_and_no_store(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", test=40)
    for name in ("ash/001", "birch/002"):
        (folder / f"test/{name}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        prepare(settings(folder), tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(
        "data.folder: more than 1% of the 120 test images cannot be used; accepted is at most that"
    )
    assert "test/ash/001.jpg: is none of JPEG" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_a_class_that_loses_its_last_training_image_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", train=80)
    for image in sorted((folder / "train/birch").iterdir())[1:]:
        image.unlink()
    (folder / "train/birch/000.jpg").write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        prepare(settings(folder), tmp_path / "out", workers=1)
    assert str(caught.value).startswith("data.folder: no training image of birch can be used; accepted is at least one")
    assert str(caught.value).endswith(
        "Replace such files, or remove the class: train/birch/000.jpg: is none of JPEG, PNG, WEBP, GIF, BMP, TIFF"
    )
    assert not (tmp_path / "out").exists()


def without_test(folder: Path) -> None:
    (folder / "test").rename(folder / "validation")


def class_of_its_own(folder: Path) -> None:
    (folder / "test/ash").rename(folder / "test/oak")


def empty_class(folder: Path) -> None:
    (folder / "train/oak").mkdir()


def empty_test(folder: Path) -> None:
    for image in folder.glob("test/*/*"):
        image.unlink()


def file_for_class(folder: Path) -> None:
    (folder / "train/readme.txt").touch()


def folder_for_image(folder: Path) -> None:
    (folder / "train/ash/more").mkdir()


def loop(folder: Path) -> None:
    (folder / "train/oak").symlink_to("oak")


def loop_to_itself(folder: Path) -> None:
    (folder / "train/ash/all").symlink_to("..")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "test/ash/pipe.jpg")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_test, r"images/test: cannot be read \(No such file or directory\); accepted is train/<class>/<image>"),
        (class_of_its_own, r"test/oak: .*/train has no such class; accepted is one of ash, birch, cedar"),
        (empty_class, r"train/oak: holds no image; add some, or remove the class"),
        (empty_test, r"test: holds no image; accepted is"),
        (file_for_class, r"train/readme\.txt: is no folder; accepted is .*: move it away"),
        (folder_for_image, r"train/ash/more: is no file; accepted is .*: move it away"),
        (loop, r"train/oak: cannot be read \(Too many levels of symbolic links\)"),
        (loop_to_itself, r"train/ash/all: is no file"),
        (pipe, r"test/ash/pipe\.jpg: is no file"),
    ],
)
def test_another_layout_is_one_message(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = write_folder(tmp_path / "images", train=2, test=1)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        prepare(settings(folder), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_relative_folder_lies_in_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "images", train=2, test=1)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert sources.load(settings(Path("images"))).classes == CLASSES


def test_names_may_hold_any_byte(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", test=40)
    (folder / "test/ash/000.jpg").rename(folder / os.fsdecode(b"test/ash/\xff\n.jpg"))
    (folder / os.fsdecode(b"test/ash/\xff\n.jpg")).write_bytes(b"no image")
    prepare(settings(folder), tmp_path / "out", workers=1)
    (skipped,) = Store.open(tmp_path / "out").meta.skipped
    assert skipped.file == "test/ash/\\xff\n.jpg"


@pytest.mark.slow
def test_workers_that_start_afresh_write_the_same(tmp_path: Path) -> None:
    """As on macOS, where a process is not forked."""
    folder = write_folder(tmp_path / "images")
    prepare(settings(folder), tmp_path / "forked", workers=2)
    program = (
        "import multiprocessing, sys; from pathlib import Path; from pipeline.data.prepare import prepare; "
        "from pipeline.params import Data; multiprocessing.set_start_method('spawn'); "
        "prepare(Data.model_validate_json(sys.argv[1]), Path(sys.argv[2]), workers=2)"
    )
    command = [sys.executable, "-c", program, settings(folder).model_dump_json(), str(tmp_path / "spawned")]
    subprocess.run(command, check=True)
    assert contents(tmp_path / "forked") == contents(tmp_path / "spawned")
