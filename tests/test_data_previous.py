"""Where the store is to go, the same store is left, an earlier one is replaced, and nothing else is touched."""

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline import paths
from pipeline.data import destination, sources
from pipeline.data.prepare import prepare
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import Data
from tests.image_folders import FETCHED, contents, raw_images, settings, write_folder
from tests.tiny import damage


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data/trees"


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its inode and time, which change where it is written again."""
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def is_left(data: Data, out: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether prepare finds that `out` holds the store already; says so if it does, and leaves the files alone."""
    before = state_of(out)
    capsys.readouterr()
    prepare(data, out, workers=1)
    said = "holds these images already; its checksums are verified, nothing is written" in capsys.readouterr().out
    assert said == (state_of(out) == before)
    return said


def test_the_same_store_is_verified_and_left(images: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_left(settings(images), out, capsys)
    assert is_left(settings(images), out, capsys)
    (note,) = (paths.state() / "prepared").glob("*.json")
    assert list(json.loads(note.read_text())) == ["meta.json"]


def test_a_store_that_is_left_asks_for_no_source(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "load", lambda data: raw_images(1))
    fetched = Data(**FETCHED)
    prepare(fetched, out, workers=1)
    monkeypatch.setattr(sources, "load", lambda data: pytest.fail("the images were asked for"))
    assert is_left(fetched, out, capsys)


def image_changed(images: Path) -> None:
    """Of the same size, as an exchanged one may be."""
    path = images / "train/cedar/003.jpg"
    content, found = bytearray(path.read_bytes()), path.stat()
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda images: shutil.copy(images / "test/ash/000.jpg", images / "test/ash/new.jpg"),
        lambda images: (images / "train/cedar/003.jpg").unlink(),
        lambda images: (images / "train/cedar/003.jpg").rename(images / "train/cedar/03.jpg"),
        image_changed,
    ],
    ids=["another image", "an image gone", "an image renamed", "an image changed"],
)
def test_a_change_in_the_folder_writes_the_store_again(
    images: Path, out: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], object]
) -> None:
    prepare(settings(images), out, workers=1)
    change(images)
    assert not is_left(settings(images), out, capsys)
    assert is_left(settings(images), out, capsys)


@pytest.mark.parametrize("setting", [{"image_size": 17}, {"split_seed": 1}, {"train_images": 50}, {}])
def test_another_setting_or_memory_for_smaller_images_only_writes_another_store(
    images: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, setting: Any
) -> None:
    prepare(settings(images), out, workers=1)
    if setting:
        assert not is_left(settings(images, **setting), out, capsys)
    else:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("memory", "total")(1 << 30))
    assert not is_left(settings(images), out, capsys)


def test_another_version_of_a_decoder_or_of_the_code_writes_the_store_again(
    images: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepare(settings(images), out, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(destination, "version", lambda name: metadata.version(name) + ("1" if name == "pillow" else ""))
        assert not is_left(settings(images), out, capsys)
    shutil.copytree(destination.PACKAGE, tmp_path / "code")
    (tmp_path / "code/sources/folder.py").open("a").write("# another\n")
    with monkeypatch.context() as patch:
        patch.setattr(destination, "PACKAGE", tmp_path / "code")
        assert not is_left(settings(images), out, capsys)


def cut_note(_: Path) -> None:
    (note,) = (paths.state() / "prepared").glob("*.json")
    note.write_bytes(note.read_bytes()[:5])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda out: damage(out / "val/images.npy", "flipped"),
        lambda out: (out / "test/labels.npy").unlink(),
        lambda out: (out / "meta.json").write_text((out / "meta.json").read_text().replace("ash", "oak")),
        cut_note,
    ],
    ids=["a damaged image", "lost labels", "another meta file", "a note that is cut off"],
)
def test_a_store_that_is_not_whole_is_written_again(
    images: Path, out: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object]
) -> None:
    prepare(settings(images), out, workers=1)
    whole = contents(out)
    spoil(out)
    assert not is_left(settings(images), out, capsys)
    assert contents(out) == whole


@pytest.mark.parametrize("files", [[], ["train/images.npy", "val/labels.npy", "meta.json"]])
def test_an_empty_folder_and_half_a_store_are_replaced(images: Path, out: Path, files: list[str]) -> None:
    for split in ("train", "val"):
        (out / split).mkdir(parents=True)
    for name in files:
        (out / name).write_bytes(b"cut off")
    prepare(settings(images), out, workers=1)
    assert Store.open(out).meta.dataset == "trees"


OTHERS = {  # and what is named
    "notes.txt": "notes.txt",
    "train/notes.txt": "train/notes.txt",
    "train/ash/000.jpg": "train/ash",
    "images.npy": "images.npy",
    "val/mean_image.npy": "val/mean_image.npy",
    ".hidden": ".hidden",
    "old/meta.json": "old",
}


def refusal(data: Data, out: Path) -> str:
    before = state_of(out.resolve())
    with pytest.raises(UserError) as caught:
        prepare(data, out, workers=1)
    assert state_of(out.resolve()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("linked", [False, True], ids=["", "through a link"])
@pytest.mark.parametrize("name", OTHERS)
def test_files_that_are_none_of_a_stores_are_named_and_not_touched(
    images: Path, out: Path, name: str, linked: bool, tmp_path: Path
) -> None:
    place = tmp_path / "mine" if linked else out
    prepare(settings(images), place, workers=1)
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text("mine")
    if linked:
        out.parent.mkdir()
        out.symlink_to(place)
    message = refusal(settings(images), out)
    assert message.startswith(
        f"{out}: is not replaced, as it holds {out / OTHERS[name]}, which is no part of a store; "
    )
    assert message.endswith("move the files away, or set data.dataset to another name")
    assert out.is_symlink() == linked


def test_a_link_in_place_of_a_part_of_the_store_is_not_replaced(images: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (out / "train").symlink_to(tmp_path / "empty")
    assert f"as it holds {out / 'train'}, which is no part" in refusal(settings(images), out)


@pytest.mark.parametrize("link", [False, True])
def test_images_where_their_own_store_would_go_are_left_and_the_message_names_the_key(
    out: Path, tmp_path: Path, link: bool
) -> None:
    folder = write_folder(tmp_path / "originals" if link else out)
    if link:
        out.parent.mkdir()
        out.symlink_to(folder)
    assert f"(data.folder = {str(folder)!r} lies there)" in refusal(settings(folder), out)


def test_a_link_to_an_empty_folder_or_to_a_store_stays_a_link(images: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    out.parent.mkdir()
    out.symlink_to(tmp_path / "large-disk")
    for image_size in (16, 17):
        prepare(settings(images, image_size=image_size), out, workers=1)
        assert out.is_symlink()
        assert Store.open(tmp_path / "large-disk").meta.image_size == image_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "images", "large-disk"]


def test_what_cannot_be_looked_into_is_not_replaced(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "train").mkdir(parents=True)
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if Path(path).name == "train" and Path(path).parent == out:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)  # root may look into everything
    assert refusal(settings(images), out).startswith(f"{out}: cannot be written (Permission denied)")
