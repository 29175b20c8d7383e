"""Optuna tunes a variant without a look at test images.

Two objectives: a variant that trains to the end gets the learning rate and weight decay of least validation error;
one that stops at a training error (Figure 1) gets the learning rate that reaches it in the fewest epochs.

In a SQLite file a study goes on by batches of trials, and one that was interrupted ends as an undisturbed one would:
each trial's sampler is seeded by its batch and its place in it. On a PostgreSQL server any number of workers share a
study (server.py).
"""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from ruamel.yaml import YAML
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import Params, Settings, Tune
from pipeline.runtime.checksums import write_sums
from pipeline.runtime.files import replacing_folder, write_text
from pipeline.runtime.locks import locked
from pipeline.runtime.random_streams import seed_of
from pipeline.training.fingerprint import fingerprint
from pipeline.training.pool import Task, Tell, run_tasks
from pipeline.training.run import HISTORY, RUN, Run, train
from pipeline.training.runs import bytes_of
from pipeline.tuning import server
from pipeline.tuning.objective import LEAST_ERROR, SOONEST_GOAL, Objective, Pruning

COLUMNS = [
    *("number", "state", "lr", "weight_decay", "objective", "value", "epochs", "seconds", "curve"),
    *("start_ms", "end_ms", "fingerprint", "worker", "study"),
]
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Study:
    """What is tuned: one variant of a configuration."""

    params: Params
    variant: str

    @property
    def base(self) -> Settings:
        return self.params.settings(self.variant, {"train": {"epochs": self.params.tune.epochs}})

    @property
    def objective(self) -> Objective:
        return LEAST_ERROR if self.base.train.stop_at_train_error is None else SOONEST_GOAL

    @property
    def paper_values(self) -> dict[str, float]:
        return {name: getattr(self.base.train, name) for name in self.objective.tuned}

    def settings(self, values: Mapping[str, float]) -> Settings:
        return self.params.settings(self.variant, {"train": {"epochs": self.params.tune.epochs, **values}})


def tune(params: Params) -> None:
    """Write `best.yaml` (what variants take over) and `trials.csv` (every trial) of each study that a variant names."""
    paths.tune(params.scale, "").mkdir(parents=True, exist_ok=True)  # before the work: it may not be writable
    for study in params.used_studies():
        tune_variant(params, study)


def tune_variant(params: Params, variant: str) -> None:
    """Write one study's files."""
    subject = Study(params, variant)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    best, trials = subject.paper_values, pd.DataFrame(columns=COLUMNS)
    if params.tune.trials:
        try:
            study = _finished_study(subject)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = str(error.__cause__ or error).split("\n", 1)[0]
            raise UserError(
                f"{make_url(_storage(params))}: the tuning study cannot be kept there ({reason}); mend that, or name "
                "another tune.storage; finished trials are kept"
            ) from error
        best = {name: study.best_params[name] for name in subject.objective.tuned}
        trials = _table(study, subject.objective)
    with replacing_folder(paths.tune(params.scale, variant)) as out:
        write_text(out / "trials.csv", trials.to_csv(index=False))
        YAML().dump({"train": best}, out / "best.yaml")
        write_sums(out, "trials.csv", "best.yaml")


def _finished_study(subject: Study) -> optuna.Study:
    tune, store = subject.params.tune, Store.open(paths.data(subject.params.data.dataset))
    how = tune.model_dump(exclude={"trials", "storage", "studies"})
    identity = [fingerprint(subject.base, tune.seed, store, subject.params.hardware.of_one_process), how]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    if subject.params.tune.on_server:
        return _shared_study(subject, store, name)
    with locked(paths.state() / f"tune-{name}.lock", f"{subject.params.scale} tune {subject.variant}"):
        study = _study(subject.params, name)
        while (done := len(study.get_trials(states=FINISHED))) < tune.trials:
            _train_batch(study, subject, store, done)
        return study


