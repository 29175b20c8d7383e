"""The store holds the images asked for, measured exactly, and appears whole or not at all."""

import errno
import os
from pathlib import Path
from typing import Any

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
from tests.image_folders import FETCHED, contents, raw_images


def settings(**changes: Any) -> Data:
    return Data(**{**FETCHED, **changes})


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


def prepared(out: Path, **changes: Any) -> Store:
    prepare(settings(**changes), out)
    return Store.open(out)


def test_splits_hold_as_many_of_each_class_and_test_images_are_the_first(raw: RawImages, tmp_path: Path) -> None:
    store = prepared(tmp_path / "out", image_size=8)
    assert store.meta.counts == {"train": 100, "val": 40, "test": 50}
    for split, each in {"train": 10, "val": 4, "test": 5}.items():
        assert np.bincount(store.split(split).labels).tolist() == [each] * 10  # type: ignore[arg-type]
    assert np.array_equal(store.split("test").images, pixels(raw.test)[:50])
    whole = prepared(tmp_path / "whole", train_images=None, test_images=None)
    assert whole.meta.counts == {"train": 360, "val": 40, "test": 200}


def test_more_images_than_there_are_is_one_message_and_writes_nothing(grey: RawImages, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.test_images = 201: accepted is at most 200"):
        prepare(settings(test_images=201), tmp_path / "out")
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
    store = prepared(tmp_path / "out")
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
    store = prepared(tmp_path / "out")
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
