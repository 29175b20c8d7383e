"""Where everything lies: one function for each name, relative to the repository's root unless said otherwise."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
REPORTS = Path("reports")
PAPER_RECIPE = "pipeline/paper/recipe.yaml"


def root() -> Path:
    """The repository that runs share, also from inside DVC's temporary experiment folders. Absolute."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def downloads() -> Path:
    """Raw downloads: no DVC out, and `make clean` leaves them alone."""
    return root() / "downloads"


def state() -> Path:
    """What unfinished work resumes from: $ALEXNET_STATE, or .state/ in the repository."""
    return Path(os.environ.get("ALEXNET_STATE") or root() / ".state").resolve()


def mlflow_store() -> str:
    """$MLFLOW_TRACKING_URI, or a SQLite file in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def stage_times() -> Path:
    return state() / "stage-times.csv"


def data(dataset: str) -> Path:
    return Path("data", dataset)


def tune(scale: str, study: str) -> Path:
    return Path("runs", scale, "tune", study)


def train(scale: str, variant: str) -> Path:
    return Path("runs", scale, variant, "train")


def seed(scale: str, variant: str, seed: int) -> Path:
    return train(scale, variant) / f"seed-{seed}"


def evaluation(scale: str, variant: str) -> Path:
    return Path("runs", scale, variant, "evaluation")


def metrics(scale: str, variant: str) -> Path:
    return Path("runs", scale, variant, "metrics.json")


def report(scale: str) -> Path:
    return REPORTS / scale
