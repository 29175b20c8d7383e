"""The reader takes a store that is whole, and names the file where it is not."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data import sources
from pipeline.data import store as module
from pipeline.data.prepare import prepare
from pipeline.data.sources import Arrays, RawImages
from pipeline.data.store import ARRAYS, SPLITS, Store
from pipeline.errors import UserError
from pipeline.params import Data


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 1), np.uint8)
    raw = RawImages(Arrays(images, labels), Arrays(images, labels), 1, ["a", "b", "c"], {"file": "0" * 64})
    monkeypatch.setattr(sources, "load", lambda data: raw)
    asked = {"image_size": 6, "train_images": 30, "validation_images": 15, "test_images": None, "split_seed": 0}
    prepare(Data(folder=None, dataset="fashion_mnist", **asked), tmp_path / "store")  # type: ignore[arg-type]
    return tmp_path / "store"


def test_arrays_are_what_numpy_reads_memory_mapped_and_read_only(folder: Path) -> None:
    store = Store.open(folder)
    for split in SPLITS:
        images = store.split(split).images
        assert np.array_equal(images, np.load(folder / split / "images.npy"))
        assert np.array_equal(store.split(split).labels, np.load(folder / split / "labels.npy"))
        assert isinstance(images, np.memmap)
        assert not images.flags.writeable
    assert np.array_equal(store.mean_image, np.load(folder / "mean_image.npy"))
    assert store.mean_image.shape == (6, 6, 1)
    assert store.meta.classes == ["a", "b", "c"]


@pytest.mark.parametrize("array", ARRAYS)
def test_an_array_with_one_changed_byte_is_named_before_it_is_used(folder: Path, array: str) -> None:
    content = bytearray((folder / array).read_bytes())
    content[-1] ^= 1
    (folder / array).write_bytes(content)
    with pytest.raises(UserError, match=f"{array}: SHA-256 is .*dvc repro -f prepare"):
        Store.open(folder).split(array.split("/")[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("kept", [0, 5, 100, -1, None])
def test_a_truncated_or_missing_array_is_refused_by_name(folder: Path, array: str, kept: int | None) -> None:
    if kept is None:
        (folder / array).unlink()
        message = f"{array}: is missing; run `dvc repro prepare`"
    else:
        (folder / array).write_bytes((folder / array).read_bytes()[:kept])
        message = f"{array}: is truncated or no array file .*dvc repro -f prepare"
    with pytest.raises(UserError, match=message):
        Store.open(folder)


def test_bytes_after_an_array_are_refused(folder: Path) -> None:
    with (folder / "val/images.npy").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"val/images\.npy: has 1 bytes after its array"):
        Store.open(folder)


@pytest.mark.parametrize(
    "other", [np.zeros((30, 6, 6, 1), np.int8), np.zeros((29, 6, 6, 1), np.uint8), np.zeros((30, 36), np.uint8)]
)
def test_an_array_of_another_type_or_shape_is_refused(folder: Path, other: np.ndarray) -> None:
    np.save(folder / "train/images.npy", other)
    with pytest.raises(UserError, match=r"train/images\.npy: holds .* accepted is the uint8 \(30, 6, 6, 1\) of meta"):
        Store.open(folder)


def test_a_missing_store_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"meta\.json: cannot be read .*run `dvc repro prepare`"):
        Store.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 2}, "channels"),
        ({"counts": {"train": 1, "val": 1}}, "counts"),
        ({"counts": {"train": 1, "val": 1, "holdout": 1}}, "counts.holdout"),
        ({"sha256": {}}, "sha256 names"),
        ({"extra": 1}, "extra"),
        (None, "Invalid JSON"),
    ],
)
def test_a_meta_file_that_does_not_fit_names_the_key(folder: Path, change: Any, message: str) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    text = json.dumps(meta)[:-50] if change is None else json.dumps(meta | change)
    (folder / "meta.json").write_text(text)
    with pytest.raises(UserError, match=rf"meta\.json: {message}.*dvc repro -f prepare"):
        Store.open(folder)


def test_a_large_arrays_checksum_is_what_split_and_sha256sum_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 1 << 20)
    for size in (1 << 20, (1 << 20) + 1, 5 << 19, 3 << 20):
        path = tmp_path / "array"
        path.write_bytes(np.random.default_rng(size).bytes(size))
        filtered = "split -b 1M --filter=sha256sum array | sha256sum" if size > 1 << 20 else "sha256sum array"
        printed = subprocess.run(filtered, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert module.checksum(path) == printed.split()[0]
