"""The two sizes at which things are measured: the paper's net at 227 px, and the embedded scale's."""

from pathlib import Path

import numpy as np
import torch

from pipeline import paths
from pipeline.compose import composed
from pipeline.data.prepare import prepare
from pipeline.data.store import ARRAYS, Meta, Store
from pipeline.files import sha256, write_json
from pipeline.params import Hardware, Params, validate

CONF = Path(__file__).parents[1] / "conf"
HARDWARE = Hardware(accelerator="auto", threads=None, devices=1, compile=False)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FULL_IMAGES = 256


def device_name() -> str:
    return torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} CPU cores"


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def params(size: str) -> Params:
    """size: full or embedded."""
    return validate(composed(CONF, f"scale={'imagenet2012' if size == 'full' else size}"), size)


def store(size: str) -> Store:
    folder = paths.state() / "benchmarks" / size
    if not (folder / "meta.json").exists():
        if size == "embedded":
            prepare(params(size).data, folder)
        else:
            _noise(folder)
    return Store.open(folder)


def _noise(folder: Path) -> None:
    """Coloured noise of ImageNet's size: only its bytes matter here."""
    rng = np.random.default_rng(0)
    canvas_px = params("full").data.canvas_px
    for split in ("train", "val", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        shape = (FULL_IMAGES, canvas_px, canvas_px, 3)
        np.save(folder / split / "images.npy", rng.integers(0, 256, shape, np.uint8))
        np.save(folder / split / "labels.npy", rng.integers(0, 1000, FULL_IMAGES))
    np.save(folder / "mean_image.npy", np.full((canvas_px, canvas_px, 3), 127.5, np.float32))
    meta = Meta(
        dataset="imagenet2012",
        canvas_px=canvas_px,
        channels=3,
        classes=[str(label) for label in range(1000)],
        counts={"train": FULL_IMAGES, "val": FULL_IMAGES, "test": FULL_IMAGES},
        sources={},
        rgb_eigenvectors=np.eye(3).tolist(),
        rgb_std=[60.0, 20.0, 5.0],
        skipped=[],
        sha256={array: sha256(folder / array) for array in ARRAYS},
    )
    write_json(folder / "meta.json", meta.model_dump())
