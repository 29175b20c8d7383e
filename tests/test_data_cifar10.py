"""CIFAR-10's binary release arrives pixel for pixel, is kept, and is refused where it is not the one published."""

import gzip
import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import paths
from pipeline.data import sources
from pipeline.data.prepare import prepare
from pipeline.data.sources import cifar10
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import Data
from tests.downloads import NOWHERE, Quiet, arrays, tar, web_server
from tests.image_folders import write_squares

ALL: dict[str, Any] = {"train_images": None, "validation_images": 10, "test_images": None, "split_seed": 0}
CIFAR10 = Data(folder=None, dataset="cifar10", image_size=32, **ALL)
IMAGES = 20  # in each file
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FOLDER = "cifar-10-batches-bin"
BATCHES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
# The binary format, as the data's own page describes it.
RECORD = np.dtype([("label", "u1"), ("red", "u1", (32, 32)), ("green", "u1", (32, 32)), ("blue", "u1", (32, 32))])

Members = dict[str, bytes]


def synthetic(images: int = IMAGES) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels and labels of each file."""
    random = np.random.default_rng(0)
    return {
        name: (random.integers(0, 256, (images, 32, 32, 3), np.uint8), np.arange(images) * 7 % 10) for name in BATCHES
    }


def binary(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    records = np.empty(len(labels), RECORD)
    records["label"] = labels
    for channel, color in enumerate(("red", "green", "blue")):
        records[color] = pixels[..., channel]
    return records.tobytes()


def whole() -> Members:
    """The archive's files, in its own order."""
    batches = {f"{FOLDER}/{name}": binary(*arrays) for name, arrays in synthetic().items()}
    names = "".join(f"{name}\n" for name in CLASSES) + "\n"
    return {f"{FOLDER}/batches.meta.txt": names.encode(), f"{FOLDER}/readme.html": b"<p>", **batches}


def packed(members: Members, *more: tarfile.TarInfo) -> bytes:
    return gzip.compress(tar(members, *more), 1)


def put(folder: Path, archive: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / cifar10.ARCHIVE).write_bytes(archive)
    return folder / cifar10.ARCHIVE


