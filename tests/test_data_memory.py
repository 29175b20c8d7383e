"""The memory that prepare takes does not grow with the number of images."""

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.data.store import Store
from tests.test_data_folder import settings

ROOT = Path(__file__).parents[1]
CLASSES, IMAGE_SIZE, LIMIT_BYTES = 100, 32, 1.5e9
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
    data = settings(folder, image_size=IMAGE_SIZE, validation_images=500).model_dump_json()
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
