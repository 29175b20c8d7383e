"""A folder of anyone's images: read as Pillow reads them, square, in order of names; what is no image is named."""

import hashlib
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.prepare import prepare
from pipeline.data.sources import decoding
from pipeline.data.store import Store
from pipeline.errors import UserError
from tests.image_folders import (
    CLASSES,
    IMAGE_SIZE,
    REAL,
    absurd_jpeg,
    assert_as_pillow,
    central,
    contents,
    encoded,
    photograph,
    png,
    settings,
    turned,
    write_folder,
)
from tests.processes import python

PHOTO = photograph(91, 67)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(encoded(PHOTO, subsampling=0), id="4:4:4"),
        pytest.param(encoded(PHOTO, subsampling=1), id="4:2:2"),
        pytest.param(encoded(PHOTO, subsampling=2), id="4:2:0"),
        pytest.param(encoded(PHOTO, progressive=True), id="progressive"),
        pytest.param(encoded(PHOTO.convert("L")), id="grey"),
        pytest.param(encoded(PHOTO.convert("CMYK")), id="CMYK"),
        pytest.param(encoded(PHOTO, format="PNG"), id="PNG"),
        pytest.param(encoded(PHOTO.quantize(32), format="PNG"), id="palette"),
        pytest.param(encoded(PHOTO.convert("LA"), format="PNG"), id="transparent"),
        pytest.param(encoded(PHOTO, format="WEBP"), id="WebP"),
        pytest.param(encoded(PHOTO) + b"what a camera left behind", id="bytes after the end"),
        pytest.param(turned(PHOTO), id="EXIF asks for a quarter turn, which is not made"),
        *(
            pytest.param(encoded(photograph(*size).convert(mode), format=kind), id=f"{kind} in bands: {size}")
            for size in ((700, 300), (300, 701), (513, 512))
            for kind, mode in (("JPEG", "CMYK"), ("PNG", "RGBA"))  # not simplejpeg's
        ),
    ],
)
def test_pixels_are_those_that_pillow_reads(content: bytes) -> None:
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    assert np.array_equal(decoding.central_square(content), np.asarray(central(expected)))


@pytest.mark.parametrize(
    ("width", "height", "image_size"),
    [(32, 32, 76), (500, 375, 256), (375, 500, 256), (301, 256, 256), (86, 130, 256), (1600, 1203, 256), (1, 900, 8)],
)
def test_the_central_square_is_resized_as_pillow_does(width: int, height: int, image_size: int) -> None:
    assert_as_pillow(photograph(width, height), image_size)


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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: (folder / "test").rename(folder / "exam"),
            r"images/test: cannot be read \(No such file or directory\); accepted is train/<class>/<image>",
        ),
        (
            lambda folder: (folder / "test/ash").rename(folder / "test/oak"),
            r"test: holds oak, which .*/train has not; accepted is one of ash, birch, cedar",
        ),
        (
            lambda folder: [(folder / f"test/{name}").rename(folder / f"test/{name}s") for name in CLASSES],
            "test: holds ashs, birchs, cedars, which",
        ),
        (
            lambda folder: (folder / "test").rename(folder / "val"),
            "has val/ and no test/; call it test/, as validation images are taken from train/",
        ),
        (
            lambda folder: [(folder / f"train/{name}").mkdir() for name in ("oak", "elm")],
            "train: holds no image of elm, oak; add some, or remove the class",
        ),
        (lambda folder: [image.unlink() for image in folder.glob("test/*/*")], "test: holds no image; accepted is"),
        (
            lambda folder: (folder / "train/readme.txt").touch(),
            r"train/readme\.txt: is no folder; accepted is .*: move it away",
        ),
        (
            lambda folder: (folder / "train/ash/more").mkdir(),
            r"train/ash/more: is no file; accepted is .*: move it away",
        ),
        (
            lambda folder: (folder / "train/oak").symlink_to("oak"),
            r"train/oak: cannot be read \(Too many levels of symbolic links\)",
        ),
        (lambda folder: (folder / "train/ash/all").symlink_to(".."), "train/ash/all: is no file"),
        (lambda folder: os.mkfifo(folder / "test/ash/pipe.jpg"), r"test/ash/pipe\.jpg: is no file"),
    ],
)
def test_another_layout_is_one_message(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    folder = write_folder(tmp_path / "images", train=2, test=1)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        prepare(settings(folder), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


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
    assert python("-c", program, settings(folder).model_dump_json(), tmp_path / "spawned").returncode == 0
    assert contents(tmp_path / "forked") == contents(tmp_path / "spawned")
