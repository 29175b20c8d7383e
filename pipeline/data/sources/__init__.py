"""Where raw images come from: one module for each data set, each with `load() -> RawImages`."""

from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

AVAILABLE = ("fashion_mnist",)


@dataclass(frozen=True)
class RawImages:
    train_images: NDArray[np.uint8]  # N x H x W x C, C = 1 (grey) or 3 (RGB)
    train_labels: NDArray[np.int64]  # N
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: list[str]  # the name of each label
    sources: dict[str, str]  # SHA-256 of each source file


def load(dataset: str) -> RawImages:
    if dataset not in AVAILABLE:
        raise UserError(
            f"data.dataset = {dataset!r}: no source provides it yet; accepted is one of {', '.join(AVAILABLE)}"
        )
    raw: RawImages = import_module(f"{__name__}.{dataset}").load()
    return raw
