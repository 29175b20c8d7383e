import json
import os
import pickle
import re
import signal
import socket
from datetime import datetime, timedelta
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
import pytorch_lightning as pl

from pipeline import paths, tuning
from pipeline.data.store import Store
from pipeline.params import Params, read_yaml
from pipeline.tracking import store as tracking
from pipeline.training.runs import variant_settings
from tests.tiny_params import TUNE, tiny_params


def trials() -> pd.DataFrame:
    return pd.read_csv(paths.tune("smoke", "baseline") / "trials.csv")


def study() -> optuna.Study:
    return optuna.load_study(study_name=trials()["study"][0], storage=f"sqlite:///{paths.state() / 'optuna.db'}")


def test_no_trials_hand_on_the_papers_values(store: Store) -> None:
    tuning.tune_variant(tiny_params(), "baseline")
    assert read_yaml(paths.tune("smoke", "baseline") / "best.yaml") == {"train": {"lr": 0.01, "weight_decay": 0.0005}}
    assert trials().empty


def made_up_study(complete: int) -> optuna.Study:
    """A study whose outcome the learning rate alone decides."""
    spaces = {
        "lr": optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True),
        "weight_decay": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True),
    }
    made, rng = optuna.create_study(), np.random.default_rng(0)
    for lr, decay in 10 ** rng.uniform((-3, -5), (-1, -2), (complete, 2)):
        value = 20 + 8 * np.log10(lr / 0.02) ** 2
        made.add_trial(optuna.create_trial(params={"lr": lr, "weight_decay": decay}, distributions=spaces, value=value))
    return made


def test_with_enough_trials_the_value_that_decides_has_the_larger_importance() -> None:
    assert tuning._importance(made_up_study(tuning.WEIGHED - 1)).empty
    found = tuning._importance(made_up_study(tuning.WEIGHED)).set_index("value")["share"]
    assert found["lr"] > 0.8
    assert found.sum() == pytest.approx(1, abs=1e-3)


def test_trial_0_has_the_papers_values_and_tuned_trains_with_the_best_trials_and_nothing_else_changed(
    store: Store,
) -> None:
    params = tiny_params(tune=TUNE)
    tuning.tune_variant(params, "baseline")
    first = trials().iloc[0]
    assert (first["number"], first["lr"], first["weight_decay"]) == (0, 0.01, 0.0005)
    finished = [trial for trial in study().get_trials() if trial.state.name == "COMPLETE"]
    best = min(finished, key=lambda trial: (trial.value, trial.number)).params
    assert read_yaml(paths.tune("smoke", "baseline") / "best.yaml") == {"train": best}
    assert list(trials()) == tuning.COLUMNS
    assert list(trials()["state"].isin(["COMPLETE", "PRUNED"])) == [True] * 4
    complete = trials().query("state == 'COMPLETE'")
    for value, curve, run in zip(complete["value"], complete["curve"], complete["fingerprint"], strict=True):
        errors = pd.read_csv(paths.state() / "runs" / run / "history.csv")["val_error_top1"]
        assert value == errors.iloc[-1]
        assert curve == " ".join(f"{error:.2f}" for error in errors)
    for _, trial in complete.iterrows():
        folder = paths.state() / "runs" / trial["fingerprint"]
        history, facts = pd.read_csv(folder / "history.csv"), json.loads((folder / "run.json").read_text())
        assert trial["seconds"] == pytest.approx(history["seconds"].sum(), abs=0.06)
        assert (trial["start_ms"], trial["end_ms"]) == (facts["started_ms"], history["time_ms"].iloc[-1])
        assert re.fullmatch(rf"{re.escape(socket.gethostname())}:\d+", trial["worker"])
    tuned, baseline = variant_settings(params, "tuned"), variant_settings(params, "baseline")
    assert (tuned.train.lr, tuned.train.weight_decay) == (best["lr"], best["weight_decay"])
    assert tuned.model_copy(update={"train": baseline.train}) == baseline


