"""What the process that shows running trainings in MLflow takes of the processor time of these trainings.

Its start, which imports MLflow for seconds, counts. Processor time, and not the clock: 1 % would be lost in its noise.
"""

import os
import resource
import tempfile
from functools import partial

import psutil

from benchmarks.harness import Row, ratio
from benchmarks.setups import params, store
from pipeline.params import Hardware
from pipeline.runtime.cores import usable_cores
from pipeline.tracking import sync
from pipeline.training.pool import Task, run_tasks
from pipeline.training.run import Run
from pipeline.training.runs import bytes_of, train_one

RUNS_PER_CORE = 8  # as long as half of the default scale
LEAST_WORKERS = 2  # so that trainings have processes of their own, whose time the system adds up


def rows() -> list[Row]:
    images, settings = store("embedded"), params("embedded").settings("baseline")
    hardware = Hardware(threads=1, workers=max(LEAST_WORKERS, usable_cores()))
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"ALEXNET_STATE": folder, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        seeds = range(RUNS_PER_CORE * usable_cores())
        runs = [Run("embedded", "baseline", "3-5", seed, settings, images, hardware) for seed in seeds]
        tasks = [Task(str(run), partial(train_one, run), settings.train.epochs) for run in runs]
        others, earlier = psutil.Process().children(), _seconds_of_children()
        with sync.live():
            (sender,) = set(psutil.Process().children()) - set(others)
            run_tasks(tasks, hardware, bytes_of(settings), "tracking", "epoch")
            trained, spent = _seconds_of_children() - earlier, sender.cpu_times()
        sender.wait()
    share = (spent.user + spent.system) / trained
    return [ratio("tracking_share", "share", "the trainings that it shows, by processor time", [share])]


def _seconds_of_children() -> float:
    """Return the processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