def _train_batch(study: optuna.Study, subject: Study, store: Store, done: int) -> None:
    """Ask for a batch of trials, train them side by side, and tell their values in the order of their numbers.

    What a trial is depends on finished batches alone: so a study gives the same answer on any number of workers. A
    batch that was interrupted is asked for again, with the values that it had.
    """
    tune = subject.params.tune
    unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    first = min((trial.user_attrs.get("batch", done) for trial in unfinished), default=done)
    told = {trial.user_attrs.get("place") for trial in _of_batch(study, first)}
    places = [place for place in range(min(tune.batch, tune.trials - first)) if place not in told]
    asked = _ask(study, subject, unfinished, first, places)
    snapshot = [trial for trial in study.get_trials(states=FINISHED) if trial.user_attrs.get("batch") != first]
    tasks = []
    for trial in asked:
        run = _run(subject, store, trial.params, trial.number)
        trial.set_user_attr("fingerprint", run.fingerprint)
        trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
        work = partial(train_trial, run, dict(trial.params), snapshot, tune, subject.objective)
        tasks.append(Task(str(run), work, run.settings.train.epochs))
    hardware, title = subject.params.hardware.of_one_process, f"{subject.params.scale} tune {subject.variant}"
    outcomes = run_tasks(tasks, hardware, bytes_of(subject.base), title, "epoch")
    for trial, outcome in zip(asked, outcomes, strict=True):
        for epoch, value in enumerate(outcome.curve, start=1):
            trial.report(value, epoch)
        for name in ("seconds", "start_ms", "end_ms"):
            trial.set_user_attr(name, getattr(outcome, name))
        if outcome.value is None:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, outcome.value)


def _of_batch(study: optuna.Study, first: int) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(states=FINISHED) if trial.user_attrs.get("batch") == first]


def _ask(
    study: optuna.Study, subject: Study, unfinished: list[FrozenTrial], first: int, places: list[int]
) -> list[Trial]:
    """The trials of a batch: those that were interrupted, with their values, and those not asked for yet."""
    tune, names = subject.params.tune, set(subject.objective.tuned)
    again = {}
    for trial in unfinished:
        place = trial.user_attrs.get("place")
        values = trial.system_attrs.get("fixed_params", trial.params)
        if place in places and set(values) == names:
            again[place] = values
        study.tell(trial.number, state=TrialState.FAIL)
    if first == 0 and 0 in places:
        again[0] = subject.paper_values  # the first trial has the paper's values
    distributions: dict[str, BaseDistribution] = {}
    for name in subject.objective.tuned:
        low, high = getattr(tune, name)
        distributions[name] = FloatDistribution(low, high, log=True)
    asked = {}
    for place in sorted(places, key=lambda place: (place not in again, place)):
        if place in again:
            study.enqueue_trial(again[place])
        study.sampler = _sampler(subject.params, first + place)
        asked[place] = study.ask(distributions)
        asked[place].set_user_attr("batch", first)
        asked[place].set_user_attr("place", place)
    return [asked[place] for place in places]


@dataclass(frozen=True)
class Outcome:
    """What came of a trial. `value`: None where it was pruned. `curve`: what is watched, after each epoch."""

    value: float | None
    curve: list[float]
    seconds: float
    start_ms: int
    end_ms: int


