"""Where everything lies: one function for each name, relative to the repository's root unless said otherwise."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

SQLITE = re.compile(r"sqlite(\+\w+)?:///(?P<path>(?!file:|:memory:)[^?]+)(?P<query>\?.*)?", re.DOTALL)
MISREAD = re.compile(r"%(?=[0-9a-fA-F]{2})|[?{}]")  # in a bare path: by SQLAlchemy, and braces by Optuna
NO_PATHS = ("databricks", "databricks-uc", "uc")  # MLflow's servers that are named by a word

PARAMS = Path("params.yaml")
PREPARED, RUNS, REPORTS = Path("prepared"), Path("runs"), Path("reports")
ARTIFACTS, STATE = Path("mlartifacts"), Path(".state")
VARIANTS = Path("conf/variants.yaml")


def root() -> Path:
    """The repository that runs share, also from inside DVC's temporary experiment folders. Absolute."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def downloads() -> Path:
    """Raw downloads: no DVC out, and `make clean` leaves them alone."""
    return root() / "downloads"


def state() -> Path:
    """What unfinished work resumes from: $ALEXNET_STATE, or .state/ in the repository."""
    return (root() / (os.environ.get("ALEXNET_STATE") or STATE)).resolve()


def mlflow_store() -> str:
    """The address of MLflow's store: $MLFLOW_TRACKING_URI, or a SQLite file in the repository's root."""
    address = os.environ.get("MLFLOW_TRACKING_URI")
    return from_root(address) if address else sqlite_address(root() / "mlflow.db")


def without_passwords(message: str) -> str:
    """The message with *** for the password of each address in it."""
    return re.sub(r"(?<=://)([^/:@\s]*):[^@\s]*@", r"\1:***@", message)


def sqlite_address(path: Path) -> str:
    """The address of a SQLite file, for SQLAlchemy (from 2.1 on), which MLflow and Optuna have read it."""
    encoded = MISREAD.sub(lambda sign: f"%{ord(sign[0]):02X}", str(path))
    # After `sqlite:///` alone MLflow would make the folders of the path as it is written, codes and all.
    return f"sqlite:///{path}" if encoded == str(path) else f"sqlite+pysqlite:///{encoded}"


def sqlite_file(address: str) -> Path | None:
    """The file that a SQLite address names. None for another store, or a database that no path names."""
    found = SQLITE.fullmatch(address)
    return Path(unquote(found["path"])) if found else None


def from_root(address: str) -> str:
    """A store's address, in which a relative path becomes that from the repository's root.

    The working directory is another one where `dvc exp run --temp` runs a stage, and goes away afterwards. Absolute
    paths and servers stay as they are.
    """
    if found := SQLITE.fullmatch(address):
        file = Path(unquote(found["path"]))
        return address if file.is_absolute() else sqlite_address(root() / file) + (found["query"] or "")
    parts = urlsplit(address)
    if address in NO_PATHS or parts.scheme not in ("", "file") or parts.netloc or parts.path.startswith("/"):
        return address
    return (root() / (unquote(parts.path) if parts.scheme else address)).as_uri()


def images(folder: str) -> Path:
    """The folder that `data.folder` names: absolute, links resolved, `~` expanded, relative to the repository."""
    return (root() / Path(folder).expanduser()).resolve()


def written() -> list[Path]:
    """The folders that the pipeline or DVC writes to and deletes from, absolute, links resolved."""
    stores = [path for path in PREPARED.glob("*") if path.is_dir()]  # any of them may be a link
    folders = [PREPARED, RUNS, REPORTS, ARTIFACTS, Path(".dvc"), *stores]
    return [state(), *((root() / folder).resolve() for folder in folders)]


def data(dataset: str) -> Path:
    return PREPARED / dataset


def tune(scale: str, study: str) -> Path:
    return RUNS / scale / "tune" / study


def trained(scale: str) -> Path:
    return RUNS / scale / "train"


def seed(scale: str, variant: str, seed: int) -> Path:
    return trained(scale) / variant / f"seed-{seed}"


def evaluation(scale: str, variant: str) -> Path:
    return RUNS / scale / "evaluation" / variant


def metrics(scale: str) -> Path:
    return RUNS / scale / "metrics.json"


def report(name: str) -> Path:
    return REPORTS / name
