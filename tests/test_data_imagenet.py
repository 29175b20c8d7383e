"""ImageNet as it was published: the same store from every layout, and what is not whole is named."""

import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import sources
from pipeline.data.prepare import prepare
from pipeline.data.sources import RawImages, imagenet
from pipeline.data.sources.imagenet import Files
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import Data
from tests import imagenet_files as made
from tests.downloads import tar
from tests.image_folders import REAL, SHARED, assert_as_pillow, contents, encoded, photograph, turned
from tests.imagenet_files import LAYOUTS, NAMES, PER_CLASS, TRAIN, WNIDS, Tiny, archives, tiny

REAL_KIT = SHARED / "ILSVRC2012_devkit_t12.tar.gz"
IMAGE_SIZE = 16
BOTH = pytest.mark.parametrize("dataset", ["imagenet2012", "imagenet2010"])


@pytest.fixture(autouse=True)
def _tiny_contests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dataset in made.SETS:
        made.publish(monkeypatch, dataset, tmp_path)


def settings(folder: Path, dataset: str = "imagenet2012", image_size: int = IMAGE_SIZE) -> Data:
    counts: dict[str, Any] = {"train_images": None, "validation_images": 5, "test_images": None}
    return Data(folder=str(folder), dataset=dataset, image_size=image_size, split_seed=0, **counts)


def loaded(folder: Path, dataset: str = "imagenet2012") -> RawImages:
    return sources.load(settings(folder, dataset))


def refusal(folder: Path, dataset: str = "imagenet2012") -> str:
    with pytest.raises(UserError) as caught:
        loaded(folder, dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "download")


@BOTH
def test_every_layout_gives_the_same_store_byte_for_byte(tmp_path: Path, dataset: str) -> None:
    stores = []
    for layout in LAYOUTS[dataset]:
        layout(tmp_path / layout.__name__, tiny(dataset))
        prepare(settings(tmp_path / layout.__name__, dataset), tmp_path / "out", workers=1)
        stores.append(contents(tmp_path / "out"))
    assert len(stores) > 3
    assert all(store == stores[0] for store in stores)


@BOTH
def test_labels_are_the_kits_ids_minus_one_and_each_image_has_its_own(tmp_path: Path, dataset: str) -> None:
    archives(tmp_path / "download", tiny(dataset))
    prepare(settings(tmp_path / "download", dataset), tmp_path / "out", workers=1)
    store, test_set = Store.open(tmp_path / "out"), made.SETS[dataset][-1]
    assert store.meta.classes == NAMES
    assert store.meta.skipped == []
    assert store.meta.counts == {"train": sum(TRAIN) - 5, "val": 5, "test": 5 * PER_CLASS[test_set]}
    for split in ("train", "val", "test"):
        images, labels = store.split(split).images, store.split(split).labels  # type: ignore[arg-type]
        assert np.array_equal((images[:, 0, 0, 0].astype(int) + 20) // 40, labels)
    assert store.split("test").labels.tolist() == [id_ - 1 for id_ in tiny(dataset).ids[test_set]]
    assert np.allclose(store.split("test").images[:, 0, 0, 1], 5 * np.arange(5 * PER_CLASS[test_set]), atol=3)


def test_the_official_validation_set_of_2010_may_be_left_out_but_not_in_part(tmp_path: Path) -> None:
    archives(tmp_path / "download", tiny("imagenet2010"))
    archive = tmp_path / "download/ILSVRC2010_images_val.tar"
    images = tiny("imagenet2010").flat["val"]
    images.pop("ILSVRC2010_val_00000007.JPEG")
    made.write_tar(archive, images)
    assert "ILSVRC2010_images_val.tar: lacks 1 of the 20 published, ILSVRC2010_val_00000007.JPEG" in refusal(
        tmp_path / "download", "imagenet2010"
    )
    archive.unlink()
    assert len(loaded(tmp_path / "download", "imagenet2010").test.labels) == 30


def in_archive(images: sources.Images) -> Files:
    assert isinstance(images, Files)
    assert images.members is not None
    return images


def sample(tmp_path: Path) -> Tiny:
    """The tiny contest, with real ImageNet files in place of its one-colored images."""
    subprocess.run(["tar", "xf", REAL, "-C", tmp_path], check=True)
    files = [file.read_bytes() for file in sorted(tmp_path.rglob("*.JPEG"))]
    data = tiny("imagenet2012")
    for images in (*data.train.values(), *data.flat.values()):
        for name in images:
            images[name] = files.pop()
    return data


needs_real_files = pytest.mark.skipif(
    not REAL.is_file(), reason="the real ImageNet files are not beside the repository"
)


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=needs_real_files)], ids=["made up", "real"])
def test_a_file_of_the_nested_archive_is_what_tarfile_extracts(tmp_path: Path, real: bool) -> None:
    archives(tmp_path / "download", sample(tmp_path) if real else tiny("imagenet2012"))
    train = in_archive(loaded(tmp_path / "download").train)
    with tarfile.open(tmp_path / "download/ILSVRC2012_img_train.tar") as outer:
        for row in np.random.default_rng(0).permutation(sum(TRAIN)).tolist():
            _, wnid, file = train.name(row).split("/")
            with tarfile.open(fileobj=outer.extractfile(f"{wnid}.tar")) as inner:
                member = inner.extractfile(file)
                assert member
                assert train.content(row) == member.read()
            assert WNIDS[train.labels[row]] == wnid


