"""The two sizes at which things are measured: the paper's net at 227 px, and the embedded scale's."""

from pathlib import Path

import torch

from pipeline import paths
from pipeline.data.prepare import prepare
from pipeline.data.store import SPLITS, Store, write_noise
from pipeline.params import Hardware, Params, validate
from pipeline.tools.compose import composed

CONF = Path(__file__).parents[1] / "conf"
HARDWARE = Hardware(accelerator="auto", threads=None, devices=1, compile=False)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FULL_IMAGES = 2048 if DEVICE.type == "cuda" else 256  # two batches of 1,024


def device_name() -> str:
    return torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} CPU cores"


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def params(size: str) -> Params:
    """size: full, embedded, or another scale's name."""
    return validate(composed(CONF, f"scale={'imagenet2012' if size == 'full' else size}"), size)


def store(size: str) -> Store:
    folder = paths.state() / "benchmarks" / size
    if not (folder / "meta.json").exists():
        if size != "full":
            prepare(params(size).data, folder)
        else:
            counts = dict.fromkeys(SPLITS, 256) | {"train": FULL_IMAGES}
            write_noise(folder, counts, params("full").data.image_size, channels=3, classes=1000)
    return Store.open(folder)
