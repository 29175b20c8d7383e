"""Tuning workers that share a study on a real PostgreSQL server."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from pipeline import paths, tuning
from pipeline.data.store import Store
from pipeline.params import read_yaml
from tests.processes import environment, process, wait_for
from tests.servers import postgres
from tests.tiny_params import TUNE, tiny_params

URL = "postgresql+psycopg:///optuna"
TRIALS, WORKERS = 16, 8
SHARED = TUNE | {"storage": URL, "trials": TRIALS, "random_trials": 4}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# It trains in a folder of its own, as on a machine of its own, and stops in its first trial until told to go on.
WORKER = """
import os, sys, time
from pathlib import Path
from pipeline import tuning
from tests.test_tuning_workers import SHARED
from tests.tiny_params import tiny_params

tuning.HEARTBEAT_S, tuning.GRACE_S, tuning.LOOK_S = 1, 8, 0.5
os.environ["ALEXNET_STATE"] = f"state-{sys.argv[1]}"

class Held(tuning.Pruning):
    def on_train_batch_end(self, *args):
        Path(f"ready-{sys.argv[1]}").write_text(str(self._trial.number))
        while not Path("go").exists():
            time.sleep(0.1)

tuning.Pruning = Held
tuning.paths.tune = lambda scale, study: Path(f"out-{sys.argv[1]}")
tuning.tune_variant(tiny_params(tune=SHARED), "baseline")
"""


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with postgres() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield


def the_study() -> optuna.Study:
    (name,) = optuna.get_all_study_names(URL)
    return optuna.load_study(study_name=name, storage=URL)


def test_eight_workers_share_a_study_and_one_that_is_killed_leaves_its_values_to_the_others(
    store: Store, database: None
) -> None:
    one_thread = environment(OMP_NUM_THREADS="1")
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(k)], env=one_thread) for k in range(WORKERS)]
    killed, paused = 3, 5
    try:
        while len(list(Path().glob("ready-*"))) < WORKERS:  # each is in a trial of its own
            assert [worker.poll() for worker in workers] == [None] * WORKERS
            time.sleep(0.2)
        lost = int(Path(f"ready-{killed}").read_text())
        dropped = int(Path(f"ready-{paused}").read_text())
        workers[killed].send_signal(signal.SIGKILL)
        workers[paused].send_signal(signal.SIGSTOP)
        Path("go").touch()
        while the_study().get_trials()[dropped].state != TrialState.FAIL:  # taken for dead
            time.sleep(0.5)
        workers[paused].send_signal(signal.SIGCONT)
        assert [worker.wait(400) for worker in workers] == [0] * killed + [-signal.SIGKILL] + [0] * (
            WORKERS - killed - 1
        )
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    trials = the_study().get_trials()
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    finished = [trial for trial in trials if trial.state in tuning.FINISHED]
    assert len(finished) == TRIALS
    assert [trial.number for trial in trials if trial.state == TrialState.FAIL] == sorted({lost, dropped})
    for number in (lost, dropped):
        (again,) = (t for t in finished if t.params == trials[number].params)
        assert again.user_attrs["fingerprint"] == trials[number].user_attrs["fingerprint"]
        assert again.user_attrs["worker"] != trials[number].user_attrs["worker"]
    papers = [t for t in finished if t.params == {"lr": 0.01, "weight_decay": 0.0005}]
    assert len(papers) == 1
    assert len({tuple(t.params.items()) for t in finished}) == TRIALS
    assert len({t.user_attrs["worker"] for t in trials}) == WORKERS
    answers = {Path(f"out-{k}/best.yaml").read_text() for k in range(WORKERS) if k != killed}
    assert len(answers) == 1
    assert read_yaml(Path("out-0/best.yaml")) == {"train": the_study().best_params}
    assert pd.read_csv("out-0/trials.csv")["worker"].nunique() == WORKERS


def test_a_worker_that_was_cut_off_as_its_trial_began_or_fails_leaves_nothing_running(
    store: Store, database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tiny_params(tune=SHARED | {"trials": 2})
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "train", lambda *_: (_ for _ in ()).throw(OSError("disk is full")))
        with pytest.raises(OSError, match="disk is full"):
            tuning.tune_variant(params, "baseline")
    the_study().ask()  # by a process that then dies
    tuning.tune_variant(params, "baseline")
    states = [trial.state.name for trial in the_study().get_trials()]
    assert states.count("FAIL") == 2
    assert sum(state in ("COMPLETE", "PRUNED") for state in states) == 2
    assert len(states) == 4
    table = pd.read_csv(paths.tune("smoke", "baseline") / "trials.csv")
    assert table.loc[table["state"] != "FAIL", "lr"].iloc[0] == 0.01  # the paper's, that failed at first


def test_the_servers_lock_ends_with_the_process_that_holds_it(store: Store, database: None) -> None:
    held = f"with tuning.server_lock({URL!r}): print(flush=True); time.sleep(99)"
    code = f"import time\nfrom pipeline import tuning\n{held}"
    with process("-c", code) as holder:
        wait_for(holder.stdout, "")
        until = time.monotonic() + 1
        holder.send_signal(signal.SIGKILL)
        with tuning.server_lock(URL):
            assert time.monotonic() < until + 10