@needs_real_files
def test_real_files_in_the_nested_archive_are_decoded_and_resized_as_pillow_does(tmp_path: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "xf", REAL, "-C", tmp_path / "unpacked"], check=True)
    files = sorted((tmp_path / "unpacked").rglob("*.JPEG"))
    inner = tar({file.name: file.read_bytes() for file in files})
    archive = made.write_tar(tmp_path / "train.tar", {"n00000001.tar": tar({"a": b"a"}), "n02119789.tar": inner})
    outer = imagenet.index_tar(archive, "outer")
    members = imagenet.index_tar(archive, "inner", int(outer.offsets[1]), int(outer.offsets[1] + outer.sizes[1]))
    images = Files("train", WNIDS, archive, members.names, np.zeros(200, np.int64), members)
    assert [images.name(row) for row in range(200)] == [f"train/n02119789/{file.name}" for file in files]
    for row, file in enumerate(files):
        if row % 4 == 0:
            assert_as_pillow(Image.open(file).convert("RGB"), 256, images.load(row, 256).pixels)
        assert images.content(row) == file.read_bytes()


PHOTO = photograph(91, 67)
ODD = {
    "CMYK": encoded(PHOTO.convert("CMYK")),
    "grey": encoded(PHOTO.convert("L")),
    "PNG named JPEG": encoded(PHOTO, format="PNG"),
    "bytes after the end": encoded(PHOTO) + b"what a camera left behind",
    "EXIF asks for a quarter turn, which is not made": turned(PHOTO),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_in_an_archive_are_read_as_pillow_reads_them(tmp_path: Path, kind: str) -> None:
    name = f"{WNIDS[1]}_3.JPEG"
    train = with_file(tmp_path / "download", name, ODD[kind])
    image = Image.open(io.BytesIO(ODD[kind])).convert("RGB")
    assert_as_pillow(image, IMAGE_SIZE, train.load(row_of(train, name), IMAGE_SIZE).pixels)


def with_file(folder: Path, name: str, content: bytes) -> Files:
    data = tiny("imagenet2012")
    data.train[name.split("_")[0]][name] = content
    archives(folder, data)
    return in_archive(loaded(folder).train)


def row_of(files: Files, name: str) -> int:
    return files.names.tolist().index(name.encode())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded(photograph(200, 200))[:2000], "cannot be decoded (image file is truncated"),
        (b"\x1f\x8b\x08 gzip", "is none of JPEG"),  # as one training file of 2010 is
        (b"", "is none of JPEG"),
    ],
)
def test_a_corrupt_file_in_an_archive_is_listed_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    name = f"{WNIDS[1]}_3.JPEG"
    train = with_file(tmp_path / "download", name, content)
    row = row_of(train, name)
    assert train.name(row) == f"train/{WNIDS[1]}/{name}"
    assert train.load(row, IMAGE_SIZE).pixels is None
    assert reason in train.load(row, IMAGE_SIZE).problem


