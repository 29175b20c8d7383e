"""Runs as jobs: of submitit's local executor, and of a real Slurm."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import params, paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.training.run import HISTORY, WEIGHTS, train
from pipeline.training.runs import variant_runs
from tests.clone import ROOT
from tests.slurm import slurm
from tests.tiny import a_run, numbers
from tests.tiny_params import make_stage, train_variant

cluster = pytest.importorskip("pipeline.tools.submit", reason="needs `pip install -e '.[cluster]'`")
pytestmark = pytest.mark.timeout(900)

TRAINING = {"epochs": 15, "patience_epochs": 15}


@pytest.fixture(scope="module")
def real_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slurm(tmp_path_factory.mktemp("slurm")):
        yield


def trained(folder: Path, seeds: int) -> dict[Path, int]:
    """When the weights of each finished run were written."""
    found = {path: path.stat().st_mtime_ns for path in folder.glob(f".state/runs/*/{WEIGHTS}")}
    assert len(found) == seeds
    return found


@pytest.mark.slow
def test_what_jobs_have_trained_the_stage_finds_finished(workplace: Path) -> None:
    make_stage(workplace)
    configuration = params.load.__wrapped__()
    for job in cluster.submit(configuration, "local", {"timeout_min": 60}):
        job.result()
    before = trained(workplace, seeds=2)
    assert cluster.submit(configuration, "local", {}) == []
    train_variant(configuration, "baseline")
    assert trained(workplace, seeds=2) == before
    for run in variant_runs(configuration, "baseline"):
        out = paths.seed("smoke", "baseline", run.seed)
        assert (out / WEIGHTS).read_bytes() == (run.folder / WEIGHTS).read_bytes()


def test_what_a_cluster_cannot_be_asked_for_is_named(workplace: Path) -> None:
    make_stage(workplace)
    configuration = params.load.__wrapped__()
    threads = configuration.hardware.model_copy(update={"threads": None})
    with pytest.raises(UserError, match=r"^hardware.threads = null: accepted here is a number"):
        cluster.submit_to_slurm(configuration.model_copy(update={"hardware": threads}), [])


def wait_for_rows(folder: Path, rows: int) -> Path:
    """The history of a run that has come so far."""
    for _ in range(6000):
        for path in folder.glob(f".state/runs/*/{HISTORY}"):
            if len(pd.read_csv(path)) >= rows:
                return path
        time.sleep(0.05)
    raise AssertionError(logs(folder))


def wait_until_over(folder: Path) -> None:
    while subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout:
        time.sleep(0.5)


def logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-2000:] for path in [*folder.glob("*.out"), *folder.glob(".state/jobs/*.*t")])


def restarts(job: str) -> list[int]:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return [int(number) for number in re.findall(r"Restarts=(\d+)", shown)]


@pytest.mark.slow
def test_an_array_of_three_runs_one_of_them_preempted(
    workplace: Path, real_slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_stage(workplace, train=TRAINING, seeds=[0, 1, 2])
    submit = [sys.executable, "-m", "pipeline", "submit", "--slurm", "time=60"]
    printed = subprocess.run(submit, capture_output=True, text=True, check=True).stdout
    assert "3 of 3 runs submitted" in printed
    (job,) = re.findall(r"Slurm job (\d+);", printed)
    wait_for_rows(workplace, 3)
    subprocess.run(["scancel", "--signal=USR2", f"{job}_0"], check=True)
    wait_until_over(workplace)
    assert sorted(restarts(job)) == [0, 0, 1], logs(workplace)
    before = trained(workplace, seeds=3)
    subprocess.run([sys.executable, "-m", "stages.train"], check=True)
    assert trained(workplace, seeds=3) == before
    store = Store.open(paths.data("fashion_mnist"))
    monkeypatch.setenv("ALEXNET_STATE", "undisturbed")
    for seed in range(3):
        undisturbed = train(a_run(store, seed, train=TRAINING)) / WEIGHTS
        assert (paths.seed("smoke", "baseline", seed) / WEIGHTS).read_bytes() == undisturbed.read_bytes()


@pytest.mark.slow
def test_a_job_of_two_processes_is_requeued_shortly_before_its_time_is_up_and_goes_on(
    workplace: Path, real_slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware = {"accelerator": "cpu", "threads": 1, "devices": 2}
    make_stage(workplace, train=TRAINING, seeds=[0], hardware=hardware)
    batch = ["sbatch", "--parsable", str(ROOT / "cluster/train.sbatch")]
    environment = os.environ | {"PROCESSES": "2"}
    job = subprocess.run(batch, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    history = wait_for_rows(workplace, 3)
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)  # as --signal has Slurm do
    while restarts(job) != [1]:
        time.sleep(0.2)
    before = pd.read_csv(history)
    assert len(before) < TRAINING["epochs"], logs(workplace)
    wait_until_over(workplace)
    after = pd.read_csv(paths.seed("smoke", "baseline", 0) / HISTORY)
    assert list(after["time_ms"][: len(before)]) == list(before["time_ms"]), logs(workplace)
    store = Store.open(paths.data("fashion_mnist"))
    monkeypatch.setenv("ALEXNET_STATE", "alone")
    alone = numbers(train(a_run(store, train=TRAINING)))
    np.testing.assert_allclose(numbers(paths.seed("smoke", "baseline", 0)), alone, rtol=1e-4, atol=2e-4)
