"""Optuna chooses each study's learning rate (and weight decay) on validation data. This file alone imports Optuna.

There are two objectives. A variant that trains to the end gets the learning rate and weight decay of least validation
error. A variant that stops at a training error (Figure 1) gets the learning rate that reaches it in the fewest epochs.

A study in a SQLite file goes on by batches of trials. Each trial's sampler is seeded by the trial's place, and sees
finished batches only: a study gives the same answer on any number of workers, and after an interruption. A study on a
PostgreSQL server is shared by workers on any number of machines (last section).
"""

import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
import pandas as pd
import pytorch_lightning as pl
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState
from ruamel.yaml import YAML
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import Params, Settings, Tune
from pipeline.runtime.checksums import write_sums
from pipeline.runtime.files import replacing_folder, write_text
from pipeline.runtime.locks import locked
from pipeline.runtime.random_streams import seed_of
from pipeline.runtime.source_code import digest
from pipeline.training.callbacks import History
from pipeline.training.fingerprint import fingerprint
from pipeline.training.pool import Task, Tell, run_tasks
from pipeline.training.run import HISTORY, RUN, Run, train
from pipeline.training.runs import announce, bytes_of

COLUMNS = [
    *("number", "state", "lr", "weight_decay", "objective", "value", "epochs", "seconds", "curve"),
    *("start_ms", "end_ms", "fingerprint", "worker", "study"),
]
IMPORTANCE = "importance.csv"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT_S, GRACE_S = 20, 120  # on a server, a worker that is silent for GRACE_S is taken for dead
LOOK_S = 5.0  # between two looks at whether the trials of other workers have ended
NAME_DIGITS = 8  # of a study's identity, in its name: settings that differ make another study
VALUES = 2  # raised where what a trial is worth is computed otherwise: studies with older values are made again
RETRIES = 3  # of the values of a dead worker's trial
# Where the rate alone decides, PED-ANOVA gives it the larger share in half of all studies of 10 complete trials (as a
# coin would), in 77 % of those of 12, 87 % of 20 and 95 % of 30 (60 simulated studies each).
WEIGHED = 20  # complete trials, from which on the importance of each tuned value is computed

warnings.filterwarnings("ignore", category=ExperimentalWarning)  # about heartbeats and names of metrics: long there


@dataclass(frozen=True)
class Objective:
    """What makes one trial better than another. Less is better."""

    name: str
    monitor: str  # column of history.csv that is reported to a trial after each epoch
    tuned: tuple[str, ...]  # settings under `train`

    def value(self, history: pd.DataFrame, facts: Mapping[str, Any]) -> float:
        """Return what a finished run is worth.

        For LEAST_ERROR it is the last error in %, or 100 if the run diverged. For SOONEST_GOAL it is the number of
        epochs to the goal. A run that missed the goal is worth all its epochs and a fraction that grows with its error.
        """
        error = float(history[self.monitor].iloc[-1]) if facts["status"] == "finished" else 100.0
        if self == LEAST_ERROR:  # not `is`: in a worker process it is a copy
            return error
        epochs = int(facts["settings"]["train"]["epochs"])
        return float(len(history)) if facts["stopped"] == "goal" else epochs + error / 100

    def hopeless(self, best: float, epoch: int) -> bool:
        """Return whether a trial that is still running at `epoch` can no longer beat the best one."""
        return self == SOONEST_GOAL and epoch >= best


LEAST_ERROR = Objective("val_error_top1", "val_error_top1", ("lr", "weight_decay"))
SOONEST_GOAL = Objective("epochs_to_goal", "train_error_top1", ("lr",))


class Pruning(pl.Callback):
    """Reports each epoch's error to the trial, and ends a trial that does worse than most or can no longer win."""

    def __init__(self, trial: Trial, objective: Objective) -> None:
        self._trial, self._objective, self._reported = trial, objective, 0
        self._best = float("inf")
        with suppress(ValueError):  # no trial is complete yet
            self._best = trial.study.best_value

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (history,) = (callback for callback in trainer.callbacks if isinstance(callback, History))  # type: ignore[attr-defined]
        for row in history.rows[self._reported :]:  # at first all rows, since a resumed trial has a new number
            self._trial.report(row[self._objective.monitor], int(row["epoch"]))
        self._reported = len(history.rows)
        if trainer.should_stop:
            return
        if self._trial.should_prune() or self._objective.hopeless(self._best, self._reported):
            raise optuna.TrialPruned


