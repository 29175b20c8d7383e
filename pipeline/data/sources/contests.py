"""States what was published for ImageNet's contests (ILSVRC), as the readme files of their development kits do."""

from dataclasses import dataclass
from pathlib import Path

KAGGLE = "ILSVRC/Data/CLS-LOC"
KAGGLE_TRUTH = "LOC_val_solution.csv"


@dataclass(frozen=True)
class Contest:
    """One year's contest."""

    name: str  # how the names of its files begin
    images: dict[str, int]  # published number of each split
    test: str  # the split that is measured at the end
    archive: str  # of a split
    kit: tuple[str, str]  # its development kit as an archive, and unpacked
    truth: dict[str, str]  # file with the classes of a split's images
    table: Path | None  # its classes, where no kit is needed to know them
    layouts: str
    classes: int = 1000


CONTESTS = {
    "imagenet2012": Contest(
        name="ILSVRC2012",
        images={"train": 1_281_167, "val": 50_000},
        test="val",
        archive="ILSVRC2012_img_{}.tar",
        kit=("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12"),
        truth={"val": "ILSVRC2012_validation_ground_truth.txt"},
        table=Path(__file__).with_name("ilsvrc2012_classes.txt"),
        layouts="accepted are ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz; or "
        f"Kaggle's {KAGGLE}/train, {KAGGLE}/val and {KAGGLE_TRUTH}; or train/<WNID>/<image> and val/<WNID>/<image>",
    ),
    "imagenet2010": Contest(
        name="ILSVRC2010",
        images={"train": 1_261_406, "val": 50_000, "test": 150_000},
        test="test",
        archive="ILSVRC2010_images_{}.tar",
        kit=("ILSVRC2010_devkit-1.0.tar.gz", "devkit-1.0"),
        truth={"val": "ILSVRC2010_validation_ground_truth.txt", "test": "ILSVRC2010_test_ground_truth.txt"},
        table=None,
        layouts="accepted are ILSVRC2010_devkit-1.0.tar.gz with ILSVRC2010_images_train.tar, "
        "ILSVRC2010_images_test.tar and ILSVRC2010_test_ground_truth.txt; or with train/<WNID>/<image> and "
        "test/<WNID>/<image>",
    ),
}
