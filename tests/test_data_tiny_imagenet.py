"""Tiny ImageNet, whole or in part, is read in place from archive or folder; what is missing or damaged is named."""

import hashlib
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import paths
from pipeline.data import sources
from pipeline.data.prepare import prepare
from pipeline.data.sources import tiny_imagenet
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import Data
from tests.downloads import NOWHERE, web_server
from tests.image_folders import SHARED, contents, encoded

REAL = SHARED / "tiny-imagenet-200.tar.xz"
WNIDS = [f"n{number:08d}" for number in (7, 11, 20, 35, 36, 99)]
WORDS = ["crane", "crane", "goldfish, Carassius auratus", "tarantula", "lamp", "pill bottle"]
NAMES = ["crane (n00000007)", "crane (n00000011)", "goldfish", "tarantula", "lamp", "pill bottle"]
TRAIN, TEST = 12, 3  # images of each class
ROOT = "tiny-imagenet-200"

Tree = dict[str, bytes]


def image(label: int, number: int, blue: int) -> bytes:
    """One color that tells class and number; every eleventh is grey."""
    color = (40 * label, 10 * number, blue)
    return encoded(Image.new("RGB", (8, 8), color) if number % 11 else Image.new("L", (8, 8), 40 * label))


def published() -> Tree:
    """The files as they were published, with few classes and images. Validation images are in no order of classes."""
    tree = {"wnids.txt": "".join(f"{wnid}\n" for wnid in reversed(WNIDS)).encode()}
    lines = [f"{wnid}\t{word}" for wnid, word in zip(WNIDS, WORDS, strict=True)]
    tree["words.txt"] = "\n".join(["n99999999\tno class of this data set", *lines]).encode()
    for label, wnid in enumerate(WNIDS):
        tree[f"train/{wnid}/{wnid}_boxes.txt"] = b"boxes"
        for number in range(TRAIN):
            tree[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = image(label, number, 0)
    annotations = []
    for number in range(TEST * len(WNIDS)):
        label = 5 * number % len(WNIDS)
        tree[f"val/images/val_{number}.JPEG"] = image(label, number + 1, 200)
        annotations.append(f"val_{number}.JPEG\t{WNIDS[label]}\t0\t0\t7\t7\n")
    tree["val/val_annotations.txt"] = "".join(reversed(annotations)).encode()
    tree["test/images/test_0.JPEG"] = b"has no label"
    return tree


def zipped(path: Path, tree: Tree) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir(f"{ROOT}/train")
        for name, content in tree.items():
            archive.writestr(f"{ROOT}/{name}", content)
    return path


def unpacked(folder: Path, tree: Tree) -> Path:
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def data(folder: Path | None, **changes: Any) -> Data:
    values = {"folder": folder and str(folder), "dataset": "tiny_imagenet", "image_size": 8, "split_seed": 0}
    return Data(**{**values, "train_images": None, "validation_images": 12, "test_images": None, **changes})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six classes with a few images each count as the whole."""
    for name, value in {"CLASSES": len(WNIDS), "TRAIN_OF_CLASS": TRAIN, "TEST_OF_CLASS": TEST}.items():
        monkeypatch.setattr(tiny_imagenet, name, value)


def assert_labels_fit(store: Store) -> None:
    for split, blue in (("train", 0), ("val", 0), ("test", 200)):
        arrays = store.split(split)  # type: ignore[arg-type]
        red, _, found = arrays.images[:, 4, 4].astype(int).T
        assert np.array_equal((red + 20) // 40, arrays.labels)
        grey = found == red  # also where that is the color of a label
        assert np.allclose(found[~grey], blue, atol=3)


def test_the_archive_and_the_folder_give_the_same_store_with_val_as_its_test_split(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "tiny-imagenet-200.zip", published())
    unpacked(tmp_path / "unpacked" / ROOT, published())
    prepare(data(archive), tmp_path / "zip", workers=2)
    for number, folder in enumerate((tmp_path / "unpacked", tmp_path / "unpacked" / ROOT)):
        prepare(data(folder), tmp_path / f"folder {number}", workers=1)
        assert contents(tmp_path / f"folder {number}") == contents(tmp_path / "zip")
    store = Store.open(tmp_path / "zip")
    assert store.meta.classes == NAMES
    assert store.meta.counts == {"train": 60, "val": 12, "test": 18}
    assert store.meta.channels == 3
    assert_labels_fit(store)
    assert np.bincount(store.split("test").labels).tolist() == [TEST] * 6
    assert np.bincount(store.split("val").labels).tolist() == [2] * 6


@pytest.mark.parametrize(
    ("classes", "labels"),
    [(2, [0, 3]), (3, [0, 2, 4]), (4, [0, 1, 3, 4]), (6, [0, 1, 2, 3, 4, 5]), ([WNIDS[5], WNIDS[1]], [1, 5])],
)
def test_a_part_is_so_many_classes_spread_evenly_over_the_wnids_or_those_listed(
    tmp_path: Path, classes: int | list[str], labels: list[int]
) -> None:
    settings = data(unpacked(tmp_path / "images", published()), classes=classes)
    raw = sources.load(settings)
    whole = sources.load(data(tmp_path / "images"))
    assert raw.classes[-1] == NAMES[labels[-1]]
    assert len(raw.classes) == len(labels)
    for found, every in ((raw.train, whole.train), (raw.test, whole.test)):
        kept = np.flatnonzero(np.isin(every.labels, labels))
        assert [found.name(row) for row in range(len(found.labels))] == [every.name(row) for row in kept]
        assert np.array_equal(np.array(labels)[found.labels], every.labels[kept])


def test_every_fourth_of_200_classes_is_taken_where_50_are_asked_for() -> None:
    wnids = [f"n{number:08d}" for number in range(200)]
    assert tiny_imagenet.chosen(wnids[::-1], 50) == wnids[::4]


@pytest.mark.parametrize("classes", [None, 50, ["n01443537", "n01629819", "n01641577"]])
def test_the_numbers_are_known_without_reading_anything(classes: Any) -> None:
    found = sources.contents(data(None, classes=classes))
    count = {None: 200, 50: 50}.get(classes if not isinstance(classes, list) else 0, 3)
    assert found == (500 * count, 50 * count, count, 3)


def without(tree: Tree, *names: str) -> Tree:
    return {name: content for name, content in tree.items() if not name.startswith(names)}


def changed(tree: Tree, name: str, old: str, new: str) -> Tree:
    assert old in tree[name].decode()
    return tree | {name: tree[name].decode().replace(old, new, 1).encode()}


DAMAGES: list[tuple[str, Callable[[Tree], Tree], str]] = [
    ("a class is missing", lambda tree: without(tree, f"train/{WNIDS[2]}/"), f"train/{WNIDS[2]}/images: "),
    (
        "a training image is missing",
        lambda tree: without(tree, f"train/{WNIDS[2]}/images/{WNIDS[2]}_7.JPEG"),
        f"train/{WNIDS[2]}/images: lacks 1 of the 12 published, {WNIDS[2]}_7.JPEG: unpack or fetch",
    ),
    (
        "a training image too many",
        lambda tree: tree | {f"train/{WNIDS[2]}/images/cat.JPEG": b""},
        f"train/{WNIDS[2]}/images: cat.JPEG: not among what was published",
    ),
    (
        "a validation image is missing",
        lambda tree: without(tree, "val/images/val_17."),
        "val/images: lacks 1 of the 18 published, val_17.JPEG: ",
    ),
    (
        "an annotation of an unknown file",
        lambda tree: changed(tree, "val/val_annotations.txt", "val_3.JPEG", "val_18.JPEG"),
        "val/val_annotations.txt: line 15 is about 'val_18.JPEG'; accepted are val_0.JPEG to val_17.JPEG, each once",
    ),
    (
        "an annotation twice",
        lambda tree: changed(tree, "val/val_annotations.txt", "val_3.JPEG", "val_4.JPEG"),
        "val/val_annotations.txt: line 15 is about 'val_4.JPEG'; accepted are val_0.JPEG to val_17.JPEG, each once",
    ),
    (
        "an annotation of an unknown class",
        lambda tree: changed(tree, "val/val_annotations.txt", f"val_3.JPEG\t{WNIDS[3]}", "val_3.JPEG\tn00000000"),
        "val/val_annotations.txt: line 15 has the class 'n00000000'; accepted are those in wnids.txt",
    ),
    (
        "annotations without classes",
        lambda tree: changed(tree, "val/val_annotations.txt", f"val_17.JPEG\t{WNIDS[1]}\t0\t0\t7\t7", "val_17.JPEG"),
        "val/val_annotations.txt: line 1 has the class ''",
    ),
    (
        "annotations cut off",
        lambda tree: tree | {"val/val_annotations.txt": tree["val/val_annotations.txt"].rpartition(b"val_0.")[0]},
        "val/val_annotations.txt: has no line for val_0.JPEG",
    ),
    (
        "a class of another's images",
        lambda tree: changed(tree, "val/val_annotations.txt", f"val_3.JPEG\t{WNIDS[3]}", f"val_3.JPEG\t{WNIDS[0]}"),
        f"val/val_annotations.txt: gives {WNIDS[0]} has 4 images; accepted are 3 of each class",
    ),
    ("no annotations", lambda tree: without(tree, "val/val_ann"), "val/val_annotations.txt: cannot be read (No such"),
    (
        "a WNID too few",
        lambda tree: changed(tree, "wnids.txt", f"{WNIDS[4]}\n", ""),
        "wnids.txt: holds 5 WNIDs, 5 of them different; accepted are 6",
    ),
    (
        "a WNID twice",
        lambda tree: changed(tree, "wnids.txt", WNIDS[4], WNIDS[3]),
        "wnids.txt: holds 6 WNIDs, 5 of them different; accepted are 6",
    ),
    (
        "a WNID that leads elsewhere",
        lambda tree: changed(tree, "wnids.txt", WNIDS[4], "../../etc"),
        "wnids.txt: holds '../../etc'; accepted are WNIDs such as n01443537",
    ),
    ("no WNIDs", lambda tree: without(tree, "wnids"), "wnids.txt: cannot be read (No such file or directory)"),
    (
        "a class without a name",
        lambda tree: changed(tree, "words.txt", WNIDS[3], "n88888888"),
        f"words.txt: has no line for {WNIDS[3]}",
    ),
]


@pytest.mark.parametrize("form", ["archive", "folder"])
@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_what_is_missing_or_unknown_is_one_line_that_names_it(
    tmp_path: Path, form: str, damage: Callable[[Tree], Tree], message: str
) -> None:
    tree = damage(published())
    place = zipped(tmp_path / "images.zip", tree) if form == "archive" else unpacked(tmp_path / "images", tree)
    with pytest.raises(UserError) as caught:
        prepare(data(place), tmp_path / "out", workers=1)
    called = f"{place}: {ROOT}/" if form == "archive" else f"{place}/"
    assert str(caught.value).startswith(called + message)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"<html>404</html>", lambda content: b""]
)
def test_an_archive_that_is_cut_off_or_none_is_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    archive = zipped(tmp_path / "images.zip", published())
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(UserError) as caught:
        prepare(data(archive), tmp_path / "out", workers=1)
    assert str(caught.value).startswith(f"{archive}: is no whole zip archive (")
    assert str(caught.value).endswith("unpack or fetch tiny-imagenet-200.zip again")
    assert "\n" not in str(caught.value)


def test_an_image_that_is_damaged_within_the_archive_is_named_with_its_reason(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "images.zip", published())
    name = f"train/{WNIDS[1]}/images/{WNIDS[1]}_5.JPEG"
    content = bytearray(archive.read_bytes())
    content[content.index(f"{ROOT}/{name}".encode()) + len(f"{ROOT}/{name}") + 30] ^= 255
    archive.write_bytes(content)
    with pytest.raises(UserError) as caught:
        prepare(data(archive), tmp_path / "out", workers=1)
    assert "data.folder: more than 1% of the 60 train images cannot be used" in str(caught.value)
    assert f"{name}: cannot be read (damaged in the archive: " in str(caught.value)


def test_a_place_with_nothing_in_it_and_an_unknown_class_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/wnids\.txt: cannot be read \(No such file or directory\); accepted"):
        sources.load(data(tmp_path / "nowhere"))
    folder = unpacked(tmp_path / "images", published())
    with pytest.raises(UserError, match=r"data\.classes: Tiny ImageNet has no class 'n00000008'; accepted are"):
        sources.load(data(folder, classes=[WNIDS[0], "n00000008"]))


def test_another_archive_of_the_same_name_makes_another_store(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "images.zip", published())
    prepare(data(archive), tmp_path / "out", workers=1)
    before = Store.open(tmp_path / "out").split("train").images.copy()
    tree = published()
    first, other = (f"train/{WNIDS[1]}/images/{WNIDS[1]}_{number}.JPEG" for number in (5, 6))
    tree[first], tree[other] = tree[other], tree[first]
    shutil.move(zipped(tmp_path / "other.zip", tree), archive)
    tiny_imagenet._opened.cache_clear()
    prepare(data(archive), tmp_path / "out", workers=1)
    assert not np.array_equal(Store.open(tmp_path / "out").split("train").images, before)


# ---- The published archive -------------------------------------------------------------------------------------------


@pytest.fixture
def archive(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An archive that counts as the published one, on a machine without network."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(tiny_imagenet, "URL", NOWHERE)
    content = zipped(workplace / "published" / tiny_imagenet.ARCHIVE, published()).read_bytes()
    monkeypatch.setattr(tiny_imagenet, "MD5", hashlib.md5(content).hexdigest())
    return content


def kept() -> Path:
    folder = paths.downloads() / "tiny-imagenet"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / tiny_imagenet.ARCHIVE


def test_an_archive_in_downloads_is_read_where_it_lies(archive: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    kept().write_bytes(archive)
    raw = sources.load(data(None, classes=3))
    assert raw.classes == ["crane", "goldfish", "lamp"]
    assert capsys.readouterr().out == f"Tiny ImageNet: from {kept().parent}\n"


def test_it_is_fetched_once_and_kept(archive: bytes, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server(workplace / "published") as url:
        monkeypatch.setattr(tiny_imagenet, "URL", url)
        assert len(sources.load(data(None)).train.labels) == TRAIN * 6
    assert kept().read_bytes() == archive
    assert len(sources.load(data(None)).train.labels) == TRAIN * 6


def test_a_damaged_archive_in_downloads_is_refused_and_fetched_again(
    archive: bytes, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept().write_bytes(archive[:-9])
    with pytest.raises(UserError) as caught:
        sources.load(data(None))
    assert f"{kept()}: {len(archive) - 9} bytes, whose MD5 is " in str(caught.value)
    assert "or put tiny-imagenet-200.zip (MD5 " in str(caught.value)
    with web_server(workplace / "published") as url:
        monkeypatch.setattr(tiny_imagenet, "URL", url)
        sources.load(data(None))
    assert f"Tiny ImageNet: from {url}; refused {kept()}: " in capsys.readouterr().out
    assert kept().read_bytes() == archive


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="Tiny ImageNet is not beside the repository")
def test_of_the_real_images_two_in_a_hundred_are_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CLASSES": 200, "TRAIN_OF_CLASS": 500, "TEST_OF_CLASS": 50}.items():
        monkeypatch.setattr(tiny_imagenet, name, value)
    subprocess.run(["tar", "xf", REAL, "-C", tmp_path], check=True)
    prepare(data(tmp_path, classes=20, image_size=64, validation_images=1000), tmp_path / "out")
    store = Store.open(tmp_path / "out")
    assert store.meta.counts == {"train": 9000, "val": 1000, "test": 1000}
    assert store.meta.skipped == []
    assert store.meta.classes[0].startswith("goldfish")
    images = store.split("train").images
    grey = (images == images[..., :1]).all((1, 2, 3)).mean()
    assert 0.01 < grey < 0.03
