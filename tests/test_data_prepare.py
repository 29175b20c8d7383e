"""The store holds the images asked for, measured exactly, and appears whole or not at all."""

import errno
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from pipeline.data import sources
from pipeline.data.decoding_workers import PixelSums
from pipeline.data.prepare import prepare
from pipeline.data.sources import Arrays, RawImages
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import Data


def settings(**changes: Any) -> Data:
    values = {"folder": None, "dataset": "fashion_mnist", "image_size": 12, "split_seed": 3}
    return Data(**{**values, "train_images": 100, "validation_images": 40, "test_images": 50, **changes})


def raw_images(channels: Literal[1, 3]) -> RawImages:
    random = np.random.default_rng(0)
    labels = np.arange(600) % 10
    images = random.integers(0, 256, (600, 8, 8, channels), np.uint8)
    images[..., 0] //= 3
    train, test = Arrays(images[:400], labels[:400]), Arrays(images[400:], labels[400:])
    return RawImages(train, test, channels, list("abcdefghij"), {"file": "0" * 64})


def pixels(images: sources.Images) -> np.ndarray:
    assert isinstance(images, Arrays)
    return images.pixels


@pytest.fixture(params=[1, 3], ids=["grey", "rgb"])
def raw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RawImages:
    images = raw_images(request.param)
    monkeypatch.setattr(sources, "load", lambda data: images)
    return images


@pytest.fixture
def grey(monkeypatch: pytest.MonkeyPatch) -> RawImages:
    images = raw_images(1)
    monkeypatch.setattr(sources, "load", lambda data: images)
    return images


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_splits_hold_the_same_number_of_each_class(raw: RawImages, tmp_path: Path) -> None:
    prepare(settings(), tmp_path / "out")
    store = Store.open(tmp_path / "out")
    assert store.meta.counts == {"train": 100, "val": 40, "test": 50}
    for split, each in {"train": 10, "val": 4, "test": 5}.items():
        assert np.bincount(store.split(split).labels).tolist() == [each] * 10  # type: ignore[arg-type]


def test_test_images_are_the_first_of_each_class(raw: RawImages, tmp_path: Path) -> None:
    prepare(settings(image_size=8), tmp_path / "out")
    assert np.array_equal(Store.open(tmp_path / "out").split("test").images, pixels(raw.test)[:50])


def test_null_takes_all_images(grey: RawImages, tmp_path: Path) -> None:
    prepare(settings(train_images=None, test_images=None), tmp_path / "out")
    assert Store.open(tmp_path / "out").meta.counts == {"train": 360, "val": 40, "test": 200}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_images": 700},
            "data.train_images = 700: accepted is at most 360, what data.validation_images = 40 leaves of 400",
        ),
        (
            {"validation_images": 391},
            "data.validation_images = 391: accepted is at most 390, which leaves one image of each",
        ),
        ({"train_images": 9}, "data.train_images = 9: accepted is at least 10, one image of each class"),
        ({"test_images": 201}, "data.test_images = 201: accepted is at most 200"),
    ],
)
def test_a_number_of_images_that_cannot_be_had_names_the_key(
    grey: RawImages, tmp_path: Path, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        prepare(settings(**changes), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image_size", [5, 8, 12])
def test_an_image_on_the_canvas_is_what_pillow_makes_of_it(raw: RawImages, image_size: int) -> None:
    image = pixels(raw.train)[7]
    found = raw.train.load(7, image_size).pixels
    assert found is not None
    assert found.shape == (image_size, image_size, image.shape[-1])
    for channel in range(image.shape[-1]):
        picture = Image.fromarray(np.ascontiguousarray(image[..., channel]))
        resized = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
        assert np.array_equal(found[..., channel], np.asarray(resized))


def test_statistics_agree_with_float64(raw: RawImages, tmp_path: Path) -> None:
    prepare(settings(), tmp_path / "out")
    store = Store.open(tmp_path / "out")
    images = store.split("train").images.astype(np.float64)
    assert store.mean_image == pytest.approx(images.mean(0), rel=1e-6)
    pixels = np.broadcast_to(images, (*images.shape[:3], 3)).reshape(-1, 3)
    covariance = np.cov(pixels, rowvar=False, bias=True)
    vectors, std = np.array(store.meta.rgb_eigenvectors), np.array(store.meta.rgb_std)
    assert vectors @ np.diag(std**2) @ vectors.T == pytest.approx(covariance, abs=1e-4)
    assert vectors.T @ vectors == pytest.approx(np.eye(3), abs=1e-8)
    assert (np.diff(std) <= 0).all()
    assert all(next(value for value in column if value) > 0 for column in vectors.T)


def test_grey_images_vary_in_brightness_only(grey: RawImages, tmp_path: Path) -> None:
    prepare(settings(), tmp_path / "out")
    store = Store.open(tmp_path / "out")
    assert [row[0] for row in store.meta.rgb_eigenvectors] == pytest.approx([3**-0.5] * 3)
    assert store.meta.rgb_std == pytest.approx([3**0.5 * store.split("train").images.std(), 0, 0])


def test_statistics_do_not_depend_on_how_images_are_batched(raw: RawImages) -> None:
    whole, parts = PixelSums.of(pixels(raw.train)), PixelSums.zero(8, raw.channels)
    for batch in np.array_split(pixels(raw.train), 7):
        parts.add(PixelSums.of(batch))
    assert whole.mean_image().tobytes() == parts.mean_image().tobytes()
    assert whole.rgb_components() == parts.rgb_components()


def test_prepared_twice_is_byte_identical(raw: RawImages, tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepare(settings(), tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(contents(tmp_path / "one")) == 8


def test_an_earlier_store_is_replaced_and_nothing_else_is_left(grey: RawImages, tmp_path: Path) -> None:
    prepare(settings(), tmp_path / "out")
    (tmp_path / ".out.partial/new").mkdir(parents=True)  # as a killed run leaves it
    prepare(settings(train_images=50), tmp_path / "out")
    assert Store.open(tmp_path / "out").meta.counts["train"] == 50
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_fills_up_half_way_leaves_nothing(
    grey: RawImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate, allocated = os.posix_fallocate, []

    def full_disk(file: int, first: int, length: int) -> None:
        if allocated:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocated.append(length)
        allocate(file, first, length)

    monkeypatch.setattr(os, "posix_fallocate", full_disk)
    with pytest.raises(UserError, match=r"out: cannot be written \(No space left on device\); \d+ bytes are needed"):
        prepare(settings(), tmp_path / "data/out", workers=1)
    assert allocated == [100 * 12 * 12 + 128]
    assert list((tmp_path / "data").iterdir()) == []


def test_too_little_free_space_is_said_before_starting(
    grey: RawImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = (100 + 40 + 50) * (12 * 12 + 8) + 12 * 12 * 4
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(needed - 1))
    monkeypatch.setattr(Arrays, "load", lambda *_: pytest.fail("work has started"))
    with pytest.raises(UserError, match=f"out: .*No space left.*{needed} bytes are needed"):
        prepare(settings(), tmp_path / "out", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_the_earlier_store(
    grey: RawImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(settings(), tmp_path / "out")
    before = contents(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Arrays, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings(train_images=50), tmp_path / "out", workers=1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("out", ["file", "file/out"])
def test_a_folder_that_cannot_be_written_is_one_line(grey: RawImages, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError) as caught:
        prepare(settings(), tmp_path / out)
    assert str(caught.value).startswith(f"{tmp_path / out}: cannot be written")
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {"file": b"mine"}


def test_importing_loads_no_torch() -> None:
    program = "import sys, pipeline.data.prepare, pipeline.data.store; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
