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
from pipeline.training.run import CHECKPOINT, HISTORY, RUN, WEIGHTS, Run, train
from tests.test_training import NUMBERS
from tests.tiny import CPU, make_store, settings
from tests.tiny_params import make_stage, tiny_params, train_variant

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-4  # of a weight tensor's norm: sums in another order, as other numbers of threads give (test_training)

# Two runs: one to its end over plateaus, with dropout; one that diverges. 50 images in batches of 16 leave a last one
# of 2, where four processes have nothing to cut.
TRAINING = """
import json, os, sys
from pathlib import Path
from pipeline.data.store import Store
from pipeline.runtime.exit_status import exit_status
from pipeline.training.run import Run, train
from tests.tiny import CPU, settings

def main():
    store = Store.open(Path("prepared/fashion_mnist"))
    hardware = CPU.model_copy(update={"devices": int(os.environ["WORLD_SIZE"])})
    for changes in json.loads(sys.argv[1]):
        train(Run("smoke", "baseline", "3", 0, settings(train=changes), store, hardware))

sys.exit(exit_status(main))
"""
PLATEAUS = {"epochs": 5, "patience_epochs": 1, "lr": 1e-5}
WILD = {"lr": 1e6}
EPOCHS = 20


def together(processes: int, *trainings: dict[str, float]) -> list[subprocess.Popen[str]]:
    """TRAINING as so many processes, started as torchrun would."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, json.dumps(trainings)],
            env=os.environ | shared | size | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]


def a_run(store: Store, training: dict[str, float], processes: int = 1) -> Run:
    hardware = CPU.model_copy(update={"devices": processes})
    return Run("smoke", "baseline", "3", 0, settings(train=training), store, hardware)


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
    shared, failed = (a_run(store, training, processes).folder for training in (PLATEAUS, WILD))
    monkeypatch.setenv("ALEXNET_STATE", "alone")
    alone, alone_failed = train(a_run(store, PLATEAUS)), train(a_run(store, WILD))

    ours, theirs = (pd.read_csv(folder / HISTORY)[NUMBERS] for folder in (alone, shared))
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
    make_stage(
        workplace,
        train=training,
        seeds=[0],
        hardware={"accelerator": "cpu", "threads": 1, "devices": 2},
    )
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
    [
        ("the stage", signal.SIGTERM, 143),
        ("one of two", signal.SIGKILL, 137),
        ("the stage", signal.SIGKILL, -9),
    ],
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
    {"RANK": "1"},
    {"RANK": "1", "WORLD_SIZE": "2"},
    {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},  # no address to meet at
    {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "RANK": "1"},
]


@pytest.mark.parametrize("variables", LEFT_OVER, ids=lambda variables: " ".join(variables))
def test_variables_that_another_launcher_left_do_not_keep_a_stage_from_writing_what_it_promises(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    make_stage(tmp_path, seeds=[0], train={"epochs": 1})
    done = subprocess.run(
        [sys.executable, "-m", "stages.train"],
        cwd=tmp_path,
        env=os.environ | variables | {"ALEXNET_STATE": str(tmp_path / "state")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/smoke/train/baseline/seed-0"
    assert {path.name for path in folder.iterdir()} == {"run.json", "history.csv", "model.safetensors", "SHA256SUMS"}


def test_a_stage_that_has_not_written_all_that_it_promises_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.runs.publish", lambda run, out: None)
    with pytest.raises(RuntimeError, match="the stage has not written runs/smoke/train/baseline/seed-0/SHA256SUMS"):
        train_variant(tiny_params(seeds=[0], train={"epochs": 1}), "baseline")


def test_another_number_of_processes_than_the_configuration_names_is_one_message(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(UserError, match=r"3 processes were started .* hardware\.devices × hardware\.nodes = 1 × 1"):
        train(a_run(store, {}))


def test_a_rank_beyond_the_group_is_one_message(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match="RANK=1 WORLD_SIZE=1: accepted is a rank from 0 to 0"):
        train(a_run(store, {}))
