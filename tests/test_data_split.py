"""Each split takes of each class a share that is in proportion to its size; each class keeps an image to train on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.data.prepare import prepare, require_preparable, split_rows
from pipeline.data.store import SPLITS, Store
from pipeline.errors import UserError
from pipeline.params import Data
from tests.image_folders import FETCHED, write_squares


def settings(**changes: Any) -> Data:
    return Data(**{**FETCHED, "test_images": None, **changes})


def labels_like(*sizes: int) -> NDArray[np.int64]:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(1).permutation(labels)


def shares(*sizes: int, **changes: Any) -> dict[str, list[int]]:
    """How many images of each class every split takes, where train and test have so many of each."""
    labels = labels_like(*sizes)
    rows = split_rows(settings(**{"train_images": None, **changes}), labels, labels)
    return {split: np.bincount(labels[taken], minlength=len(sizes)).tolist() for split, taken in rows.items()}


def dealt(total: int, available: list[int]) -> list[int]:
    """`total` images dealt in turn, one to each class that has one left."""
    given = [0] * len(available)
    while sum(given) < total:
        for label, most in enumerate(available):
            if given[label] < most and sum(given) < total:
                given[label] += 1
    return given


def rows_of(**changes: Any) -> dict[str, list[int]]:
    labels = labels_like(*[40] * 10)
    return {split: rows.tolist() for split, rows in split_rows(settings(**changes), labels, labels).items()}


def test_rows_are_disjoint_and_the_number_of_training_images_changes_only_how_many_come_first() -> None:
    few, more, whole = (rows_of(train_images=count) for count in (100, 200, None))
    assert sorted([*whole["train"], *whole["val"]]) == list(range(400))
    assert few["val"] == more["val"] == whole["val"]
    assert set(few["train"]) < set(more["train"]) < set(whole["train"])


def test_the_split_depends_on_its_seed_alone_and_is_the_same_on_every_machine() -> None:
    assert rows_of() == rows_of()
    assert rows_of()["val"] != rows_of(split_seed=2**70)["val"]
    rows = split_rows(settings(validation_images=10), np.arange(400) % 10, np.arange(400) % 10)
    assert rows["val"].tolist() == [42, 59, 116, 133, 200, 208, 215, 274, 277, 341]


@pytest.mark.parametrize(("classes", "size"), [(10, 40), (7, 11), (60, 2), (2, 25)])
def test_classes_of_equal_size_share_every_total_as_if_it_were_dealt_in_turn(classes: int, size: int) -> None:
    for validation in range(1, classes * (size - 1) + 1):
        val = dealt(validation, [size - 1] * classes)
        left = [size - share for share in val]
        for train in {classes, classes + 1, (classes + sum(left)) // 2, sum(left) - 1, sum(left)}:
            if classes <= train <= sum(left):
                found = shares(*[size] * classes, validation_images=validation, train_images=train, test_images=train)
                assert found == {"train": dealt(train, left), "val": val, "test": dealt(train, [size] * classes)}


@pytest.mark.parametrize(
    ("sizes", "validation", "expected"),
    [
        ((200, 10), 20, [19, 1]),  # 19.05 and 0.95
        ((5, 100, 100), 9, [0, 5, 4]),  # 0.22, 4.39 and 4.39
        ((70, 20, 10), 10, [7, 2, 1]),
        ((1, 1, 98), 50, [0, 0, 50]),  # half an image each, which would be the only one
        ((2, 3, 95), 97, [1, 2, 94]),  # all that leaves one of each
        ((60,), 7, [7]),
        ((0, 30, 30), 3, [0, 2, 1]),  # a class without an image
    ],
)
def test_validation_takes_shares_by_class_size_with_the_largest_remainders_rounded_up(
    sizes: tuple[int, ...], validation: int, expected: list[int]
) -> None:
    found = shares(*sizes, validation_images=validation)
    assert found["val"] == expected
    assert found["train"] == [size - share for size, share in zip(sizes, expected, strict=True)]


@pytest.mark.parametrize("split", SPLITS)
def test_no_share_is_an_image_or_more_away_from_the_classs_own(split: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        sizes = random.integers(30, 300, random.integers(2, 30))
        asked = {"train_images": int(sizes.sum() // 2), "validation_images": int(sizes.sum() // 5), "test_images": 99}
        found = np.array(shares(*sizes, **asked)[split])
        quotas = sizes * (found.sum() / sizes.sum())
        assert (np.abs(found - quotas) < 1).all()


def test_of_a_subset_every_class_gets_a_training_image_and_the_largest_gives_way() -> None:
    found = shares(1000, 4, 300, 1, 2, validation_images=10, train_images=20, test_images=20)
    assert found["train"] == [12, 1, 5, 1, 1]  # 15.3, 0.06, 4.6, 0.02 and 0.03
    assert found["test"] == [15, 0, 5, 0, 0]  # test images are a fair sample


@pytest.mark.parametrize(
    ("sizes", "changes", "message"),
    [
        ((200, 10, 1), {"validation_images": 209}, "at most 208, which leaves one image of each of the 3 classes"),
        ((1, 1, 1), {"validation_images": 1}, "data.validation_images = 1: accepted is at most 0"),
        ((50, 10, 1), {"train_images": 2}, "data.train_images = 2: accepted is at least 3, one image of each class"),
        ((50, 10, 1), {"train_images": 22}, "accepted is at most 21, what data.validation_images = 40 leaves of 61"),
    ],
)
def test_what_would_cost_a_class_its_last_training_image_is_refused(
    sizes: tuple[int, ...], changes: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        shares(*sizes, **changes)


def prepared(folder: Path, **changes: Any) -> Store:
    prepare(settings(folder=str(folder), dataset="trees", train_images=None, **changes), folder.parent / "out", 1)
    return Store.open(folder.parent / "out")


def test_a_rare_class_keeps_most_of_its_images_to_train_on(tmp_path: Path) -> None:
    folder = write_squares(tmp_path / "images", train={"common": 200, "rare": 10}, test={"common": 20, "rare": 5})
    store = prepared(folder, validation_images=20)
    found = {split: np.bincount(store.split(split).labels).tolist() for split in SPLITS}
    assert found == {"train": [181, 9], "val": [19, 1], "test": [20, 5]}


def test_classes_with_few_training_images_or_none_for_validation_or_the_test_are_named_with_their_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rare = {f"rare{number:02d}": 1 + number % 2 for number in range(12)}
    folder = write_squares(tmp_path / "images", train={"common": 100, **rare}, test={"common": 5, "rare03": 1})
    prepared(folder, validation_images=5)
    training, validation, test, _ = capsys.readouterr().out.splitlines()
    names = (
        "rare00 (1), rare01 (2), rare02 (1), rare03 (2), rare04 (1), rare05 (2), rare06 (1), rare07 (2), rare08 (1), "
        "rare09 (2) and 2 more"
    )
    assert training.startswith("prepare: 12 of 13 classes have fewer than 10 training images, ")
    assert validation.startswith("prepare: 12 of 13 classes get no validation image: ")
    assert training.endswith(names)
    assert validation.endswith(names)
    assert test.startswith("prepare: 11 of 13 classes get no test image: ")
    assert "rare00 (0), rare01 (0), rare02 (0), rare04 (0)" in test


def test_of_sufficient_classes_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_squares(tmp_path / "images", train={"ash": 11, "birch": 11}, test={"ash": 1, "birch": 1})
    prepared(folder, validation_images=2)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("prepare: 24 images; needed: ")


def test_folders_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"ash": 11, "birch": 11}
    folder = write_squares(tmp_path / "images", train=sizes, test=sizes, val=sizes, extra=sizes)
    prepared(folder, validation_images=2)
    line, _ = capsys.readouterr().out.splitlines()
    assert line == (
        f"prepare: {folder}: not read is extra, val; accepted is train/ and test/, "
        "and validation images are taken from train/"
    )


def test_a_folder_that_cannot_be_prepared_is_refused_before_params_yaml_is_written(tmp_path: Path) -> None:
    folder = write_squares(tmp_path / "images", train={"ash": 6, "birch": 6}, test={"ash": 2, "birch": 2})
    own = settings(folder=str(folder), dataset="trees", train_images=None, test_images=None, validation_images=11)
    with pytest.raises(UserError, match=r"accepted is at most 10, .* a tenth of all is 1"):
        require_preparable(own)
    require_preparable(own.model_copy(update={"validation_images": 10}))
    (folder / "train/birch").rename(folder / "birch")
    with pytest.raises(UserError, match="images/train: holds one class, ash; accepted are at least two"):
        require_preparable(own)


def test_one_class_alone_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_squares(tmp_path / "images", train={"ash": 5}, test={"ash": 5})
    with pytest.raises(UserError, match="images/train: holds one class, ash; accepted are at least two"):
        prepared(folder, validation_images=1)
