"""`dvc repro` of the smoke scale, killed and called again."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import psutil
import pytest

from pipeline.training.run import HISTORY, WEIGHTS
from tests.clone import digests, environment, make_clone, run, stages_run, tried
from tests.processes import heeding_ctrl_c

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(600)]

KILLS, SEED = 20, 0

# Loaded by every Python process: a stage's kills it and its `dvc` right before a certain file takes its place.
KILLER = """
import os, signal, sys

def kill(event, arguments):
    if event == "os.rename" and "DVC_STAGE" in os.environ and str(arguments[1]).endswith(os.environ["KILL_BEFORE"]):
        os.killpg(0, signal.SIGKILL)

sys.addaudithook(kill)
"""


@pytest.fixture(scope="module", autouse=True)
def _settled(clone: Path) -> Iterator[None]:
    """What is trained by force here has new times in its files: other tests find all stages up to date."""
    yield
    run(clone, "dvc", "repro")


@contextmanager
def repro(clone: Path, *arguments: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dvc repro` in a session of its own; whatever it leaves is killed at the end."""
    with output_of(clone).open("w") as output, errors_of(clone).open("w") as errors:
        dvc = subprocess.Popen(
            ["dvc", "repro", *arguments],
            cwd=clone,
            env=environment(PYTHONUNBUFFERED="1", **more),
            stdout=output,
            stderr=errors,
            start_new_session=True,
            preexec_fn=heeding_ctrl_c,
        )
    try:
        yield dvc
    finally:
        for process in group(dvc.pid):
            process.kill()
        dvc.wait()


def output_of(clone: Path) -> Path:
    return clone.with_name(f"{clone.name}.output")


def errors_of(clone: Path) -> Path:
    return clone.with_name(f"{clone.name}.errors")