@dataclass(frozen=True)
class Subject:
    """One variant of a configuration that is tuned."""

    params: Params
    variant: str

    def __str__(self) -> str:
        return f"{self.params.scale} tune {self.variant}"

    def settings(self, values: Mapping[str, float]) -> Settings:
        return self.params.settings(self.variant, {"train": {"epochs": self.params.tune.epochs, **values}})

    @property
    def objective(self) -> Objective:
        return LEAST_ERROR if self.settings({}).train.stop_at_train_error is None else SOONEST_GOAL

    @property
    def paper_values(self) -> dict[str, float]:
        return {name: getattr(self.settings({}).train, name) for name in self.objective.tuned}

    @property
    def url(self) -> str:
        """The address of the database that keeps the study. Braces are encoded, as Optuna would fill them in."""
        given = self.params.tune.storage
        address = paths.from_root(given) if given else paths.sqlite_address(paths.state() / "optuna.db")
        return address.replace("{", "%7B").replace("}", "%7D")

    def start_trial(self, trial: Trial, store: Store) -> Run:
        """Return the run of a trial that has its values, and note in the database which run it is and who trains it."""
        params = self.params
        title, hardware = f"{self.variant} trial {trial.number}", params.hardware.of_one_process
        run = Run(params.scale, title, "5", params.tune.seed, self.settings(trial.params), store, hardware)
        trial.set_user_attr("fingerprint", run.fingerprint)
        trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
        announce(run, "trial")
        return run


def tune(params: Params) -> None:
    """Write `best.yaml` (what variants take over) and `trials.csv` (every trial) of each study that a variant names."""
    paths.tune(params.scale, "").mkdir(parents=True, exist_ok=True)  # before the work: it may not be writable
    for study in params.studies:
        tune_variant(params, study)


def tune_variant(params: Params, variant: str) -> None:
    """Write one study's files. Raises UserError where the database of the study cannot be used.

    Beside `best.yaml` and `trials.csv` a study with WEIGHED complete trials has `importance.csv`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    subject = Subject(params, variant)
    best, trials, importance = subject.paper_values, pd.DataFrame(columns=COLUMNS), pd.DataFrame()
    if params.tune.trials:
        store = Store.open(paths.data(params.data.dataset))
        how = params.tune.model_dump(exclude={"trials", "storage"})
        run = fingerprint(subject.settings({}), params.tune.seed, store, params.hardware.of_one_process)
        name = f"{params.scale}/{variant}/{digest([VALUES, run, how])[:NAME_DIGITS]}"
        try:
            study = (_share_study if params.tune.on_server else _finish_study)(subject, store, name)
        except (SQLAlchemyError, StorageInternalError) as error:
            reason = str(error.__cause__ or error).split("\n", 1)[0]
            raise UserError(
                f"{make_url(subject.url)}: the tuning study cannot be kept there ({reason}); mend that, or name "
                "another tune.storage; finished trials are kept"
            ) from error
        best = {name: study.best_params[name] for name in subject.objective.tuned}
        rows = [_row(trial) | {"objective": subject.objective.name, "study": name} for trial in study.get_trials()]
        trials, importance = pd.DataFrame(rows, columns=COLUMNS), _importance(study)
    with replacing_folder(paths.tune(params.scale, variant)) as out:
        write_text(out / "trials.csv", trials.to_csv(index=False))
        YAML().dump({"train": best}, out / "best.yaml")
        if len(importance):
            write_text(out / IMPORTANCE, importance.to_csv(index=False))
        write_sums(out, "trials.csv", "best.yaml", IMPORTANCE)


def _importance(study: optuna.Study) -> pd.DataFrame:
    """Return the share of each tuned value in the outcome, by PED-ANOVA; no row for few trials or a single value."""
    complete = study.get_trials(states=[TrialState.COMPLETE])
    if len(complete) < WEIGHED or len(complete[0].params) < 2:
        return pd.DataFrame()
    shares = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    return pd.DataFrame({"value": list(shares), "share": [round(share, 4) for share in shares.values()]})


def _row(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's row of trials.csv. Its times are those of its run, where they are known, else the trial's."""
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    start, end = trial.datetime_start, trial.datetime_complete
    times = {
        "seconds": round((end - start).total_seconds(), 1) if start and end else None,
        "start_ms": int(start.timestamp() * 1000) if start else None,
        "end_ms": int(end.timestamp() * 1000) if end else None,
    }
    return {
        "number": trial.number,
        "state": trial.state.name,
        **{name: trial.params.get(name) for name in ("lr", "weight_decay")},
        "value": trial.value if trial.value is not None else (curve[-1] if curve else None),
        "epochs": len(curve),
        "curve": " ".join(f"{value:.2f}" for value in curve),
        **{name: trial.user_attrs.get(name, time) for name, time in times.items()},
        **{name: trial.user_attrs.get(name) for name in ("fingerprint", "worker")},
    }


