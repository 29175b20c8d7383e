"""Trainings that go on: which they are, and those of their epochs that a checkpoint holds.

A resumed run repeats the other epochs, so these are not shown yet. All that is shown here comes from the resume folder.
"""

import csv
import json
import socket
import time
from pathlib import Path

import psutil

from pipeline import paths
from pipeline.runtime.checksums import SUMS
from pipeline.tracking.records import Point, Record, curve_points, training_record

HISTORY, RUN = "history.csv", "run.json"


def files() -> list[Path]:
    """Return the file that says what a run is, for each run of the resume folder."""
    return sorted((paths.state() / "runs").glob("*.json"))


def is_trained(about: Path) -> bool:
    """Return whether a process of this machine is training the run: the one that its lock file names."""
    if (_folder(about) / SUMS).exists():
        return False
    try:
        here = json.loads(about.read_text())["machine"] == socket.gethostname()
        return here and psutil.pid_exists(int(about.with_suffix(".lock").read_text()))
    except (OSError, ValueError, KeyError):  # it begins or ends at this moment
        return False


def record(about: Path) -> Record:
    """Return what is to be shown of a run now. Raises OSError or ValueError where its files are being replaced."""
    facts, folder = json.loads(about.read_text()), _folder(about)
    if (folder / SUMS).exists():
        status, epochs = json.loads((folder / RUN).read_text())["status"].upper(), None
    else:
        status = "RUNNING" if is_trained(about) else "KILLED" if folder.exists() else "FINISHED"  # that one was pruned
        epochs = _kept(folder)
    return training_record(facts, status, _points(folder, epochs), facts["started_ms"], int(time.time() * 1000))


def _folder(about: Path) -> Path:
    return about.with_suffix("")


def _kept(folder: Path) -> int:
    path = folder.with_suffix(".kept")
    return int(path.read_text()) if path.exists() else 0


def _points(folder: Path, epochs: int | None) -> list[Point]:
    """Return the points of the first `epochs` rows of the history; of all rows where it is None."""
    path = folder / HISTORY
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return curve_points(list(csv.DictReader(file))[:epochs])