def group(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def wait_until(condition: Callable[[], object], dvc: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert dvc.poll() is None, "it ended before that"
        time.sleep(0.01)


def at_instant(clone: Path, dvc: subprocess.Popen[bytes], stages: int, seconds: float) -> bool:
    """Wait until that many stages have been started and those seconds have passed then; False if dvc ends before."""
    instant = None
    while dvc.poll() is None:
        if instant is None and len(stages_run(output_of(clone).read_text())) >= stages:
            instant = time.monotonic() + seconds
        if instant is not None and time.monotonic() >= instant:
            return True
        time.sleep(0.01)
    return False


def left_over(clone: Path) -> list[str]:
    """Temporary names, of ours and of the libraries, anywhere but where git and DVC keep house."""
    places = [path for path in clone.iterdir() if path.name not in (".git", ".dvc")]
    found = [path for place in places for path in [place, *place.rglob("*")]]
    patterns = ("partial", "tmp", "journal", "-wal", "-shm")
    return [str(p.relative_to(clone)) for p in found if any(part in p.name for part in patterns)]


def held_locks(state: Path) -> list[str]:
    """Lock files that a process still holds."""
    return [str(path) for path in state.rglob("*.lock") if subprocess.run(["flock", "-n", path, "true"]).returncode]


@pytest.mark.parametrize(
    ("stage", "before"),
    [
        ("prepare", "prepared/fashion_mnist"),
        ("tune", "tune/baseline"),
        ("train", WEIGHTS),
        ("evaluate", "predictions.parquet"),
        ("report", "reports/smoke"),
    ],
)
def test_a_stage_killed_with_everything_done_and_nothing_in_place_ends_with_the_same_bytes_when_run_again(
    clone: Path, tmp_path: Path, stage: str, before: str
) -> None:
    undisturbed = digests(clone)
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    state, arguments = str(tmp_path / "state"), ("--force", "--single-item", stage)
    with repro(clone, *arguments, ALEXNET_STATE=state, PYTHONPATH=str(tmp_path), KILL_BEFORE=before) as dvc:
        dvc.wait()
        assert dvc.returncode == -signal.SIGKILL
    assert digests(clone) != undisturbed
    run(clone, "dvc", "repro", *arguments, ALEXNET_STATE=state)
    assert digests(clone) == undisturbed
    assert left_over(clone) == left_over(tmp_path) == []


def test_after_ctrl_c_the_shell_sees_dvcs_status_and_the_stages_message(clone: Path, tmp_path: Path) -> None:
    undisturbed = digests(clone)
    state, arguments = tmp_path / "state", ("--force", "--single-item", "train")
    with repro(clone, *arguments, ALEXNET_STATE=str(state)) as dvc:
        wait_until(lambda: list(state.glob(f"runs/*/{HISTORY}")), dvc)
        everybody = group(dvc.pid)
        os.killpg(dvc.pid, signal.SIGINT)  # as a terminal does
        dvc.wait()
        assert dvc.returncode == 255
        assert psutil.wait_procs(everybody, timeout=60)[1] == []
    errors = errors_of(clone).read_text()
    assert "of 3 epochs are kept; `dvc repro` goes on" in errors
    assert re.search(r"exited with (130|-2)$", errors, re.MULTILINE)  # -2 is a shell's own end (dash), not the stage's
    assert "Traceback" not in errors
    run(clone, "dvc", "repro", *arguments, ALEXNET_STATE=str(state))
    assert digests(clone) == undisturbed


def test_a_stage_whose_dvc_is_killed_stops_before_it_is_done(clone: Path, tmp_path: Path) -> None:
    undisturbed = digests(clone)
    state, arguments = tmp_path / "state", ("--force", "--single-item", "train")
    with repro(clone, *arguments, ALEXNET_STATE=str(state)) as dvc:
        wait_until(lambda: list(state.glob(f"runs/*/{HISTORY}")), dvc)
        stage = [process for process in group(dvc.pid) if process.pid != dvc.pid]
        dvc.kill()
        dvc.wait()
        assert psutil.wait_procs(stage, timeout=60)[1] == []
    assert "stopped by SIGTERM" in errors_of(clone).read_text()
    assert not list(clone.glob("runs/smoke/train/baseline/seed-1"))
    run(clone, "dvc", "repro", *arguments, ALEXNET_STATE=str(state))
    assert digests(clone) == undisturbed


def test_a_second_dvc_says_who_is_at_work_and_leaves_it_alone(clone: Path, tmp_path: Path) -> None:
    undisturbed = digests(clone)
    state, arguments = tmp_path / "state", ("--force", "--single-item", "train")
    with repro(clone, *arguments, ALEXNET_STATE=str(state)) as first:
        wait_until(lambda: stages_run(output_of(clone).read_text()), first)
        second = tried(clone, "dvc", "repro", *arguments)
        first.wait()
    assert (first.returncode, second.returncode) == (0, 255)
    assert f"(PID {first.pid}): " in second.stderr
    assert "is busy, it is being blocked by" in second.stderr
    assert digests(clone) == undisturbed


@pytest.mark.timeout(1800)
def test_killed_at_random_instants_it_ends_as_if_undisturbed(
    clone: Path, tmp_path: Path, faults: Callable[[str, int], None]
) -> None:
    make_clone(tmp_path / "clone")
    victim, rng, hit = tmp_path / "clone", random.Random(SEED), Counter[tuple[str, str]]()
    while hit.total() < KILLS:
        run(victim, sys.executable, "-m", "pipeline", "check")  # as `make repro` does
        with repro(victim) as dvc:
            # Some seconds into the first stage that runs, or into the second, so that it gets on in the long run.
            if at_instant(victim, dvc, stages=rng.choice((0, 1, 2, 2)), seconds=rng.uniform(0, 7)):
                whole = rng.random() < 0.5
                os.killpg(dvc.pid, signal.SIGKILL) if whole else dvc.kill()
                dvc.wait()
                # Without its dvc, a stage stops by itself.
                assert psutil.wait_procs(group(dvc.pid), timeout=120)[1] == []
                stage = (stages_run(output_of(victim).read_text()) or ["before a stage"])[-1].partition("@")[0]
                hit[stage, "dvc and stage" if whole else "dvc only"] += 1
                continue
        assert dvc.returncode == 0, errors_of(victim).read_text()
        for folder in ("prepared", "runs", ".state", ".dvc/cache"):  # it came through: once more from the start
            shutil.rmtree(victim / folder)
        (victim / "dvc.lock").unlink()
    run(victim, sys.executable, "-m", "pipeline", "check")
    run(victim, "dvc", "repro")
    assert digests(victim) == digests(clone)
    assert left_over(victim) == held_locks(victim / ".state") == []
    run(victim, sys.executable, "-m", "pipeline", "sync")
    client = mlflow.MlflowClient(f"sqlite:///{victim / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("alexnet").experiment_id])
    fingerprints = [found.data.tags["alexnet.fingerprint"] for found in runs]
    assert len(fingerprints) == len(set(fingerprints)) >= 6
    assert {found.info.status for found in runs} == {"FINISHED"}
    assert stages_run(run(victim, "dvc", "repro")) == []
    for (stage, killed), times in hit.items():
        faults(f"{stage}, {killed}", times)