def test_the_archives_are_not_unpacked_and_serve_several_processes(tmp_path: Path) -> None:
    archives(tmp_path / "download", tiny("imagenet2012"))
    before = contents(tmp_path / "download")
    for workers in (1, 2):
        prepare(settings(tmp_path / "download"), tmp_path / str(workers), workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert contents(tmp_path / "download") == before


def test_an_index_goes_to_another_process_in_few_bytes_for_each_image(tmp_path: Path) -> None:
    files = {f"n02119789_{number}.JPEG": b"x" for number in range(20_000)}
    archive = made.write_tar(tmp_path / "train.tar", files)
    members = imagenet.index_tar(archive, "archive")
    images = Files("train", WNIDS, archive, members.names, np.zeros(20_000, np.int64), members)
    pickled = pickle.dumps(images)
    assert len(pickled) < 50 * 20_000  # 64 MB for ImageNet's 1,281,167
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).content(19_999))"
    done = subprocess.run([sys.executable, "-c", program], input=pickled, capture_output=True, check=True)
    assert done.stdout == b"b'x'\n"


def test_the_table_of_2012_has_the_published_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    contest = imagenet.CONTESTS["imagenet2012"]
    assert contest.table
    classes = imagenet.classes_from_table(contest.table)
    assert len(set(classes.wnids)) == len(set(classes.names())) == 1000
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in classes.wnids)
    assert sum(classes.train_images) == contest.images["train"] == 1_281_167
    assert (min(classes.train_images), max(classes.train_images)) == (732, 1300)  # as the contest's paper says
    assert contest.images["val"] == 50_000
    by_name = dict(zip(classes.names(), classes.wnids, strict=True))
    assert by_name["tench"] == min(classes.wnids) == "n01440764"
    assert classes.wnids.index("n01440764") == 448  # TensorFlow's map of the contest has 449 for it
    assert classes.wnids[490 - 1] == "n01751748"  # the first validation image, whose ID is 490, is a sea snake


@pytest.mark.skipif(not REAL_KIT.is_file(), reason="the real development kit is not beside the repository")
def test_the_real_kit_is_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    contest = imagenet.CONTESTS["imagenet2012"]
    kit = imagenet.kit_contents(SHARED, *contest.kit)
    assert contest.table
    assert imagenet.classes_from_meta(kit["meta.mat"], "kit", "ILSVRC2012_ID") == imagenet.classes_from_table(
        contest.table
    )
    labels = imagenet.labels_from_truth(kit[contest.truth["val"]], "kit", 50_000, 1000)
    assert np.bincount(labels).tolist() == [50] * 1000
    assert labels[:3].tolist() == [489, 360, 170]


TRAIN_TAR, VAL_TAR, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
Spoil = Callable[[Path], object]


def cut_train(place: Callable[[tarfile.TarFile], int]) -> Spoil:
    """Cut the training archive off where `place` says."""

    def cut(folder: Path) -> None:
        with tarfile.open(folder / TRAIN_TAR) as outer:
            kept = place(outer)
        os.truncate(folder / TRAIN_TAR, kept)

    return cut


def train_with(changes: dict[str, bytes | None]) -> Spoil:
    """The training archive with other classes' archives; None: without that class."""
    classes = {f"{wnid}.tar": tar(images) for wnid, images in tiny("imagenet2012").train.items()}
    kept = {name: content for name, content in (classes | changes).items() if content is not None}
    return lambda folder: made.write_tar(folder / TRAIN_TAR, kept)


