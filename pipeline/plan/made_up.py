"""Images that are none: an image store in memory and sources on which the real code can be timed without any data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.sources import Arrays, Images, folder
from pipeline.data.store import Meta, Split, SplitName, Store
from pipeline.plan.sizes import Source

JPEG_WIDTH, JPEG_HEIGHT = 500, 375  # the usual ones of ImageNet's files
GRAIN_PX = ((4, 3), (30, 22), (200, 150))  # noise this coarse, layered, makes files of the usual 110 kB


@dataclass(frozen=True)
class MadeUpStore(Store):
    """Noise in the store's form, without files."""

    images: dict[SplitName, NDArray[np.uint8]] = field(default_factory=dict)

    def split(self, name: SplitName) -> Split:
        return Split(self.images[name], np.arange(len(self.images[name])) % len(self.meta.classes))


def store(counts: dict[SplitName, int], canvas_px: int, source: Source) -> MadeUpStore:
    shape = (canvas_px, canvas_px, source.channels)
    rng = np.random.default_rng(0)
    meta: dict[str, Any] = {"dataset": "made_up", "canvas_px": canvas_px, "channels": source.channels, "counts": counts}
    meta |= {"classes": [str(label) for label in range(source.classes)], "sources": {}, "skipped": [], "sha256": {}}
    meta |= {"rgb_eigenvectors": np.eye(3).tolist(), "rgb_std": [60.0, 20.0, 5.0]}
    images = {split: rng.integers(0, 256, (count, *shape), np.uint8) for split, count in counts.items()}
    return MadeUpStore(Path("made-up"), Meta.model_validate(meta), np.full(shape, 127.5, np.float32), images)


def raw_images(source: Source, place: Path) -> Images:
    """One image as its source has it; a JPEG file, below `place`, where images come as such."""
    rng = np.random.default_rng(0)
    if source.side_px is not None:
        shape = (1, source.side_px, source.side_px, source.channels)
        return Arrays(rng.integers(0, 256, shape, np.uint8), np.zeros(1, np.int64))
    size = (JPEG_WIDTH, JPEG_HEIGHT)
    noise = [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in GRAIN_PX]
    layers = [np.asarray(Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC)) for grain in noise]
    picture = np.average(layers, axis=0, weights=[4, 2, 2]).astype(np.uint8)
    for split in ("train", "test"):
        (place / split / "class").mkdir(parents=True)
        Image.fromarray(picture).save(place / split / "class" / "image.jpg", quality=95)
    return folder.load(place).train