def train_trial(
    run: Run, values: dict[str, float], finished: list[FrozenTrial], tune: Tune, goal: Objective, tell: Tell
) -> Outcome:
    """Train one trial's run. Whether it is pruned depends on the trials that had finished before its batch."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # of this process, a worker
    study = optuna.create_study(direction="minimize", pruner=_pruner(tune))
    study.add_trials(finished)
    study.enqueue_trial(values)
    trial, started_ms = study.ask(), int(time.time() * 1000)
    value: float | None = None
    try:
        folder = train(run, [Pruning(trial, goal)], tell, wait=False)
        history, facts = pd.read_csv(folder / HISTORY), json.loads((folder / RUN).read_text())
        value, started_ms = goal.value(history, facts), facts["started_ms"]
    except optuna.TrialPruned:
        history = pd.read_csv(run.folder / HISTORY)
        shutil.rmtree(run.folder)
    curve = [float(error) for error in history[goal.monitor]]
    end_ms = int(history["time_ms"].iloc[-1]) if len(history) else started_ms
    return Outcome(value, curve, round(float(history["seconds"].sum()), 1), started_ms, end_ms)


def _shared_study(subject: Study, store: Store, name: str) -> optuna.Study:
    """Take part in a study until it has tune.trials finished trials, never more: a trial begins under the server's
    lock, and where the finished ones and those under way are fewer."""
    params, waits = subject.params, False
    with server.locked(_storage(params)):
        study = _study(params, name)
        study.enqueue_trial(subject.paper_values, skip_if_exists=True)
    while True:
        with ExitStack() as lock:
            lock.enter_context(server.locked(_storage(params)))
            server.retry_failed(study)
            done, running = (len(study.get_trials(states=states)) for states in (FINISHED, (TrialState.RUNNING,)))
            if done >= params.tune.trials:
                return study
            if done + running < params.tune.trials:
                study.sampler = _sampler(params, len(study.get_trials()))
                server.run_trial(study, partial(_value, subject=subject, store=store, begun=lock.close))
                continue
        if not waits:
            print(
                f"{params.scale} tune {subject.variant}: {running} trials are under way elsewhere; waiting", flush=True
            )
            waits = True
        time.sleep(server.LOOK_S)


def _study(params: Params, name: str) -> optuna.Study:
    url = _storage(params)
    return optuna.create_study(
        study_name=name,
        storage=server.storage(url) if params.tune.on_server else url,
        direction="minimize",
        pruner=_pruner(params.tune),
        load_if_exists=True,
    )


def _pruner(tune: Tune) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(tune.random_trials, tune.warmup_epochs)


def _storage(params: Params) -> str:
    """The address of the database that keeps the studies. Braces are encoded: Optuna would fill them in."""
    given = params.tune.storage
    address = paths.from_root(given) if given else paths.sqlite_address(paths.state() / "optuna.db")
    return address.replace("{", "%7B").replace("}", "%7D")


def _sampler(params: Params, finished: int) -> optuna.samplers.TPESampler:
    seed = seed_of("tuning", params.tune.seed, finished)
    return optuna.samplers.TPESampler(n_startup_trials=params.tune.random_trials, seed=seed)


def _run(subject: Study, store: Store, values: Mapping[str, float], number: int) -> Run:
    params, title = subject.params, f"{subject.variant} trial {number}"
    hardware = params.hardware.of_one_process
    return Run(params.scale, title, "5", params.tune.seed, subject.settings(values), store, hardware)


def _value(trial: Trial, subject: Study, store: Store, begun: Callable[[], None]) -> float:
    """What the run of a trial of a shared study is worth. `begun` is called once the trial has its values."""
    params, goal = subject.params, subject.objective
    values = {name: trial.suggest_float(name, *getattr(params.tune, name), log=True) for name in goal.tuned}
    run = _run(subject, store, values, trial.number)
    trial.set_user_attr("fingerprint", run.fingerprint)
    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    begun()
    try:
        facts = json.loads((train(run, [Pruning(trial, goal)]) / RUN).read_text())
    except optuna.TrialPruned:
        shutil.rmtree(run.folder)
        raise
    return goal.value(pd.read_csv(run.folder / HISTORY), facts)


def _table(study: optuna.Study, objective: Objective) -> pd.DataFrame:
    rows = [_row(trial) | {"objective": objective.name, "study": study.study_name} for trial in study.get_trials()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    start, end = trial.datetime_start, trial.datetime_complete
    times = {
        "seconds": round((end - start).total_seconds(), 1) if start and end else None,
        "start_ms": int(start.timestamp() * 1000) if start else None,
        "end_ms": int(end.timestamp() * 1000) if end else None,
    }
    times |= {name: trial.user_attrs[name] for name in times if name in trial.user_attrs}  # of its run alone
    return {
        "number": trial.number,
        "state": trial.state.name,
        **{name: trial.params.get(name) for name in ("lr", "weight_decay")},
        "value": trial.value if trial.value is not None else (curve[-1] if curve else None),
        "epochs": len(curve),
        "curve": " ".join(f"{value:.2f}" for value in curve),
        **times,
        **{name: trial.user_attrs.get(name) for name in ("fingerprint", "worker")},
    }
