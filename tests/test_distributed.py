"""Several processes that train one net together (over gloo, on the CPU) beside one that trains it alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from safetensors.torch import load_file

from pipeline.data.loader import BatchSampler, BatchSpec, Shard
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.runtime.launcher import VARIABLES
from pipeline.training.run import CHECKPOINT, HISTORY, RUN, WEIGHTS, train
from tests.processes import environment, python
from tests.tiny import CPU, a_run, make_store, numbers, settings
from tests.tiny_params import make_stage, tiny_params, train_variant

pytestmark = pytest.mark.timeout(900)

TOLERANCE = 1e-4  # of a weight tensor's norm: sums in another order, as other numbers of threads give (test_training)

# Two runs: one to its end over plateaus, with dropout; one that diverges. 50 images in batches of 16 leave a last one
# of 2, where four processes have nothing to cut.
TRAINING = """
import json, os, sys
from pathlib import Path
from pipeline.data.store import Store
from pipeline.runtime.exit_status import exit_status
from pipeline.training.run import train
from tests.tiny import CPU, a_run

def main():
    store = Store.open(Path("prepared/fashion_mnist"))
    hardware = CPU.model_copy(update={"devices": int(os.environ["WORLD_SIZE"])})
    for changes in json.loads(sys.argv[1]):
        train(a_run(store, hardware=hardware, train=changes))

sys.exit(exit_status(main))
"""
PLATEAUS = {"epochs": 5, "patience_epochs": 1, "lr": 1e-5}
WILD = {"lr": 1e6}
EPOCHS = 20


def together(processes: int, *trainings: dict[str, float]) -> list[subprocess.Popen[str]]:
    """TRAINING as so many processes, started as torchrun would."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, json.dumps(trainings)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_together_they_train_as_one_does_alone(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    store = make_store(workplace / "prepared/fashion_mnist", train=50)
    monkeypatch.setenv("ALEXNET_STATE", "together")
    victims = together(processes, PLATEAUS, WILD)
    printed = [victim.communicate()[0] for victim in victims]
    assert [victim.returncode for victim in victims] == [0] * processes, printed
    assert [text.count("recorded as failed") for text in printed] == [1] + [0] * (processes - 1)
    hardware = CPU.model_copy(update={"devices": processes})
    shared, failed = (a_run(store, hardware=hardware, train=training).folder for training in (PLATEAUS, WILD))
    monkeypatch.setenv("ALEXNET_STATE", "alone")
    alone, alone_failed = train(a_run(store, train=PLATEAUS)), train(a_run(store, train=WILD))

    ours, theirs = numbers(alone), numbers(shared)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=2e-4)
    assert ours["lr"].iloc[-1] < ours["lr"].iloc[0]
    weights, others = load_file(alone / WEIGHTS), load_file(shared / WEIGHTS)
    apart = max(float((others[name] - w).norm() / w.norm()) for name, w in weights.items())
    assert 0 < apart < TOLERANCE
    facts = [json.loads((folder / RUN).read_text()) for folder in (alone, shared, alone_failed, failed)]
    assert [found["where"]["processes"] for found in facts] == [1, processes, 1, processes]
    for one, several in (facts[:2], facts[2:]):
        assert [one[key] for key in ("status", "stopped", "lr_drops", "epochs")] == [
            several[key] for key in ("status", "stopped", "lr_drops", "epochs")
        ]
    assert facts[3]["failure"]["step"] == facts[2]["failure"]["step"]
    assert not list(shared.glob("*.ckpt"))


def test_the_shares_of_a_batch_are_the_batch_in_its_order(store: Store) -> None:
    whole = list(BatchSampler(store, settings(), seed=0))
    for size in (2, 3, 5, 32):
        shares = [BatchSampler(store, settings(), 0, Shard(rank, size)) for rank in range(size)]
        for batch, *parts in zip(whole, *shares, strict=True):
            for name in BatchSpec._fields[:-1]:
                np.testing.assert_array_equal(
                    np.concatenate([getattr(part, name) for part in parts]), getattr(batch, name)
                )
            sizes = [len(part.images) for part in parts]
            assert max(sizes) - min(sizes) <= 1


