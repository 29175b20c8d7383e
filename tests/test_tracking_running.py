"""Running trainings in MLflow: the epochs that a checkpoint holds, once each, however a training ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest

from pipeline.data.store import Store
from pipeline.runtime.checksums import SUMS
from pipeline.tracking import store as tracking
from pipeline.tracking import sync
from pipeline.training.run import CHECKPOINT, HISTORY, RUN, Run, train
from pipeline.training.runs import announce
from tests.mlflow_runs import client, stored_runs
from tests.processes import environment, until
from tests.tiny import a_run, interrupt_after_an_epoch
from tests.tiny_params import make_stage, tiny_params, train_variant

pytestmark = pytest.mark.usefixtures("mlflow_tables")
COLUMNS = ["epoch", "lr", "train_loss", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5", "time_ms"]


def steps(name: str = "val_error_top1") -> list[int]:
    (run,) = stored_runs()
    return steps_of(run, name)


def steps_of(shown: mlflow.entities.Run, name: str = "val_error_top1") -> list[int]:
    return [point.step for point in client().get_metric_history(shown.info.run_id, name)]


def status() -> str:
    return str(stored_runs()[0].info.status)


Going = tuple[Run, Callable[..., None]]


@pytest.fixture
def going(store: Store) -> Going:
    """A run that this process trains, and what writes its history, its epochs in a checkpoint, and its trainer."""
    run = a_run(store)
    announce(run)
    run.folder.mkdir(parents=True)

    def write(epochs: int, kept: int, trainer: int, time_ms: int = 1_700_000_000_000) -> None:
        rows = [[epoch, 0.01, 2.0, 50.0, 2.0, 60.0 - epoch, 3.0, time_ms + epoch] for epoch in range(1, epochs + 1)]
        pd.DataFrame(rows, columns=COLUMNS).to_csv(run.folder / HISTORY, index=False)
        run.folder.with_suffix(".kept").write_text(str(kept))
        run.lock.write_text(str(trainer))

    return run, write


def test_epochs_of_a_checkpoint_are_sent_as_they_come_and_the_rest_at_the_end(going: Going) -> None:
    run, write = going
    follower = tracking.Follower()
    follower.look()
    assert stored_runs() == []
    write(5, 3, os.getpid())
    follower.look()
    assert (status(), steps()) == ("RUNNING", [1, 2, 3])
    (shown,) = stored_runs()
    assert (shown.info.run_name, shown.data.params["train.lr"]) == ("baseline seed 0", "0.01")
    assert shown.data.params["data.train_images"] == "48"
    write(6, 6, os.getpid())
    follower.look()
    assert steps() == [1, 2, 3, 4, 5, 6]
    write(8, 7, os.getpid())
    (run.folder / RUN).write_text(json.dumps({"status": "finished"}))
    (run.folder / SUMS).touch()
    follower.look()
    assert (status(), steps(), follower.follows) == ("FINISHED", [*range(1, 9)], False)


def test_an_interrupted_run_is_killed_and_goes_on_as_the_same_run(going: Going) -> None:
    _, write = going
    dead = subprocess.Popen(["true"])
    dead.wait()
    follower = tracking.Follower()
    write(2, 2, os.getpid())
    follower.look()
    write(3, 2, dead.pid)
    follower.look()
    assert (status(), steps()) == ("KILLED", [1, 2])
    write(4, 4, os.getpid())
    tracking.Follower().look()  # of another stage
    assert (status(), steps()) == ("RUNNING", [1, 2, 3, 4])


def test_epochs_that_were_trained_again_from_the_start_are_another_run(going: Going) -> None:
    _, write = going
    follower = tracking.Follower()
    write(4, 4, os.getpid())
    follower.look()
    before = stored_runs()[0].info.run_id
    write(2, 2, os.getpid(), time_ms=1_700_000_900_000)
    follower.look()
    (run,) = stored_runs()
    assert run.info.run_id != before
    assert [point.timestamp for point in client().get_metric_history(run.info.run_id, "lr")] == [
        1_700_000_900_001,
        1_700_000_900_002,
    ]


def test_what_ended_without_a_sender_is_closed_by_the_next_sync_and_what_goes_on_is_left(going: Going) -> None:
    _, write = going
    write(2, 2, os.getpid())
    tracking.Follower().look()
    tracking.sync()
    assert status() == "RUNNING"
    write(2, 2, 2**22 + 1)  # no process has that number
    assert not psutil.pid_exists(2**22 + 1)
    tracking.sync()
    assert status() == "KILLED"


def test_a_sent_run_takes_in_its_finished_files_without_doubling_an_epoch(store: Store) -> None:
    params = tiny_params(seeds=[0])
    (interrupted,) = [Run("smoke", "baseline", "3", 0, params.settings("baseline"), store, params.hardware)]
    interrupt_after_an_epoch(interrupted)
    announce(interrupted)
    interrupted.lock.write_text(str(os.getpid()))
    follower = tracking.Follower()
    follower.look()
    assert (status(), steps()) == ("RUNNING", [1])
    before = stored_runs()[0].info.run_id
    train_variant(params, "baseline")
    follower.look()
    assert (status(), steps()) == ("FINISHED", [1, 2, 3])
    tracking.sync()
    assert [run.info.run_id for run in stored_runs()] == [before]
    assert (steps(), steps("lr")) == ([1, 2, 3], [1, 2, 3])
    assert tracking.sync() == 0


def test_the_file_beside_a_checkpoint_says_how_many_epochs_it_holds(store: Store) -> None:
    run = a_run(store)
    interrupt_after_an_epoch(run)
    assert (run.folder / CHECKPOINT).exists()
    assert run.folder.with_suffix(".kept").read_text() == "1"
    train(run)
    assert run.folder.with_suffix(".kept").read_text() in {"2", "3"}
    assert sorted(path.name for path in run.folder.iterdir()) == [SUMS, HISTORY, "model.safetensors", RUN]


def test_a_store_that_fails_is_one_warning_and_the_sender_ends_with_its_stage(going: Going) -> None:
    _, write = going
    write(2, 2, os.getpid())
    code = "from pipeline.tracking import sync; sync.LOOK_S = 0.1; sync.follow()"
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    Path("mlflow.db").unlink()
    Path("mlflow.db").mkdir()
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), **options) as sender:
        first = sender.stderr.readline()
        assert first.startswith("warning: sqlite:///")
        with pytest.raises(subprocess.TimeoutExpired):
            sender.wait(2)
        sender.stdin.close()
        assert sender.wait(30) == 0
        assert sender.stderr.read() == ""


@pytest.mark.slow
def test_a_real_training_is_seen_while_it_runs_and_has_each_epoch_once_in_the_end(workplace: Path) -> None:
    make_stage(workplace, train={"epochs": 300, "schedule": "fixed", "lr_drops": 0}, seeds=[0])

    def seen(run_status: str, epochs: int) -> bool:
        with suppress(AttributeError):  # no experiment yet
            return any(run.info.status == run_status and len(steps_of(run)) >= epochs for run in stored_runs())
        return False

    with subprocess.Popen([sys.executable, "-m", "stages.train"], env=environment(), start_new_session=True) as stage:
        until(lambda: seen("RUNNING", 2), 120)
        os.killpg(stage.pid, signal.SIGKILL)
    until(lambda: seen("KILLED", 2), 60)
    (run_id,) = [run.info.run_id for run in stored_runs()]
    assert len(steps()) < 300
    subprocess.run([sys.executable, "-m", "stages.train"], env=environment(), check=True)
    sync.run(background=False)
    (run,) = (run for run in stored_runs() if run.info.run_id == run_id)
    assert (run.info.status, steps_of(run)) == ("FINISHED", [*range(1, 301)])
