"""How many images there are to prepare, train on and ask: from the configuration, without the data."""

from typing import NamedTuple

import numpy as np

from pipeline.data import sources
from pipeline.data.prepare import split_rows
from pipeline.data.sources.contests import CONTESTS
from pipeline.data.store import SplitName
from pipeline.params import Data

Counts = dict[SplitName, int]


class Source(NamedTuple):
    train: int  # labelled images, before any are set apart for validation
    test: int
    classes: int
    channels: int
    side_px: int | None  # null: files of many sizes


CLASSES = 1000  # of either of ImageNet's contests

PUBLISHED = {
    "fashion_mnist": Source(60_000, 10_000, 10, 1, 28),
    "cifar10": Source(50_000, 10_000, 10, 3, 32),
    **{
        name: Source(contest.images["train"], contest.images[contest.test], CLASSES, 3, None)
        for name, contest in CONTESTS.items()
    },
}


def source(data: Data) -> Source:
    """What is published of a data set, or what a folder of images holds."""
    if data.folder is None:
        return PUBLISHED[data.dataset]
    raw = sources.load(data)
    return Source(len(raw.train.labels), len(raw.test.labels), len(raw.classes), raw.channels, None)


def counts(data: Data, source: Source) -> Counts:
    """Images of each split, as `prepare` makes them."""
    train, test = (np.arange(images) % source.classes for images in (source.train, source.test))
    return {split: len(rows) for split, rows in split_rows(data, train, test).items()}
