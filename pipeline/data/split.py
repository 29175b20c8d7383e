"""Which of a source's images go to train, val and test: by class, in proportion to the classes' sizes."""

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decoding_workers import Rows
from pipeline.data.sources import RawImages, few
from pipeline.errors import UserError
from pipeline.params import Data

Counts = NDArray[np.intp]  # of images, by class


def split_rows(data: Data, train_labels: NDArray[np.int64], test_labels: NDArray[np.int64]) -> Rows:
    """Return the source rows of each split, ascending. Each class gives a share that is in proportion to its size.

    Validation leaves at least one image of each class to train on, and a training subset has at least one of each.
    Raises UserError, naming the key and what is accepted, where a split cannot have as many images as asked for.
    """
    sizes, test_sizes = np.bincount(train_labels), np.bincount(test_labels)
    train, validation, test = _image_counts(data, sizes, test_sizes)
    shuffled = []
    for label in range(len(sizes)):
        # Rows are sorted by random keys: numpy keeps a bit generator's stream in every version, permutation's not.
        rows = np.flatnonzero(train_labels == label)
        keys = np.random.PCG64([data.split_seed, label]).random_raw(len(rows))
        shuffled.append(rows[np.argsort(keys, kind="stable")])
    val_shares = _proportional_shares(validation, sizes, np.maximum(sizes - 1, 0))
    train_shares = _proportional_shares(train, sizes, sizes - val_shares)
    for label in np.flatnonzero((sizes > 0) & (train_shares == 0)).tolist():  # each takes one from the largest share
        train_shares[train_shares.argmax()] -= 1
        train_shares[label] = 1
    test_shares = _proportional_shares(test, test_sizes, test_sizes)
    taken: Rows = {}
    taken["train"] = np.concatenate(
        [rows[val : val + share] for rows, val, share in zip(shuffled, val_shares, train_shares, strict=True)]
    )
    taken["val"] = np.concatenate([rows[:share] for rows, share in zip(shuffled, val_shares, strict=True)])
    taken["test"] = np.concatenate(
        [np.flatnonzero(test_labels == label)[:share] for label, share in enumerate(test_shares)]
    )
    return {split: np.sort(rows) for split, rows in taken.items()}


def _image_counts(data: Data, sizes: Counts, test_sizes: Counts) -> tuple[int, int, int]:
    """Return how many images train, validation and test get, where each class has so many to give."""
    available, available_test, classes = int(sizes.sum()), int(test_sizes.sum()), np.count_nonzero(sizes)
    left = available - data.validation_images
    train = left if data.train_images is None else data.train_images
    test = available_test if data.test_images is None else data.test_images
    if left < classes:
        raise UserError(
            f"data.validation_images = {data.validation_images}: accepted is at most {available - classes}, "
            f"which leaves one image of each of the {classes} classes to train on"
        )
    if train > left:
        raise UserError(
            f"data.train_images = {train}: accepted is at most {left}, "
            f"what data.validation_images = {data.validation_images} leaves of {available}"
        )
    if train < classes:
        raise UserError(f"data.train_images = {train}: accepted is at least {classes}, one image of each class")
    if test > available_test:
        raise UserError(f"data.test_images = {test}: accepted is at most {available_test}, all that {data.dataset} has")
    return train, data.validation_images, test


def _proportional_shares(total: int, sizes: Counts, available: Counts) -> Counts:
    """Return how many of `total` images each class gives: by its size, with the largest remainders rounded up.

    Equal remainders are rounded up in the first classes. Where a class has too few available, it gives them all, and
    the others make up for it by the same rule.
    """
    shares = np.zeros_like(sizes)
    while left := total - shares.sum():
        weights = np.where(shares < available, sizes, 0)
        more, remainders = np.divmod(left * weights, weights.sum())
        more[np.argsort(-remainders, kind="stable")[: left - more.sum()]] += 1
        shares = np.minimum(shares + more, available)
    return shares


def print_unrepresented(raw: RawImages, rows: Rows) -> None:
    """Print the classes without a validation image, and those without a test image, with their sizes: a line each."""
    for title, images, taken in (("validation", raw.train, rows["val"]), ("test", raw.test, rows["test"])):
        sizes, shares = (
            np.bincount(labels, minlength=len(raw.classes)) for labels in (images.labels, images.labels[taken])
        )
        if names := [f"{raw.classes[label]} ({sizes[label]})" for label in np.flatnonzero(shares == 0)]:
            print(
                f"prepare: {len(names)} of {len(raw.classes)} classes get no {title} image, as they have too few "
                f"(in parentheses): {few(names)}"
            )
