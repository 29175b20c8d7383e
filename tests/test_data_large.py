"""Many photographs and large ones are read within a stated share of the memory; still larger ones are refused."""

import io
import struct
import subprocess
import sys
import time
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
from tests.image_folders import absurd_jpeg, encoded, photograph, png, settings, write_folder
from tests.processes import ROOT, python

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

def peak():  # getrusage's would begin with the memory of the process that started this one
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

small, *images = map(Path, sys.argv[1:])
before = decoding.load(small.read_bytes, 64) and peak()  # libraries are loaded
for image in images:
    print(decoding.load(image.read_bytes, 64).problem)
print(peak() - before)
"""


def load_alone(folder: Path, *files: bytes) -> tuple[int, list[str]]:
    """The bytes by which a process of its own grew to load images, and why it did not load each of them."""
    for number, content in enumerate((encoded(photograph(40, 40)), *files)):
        (folder / str(number)).write_bytes(content)
    done = python("-c", LOADED, *(folder / str(number) for number in range(len(files) + 1)))
    *problems, grown = done.stdout.splitlines()
    return int(grown), problems


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc that tells a process's peak")


@needs_proc
def test_a_bomb_is_refused_before_it_is_decoded_whatever_its_format(tmp_path: Path) -> None:
    grown, problems = load_alone(tmp_path, *BOMBS.values())
    for kind, problem in zip(BOMBS, problems, strict=True):
        assert "as 8-bit RGB; accepted are at most 358 megapixels, 1073741824 bytes" in problem, kind
    assert grown < 50e6


@pytest.mark.parametrize(
    "options", [{}, {"format": "PNG", "compress_level": 1}, {"format": "BMP"}], ids=["JPEG", "PNG", "BMP"]
)
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
    grown, problems = load_alone(tmp_path, encoded(Image.fromarray(rows), **options))
    assert problems == [""]
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


# ---- many images

CLASSES, LIMIT_BYTES = 100, 1.5e9
IMAGENET = 1_331_167  # images


def write_jpegs(folder: Path, images: int) -> None:
    """Each another one, by its last bytes; a tenth of them are test images."""
    random, file = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(random.integers(0, 256, (40, 48, 3), np.uint8)).save(file, "JPEG")
    for number in range(images):
        place = folder / ("test" if number // CLASSES % 10 == 0 else "train") / f"n{number % CLASSES:08d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{place.name}_{number}.JPEG").write_bytes(file.getvalue() + number.to_bytes(4))


def peak_bytes(folder: Path, out: Path) -> int:
    """Of a real process and its two workers, pages that they share counted in each."""
    program = (
        "import sys; from pathlib import Path; from pipeline.data.prepare import prepare; "
        "from pipeline.params import Data; prepare(Data.model_validate_json(sys.argv[1]), Path(sys.argv[2]), workers=2)"
    )
    data = settings(folder, image_size=32, validation_images=500).model_dump_json()
    peak = 0
    with subprocess.Popen([sys.executable, "-c", program, data, str(out)], cwd=ROOT) as process:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, sum(each.memory_info().rss for each in [tree, *tree.children(recursive=True)]))
            except psutil.NoSuchProcess:
                continue
            time.sleep(0.05)
    assert process.returncode == 0
    return peak


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_100_000_images_take_less_than_one_and_a_half_gigabytes_and_so_would_imagenet(tmp_path: Path) -> None:
    peaks = {}
    for images in (10_000, 100_000):
        write_jpegs(tmp_path / str(images), images)
        peaks[images] = peak_bytes(tmp_path / str(images), tmp_path / "out")
        assert sum(Store.open(tmp_path / "out").meta.counts.values()) == images
    print(peaks)
    each = (peaks[100_000] - peaks[10_000]) / 90_000
    assert peaks[100_000] < LIMIT_BYTES
    assert peaks[100_000] + max(0, each) * (IMAGENET - 100_000) < LIMIT_BYTES
