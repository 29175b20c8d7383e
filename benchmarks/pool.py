"""Runs side by side, one thread each, beside the same runs one after another with all cores, and beside as many
processes started by hand, which is what the machine gives."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from benchmarks.harness import Contender, Row, ratio, rounds_of
from benchmarks.setups import params, store
from pipeline.data.store import Store
from pipeline.params import Hardware
from pipeline.runtime.cores import usable_cores
from pipeline.training.pool import Task, run_tasks
from pipeline.training.run import Run, train
from pipeline.training.runs import bytes_of, train_one

ROUNDS, EPOCHS = 3, 30
ONE_THREAD = Hardware(threads=1)


def runs(images: Store, hardware: Hardware) -> list[Run]:
    """Two for each core, which differ in their seed."""
    settings = params("embedded").settings("baseline", {"train": {"epochs": EPOCHS}})
    return [Run("embedded", "baseline", "3", seed, settings, images, hardware) for seed in range(2 * usable_cores())]


def contender(kind: str) -> Callable[[], None]:
    work = {"pool": _pool, "in turn": _in_turn, "by hand": _by_hand}[kind]
    images = store("embedded")

    def timed() -> None:
        with tempfile.TemporaryDirectory() as state:
            os.environ["ALEXNET_STATE"] = state
            work(images)

    return timed


def _pool(images: Store) -> None:
    found = runs(images, ONE_THREAD)
    tasks = [Task(str(run), partial(train_one, run), EPOCHS) for run in found]
    run_tasks(tasks, ONE_THREAD, bytes_of(found[0].settings), "pool", "epoch")


def _in_turn(images: Store) -> None:
    for run in runs(images, Hardware(threads=usable_cores())):
        train(run)


def _by_hand(images: Store) -> None:
    command = [sys.executable, "-m", "benchmarks.pool", str(images.folder)]
    processes = [subprocess.Popen([*command, str(place)]) for place in range(usable_cores())]
    if any(process.wait() for process in processes):
        raise RuntimeError("a process that was started by hand has failed")


def rows() -> list[Row]:
    store("embedded")  # made once, before any contender looks for it
    with ExitStack() as stack:
        kinds = ("pool", "in turn", "by hand")
        contenders = [stack.enter_context(Contender("benchmarks.pool:contender", kind=kind)) for kind in kinds]
        times = rounds_of(contenders, ROUNDS)
    return [
        ratio("pool", "speedup", "one after another with all cores", [turn / ours for ours, turn, _ in times]),
        ratio("pool_scaling", "share", "as many processes started by hand", [hand / ours for ours, _, hand in times]),
    ]


if __name__ == "__main__":  # one of the processes that are started by hand
    from pathlib import Path

    for run in runs(Store.open(Path(sys.argv[1])), ONE_THREAD)[int(sys.argv[2]) :: usable_cores()]:
        train(run)
