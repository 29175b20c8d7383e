"""Optuna tunes learning rate and weight decay on validation data, one trial at a time.

A study that was interrupted ends as an undisturbed one would: each trial's sampler is seeded by the number of trials
finished before it, and the trial that was under way is failed and its values tried again under the same seed.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from typing import Any

import optuna
import pandas as pd
import pytorch_lightning as pl
from optuna.trial import FrozenTrial, Trial, TrialState
from ruamel.yaml import YAML
from sqlalchemy.exc import SQLAlchemyError

from pipeline import paths
from pipeline.checksums import write_sums
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.files import replacing, write_text
from pipeline.locks import locked
from pipeline.params import Params, Settings
from pipeline.training.callbacks import History
from pipeline.training.fingerprint import fingerprint
from pipeline.training.module import derived_seed
from pipeline.training.run import Run, train

TUNED = ("lr", "weight_decay")
COLUMNS = [
    *("number", "state", *TUNED, "val_error_top1", "epochs", "seconds", "curve"),
    *("start_ms", "end_ms", "fingerprint", "study"),
]


class Pruning(pl.Callback):
    """Reports each epoch's validation error to the trial and stops it where it does worse than most."""

    def __init__(self, trial: Trial) -> None:
        self._trial, self._reported = trial, 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (history,) = (callback for callback in trainer.callbacks if isinstance(callback, History))  # type: ignore[attr-defined]
        for row in history.rows[self._reported :]:  # the first time all, since a resumed trial has a new number
            self._trial.report(row["val_error_top1"], int(row["epoch"]))
        self._reported = len(history.rows)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def tune(params: Params) -> None:
    """Write `best.yaml` (what the tuned variant takes over) and `trials.csv` (every trial with its state)."""
    out = paths.tune(params.scale)
    out.mkdir(parents=True, exist_ok=True)  # before the work: it may not be writable
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    best, trials = {name: getattr(params.train, name) for name in TUNED}, pd.DataFrame(columns=COLUMNS)
    if params.tune.trials:
        try:
            study = _finished_study(params)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = str(error.__cause__ or error).split("\n", 1)[0]
            raise UserError(
                f"{_storage(params)}: the tuning study cannot be kept there ({reason}); mend that, or name another "
                "tune.storage; finished trials are kept"
            ) from error
        best = {name: study.best_params[name] for name in TUNED}
        trials = _table(study)
    write_text(out / "trials.csv", trials.to_csv(index=False))
    with replacing(out / "best.yaml") as temporary:
        YAML().dump({"train": best}, temporary)
    write_sums(out, "trials.csv", "best.yaml")


def _finished_study(params: Params) -> optuna.Study:
    store = Store.open(paths.data(params.data.dataset))
    settings = _trial_settings(params, {})
    identity = [fingerprint(settings, params.tune.seed, store), params.tune.model_dump(exclude={"trials", "storage"})]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    with locked(paths.state() / f"tune-{name}.lock", f"{params.scale} tune"):
        study = _study(params, name)
        _fail_interrupted(study)
        study.enqueue_trial({key: getattr(params.train, key) for key in TUNED}, skip_if_exists=True)
        while (done := len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))) < params.tune.trials:
            study.sampler = _sampler(params, done)
            _run_trial(study, params, store)
        return study


def _study(params: Params, name: str) -> optuna.Study:
    return optuna.create_study(
        study_name=name,
        storage=_storage(params),
        direction="minimize",
        pruner=optuna.pruners.MedianPruner(params.tune.random_trials, params.tune.warmup_epochs),
        load_if_exists=True,
    )


def _storage(params: Params) -> str:
    return params.tune.storage or f"sqlite:///{paths.state() / 'optuna.db'}"


def _sampler(params: Params, finished: int) -> optuna.samplers.TPESampler:
    seed = derived_seed(params.tune.seed, finished)
    return optuna.samplers.TPESampler(n_startup_trials=params.tune.random_trials, seed=seed)


def _fail_interrupted(study: optuna.Study) -> None:
    waiting = [trial.system_attrs["fixed_params"] for trial in study.get_trials(states=(TrialState.WAITING,))]
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        values = trial.system_attrs.get("fixed_params", trial.params)
        # Without values it was cut off before it had any, and the same seed draws the same.
        if set(values) == set(TUNED) and values not in waiting:
            study.enqueue_trial(values)
        study.tell(trial.number, state=TrialState.FAIL)


def _trial_settings(params: Params, values: Mapping[str, float]) -> Settings:
    return params.settings("baseline", {"train": {"epochs": params.tune.epochs, **values}})


def _run_trial(study: optuna.Study, params: Params, store: Store) -> None:
    trial = study.ask()
    ranges = {"lr": params.tune.lr, "weight_decay": params.tune.weight_decay}
    values = {name: trial.suggest_float(name, low, high, log=True) for name, (low, high) in ranges.items()}
    settings = _trial_settings(params, values)
    run = Run(params.scale, f"trial {trial.number}", "5", params.tune.seed, settings, store, params.hardware)
    trial.set_user_attr("fingerprint", run.fingerprint)
    try:
        facts = json.loads((train(run, [Pruning(trial)]) / "run.json").read_text())
    except optuna.TrialPruned:
        shutil.rmtree(run.folder)
        study.tell(trial, state=TrialState.PRUNED)
        return
    curve = pd.read_csv(run.folder / "history.csv")["val_error_top1"]
    study.tell(trial, float(curve.iloc[-1]) if facts["status"] == "finished" else 100.0)  # diverged: all wrong


def _table(study: optuna.Study) -> pd.DataFrame:
    rows = [_row(trial) | {"study": study.study_name} for trial in study.get_trials()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    start, end = trial.datetime_start, trial.datetime_complete
    return {
        "number": trial.number,
        "state": trial.state.name,
        **{name: trial.params.get(name) for name in TUNED},
        "val_error_top1": trial.value if trial.value is not None else (curve[-1] if curve else None),
        "epochs": len(curve),
        "seconds": round((end - start).total_seconds(), 1) if start and end else None,
        "curve": " ".join(f"{value:.2f}" for value in curve),
        "start_ms": int(start.timestamp() * 1000) if start else None,
        "end_ms": int(end.timestamp() * 1000) if end else None,
        "fingerprint": trial.user_attrs.get("fingerprint"),
    }
