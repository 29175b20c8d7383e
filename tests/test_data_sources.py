"""Fashion-MNIST arrives from whichever place has it, and from none if the file is not the published one."""

import gzip
import hashlib
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import paths
from pipeline.data import sources
from pipeline.data.sources import fashion_mnist
from pipeline.errors import UserError
from pipeline.params import Data
from tests.downloads import NOWHERE, arrays, install_apt, package, web_server

ALL: dict[str, Any] = {"train_images": None, "validation_images": 1, "test_images": None, "split_seed": 0}
FASHION_MNIST = Data(folder=None, dataset="fashion_mnist", image_size=28, **ALL)
LABELS = bytes(range(10))
PIXELS = bytes(np.arange(10 * 28 * 28, dtype=np.uint32).astype(np.uint8))


def idx(shape: tuple[int, ...], values: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values


TINY = {name: idx((10, 28, 28), PIXELS) if "images" in name else idx((10,), LABELS) for name in fashion_mnist.SHA256}


def write(folder: Path, suffix: str = ".gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in TINY.items():
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where no place has the files, and where the tiny ones are the published ones."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(
        fashion_mnist, "SHA256", {name: hashlib.sha256(file).hexdigest() for name, file in TINY.items()}
    )
    monkeypatch.setattr(fashion_mnist, "INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(fashion_mnist, "URLS", (NOWHERE,))
    return paths.downloads() / "fashion-mnist"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server for the folder "web"."""
    with web_server(tmp_path / "web") as url:
        yield url


def assert_tiny(raw: sources.RawImages) -> None:
    train, test = arrays(raw)
    assert train.pixels.shape == test.pixels.shape == (10, 28, 28, 1)
    assert train.pixels.tobytes() == PIXELS
    assert train.labels.tolist() == test.labels.tolist() == list(LABELS)
    assert raw.sources == {name: hashlib.sha256(file).hexdigest() for name, file in TINY.items()}


def test_the_published_data_arrive() -> None:
    raw = sources.load(FASHION_MNIST)
    train, test = arrays(raw)
    assert train.pixels.shape == (60000, 28, 28, 1)
    assert test.pixels.shape == (10000, 28, 28, 1)
    assert train.pixels.dtype == test.pixels.dtype == np.uint8
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.labels.dtype == test.labels.dtype == np.int64
    assert raw.classes[9] == "Ankle boot"
    assert train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # as printed by the data's own README
    assert train.pixels.mean() == pytest.approx(0.2860 * 255, abs=0.02)  # the mean that is quoted everywhere


def test_a_data_set_without_a_source_names_those_that_have_one() -> None:
    with pytest.raises(
        UserError, match=r"data\.dataset = 'imagenet2012'.*accepted is fashion_mnist, cifar10, tiny_imagenet, or data"
    ):
        sources.load(FASHION_MNIST.model_copy(update={"dataset": "imagenet2012"}))


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_files_in_downloads_are_used_compressed_or_not(
    kept: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(kept, suffix)
    assert_tiny(sources.load(FASHION_MNIST))
    assert capsys.readouterr().out == f"Fashion-MNIST: from {kept}\n"


def test_an_installed_package_is_used_where_it_lies(kept: Path) -> None:
    write(fashion_mnist.INSTALLED)
    assert_tiny(sources.load(FASHION_MNIST))
    assert not kept.exists()


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb, without which no package is unpacked")
def test_a_package_is_fetched_unpacked_and_kept_and_package_lists_are_updated_if_needed(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fashion_mnist.INSTALLED.relative_to("/")
    install_apt(tmp_path / "bin", package({f"./{place}/{name}.gz": gzip.compress(file) for name, file in TINY.items()}))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert_tiny(sources.load(FASHION_MNIST))
    assert sorted(path.name for path in kept.iterdir()) == sorted(f"{name}.gz" for name in TINY)


def test_a_mirror_with_a_bad_file_does_not_block_the_next(
    kept: Path, tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "web/good")
    write(tmp_path / "web/bad")
    (tmp_path / "web/bad/t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>sign in</html>")
    monkeypatch.setattr(fashion_mnist, "URLS", (f"{served}absent/", f"{served}bad/", f"{served}good/"))
    assert_tiny(sources.load(FASHION_MNIST))
    assert f"from {served}good/; refused " in capsys.readouterr().out
    monkeypatch.setattr(fashion_mnist, "URLS", ())
    assert_tiny(sources.load(FASHION_MNIST))  # kept for the next time


def test_no_source_at_all_lists_each_place_with_its_reason(kept: Path) -> None:
    with pytest.raises(UserError) as caught:
        sources.load(FASHION_MNIST)
    message = str(caught.value)
    for place in (kept, fashion_mnist.INSTALLED, f"`apt-get download {fashion_mnist.PACKAGE}`", NOWHERE):
        assert f"  {place}: " in message
    assert "has neither train-images-idx3-ubyte.gz nor train-images-idx3-ubyte" in message
    assert "apt-get or dpkg-deb is not on this machine" in message
    assert f"into {kept}" in message
    assert not kept.exists()


def test_a_file_with_another_checksum_or_a_truncated_one_is_refused_by_name(kept: Path) -> None:
    bad, truncated = (write(kept) / f"train-{name}-ubyte.gz" for name in ("labels-idx1", "images-idx3"))
    content = idx((10,), bytes(10))
    bad.write_bytes(gzip.compress(content))
    found, accepted = hashlib.sha256(content).hexdigest(), fashion_mnist.SHA256["train-labels-idx1-ubyte"]
    message = f"{bad}: unpacked SHA-256 is {found}, accepted is {accepted}; delete or replace"
    with pytest.raises(UserError, match=message):
        sources.load(FASHION_MNIST)
    truncated.write_bytes(truncated.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"{truncated}: cannot be unpacked"):
        sources.load(FASHION_MNIST)


def test_a_bad_download_of_the_users_gives_way_to_a_good_place(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = write(kept) / "train-images-idx3-ubyte.gz"
    bad.write_bytes(b"")
    write(fashion_mnist.INSTALLED)
    assert_tiny(sources.load(FASHION_MNIST))
    assert f"refused {bad}" in capsys.readouterr().out


def test_downloads_that_cannot_be_kept_are_one_message(
    kept: Path, tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "web")
    monkeypatch.setattr(fashion_mnist, "URLS", (served,))
    kept.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        sources.load(FASHION_MNIST)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with"),
        (b"\0\0\x08\x03" + bytes(4), "starts with"),
        (idx((2,), b"\1\2")[:-1], "holds 1 values"),
        (idx((2,), b"\1\2\3"), "holds 3 values"),
        (idx((2**32 - 1,), b""), "holds 0 values"),
    ],
)
def test_a_malformed_idx_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=f"t10k-labels-idx1-ubyte: {message}"):
        fashion_mnist.parse_idx("t10k-labels-idx1-ubyte", content)
