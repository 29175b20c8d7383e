"""What makes one trial better than another, and when a trial is given up."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import optuna
import pandas as pd
import pytorch_lightning as pl
from optuna.trial import Trial

from pipeline.training.callbacks import History


@dataclass(frozen=True)
class Objective:
    """What a finished run is worth; less is better."""

    name: str
    monitor: str  # column of history.csv that is reported to a trial after each epoch
    tuned: tuple[str, ...]  # settings under `train`

    def value(self, history: pd.DataFrame, facts: Mapping[str, Any]) -> float:
        """The last error, %, of which a run that diverged has 100. On the way to a goal: the epochs it took, or, where
        it was not reached, all epochs there are, and a fraction by the error."""
        error = float(history[self.monitor].iloc[-1]) if facts["status"] == "finished" else 100.0
        if self is LEAST_ERROR:
            return error
        epochs = int(facts["settings"]["train"]["epochs"])
        return float(len(history)) if facts["stopped"] == "goal" else epochs + error / 100

    def hopeless(self, best: float, epoch: int) -> bool:
        """Whether a trial that has come to this epoch cannot beat the best one any more."""
        return self is SOONEST_GOAL and epoch >= best


LEAST_ERROR = Objective("val_error_top1", "val_error_top1", ("lr", "weight_decay"))
SOONEST_GOAL = Objective("epochs_to_goal", "train_error_top1", ("lr",))


class Pruning(pl.Callback):
    """Reports each epoch's error to the trial and stops it where it does worse than most, or cannot win any more."""

    def __init__(self, trial: Trial, objective: Objective) -> None:
        self._trial, self._objective, self._reported = trial, objective, 0
        self._best = float("inf")
        with suppress(ValueError):  # no trial is complete yet
            self._best = trial.study.best_value

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (history,) = (callback for callback in trainer.callbacks if isinstance(callback, History))  # type: ignore[attr-defined]
        for row in history.rows[self._reported :]:  # the first time all, since a resumed trial has a new number
            self._trial.report(row[self._objective.monitor], int(row["epoch"]))
        self._reported = len(history.rows)
        if trainer.should_stop:
            return
        if self._trial.should_prune() or self._objective.hopeless(self._best, self._reported):
            raise optuna.TrialPruned