def publish(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Make `archive` the published one."""
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive).hexdigest())
    return archive


@pytest.fixture
def kept(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without network or archive, where files have 20 images and archives are small."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(cifar10, "IMAGES", IMAGES)
    monkeypatch.setattr(cifar10, "MOST_BYTES", 10**6)
    monkeypatch.setattr(cifar10, "URL", NOWHERE)
    return paths.downloads() / "cifar-10"


@pytest.fixture
def archive(kept: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    return publish(packed(whole()), monkeypatch)


def assert_made_up(raw: sources.RawImages, images: int = IMAGES) -> None:
    train, test = arrays(raw)
    *batches, (test_pixels, test_labels) = synthetic(images).values()
    assert np.array_equal(train.pixels, np.concatenate([pixels for pixels, _ in batches]))
    assert np.array_equal(train.labels, np.concatenate([labels for _, labels in batches]))
    assert np.array_equal(test.pixels, test_pixels)
    assert np.array_equal(test.labels, test_labels)
    assert train.pixels.dtype == test.pixels.dtype == np.uint8
    assert train.labels.dtype == test.labels.dtype == np.int64
    assert raw.channels == 3
    assert raw.classes == CLASSES
    assert raw.sources == {
        name: hashlib.sha256(binary(*arrays)).hexdigest() for name, arrays in synthetic(images).items()
    }


def refusal() -> str:
    with pytest.raises(UserError) as caught:
        sources.load(CIFAR10)
    return str(caught.value)


def test_an_archive_in_downloads_is_read_pixel_for_pixel(
    kept: Path, archive: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    put(kept, archive)
    assert_made_up(sources.load(CIFAR10))
    assert capsys.readouterr().out == f"CIFAR-10: from {kept}\n"


def test_the_first_plane_of_a_record_is_red_and_its_rows_go_from_the_top(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = whole()
    pixels = (
        bytes([255, 254]) + bytes(30) + bytes([253]) + bytes(991) + bytes([1]) + bytes(1023) + bytes([2, *[0] * 1023])
    )
    members[f"{FOLDER}/test_batch.bin"] = (b"\3" + pixels) * IMAGES
    put(kept, publish(packed(members), monkeypatch))
    _, test = arrays(sources.load(CIFAR10))
    assert test.labels.tolist() == [3] * IMAGES
    assert test.pixels[0, 0, 0].tolist() == [255, 1, 2]
    assert test.pixels[0, 0, 1].tolist() == [254, 0, 0]
    assert test.pixels[0, 1, 0].tolist() == [253, 0, 0]


def test_the_store_holds_the_same_pixels(kept: Path, archive: bytes, workplace: Path) -> None:
    put(kept, archive)
    prepare(CIFAR10, workplace / "out", workers=1)
    store = Store.open(workplace / "out")
    pixels, labels = synthetic()["test_batch.bin"]
    assert np.array_equal(store.split("test").images, pixels)
    assert np.array_equal(store.split("test").labels, labels)
    assert store.meta.counts == {"train": 5 * IMAGES - 10, "val": 10, "test": IMAGES}
    assert list(store.meta.sources) == BATCHES


def test_a_download_is_kept_and_the_next_time_needs_no_network(
    kept: Path, archive: bytes, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(workplace / "web", archive)
    with web_server(workplace / "web") as url:
        monkeypatch.setattr(cifar10, "URL", url)
        assert_made_up(sources.load(CIFAR10))
        assert f"CIFAR-10: from {url}\n" in capsys.readouterr().out
    assert [path.name for path in kept.iterdir()] == [cifar10.ARCHIVE]
    assert_made_up(sources.load(CIFAR10))
    assert capsys.readouterr().out == f"CIFAR-10: from {kept}\n"


def test_a_bad_copy_gives_way_to_a_good_one(
    kept: Path, archive: bytes, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = put(kept, archive[:1000])
    put(workplace / "web", archive)
    with web_server(workplace / "web") as url:
        monkeypatch.setattr(cifar10, "URL", url)
        assert_made_up(sources.load(CIFAR10))
    assert f"; refused {bad}: 1000 bytes, whose MD5 is " in capsys.readouterr().out
    assert bad.read_bytes() == archive


def test_no_source_at_all_lists_each_place_and_every_way_to_help(kept: Path, archive: bytes) -> None:
    message = refusal()
    assert message.startswith("CIFAR-10: no place has its archive.\n")
    assert f"  {kept}: has no {cifar10.ARCHIVE}\n" in message
    assert f"  {NOWHERE}: [Errno 111] Connection refused\n" in message
    assert f"put {cifar10.ARCHIVE} (MD5 {cifar10.MD5}) into {kept}, or name as data.folder" in message
    assert message.endswith("train/<class>/<image> and test/<class>/<image>")
    assert not kept.exists()


def test_a_copy_with_another_checksum_or_that_cannot_be_read_is_refused_by_name(kept: Path, archive: bytes) -> None:
    bad = put(kept, archive + b"\0")
    found = hashlib.md5(archive + b"\0").hexdigest()
    message = f"{bad}: {len(archive) + 1} bytes, whose MD5 is {found}; accepted is {cifar10.MD5}; delete it, or replace"
    assert message in refusal()
    bad.unlink()
    bad.mkdir()
    assert f"{bad}: cannot be read (Is a directory); make it readable, or delete" in refusal()


class BreaksOff(Quiet):
    def send_header(self, keyword: str, value: str) -> None:
        super().send_header(keyword, str(int(value) + 1) if keyword == "Content-Length" else value)


@pytest.mark.parametrize(
    ("content", "place", "handler", "reason"),
    [
        (b"<html>sign in</html>", "", Quiet, f"/{cifar10.ARCHIVE}: 20 bytes, whose MD5 is "),
        (b"", "absent/", Quiet, "404 Client Error"),
        (b"half", "", BreaksOff, "bytes read, 1 more expected"),
    ],
)
def test_a_download_that_fails_or_is_another_is_not_kept(
    archive: bytes, kept: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, place: str, handler: Any, reason: str
) -> None:
    put(Path("web"), content)
    with web_server(Path("web"), handler) as url:
        monkeypatch.setattr(cifar10, "URL", url + place)
        message = refusal()
    assert f"  {url}{place}: " in message
    assert reason in message
    assert not kept.exists()


def test_a_download_that_cannot_be_kept_is_one_message(
    kept: Path, archive: bytes, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.parent.write_text("a file where the folder should be")
    put(workplace / "web", archive)
    with web_server(workplace / "web") as url:
        monkeypatch.setattr(cifar10, "URL", url)
        assert refusal() == f"{kept}: cannot be written (Not a directory); make room or make it writable"


def without(name: str) -> bytes:
    return packed({path: content for path, content in whole().items() if path != f"{FOLDER}/{name}"})


def changed(name: str, content: bytes) -> bytes:
    return packed(whole() | {f"{FOLDER}/{name}": content})


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(f"{FOLDER}/test_batch.bin")
    member.type, member.linkname = kind, target
    return member


def negative_size() -> bytes:
    member = tarfile.TarInfo("a")
    member.size = -512
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + tar(whole()))


SIZE = IMAGES * 3073
BAD = {
    "no archive": (b"hello", r"cannot be unpacked \(Not a gzipped file"),
    "no tar": (gzip.compress(b"hello" * 200), r"cannot be unpacked \("),
    "empty": (b"", r"cannot be unpacked \("),
    "truncated gzip": (packed(whole())[:-30], r"cannot be unpacked \(Compressed file ended"),
    "truncated tar": (gzip.compress(tar(whole())[:-15000]), r"cannot be unpacked \(unexpected end of data\)"),
    "damaged gzip": (packed(whole())[:-8] + bytes(8), r"cannot be unpacked \(CRC check failed"),
    "missing": (without("data_batch_4.bin"), r"data_batch_4\.bin is not in it; accepted are all of its 7 files"),
    "no names": (without("batches.meta.txt"), r"batches\.meta\.txt is not in it"),
    "elsewhere": (packed({f"./{name}": content for name, content in whole().items()}), "data_batch_1.bin is not in it"),
    "short": (changed("data_batch_2.bin", bytes(SIZE - 1)), f"holds {SIZE - 1} bytes; accepted is {SIZE}"),
    "long": (changed("test_batch.bin", bytes(SIZE + 1)), f"test_batch.bin holds {SIZE + 1} bytes; accepted is {SIZE}"),
    "many names": (changed("batches.meta.txt", b"a\n" * 501), r"meta\.txt holds 1002 bytes; accepted is 1 to 1000"),
    "nine names": (changed("batches.meta.txt", b"a b c d e f g h i"), r"a, b, c, d, e, f, g, h, i; accepted are 10"),
    "same names": (changed("batches.meta.txt", b"a b c d e f g h i a"), r"h, i, a; accepted are 10 different names"),
    "label": (
        changed("data_batch_5.bin", bytes(3073) + bytes([10]) + bytes(SIZE - 3074)),
        r"data_batch_5\.bin gives image 1 the label 10; accepted is 0 to 9",
    ),
    "link": (packed(whole(), link(tarfile.SYMTYPE, "/etc/passwd")), r"test_batch\.bin is no file"),
    "hard link": (packed(whole(), link(tarfile.LNKTYPE, f"{FOLDER}/data_batch_1.bin")), r"test_batch\.bin is no file"),
    "device": (packed(whole(), link(tarfile.CHRTYPE, "")), r"test_batch\.bin is no file"),
    "bomb": (gzip.compress(bytes(10**7)) * 100, "unpacks to more than 1000000 bytes; accepted is at most that"),
    "many members": (packed(whole(), *[tarfile.TarInfo("a")] * 100), "is not in it"),
    "negative size": (negative_size(), "is not in it|cannot be unpacked"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_an_archive_that_is_not_as_described_is_one_message(
    kept: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    bad = put(kept, publish(content, monkeypatch))
    with pytest.raises(UserError, match=rf"{bad}: .*({message}).*; delete it, or replace it by a whole copy"):
        sources.load(CIFAR10)
    assert bad.read_bytes() == content


def test_an_archive_writes_nothing_wherever_its_members_say_they_belong(
    kept: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("../" * 20 + str(workplace / "exploded").lstrip("/"), "../exploded", str(workplace / "exploded"))
    put(kept, publish(packed({**dict.fromkeys(names, b"x"), **whole()}), monkeypatch))
    before = sorted(workplace.parent.rglob("*"))
    assert_made_up(sources.load(CIFAR10))
    assert sorted(workplace.parent.rglob("*")) == before


@pytest.fixture
def copy(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with CIFAR-10's classes, and as many images of each as are published where these are 3 and 2."""
    monkeypatch.setattr(cifar10, "TRAIN_OF_CLASS", 3)
    monkeypatch.setattr(cifar10, "TEST_OF_CLASS", 2)
    return write_squares(workplace / "copy", 32, train=dict.fromkeys(CLASSES, 3), test=dict.fromkeys(CLASSES, 2))


def in_folder(folder: Path, **changes: str) -> Data:
    return CIFAR10.model_copy(update={"folder": str(folder), **changes})


def test_a_whole_copy_in_class_folders_is_cifar10_with_the_archives_labels(copy: Path) -> None:
    raw = sources.load(in_folder(copy))
    assert raw.classes == CLASSES
    assert [raw.train.name(row) for row in np.flatnonzero(raw.train.labels == 3)] == [
        f"train/cat/{number}.png" for number in range(3)
    ]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda copy: (copy / "train/cat/1.png").unlink(), r"cat has 2 and 2"),
        (lambda copy: (copy / "test/dog/1.png").rename(copy / "test/cat/x.png"), r"cat has 3 and 3, dog has 3 and 1"),
        (lambda copy: (copy / "train/cat/1.png").rename(copy / "train/dog/x.png"), r"cat has 2 and 2, dog has 4 and 2"),
        (lambda copy: shutil.rmtree(copy / "test/bird"), r"bird has 3 and 0"),
        (lambda copy: [(copy / split / "cat").rename(copy / split / "cats") for split in ("train", "test")], "cats"),
        (lambda copy: [shutil.rmtree(copy / split / "truck") for split in ("train", "test")], "ship"),
    ],
)
def test_a_folder_with_other_images_is_not_cifar10(copy: Path, spoil: Callable[[Path], object], found: str) -> None:
    spoil(copy)
    with pytest.raises(
        UserError, match=rf"data\.folder: {copy} is not CIFAR-10 \(.*{found}.*\); accepted with"
    ) as caught:
        sources.load(in_folder(copy))
    assert "set data.dataset to a name of your own" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sources.load(in_folder(copy, dataset="animals")).channels == 3


def test_images_of_ones_own_are_not_called_fashion_mnist(copy: Path) -> None:
    with pytest.raises(
        UserError, match=r"data\.folder = .*: accepted is null, as Fashion-MNIST's images are fetched; for"
    ):
        sources.load(in_folder(copy, dataset="fashion_mnist"))


@pytest.mark.slow
def test_an_archive_of_the_published_size_arrives(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = synthetic(10_000)
    members = whole() | {f"{FOLDER}/{name}": binary(*arrays) for name, arrays in images.items()}
    put(paths.downloads() / "cifar-10", publish(packed(members), monkeypatch))
    raw = sources.load(CIFAR10)
    train, test = arrays(raw)
    assert train.pixels.shape == (50_000, 32, 32, 3)
    assert test.pixels.shape == (10_000, 32, 32, 3)
    assert_made_up(raw, 10_000)