def val_with(change: Callable[[dict[str, bytes]], object]) -> Spoil:
    images = tiny("imagenet2012").flat["val"]
    change(images)
    return lambda folder: made.write_tar(folder / VAL_TAR, images)


def kit_with(**changes: bytes) -> Spoil:
    """The kit, unpacked, with another meta.mat or ground truth."""
    names = {"meta": "meta.mat", "truth": "ILSVRC2012_validation_ground_truth.txt"}
    files = made.kit(tiny("imagenet2012")) | {names[key]: content for key, content in changes.items()}

    def spoil(folder: Path) -> None:
        (folder / KIT).unlink()
        made.write_files(folder / "ILSVRC2012_devkit_t12/data", files)

    return spoil


ONE_CLASS = tiny("imagenet2012").train[WNIDS[2]]  # n03126707, of six images


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            cut_train(lambda outer: outer.getmember(f"{WNIDS[1]}.tar").offset_data + 3000),  # in the last class
            r"ILSVRC2012_img_train\.tar: ends inside n01440764\.tar, at byte \d+ instead of \d+",
        ),
        (
            cut_train(lambda outer: outer.getmembers()[3].offset),  # at a class's end, where tarfile sees nothing wrong
            r"ILSVRC2012_img_train\.tar: is cut off or damaged after n02119789\.tar, at byte \d+",
        ),
        (
            train_with({f"{WNIDS[2]}.tar": tar(ONE_CLASS)[:2200]}),
            r"ILSVRC2012_img_train\.tar: n03126707\.tar: ends inside n03126707_3\.JPEG, at byte",
        ),
        (
            train_with({f"{WNIDS[2]}.tar": b"<html>" * 200}),
            r"ILSVRC2012_img_train\.tar: n03126707\.tar: is cut off or damaged after its start",
        ),
        (
            train_with({f"{WNIDS[2]}.tar": None}),
            r"ILSVRC2012_img_train\.tar: lacks 1 of the 5 published, n03126707\.tar: fetch .* data\.dataset",
        ),
        (
            train_with({"n99999999.tar": tar({"n99999999_1.JPEG": b""})}),
            r"ILSVRC2012_img_train\.tar: n99999999\.tar: not among what was published",
        ),
        (
            train_with({f"{WNIDS[2]}.tar": tar(dict(list(ONE_CLASS.items())[:-1]))}),
            r"ILSVRC2012_img_train\.tar: holds 34 images; accepted is 35 \(n03126707 has 5 of 6\): "
            r"fetch what is missing; or, for a part of ImageNet, set data\.dataset to a name of your own",
        ),
        (
            lambda folder: (folder / TRAIN_TAR).write_text("<html>sign in</html>" * 100),
            r"ILSVRC2012_img_train\.tar: is no tar archive \(",
        ),
        (
            lambda folder: (folder / VAL_TAR).write_bytes(b""),
            r"ILSVRC2012_img_val\.tar: is no tar archive \(empty file\)",
        ),
        (
            val_with(lambda images: images.pop("ILSVRC2012_val_00000007.JPEG")),
            r"ILSVRC2012_img_val\.tar: lacks 1 of the 20 published, ILSVRC2012_val_00000007\.JPEG: fetch",
        ),
        (
            val_with(lambda images: images.update({"again/ILSVRC2012_val_00000007.JPEG": b""})),
            r"ILSVRC2012_img_val\.tar: ILSVRC2012_val_00000007\.JPEG: not among .*, or there twice",
        ),
        (
            lambda folder: os.truncate(folder / VAL_TAR, 12_000),
            r"ILSVRC2012_img_val\.tar: (ends inside|is cut off or damaged after) ILSVRC2012_val_0000\d{4}\.JPEG",
        ),
        (
            lambda folder: (folder / VAL_TAR).unlink(),
            r"^download: holds no val images of ILSVRC2012; accepted are ILSVRC2012_img_train\.tar, .*Kaggle's",
        ),
        (
            lambda folder: (folder / KIT).unlink(),
            r"^download: holds no ILSVRC2012_validation_ground_truth\.txt, which labels download/ILSVRC2012_img",
        ),
        (
            lambda folder: os.truncate(folder / KIT, 300),
            r"download/ILSVRC2012_devkit_t12\.tar\.gz: cannot be unpacked \(",
        ),
        (kit_with(truth=b"1\n2\n3\n"), r"ground_truth\.txt: holds 3 lines; accepted are 20, one for each image"),
        (kit_with(truth=b"1\n" * 19 + b"6\n"), r"ground_truth\.txt: line 20 is 6; accepted is 1 to 5"),
        (kit_with(truth=b"tench\n" * 20), r"ground_truth\.txt: holds other lines than numbers"),
        (kit_with(meta=made.meta_mat("ILSVRC2012")[:300]), r"meta\.mat of the kit: is not the kit's list of synsets"),
        (kit_with(meta=made.meta_mat("ILSVRC2010")), r"meta\.mat of the kit: is not the kit's list of synsets"),
    ],
)
def test_what_is_off_in_the_archives_is_named(tmp_path: Path, spoil: Spoil, message: str) -> None:
    archives(tmp_path / "download", tiny("imagenet2012"))
    spoil(tmp_path / "download")
    assert re.search(message, refusal(tmp_path / "download"))


