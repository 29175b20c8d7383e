"""Where everything lies: one function for each name, relative to the repository's root unless said otherwise."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
PREPARED, RUNS, REPORTS = Path("prepared"), Path("runs"), Path("reports")
ARTIFACTS, STATE = Path("mlartifacts"), Path(".state")
PAPER_RECIPE = "pipeline/paper/recipe.yaml"


def root() -> Path:
    """The repository that runs share, also from inside DVC's temporary experiment folders. Absolute."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def downloads() -> Path:
    """Raw downloads: no DVC out, and `make clean` leaves them alone."""
    return root() / "downloads"


def state() -> Path:
    """What unfinished work resumes from: $ALEXNET_STATE, or .state/ in the repository."""
    return Path(os.environ.get("ALEXNET_STATE") or root() / STATE).resolve()


def mlflow_store() -> str:
    """$MLFLOW_TRACKING_URI, or a SQLite file in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def images(folder: str) -> Path:
    """The folder that `data.folder` names: absolute, links resolved, `~` expanded, relative to the repository."""
    return (root() / Path(folder).expanduser()).resolve()


def written() -> list[Path]:
    """The folders that the pipeline or DVC writes to and deletes from, absolute, links resolved."""
    stores = [path for path in PREPARED.glob("*") if path.is_dir()]  # any of them may be a link
    folders = [PREPARED, RUNS, REPORTS, ARTIFACTS, Path(".dvc"), *stores]
    return [state(), *((root() / folder).resolve() for folder in folders)]


def stage_times() -> Path:
    return state() / "stage-times.csv"


def data(dataset: str) -> Path:
    return PREPARED / dataset


def tune(scale: str, study: str) -> Path:
    return RUNS / scale / "tune" / study


def train(scale: str, variant: str) -> Path:
    return RUNS / scale / variant / "train"


def seed(scale: str, variant: str, seed: int) -> Path:
    return train(scale, variant) / f"seed-{seed}"


def evaluation(scale: str, variant: str) -> Path:
    return RUNS / scale / variant / "evaluation"


def metrics(scale: str, variant: str) -> Path:
    return RUNS / scale / variant / "metrics.json"


def report(name: str) -> Path:
    return REPORTS / name