@pytest.fixture
def stage(workplace: Path) -> Path:
    """A folder in which `python -m stages.train` trains one seed as two processes."""
    training = {"epochs": EPOCHS, "patience_epochs": EPOCHS}
    make_stage(workplace, train=training, seeds=[0], hardware={"accelerator": "cpu", "threads": 1, "devices": 2})
    return workplace


def start_stage(output: Path) -> subprocess.Popen[bytes]:
    """Its output goes to a file, since what sends the runs to MLflow outlives it."""
    with output.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "stages.train"],
            env=os.environ | {"ALEXNET_STATE": "state"},
            stdout=file,
            stderr=file,
        )


def workers(stage: subprocess.Popen[bytes]) -> list[int]:
    return [child.pid for child in psutil.Process(stage.pid).children() if "stages.train" in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize(
    ("victim", "how", "status"),
    [("the stage", signal.SIGTERM, 143), ("one of two", signal.SIGKILL, 137), ("the stage", signal.SIGKILL, -9)],
)
def test_stopped_or_killed_none_is_left_and_the_next_start_goes_on(
    stage: Path, victim: str, how: signal.Signals, status: int
) -> None:
    output = stage / "output"
    first = start_stage(output)
    while not any(len(pd.read_csv(path)) >= 3 for path in stage.glob(f"state/runs/*/{HISTORY}")):
        assert first.poll() is None, output.read_text()
        time.sleep(0.05)
    both = [psutil.Process(pid) for pid in workers(first)]
    assert len(both) == 2
    os.kill(first.pid if victim == "the stage" else both[1].pid, how)
    assert first.wait() == status, output.read_text()
    assert psutil.wait_procs(both, timeout=60)[1] == []
    (checkpoint,) = stage.glob(f"state/runs/*/{CHECKPOINT}")
    before = pd.read_csv(checkpoint.with_name(HISTORY))
    assert len(before) < EPOCHS
    assert start_stage(output).wait() == 0, output.read_text()
    after = pd.read_csv(stage / "runs/smoke/train/baseline/seed-0" / HISTORY)
    assert len(after) == EPOCHS
    kept = [list(rows["time_ms"][: len(before) - 1]) for rows in (before, after)]
    assert kept[0] == kept[1] != []


LEFT_OVER = [
    pytest.param({"RANK": "1"}, marks=pytest.mark.slow),
    {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},  # no address to meet at
    pytest.param({"RANK": "1", "WORLD_SIZE": "2"}, marks=pytest.mark.slow),
    pytest.param({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "RANK": "1"}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("variables", LEFT_OVER, ids=lambda variables: " ".join(variables))
def test_variables_that_another_launcher_left_do_not_keep_a_stage_from_writing_what_it_promises(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    make_stage(tmp_path, seeds=[0], train={"epochs": 1})
    done = python("-m", "stages.train", cwd=tmp_path, ALEXNET_STATE=str(tmp_path / "state"), **variables)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/smoke/train/baseline/seed-0"
    assert {path.name for path in folder.iterdir()} == {"run.json", "history.csv", "model.safetensors", "SHA256SUMS"}


def test_a_stage_that_has_not_written_all_that_it_promises_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.runs.publish", lambda run, out: None)
    with pytest.raises(RuntimeError, match="the stage has not written runs/smoke/train/baseline/seed-0/SHA256SUMS"):
        train_variant(tiny_params(seeds=[0], train={"epochs": 1}), "baseline")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"},
            r"3 processes were started .* hardware\.devices × hardware\.nodes = 1 × 1",
        ),
        (dict.fromkeys(VARIABLES, "1"), "RANK=1 WORLD_SIZE=1: accepted is a rank from 0 to 0"),
    ],
)
def test_a_launchers_variables_that_do_not_fit_are_one_message(
    store: Store, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        train(a_run(store))
