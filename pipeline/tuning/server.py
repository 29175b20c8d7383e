"""A study on a PostgreSQL server, shared by tuning workers on any number of machines.

Workers have no file in common, so that the server keeps the lock under which a trial begins, and the heartbeats that
tell a dead worker's trial from one that is under way. Such a trial is failed, and its values are tried again.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import Trial, TrialState
from sqlalchemy import NullPool, create_engine, text

from pipeline.errors import UserError

HEARTBEAT_S, GRACE_S = 20, 120  # a worker that was not heard of for the latter is dead
LOOK_S = 5.0  # between two looks at whether others' trials have ended
RETRIES = 3  # of the same values

warnings.filterwarnings("ignore", category=ExperimentalWarning)  # of heartbeats, which Optuna has had since 2.5


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold the server's lock on all studies. It ends with the connection, however the process ends.

    Raises UserError where the driver is missing, SQLAlchemyError where the server cannot be used.
    """
    try:
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    except ImportError as error:
        raise UserError(
            f"tune.storage: {error.name} is not installed; `pip install -c constraints.txt -e .[cluster]` brings the "
            "driver of postgresql+psycopg:// URLs"
        ) from error
    with engine.connect() as connection:
        connection.execute(text("select pg_advisory_lock(hashtext('alexnet tuning'))"))
        yield


def storage(url: str) -> RDBStorage:
    """Optuna's tables on the server, made if need be: call it under the lock."""
    kwargs = {"pool_pre_ping": True}  # a training outlasts many a connection
    return RDBStorage(url, kwargs, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)


def retry_failed(study: optuna.Study) -> None:
    """Fail the trials of dead workers, and queue the values of each failed one again. Call it under the lock.

    A trial without its worker's name was cut off as it began, which happens under the lock: nobody is at it any more.
    """
    fail_stale_trials(study)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if "worker" not in trial.user_attrs:
            study.tell(trial.number, state=TrialState.FAIL)
    again, trials = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES), study.get_trials()
    retried = {number for trial in trials for number in again.retry_history(trial)}
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.number not in retried:
            trial.user_attrs = {}  # the next worker writes its own
            again(study, trial)


def run_trial(study: optuna.Study, objective: Callable[[Trial], float]) -> None:
    """One trial, with heartbeats. Its outcome is dropped where others took this worker for dead and try its values."""
    lost = False

    def watched(trial: Trial) -> float:
        nonlocal lost
        try:
            return objective(trial)
        finally:
            lost = study.get_trials()[trial.number].state == TrialState.FAIL

    try:
        study.optimize(watched, n_trials=1)
    except (ValueError, UpdateFinishedTrialError):
        if not lost:
            raise
        print(f"a trial's outcome is dropped: silent for {GRACE_S} s, this worker was taken for dead", flush=True)