def test_each_finished_trial_is_one_line_with_its_error_and_its_place_among_all(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    tuning.tune_variant(tiny_params(tune=TUNE | {"trials": 2}), "baseline")
    lines = [re.sub(r"\d\d:\d\d", "time", line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        f"smoke baseline trial {n}, seed 5: 2 epochs, validation error {value:.1f} %, time ({n + 1} of 2)"
        for n, value in enumerate(trials()["value"])
    ]


@pytest.mark.parametrize(("objective", "worth"), [(tuning.LEAST_ERROR, 30.5), (tuning.SOONEST_GOAL, 2.305)])
def test_in_a_worker_process_a_trial_is_worth_what_it_is_worth_in_this_one(
    objective: tuning.Objective, worth: float
) -> None:
    history = pd.DataFrame({"val_error_top1": [40.0, 30.5], "train_error_top1": [40.0, 30.5]})
    facts = {"status": "finished", "stopped": "epochs", "settings": {"train": {"epochs": 2}}}
    copy = pickle.loads(pickle.dumps(objective))
    assert copy is not objective
    for one in (objective, copy):
        assert one.value(history, facts) == worth
        assert one.hopeless(best=3, epoch=3) == (objective == tuning.SOONEST_GOAL)


@pytest.mark.parametrize("workers", [1, 2])
def test_on_any_number_of_workers_a_trials_value_is_its_last_error(store: Store, workers: int) -> None:
    hardware = {"accelerator": "cpu", "threads": 1, "workers": workers}
    tuning.tune_variant(tiny_params(tune=TUNE | {"trials": 2, "batch": 2}, hardware=hardware), "baseline")
    assert trials()["value"].tolist() == [float(curve.split()[-1]) for curve in trials()["curve"]]


def test_a_row_of_trials_csv_says_what_came_of_a_trial_that_ended_early() -> None:
    began, values = datetime(2012, 9, 30, 12), {"lr": 0.02, "weight_decay": 0.001}
    spaces = {name: optuna.distributions.FloatDistribution(1e-6, 1) for name in values}
    state, curve = optuna.trial.TrialState.PRUNED, {1: 60.0, 2: 40.5}
    pruned = optuna.trial.create_trial(state=state, params=values, distributions=spaces, intermediate_values=curve)
    pruned.datetime_start, pruned.datetime_complete = began, began + timedelta(seconds=90)
    row = tuning._row(pruned)
    assert (row["state"], row["value"], row["epochs"], row["curve"]) == ("PRUNED", 40.5, 2, "60.00 40.50")
    assert (row["seconds"], row["end_ms"] - row["start_ms"]) == (90, 90_000)
    pruned.set_user_attr("seconds", 12.5)  # of its run, where that is known
    assert tuning._row(pruned)["seconds"] == 12.5


def test_of_an_interrupted_batch_only_what_had_not_ended_is_asked_for_again_with_its_values(workplace: Path) -> None:
    subject, made = tuning.Subject(tiny_params(tune=TUNE | {"batch": 3}), "baseline"), optuna.create_study()
    batch, asked = tuning._ask(made, subject, done=0)
    made.tell(asked[1], 50.0)
    again, left = tuning._ask(made, subject, done=1)
    assert (again, [trial.user_attrs["place"] for trial in left]) == (batch, [0, 2])
    assert [trial.params for trial in left] == [asked[0].params, asked[2].params]


def test_a_study_says_what_it_is_about_and_other_settings_make_another_one(store: Store) -> None:
    tuning.tune_variant(tiny_params(tune=TUNE | {"trials": 1}), "baseline")
    first = study()
    assert re.fullmatch(r"smoke/baseline/[0-9a-f]{8}", first.study_name)
    assert first.metric_names == ["val_error_top1"]
    assert (first.user_attrs["scale"], first.user_attrs["variant"]) == ("smoke", "baseline")
    assert first.user_attrs["settings"]["train"]["epochs"] == TUNE["epochs"]
    tuning.tune_variant(tiny_params(tune=TUNE | {"trials": 1, "epochs": 1}), "baseline")
    assert len({first.study_name, study().study_name}) == 2


def test_an_interrupted_study_ends_with_the_same_best_values(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    params = tiny_params(tune=TUNE)

    class Deadly(tuning.Pruning):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            if self._trial.number == 2 and trainer.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGKILL)

    if (victim := os.fork()) == 0:
        try:
            tuning.Pruning = Deadly  # type: ignore[misc]
            tuning.tune_variant(params, "baseline")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) == -signal.SIGKILL
    tuning.tune_variant(params, "baseline")
    interrupted = trials()
    assert list(interrupted["state"]).count("FAIL") == 1
    monkeypatch.setenv("ALEXNET_STATE", "undisturbed")
    best = (paths.tune("smoke", "baseline") / "best.yaml").read_text()
    tuning.tune_variant(params, "baseline")
    assert (paths.tune("smoke", "baseline") / "best.yaml").read_text() == best
    columns = ["state", "lr", "weight_decay", "value", "curve", "fingerprint"]
    settled = interrupted[interrupted["state"] != "FAIL"][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(settled, trials()[columns])


@pytest.mark.usefixtures("mlflow_tables")
def test_every_trial_is_a_child_of_the_studys_mlflow_run(store: Store) -> None:
    tuning.tune_variant(tiny_params(tune=TUNE), "baseline")
    assert tracking.sync() == 5
    client = mlflow.MlflowClient(paths.mlflow_store())
    runs = client.search_runs([client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id])
    (parent,) = (run for run in runs if run.info.run_name == "tune smoke baseline")
    children = {run.info.run_name: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    assert sorted(children) == [f"baseline trial {k}" for k in range(4)]
    assert children["baseline trial 0"].data.params == {"train.lr": "0.01", "train.weight_decay": "0.0005"}
    curve = [float(value) for value in trials().loc[0, "curve"].split()]
    history = client.get_metric_history(children["baseline trial 0"].info.run_id, "val_error_top1")
    assert [metric.value for metric in history] == curve
    assert tracking.sync() == 0


def test_a_diverging_trial_counts_as_all_wrong_and_is_not_chosen(store: Store) -> None:
    params = tiny_params(tune=TUNE | {"trials": 1, "lr": [0.01, 1e7]}, train={"lr": 1e6})
    tuning.tune_variant(params, "baseline")
    assert trials()["value"].tolist() == [100.0]


def test_the_same_trials_are_not_run_again_when_more_are_asked_for(store: Store) -> None:
    tuning.tune_variant(tiny_params(tune=TUNE | {"trials": 2}), "baseline")
    before = trials()
    tuning.tune_variant(tiny_params(tune=TUNE | {"trials": 3}), "baseline")
    pd.testing.assert_frame_equal(trials().iloc[:2], before)
    assert len(trials()) == 3


def goal_params(error: float) -> Params:
    """A study of a variant that stops at a training error; these made-up images are learned in an epoch or two."""
    recipe = {"title": "x", "section": "3", "description": "x"}
    goal = {"train": {"stop_at_train_error": error, "lr_drops": 0}}
    variants = {"baseline": {**recipe, "set": {}}, "fast": {**recipe, "set": goal}}
    return tiny_params(tune=TUNE | {"epochs": 3}, variants=variants)


def test_a_variant_with_a_goal_is_tuned_to_reach_it_in_the_fewest_epochs(store: Store) -> None:
    tuning.tune_variant(goal_params(99.9), "fast")
    table = pd.read_csv(paths.tune("smoke", "fast") / "trials.csv")
    assert set(table["objective"]) == {"epochs_to_goal"}
    complete = table[table["state"] == "COMPLETE"]
    assert complete.iloc[0]["value"] == 1  # any net is right about one image in a thousand at once
    best = read_yaml(paths.tune("smoke", "fast") / "best.yaml")["train"]
    assert set(best) == {"lr"}
    assert best["lr"] == complete.loc[complete["value"].idxmin(), "lr"]
    assert table["weight_decay"].isna().all()


def test_a_goal_that_is_never_reached_is_worth_all_the_epochs_and_a_fraction(store: Store) -> None:
    tuning.tune_variant(goal_params(0.001), "fast")
    complete = pd.read_csv(paths.tune("smoke", "fast") / "trials.csv").query("state == 'COMPLETE'")
    assert complete["value"].between(3, 4).all()
    assert (complete["epochs"] == 3).all()


def test_a_trial_that_can_no_longer_win_is_ended() -> None:
    assert not tuning.SOONEST_GOAL.hopeless(best=7, epoch=6)
    assert tuning.SOONEST_GOAL.hopeless(best=7, epoch=7)
    assert not tuning.LEAST_ERROR.hopeless(best=7, epoch=70)
