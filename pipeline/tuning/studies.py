"""Optuna tunes a variant without a look at test images.

Two objectives: a variant that trains to the end gets the learning rate and weight decay of least validation error;
one that stops at a training error (Figure 1) gets the learning rate that reaches it in the fewest epochs.

In a SQLite file a study runs one trial at a time, and one that was interrupted ends as an undisturbed one would: each
trial's sampler is seeded by the number of trials finished before it, and the trial that was under way is failed and its
values tried again under the same seed. On a PostgreSQL server any number of workers share a study (server.py).
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
from optuna.trial import FrozenTrial, Trial, TrialState
from ruamel.yaml import YAML
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from pipeline import paths
from pipeline.checksums import write_sums
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.files import replacing, write_text
from pipeline.locks import locked
from pipeline.params import Params, Settings
from pipeline.training.fingerprint import fingerprint
from pipeline.training.module import derived_seed
from pipeline.training.run import Run, train
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


def tune(params: Params, variant: str) -> None:
    """Write `best.yaml` (what variants take over) and `trials.csv` (every trial with its state)."""
    params.require_variant(variant)
    if variant not in params.tune.studies:
        raise UserError(f"tune.studies = {params.tune.studies}: accepted is a list that names {variant!r}")
    subject = Study(params, variant)
    out = paths.tune(params.scale, variant)
    out.mkdir(parents=True, exist_ok=True)  # before the work: it may not be writable
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
    write_text(out / "trials.csv", trials.to_csv(index=False))
    with replacing(out / "best.yaml") as temporary:
        YAML().dump({"train": best}, temporary)
    write_sums(out, "trials.csv", "best.yaml")


def _finished_study(subject: Study) -> optuna.Study:
    tune, store = subject.params.tune, Store.open(paths.data(subject.params.data.dataset))
    how = tune.model_dump(exclude={"trials", "storage", "studies"})
    identity = [fingerprint(subject.base, tune.seed, store), how]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    if subject.params.tune.on_server:
        return _shared_study(subject, store, name)
    with locked(paths.state() / f"tune-{name}.lock", f"{subject.params.scale} tune {subject.variant}"):
        study = _study(subject.params, name)
        _fail_interrupted(study, subject.objective)
        study.enqueue_trial(subject.paper_values, skip_if_exists=True)
        while (done := len(study.get_trials(states=FINISHED))) < tune.trials:
            study.sampler = _sampler(subject.params, done)
            trial = study.ask()
            try:
                study.tell(trial, _value(trial, subject, store))
            except optuna.TrialPruned:
                study.tell(trial, state=TrialState.PRUNED)
        return study


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
        pruner=optuna.pruners.MedianPruner(params.tune.random_trials, params.tune.warmup_epochs),
        load_if_exists=True,
    )


def _storage(params: Params) -> str:
    return params.tune.storage or f"sqlite:///{paths.state() / 'optuna.db'}"


def _sampler(params: Params, finished: int) -> optuna.samplers.TPESampler:
    seed = derived_seed(params.tune.seed, finished)
    return optuna.samplers.TPESampler(n_startup_trials=params.tune.random_trials, seed=seed)


def _fail_interrupted(study: optuna.Study, objective: Objective) -> None:
    waiting = [trial.system_attrs["fixed_params"] for trial in study.get_trials(states=(TrialState.WAITING,))]
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        values = trial.system_attrs.get("fixed_params", trial.params)
        # Without values it was cut off before it had any, and the same seed draws the same.
        if set(values) == set(objective.tuned) and values not in waiting:
            study.enqueue_trial(values)
        study.tell(trial.number, state=TrialState.FAIL)


def _value(trial: Trial, subject: Study, store: Store, begun: Callable[[], None] = lambda: None) -> float:
    """What the trial's run is worth. `begun` is called once the trial has its values, before the training."""
    params, goal = subject.params, subject.objective
    values = {name: trial.suggest_float(name, *getattr(params.tune, name), log=True) for name in goal.tuned}
    title = f"{subject.variant} trial {trial.number}"
    run = Run(params.scale, title, "5", params.tune.seed, subject.settings(values), store, params.hardware)
    trial.set_user_attr("fingerprint", run.fingerprint)
    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    begun()
    try:
        facts = json.loads((train(run, [Pruning(trial, goal)]) / "run.json").read_text())
    except optuna.TrialPruned:
        shutil.rmtree(run.folder)
        raise
    return goal.value(pd.read_csv(run.folder / "history.csv"), facts)


def _table(study: optuna.Study, objective: Objective) -> pd.DataFrame:
    rows = [_row(trial) | {"objective": objective.name, "study": study.study_name} for trial in study.get_trials()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    start, end = trial.datetime_start, trial.datetime_complete
    return {
        "number": trial.number,
        "state": trial.state.name,
        **{name: trial.params.get(name) for name in ("lr", "weight_decay")},
        "value": trial.value if trial.value is not None else (curve[-1] if curve else None),
        "epochs": len(curve),
        "seconds": round((end - start).total_seconds(), 1) if start and end else None,
        "curve": " ".join(f"{value:.2f}" for value in curve),
        "start_ms": int(start.timestamp() * 1000) if start else None,
        "end_ms": int(end.timestamp() * 1000) if end else None,
        **{name: trial.user_attrs.get(name) for name in ("fingerprint", "worker")},
    }
