"""`prepare` on a folder of JPEG files of ImageNet's sizes, beside the loop that one would write with Pillow.

Both read the files, decode, resize the short side to 256 px (bilinear, antialiased), cut the central square and write
it to a .npy file. `prepare` also sets validation images apart, measures mean and covariance, and takes checksums of
files and arrays; the time of its workers' start is included, that of importing libraries is not.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness import Contender, Row, ratio, rounds_of
from pipeline.data.prepare import prepare
from pipeline.params import Data

REAL = Path(__file__).parents[1].parent / "shared/data/imagenet-sample-200.tar"
IMAGES, IMAGE_SIZE, ROUNDS = 1200, 256, 5


def samples(folder: Path) -> list[Path]:
    """Real ImageNet files where they are beside the repository, else made-up photographs of the usual size."""
    if REAL.is_file():
        subprocess.run(["tar", "xf", REAL, "-C", folder], check=True)
        return sorted(folder.rglob("*.JPEG"))
    random = np.random.default_rng(0)
    for number in range(50):
        scales = [random.integers(0, 256, (side, side, 3), np.uint8) for side in (4, 30, 200)]
        layers = [np.asarray(Image.fromarray(scale).resize((500, 375), Image.Resampling.BICUBIC)) for scale in scales]
        mixed = np.average(layers, axis=0, weights=[4, 2, 1]).astype(np.uint8)
        Image.fromarray(mixed).save(folder / f"{number:02d}.jpg", quality=95)
    return sorted(folder.glob("*.jpg"))


def fill(folder: Path) -> None:
    """IMAGES files of four classes, every tenth of them a test image."""
    with tempfile.TemporaryDirectory() as unpacked:
        files = samples(Path(unpacked))
        for number in range(IMAGES):
            place = folder / ("train" if number % 10 else "test") / f"class{number // 10 % 4}"
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[number % len(files)], place / f"{number:04d}.jpg")


def with_pillow(folder: Path, out: Path) -> None:
    files = sorted(folder.rglob("*.jpg"))
    shape = (len(files), IMAGE_SIZE, IMAGE_SIZE, 3)
    images = np.lib.format.open_memmap(out, mode="w+", dtype=np.uint8, shape=shape)
    for row, file in enumerate(files):
        image = Image.open(file).convert("RGB")
        scale = IMAGE_SIZE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - IMAGE_SIZE) // 2, (image.height - IMAGE_SIZE) // 2
        images[row] = np.asarray(image.crop((left, top, left + IMAGE_SIZE, top + IMAGE_SIZE)))


def with_workers(folder: Path, out: Path, workers: int) -> None:
    values = {"folder": str(folder), "dataset": "sample", "image_size": IMAGE_SIZE, "split_seed": 0}
    data = Data.model_validate({**values, "train_images": None, "validation_images": 40, "test_images": None})
    shutil.rmtree(out, ignore_errors=True)  # else the store of the round before would only be verified
    prepare(data, out, workers)


def contender(kind: str, images: str, out: str) -> Callable[[], None]:
    """kind: pillow, or the number of workers."""
    if kind == "pillow":
        return partial(with_pillow, Path(images), Path(out))
    return partial(with_workers, Path(images), Path(out), int(kind))


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        images = Path(temporary, "images")
        fill(images)
        contenders = [
            stack.enter_context(
                Contender("benchmarks.prepare:contender", kind=kind, images=str(images), out=f"{temporary}/{kind}")
            )
            for kind in ("pillow", "1", "2")
        ]
        times = rounds_of(contenders, ROUNDS)
    return [
        ratio("prepare_one_core", "speedup", "a loop with Pillow", [pillow / one for pillow, one, _ in times]),
        ratio("prepare_two_cores", "speedup", "one core", [one / two for _, one, two in times]),
    ]
