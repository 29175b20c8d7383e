"""Large photographs are read within a stated share of the memory; larger ones are refused before they are decoded."""

import io
import struct
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.data import sources
from pipeline.data.prepare import prepare
from pipeline.data.sources import decoding
from pipeline.data.store import Store
from pipeline.errors import UserError
from tests.test_data_folder import absurd_jpeg, encoded, photograph, png, settings, write_folder

ROOT = Path(__file__).parents[1]
SIDE = 60_000  # of the squares that bombs announce


def frames(**options: Any) -> bytes:
    """A file of two images."""
    return encoded(photograph(40, 40), save_all=True, append_images=[photograph(40, 40, seed=1)], **options)


def patched(content: bytes, place: int, layout: str, *values: int) -> bytes:
    return content[:place] + struct.pack(layout, *values) + content[place + struct.calcsize(layout) :]


def webp() -> bytes:
    content = frames(format="WEBP")
    assert content[12:16] == b"VP8X"
    side = (SIDE - 1).to_bytes(3, "little")
    return content[:24] + 2 * side + content[30:]


def tiff() -> bytes:
    content = frames(format="TIFF")
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", content, entry)[0] in (256, 257):  # width and height
            content = patched(content, entry + 2, "<HII", 4, 1, SIDE)
    return content


BOMBS = {
    "JPEG": absurd_jpeg(),
    "PNG": png(SIDE, SIDE),
    "GIF": patched(frames(format="GIF"), 6, "<HH", SIDE, SIDE),
    "GIF by its first frame": patched(
        encoded(photograph(40, 40), format="GIF"),
        encoded(photograph(40, 40), format="GIF").rindex(b",\0\0\0\0\x28\0\x28\0") + 5,
        "<HH",
        SIDE,
        SIDE,
    ),
    "BMP": patched(encoded(photograph(40, 40), format="BMP"), 18, "<ii", SIDE, SIDE),
    "TIFF": tiff(),
    "WebP": webp(),
}
LOADED = """
import re, sys
from pathlib import Path
from pipeline.data.sources import decoding
from pipeline.data.store import Store

def peak():  # getrusage's would begin with the memory of the process that started this one
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = decoding.load(lambda: Path(sys.argv[2]).read_bytes(), 64) and peak()  # a small image: libraries are loaded
loaded = decoding.load(Path(sys.argv[1]).read_bytes, 64)
print(peak() - before, loaded.problem)
"""


def load_alone(content: bytes, folder: Path) -> tuple[int, str]:
    """The bytes by which a process of its own grew to load an image, and why it did not."""
    (folder / "image").write_bytes(content)
    (folder / "small").write_bytes(encoded(photograph(40, 40)))
    command = [sys.executable, "-c", LOADED, str(folder / "image"), str(folder / "small")]
    grown, _, problem = subprocess.check_output(command, cwd=ROOT, text=True).strip().partition(" ")
    return int(grown), problem


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc that tells a process's peak")


@needs_proc
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_before_it_is_decoded_whatever_its_format(kind: str, tmp_path: Path) -> None:
    grown, problem = load_alone(BOMBS[kind], tmp_path)
    assert "as 8-bit RGB; accepted are at most 358 megapixels, 1073741824 bytes" in problem
    assert grown < 50e6


@pytest.mark.parametrize("options", [{}, {"format": "PNG"}, {"format": "BMP"}], ids=["JPEG", "PNG", "BMP"])
def test_a_photograph_of_90_megapixels_is_read(options: dict[str, Any]) -> None:
    content = encoded(Image.new("RGB", (10_000, 9_000), (10, 20, 30)), **options)
    pixels = decoding.load(lambda: content, 16).pixels
    assert pixels is not None
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"format": "PNG", "compress_level": 1}])
def test_300_megapixels_take_less_than_three_times_the_memory_of_their_pixels(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    rows = np.tile(np.asarray(photograph(20_000, 100)), (150, 1, 1))
    grown, problem = load_alone(encoded(Image.fromarray(rows), **options), tmp_path)
    assert problem == ""
    assert 3 * 300e6 < grown < 3 * 3 * 300e6


@pytest.mark.parametrize("options", [{}, {"format": "PNG"}, {"format": "WEBP"}, {"format": "GIF"}, {"format": "TIFF"}])
def test_the_limit_is_that_of_the_pixels_as_rgb_whatever_the_file_takes(options: dict[str, Any]) -> None:
    content = encoded(Image.new("L", (100, 70)), **options)
    assert decoding.load(lambda: content, 16, 3 * 100 * 70).pixels is not None
    refused = decoding.load(lambda: content, 16, 3 * 100 * 70 - 1)
    assert refused.problem == (
        "cannot be decoded (it has 0 megapixels, 21000 bytes as 8-bit RGB; accepted are at most 0 megapixels, "
        "20999 bytes)"
    )


def test_a_film_among_the_photographs_is_skipped_unread(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", test=40)
    with (folder / "test/ash/film.mov").open("wb") as film:
        film.truncate(2**40)
    prepare(settings(folder), tmp_path / "out", workers=1)
    (skipped,) = Store.open(tmp_path / "out").meta.skipped
    assert skipped.file == "test/ash/film.mov"
    assert skipped.reason == "cannot be read (it has 1099511627776 bytes; accepted are at most 2147483648)"


@pytest.mark.parametrize("content", [png(SIDE, SIDE), encoded(photograph(91, 67), format="PNG"), b"no image"])
def test_pillows_own_limit_and_warnings_are_left_as_they_were(content: bytes) -> None:
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    decoding.load(lambda: content, 16)
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before
    assert before[0] is not None
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(png(SIDE, SIDE)))


@pytest.mark.parametrize(
    ("memory_gib", "workers", "most_gib"), [(64, 2, 1), (64, 16, 1), (64, 32, 1 / 2), (8, 1, 1), (8, 8, 1 / 4)]
)
def test_an_image_may_take_a_gibibyte_or_a_quarter_of_what_memory_each_worker_has(
    monkeypatch: pytest.MonkeyPatch, memory_gib: int, workers: int, most_gib: float
) -> None:
    memory = namedtuple("memory", "total")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(memory_gib << 30))
    assert sources.most_bytes(workers) == most_gib * 2**30


@pytest.mark.parametrize("workers", [1, 2])
def test_prepare_refuses_what_the_memory_of_its_workers_does_not_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    memory = namedtuple("memory", "total")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(4 * workers * 3 * 1000))
    with pytest.raises(UserError, match="accepted are at most 0 megapixels, 3000 bytes"):
        prepare(settings(write_folder(tmp_path / "images")), tmp_path / "out", workers)