def _open_study(subject: Subject, name: str, storage: str | RDBStorage) -> optuna.Study:
    """Create the study, or load it, and say in it what it is about."""
    study = optuna.create_study(
        study_name=name, storage=storage, pruner=_pruner(subject.params.tune), load_if_exists=True
    )
    study.set_metric_names([subject.objective.name])
    facts = {"scale": subject.params.scale, "variant": subject.variant, "settings": subject.settings({}).model_dump()}
    for key, value in facts.items():
        study.set_user_attr(key, value)
    return study


def _pruner(tune: Tune) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(tune.random_trials, tune.warmup_epochs)


def _sampler(tune: Tune, place: int) -> optuna.samplers.TPESampler:
    return optuna.samplers.TPESampler(n_startup_trials=tune.random_trials, seed=seed_of("tuning", tune.seed, place))


# ---- A study in a SQLite file: batches of trials, side by side -------------------------------------------------------


def _finish_study(subject: Subject, store: Store, name: str) -> optuna.Study:
    tune = subject.params.tune
    with locked(paths.state() / f"tune-{name.replace('/', '-')}.lock", str(subject)):
        study = _open_study(subject, name, subject.url)
        while (done := len(study.get_trials(states=FINISHED))) < tune.trials:
            _train_batch(study, subject, store, done)
        return study


def _train_batch(study: optuna.Study, subject: Subject, store: Store, done: int) -> None:
    """Ask for a batch of trials, train them side by side, and tell their values in the order of their numbers."""
    batch, asked = _ask(study, subject, done)
    finished = [trial for trial in study.get_trials(states=FINISHED) if trial.user_attrs.get("batch") != batch]
    tasks = []
    for trial in asked:
        run = subject.start_trial(trial, store)
        work = partial(train_trial, run, dict(trial.params), finished, subject.params.tune, subject.objective)
        tasks.append(Task(str(run), work, run.settings.train.epochs))
    hardware = subject.params.hardware.of_one_process
    says, task_bytes = partial(_told, subject.objective), bytes_of(subject.settings({}))
    outcomes = run_tasks(tasks, hardware, task_bytes, str(subject), "epoch", says, done, subject.params.tune.trials)
    for trial, outcome in zip(asked, outcomes, strict=True):
        for epoch, value in enumerate(outcome.curve, start=1):
            trial.report(value, epoch)
        for key in ("seconds", "start_ms", "end_ms"):
            trial.set_user_attr(key, getattr(outcome, key))
        study.tell(trial, outcome.value, TrialState.PRUNED if outcome.value is None else None)


def _ask(study: optuna.Study, subject: Subject, done: int) -> tuple[int, list[Trial]]:
    """Return the next batch's number (that of its first trial) and its trials, in the order of their places.

    An interrupted batch is asked for again: what had ended stays, what was under way gets the values that it had.
    """
    tune, tuned = subject.params.tune, subject.objective.tuned
    under_way = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    batch = min((trial.user_attrs.get("batch", done) for trial in under_way), default=done)
    ended = [trial.user_attrs for trial in study.get_trials(states=FINISHED)]
    told = {attributes.get("place") for attributes in ended if attributes.get("batch") == batch}
    places = [place for place in range(min(tune.batch, tune.trials - batch)) if place not in told]
    values: dict[int, dict[str, float]] = {}
    for trial in under_way:
        place, given = trial.user_attrs.get("place"), trial.system_attrs.get("fixed_params", trial.params)
        if place in places and set(given) == set(tuned):
            values[place] = given
        study.tell(trial.number, state=TrialState.FAIL)
    if batch == 0 and 0 in places:
        values[0] = subject.paper_values
    distributions: dict[str, BaseDistribution] = {}
    for name in tuned:
        low, high = getattr(tune, name)
        distributions[name] = FloatDistribution(low, high, log=True)
    asked = {}
    for place in sorted(places, key=lambda place: (place not in values, place)):
        if place in values:
            study.enqueue_trial(values[place])
        study.sampler = _sampler(tune, batch + place)
        asked[place] = study.ask(distributions)
        asked[place].set_user_attr("batch", batch)
        asked[place].set_user_attr("place", place)
    return batch, [asked[place] for place in places]


