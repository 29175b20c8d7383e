"""Trainings in processes of their own, stopped by signals, left by their parent, met by a second one."""

import shutil
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from pipeline import paths
from pipeline.data.store import Store
from pipeline.training.run import CHECKPOINT, HISTORY, RUN, WEIGHTS, train
from tests.processes import EPOCHS, IDLE, PAUSE, TRAINING, go_on, process, wait_for
from tests.tiny import a_run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

DVC = "import subprocess, sys; subprocess.run(sys.argv[1:])"  # all that matters of it here
LASTING_SHELL = ("bash", "-c", '"$@"; exit $?', "bash")  # waits for its command, where others become it


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [pytest.param("SIGINT", "SIGTERM", 130, marks=pytest.mark.slow), ("SIGTERM", "SIGINT", 143)],
)
def test_a_signal_stops_at_the_next_batch_and_keeps_the_last_whole_epoch(
    store: Store, monkeypatch: pytest.MonkeyPatch, first: str, second: str, status: int
) -> None:
    run = a_run(store, train={"epochs": EPOCHS})
    epoch, batch = PAUSE
    with process("-c", TRAINING) as victim:
        for name in (first, second):  # the later one changes nothing
            wait_for(victim.stdout, "ready")
            victim.send_signal(getattr(signal, name))
            go_on(victim)
        _, errors = victim.communicate()
    assert victim.returncode == status
    assert (
        f"stopped by {first}; smoke baseline, seed 0: {epoch} of {EPOCHS} epochs are kept; `dvc repro` goes" in errors
    )
    assert "Traceback" not in errors
    kept = torch.load(run.folder / CHECKPOINT, weights_only=True)
    assert batch < 3
    assert (kept["epoch"] + 1, kept["global_step"], len(pd.read_csv(run.folder / HISTORY))) == (epoch, epoch * 3, epoch)
    resumed = (train(run) / WEIGHTS).read_bytes()
    monkeypatch.setenv("ALEXNET_STATE", "undisturbed")
    assert (train(run) / WEIGHTS).read_bytes() == resumed


def test_a_signal_ends_a_stage_that_does_not_train_at_once(workplace: Path) -> None:
    with process("-c", IDLE) as victim:
        wait_for(victim.stdout, "ready")
        victim.send_signal(signal.SIGTERM)
        assert victim.communicate()[1] == "stopped by SIGTERM; `dvc repro` goes on from what is there\n"
    assert victim.returncode == 143


@pytest.mark.parametrize("shell", [(), LASTING_SHELL], ids=["", "through a shell"])
def test_a_stage_whose_dvc_has_died_stops(workplace: Path, shell: tuple[str, ...]) -> None:
    with process("-c", DVC, *shell, sys.executable, "-c", IDLE, DVC_STAGE="evaluate@baseline") as dvc:
        wait_for(dvc.stdout, "ready")
        dvc.kill()
        _, errors = dvc.communicate()  # the stage's, too: these pipes close when it is gone
    assert "stopped by SIGTERM" in errors


@pytest.mark.slow
def test_a_second_process_says_for_whom_it_waits_and_finds_the_run_done_also_from_another_clone(
    store: Store, tmp_path: Path
) -> None:
    other = tmp_path / "other clone"
    shutil.copytree("prepared", other / "prepared")
    state = str(tmp_path / "shared state")
    with process("-c", TRAINING, ALEXNET_STATE=state) as first:
        wait_for(first.stdout, "ready")
        with process("-c", TRAINING, cwd=other, ALEXNET_STATE=state) as second:
            wait_for(second.stderr, rf"^smoke baseline, seed 0: waiting for process {first.pid}, which is at it$")
            go_on(first)
            first.communicate()
            printed, _ = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "ready" not in printed
    ours, theirs = (folder / paths.seed("smoke", "baseline", 0) for folder in (tmp_path, other))
    for name in (WEIGHTS, HISTORY, RUN):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
