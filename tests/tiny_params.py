"""A whole configuration for tests/tiny.py's store: baseline and tuned, two seeds."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation.evaluate import evaluate_all
from pipeline.params import Params, validate
from pipeline.training.runs import train_all
from tests.clone import ROOT, write_params
from tests.tiny import COUNTS, IMAGE_SIZE, make_store, settings

TUNE: dict[str, Any] = {  # a study of four trials
    "trials": 4,
    "epochs": 2,
    "seed": 5,
    "lr": [0.001, 0.1],
    "weight_decay": [0.00001, 0.01],
    "batch": 1,
    "random_trials": 2,
    "warmup_epochs": 1,
    "storage": None,
}
LEARNS: dict[str, Any] = {  # changes with which the baseline learns in part
    "train": {"epochs": 14, "patience_epochs": 14},
    "recipe": {"weight_std": "coded"},
}


def alone_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make `folder` the working directory, with resume folder and MLflow store of its own."""
    patch.chdir(folder)
    for name in ("DVC_ROOT", "ALEXNET_STATE", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_EXP_NAME"):
        patch.delenv(name, raising=False)


def make_stage(folder: Path, **changes: Any) -> None:
    """What a stage needs to train the baseline on tests/tiny.py's store, in `folder`."""
    make_store(folder / "prepared/fashion_mnist")
    for name in ("pipeline", "stages"):
        (folder / name).symlink_to(ROOT / name)
    values = tiny_params(**changes).model_dump()
    write_params(folder, values | {"variants": {"baseline": values["variants"]["baseline"]}})


def tiny_params(**changes: Any) -> Params:
    """`changes` to blocks of the training settings, or to other keys as a whole."""
    blocks = settings(**{name: value for name, value in changes.items() if name in ("net", "recipe", "train")})
    variant = {"title": "x", "section": "3", "description": "x"}
    values: dict[str, Any] = {
        "scale": "smoke",
        "reports": {"fashion_mnist": "smoke"},
        "report": "smoke",
        "data": {
            "folder": None,
            "dataset": "fashion_mnist",
            "image_size": IMAGE_SIZE,
            "train_images": COUNTS["train"],
            "validation_images": COUNTS["val"],
            "test_images": COUNTS["test"],
            "split_seed": 0,
        },
        **blocks.model_dump(),
        "seeds": [0, 1],
        "hardware": {"accelerator": "cpu", "threads": 1, "workers": 1},
        "tune": TUNE | {"trials": 0},
        "evaluate": {"ten_crop": ["baseline"], "analyses": [], "batch_images": 7},
        "variants": {"baseline": variant, "tuned": variant | {"study": "baseline"}},
        "departures": [],
    }
    values |= {name: value for name, value in changes.items() if name not in ("net", "recipe", "train")}
    return validate(values, "tiny")


def only(params: Params, variant: str) -> Params:
    """The configuration with one of its variants alone."""
    return params.model_copy(update={"variants": {variant: params.variants[variant]}})


def train_variant(params: Params, variant: str) -> None:
    """What the train stage does, for one variant."""
    train_all(only(params, variant))


def evaluate_variant(params: Params, variant: str) -> None:
    """What the evaluate stage does, for one variant."""
    evaluate_all(only(params, variant))