def test_what_is_off_in_folders_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "download"
    made.class_folders(folder, tiny("imagenet2012"))
    lost = next((folder / "val" / WNIDS[4]).iterdir())
    lost.rename(folder / "kept")
    assert "val: holds 19 images; accepted is 20 (n04254680 has 3 of 4)" in refusal(folder)
    (folder / "kept").rename(lost)
    (folder / "train" / WNIDS[0] / f"{WNIDS[0]}_3.JPEG").unlink()
    assert "train: holds 34 images; accepted is 35 (n02119789 has 6 of 7)" in refusal(folder)
    (folder / "train" / WNIDS[3]).rename(folder / "train/n99999999")
    assert "train: lacks 1 of the 5 published, n02012849" in refusal(folder)
    (folder / "train").rename(folder / "images")
    assert "holds no train images of ILSVRC2012; accepted are" in refusal(folder)


def test_an_image_that_kaggles_table_does_not_know_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "download"
    made.kaggle(folder, tiny("imagenet2012"))
    table = folder / "LOC_val_solution.csv"
    lines = table.read_text().splitlines()
    for spoiled in (lines[:-3] + lines[-2:], [*lines[:-3], re.sub(r"n\d+", "n99999999", lines[-3]), *lines[-2:]]):
        table.write_text("\n".join(spoiled))
        assert "LOC_val_solution.csv: has no line with ILSVRC2012_val_00000003.JPEG and a known WNID" in refusal(folder)
    table.unlink()
    assert "holds no ILSVRC2012_validation_ground_truth.txt, which labels download/ILSVRC/Data" in refusal(folder)


def test_2010_needs_its_kit(tmp_path: Path) -> None:
    made.class_folders(tmp_path / "download", tiny("imagenet2010"))
    (tmp_path / "download/ILSVRC2010_devkit-1.0.tar.gz").unlink()
    assert "holds neither ILSVRC2010_devkit-1.0.tar.gz nor devkit-1.0/data/meta.mat, which numbers" in refusal(
        tmp_path / "download", "imagenet2010"
    )


def test_a_part_of_imagenet_is_usable_under_another_name(tmp_path: Path) -> None:
    made.class_folders(tmp_path / "download", tiny("imagenet2012"))
    (tmp_path / "download/val").rename(tmp_path / "download/test")
    assert loaded(tmp_path / "download", "my_part").classes == sorted(WNIDS)