@dataclass(frozen=True)
class Outcome:
    """What came of a trial. `value`: None where it was pruned. `curve`: the monitored error after each epoch."""

    value: float | None
    curve: list[float]
    seconds: float
    start_ms: int
    end_ms: int


def _told(objective: Objective, outcome: Outcome) -> str:
    """Return what a finished trial's line says of it."""
    if outcome.value is None:
        return f"pruned at epoch {len(outcome.curve)}"
    what = "validation error {:.1f} %" if objective == LEAST_ERROR else "{:.2f} epochs to the goal"
    return f"{len(outcome.curve)} epochs, {what.format(outcome.value)}"


def train_trial(
    run: Run, values: dict[str, float], finished: list[FrozenTrial], tune: Tune, objective: Objective, tell: Tell
) -> Outcome:
    """Train one trial's run, in a worker. Whether it is pruned depends on the trials of `finished` batches only."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(pruner=_pruner(tune))
    study.add_trials(finished)
    study.enqueue_trial(values)
    trial, start_ms = study.ask(), int(time.time() * 1000)
    value: float | None = None
    try:
        folder = train(run, [Pruning(trial, objective)], tell, wait=False)
        history, facts = pd.read_csv(folder / HISTORY), json.loads((folder / RUN).read_text())
        value, start_ms = objective.value(history, facts), facts["started_ms"]
    except optuna.TrialPruned:
        history = pd.read_csv(run.folder / HISTORY)
        shutil.rmtree(run.folder)
    end_ms = int(history["time_ms"].iloc[-1]) if len(history) else start_ms
    curve = history[objective.monitor].astype(float).tolist()
    return Outcome(value, curve, round(float(history["seconds"].sum()), 1), start_ms, end_ms)


# ---- A study on a PostgreSQL server: workers on any number of machines -----------------------------------------------
#
# Workers have no file in common. So the server keeps the lock under which a trial begins, and the heartbeats that tell
# a dead worker's trial from one that is under way. A dead worker's trial is failed, and its values are tried again.


@contextmanager
def server_lock(url: str) -> Iterator[None]:
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


def _share_study(subject: Subject, store: Store, name: str) -> optuna.Study:
    """Take part in a study until it has tune.trials finished trials, never more.

    A trial begins under the server's lock, and only where the finished trials and those under way are fewer.
    """
    tune, waits = subject.params.tune, False
    with server_lock(subject.url):
        kwargs = {"pool_pre_ping": True}  # a training outlasts many a connection
        storage = RDBStorage(subject.url, kwargs, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
        study = _open_study(subject, name, storage)
        study.enqueue_trial(subject.paper_values, skip_if_exists=True)
    while True:
        with ExitStack() as lock:
            lock.enter_context(server_lock(subject.url))
            _retry_failed(study)
            done, running = (len(study.get_trials(states=states)) for states in (FINISHED, (TrialState.RUNNING,)))
            if done >= tune.trials:
                return study
            if done + running < tune.trials:
                study.sampler = _sampler(tune, len(study.get_trials()))
                _run_shared_trial(study, subject, store, begun=lock.close)
                continue
        if not waits:
            print(f"{subject}: {running} trials are under way elsewhere; waiting", flush=True)
            waits = True
        time.sleep(LOOK_S)


def _retry_failed(study: optuna.Study) -> None:
    """Fail the trials of dead workers, and queue the values of each failed trial again. Call it under the lock.

    A trial without its worker's name was cut off as it began. That happens under the lock, so its worker is dead.
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


def _run_shared_trial(study: optuna.Study, subject: Subject, store: Store, begun: Callable[[], None]) -> None:
    """Run one trial with heartbeats, and call `begun` once it has its values.

    Its outcome is dropped where other workers took this one for dead: they try its values again.
    """
    objective, lost = subject.objective, False

    def value(trial: Trial) -> float:
        nonlocal lost
        try:
            for name in objective.tuned:
                trial.suggest_float(name, *getattr(subject.params.tune, name), log=True)
            run = subject.start_trial(trial, store)
            begun()
            try:
                facts = json.loads((train(run, [Pruning(trial, objective)]) / RUN).read_text())
            except optuna.TrialPruned:
                shutil.rmtree(run.folder)
                raise
            return objective.value(pd.read_csv(run.folder / HISTORY), facts)
        finally:
            lost = study.get_trials()[trial.number].state == TrialState.FAIL

    try:
        study.optimize(value, n_trials=1)
    except (ValueError, UpdateFinishedTrialError):
        if not lost:
            raise
        print(f"a trial's outcome is dropped: silent for {GRACE_S} s, this worker was taken for dead", flush=True)
