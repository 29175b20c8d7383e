"""How long each stage and command took, and for how much of that it trained nets or asked them."""

import csv
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil

from pipeline import launcher, paths

_working_s = 0.0


@dataclass(frozen=True)
class StageTime:
    name: str  # as in "train baseline" or "sync"
    started_s: float  # of the process, since 1970
    finished_s: float
    working_s: float  # of training, or of evaluation's forward passes


@contextmanager
def working() -> Iterator[None]:
    """In this block nets are trained or asked."""
    global _working_s
    started = time.monotonic()
    try:
        yield
    finally:
        _working_s += time.monotonic() - started


def worked_s() -> float:
    return _working_s


def record() -> None:
    """Note this process, which has done its work; where that cannot be written, nothing is lost but the note.

    Of processes that train together the first one does.
    """
    if launcher.rank() != 0:
        return
    script = Path(sys.argv[0]).stem
    name = " ".join([*([] if script == "__main__" else [script]), *sys.argv[1:]])
    line = StageTime(name, psutil.Process().create_time(), time.time(), round(_working_s, 3))
    with suppress(OSError):
        paths.stage_times().parent.mkdir(parents=True, exist_ok=True)
        with paths.stage_times().open("a", newline="") as file:
            csv.writer(file).writerow(astuple(line))


def recorded() -> list[StageTime]:
    if not paths.stage_times().exists():
        return []
    with paths.stage_times().open(newline="") as file:
        return [StageTime(name, *(float(value) for value in values)) for name, *values in csv.reader(file)]
