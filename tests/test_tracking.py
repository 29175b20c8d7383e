"""MLflow read back through its own client."""

import json
import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.cli import cli

from pipeline import paths
from pipeline.claims.results import collect
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.tracking import store as tracking
from pipeline.tracking import sync
from pipeline.tracking.records import CURVES
from tests.mlflow_runs import assert_every_metric_is_there_once, client, stored_runs
from tests.processes import python
from tests.tiny_params import evaluate_variant, tiny_params, train_variant

pytestmark = pytest.mark.usefixtures("mlflow_tables")


def test_every_run_is_there_with_its_parameters_tags_and_curves(trained: Store) -> None:
    assert tracking.sync() == 2
    first, second = stored_runs()
    assert [run.info.run_name for run in (first, second)] == ["baseline seed 0", "baseline seed 1"]
    assert first.info.status == "FINISHED"
    assert first.data.params["train.lr"] == "0.01"
    assert first.data.params["net.norm_layers"] == "['conv1', 'conv2']"
    expected = {"scale": "smoke", "variant": "baseline", "seed": "0", "section": "3", "dvc_stage": ""}
    assert expected.items() <= first.data.tags.items()
    history = pd.read_csv(paths.seed("smoke", "baseline", 0) / "history.csv")
    for name in CURVES:
        curve = client().get_metric_history(first.info.run_id, name)
        assert [metric.step for metric in curve] == list(history["epoch"])
        assert [metric.value for metric in curve] == pytest.approx(list(history[name]))
        assert [metric.timestamp for metric in curve] == list(history["time_ms"])


def test_sending_twice_adds_nothing(trained: Store) -> None:
    tracking.sync()
    ids = [run.info.run_id for run in stored_runs()]
    assert tracking.sync() == 0
    client().set_tag(ids[0], "sent", "forgotten")  # as if the sending had been cut off before its last step
    assert tracking.sync() == 1
    assert [run.info.run_id for run in stored_runs()] == ids
    assert len(client().get_metric_history(ids[0], "val_loss")) == 3


def test_a_changed_parameter_is_a_new_run_beside_the_old_one(trained: Store) -> None:
    tracking.sync()
    train_variant(tiny_params(train={"lr": 0.02}), "baseline")
    tracking.sync()
    assert sorted(run.data.params["train.lr"] for run in stored_runs()) == ["0.01", "0.01", "0.02", "0.02"]


def test_what_evaluation_found_is_added_to_the_run_and_its_median_net_answers_as_the_trained_one(
    trained: Store,
) -> None:
    tracking.sync()
    evaluate_variant(tiny_params(), "baseline")
    tracking.sync()
    measured = json.loads((paths.evaluation("smoke", "baseline") / "seeds.json").read_text())
    first, second = stored_runs()
    for seed, of_seed in (("0", first), ("1", second)):
        for split, views in (("train", "one_crop"), ("val", "one_crop"), ("test", "one_crop"), ("test", "ten_crop")):
            for name, value in measured[seed][split][views].items():
                assert of_seed.data.metrics[f"{split}/{views}/{name}"] == pytest.approx(value)
    assert measured["0"]["test"] != measured["1"]["test"]
    (model,) = mlflow.search_logged_models([first.info.experiment_id], output_format="list")
    run = client().get_run(model.source_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["seed"] == str(collect(tiny_params(), Path()).median_seed("baseline"))
    seed = int(run.data.tags["seed"])
    assert run.data.tags["model"] == str(paths.seed("smoke", "baseline", seed))
    answers = mlflow.pyfunc.load_model(model.model_uri).predict(np.array(trained.split("test").images[..., 0]))
    labels = [int(max(answer, key=answer.get).removeprefix("class ")) for answer in answers]
    error = 100 * float((np.array(labels) != trained.split("test").labels).mean())
    assert error == pytest.approx(measured[str(seed)]["test"]["ten_crop"]["error_top1"])


def test_a_run_that_two_scales_share_is_one_run_that_names_both(trained: Store) -> None:
    train_variant(tiny_params(scale="embedded"), "baseline")
    tracking.sync()
    assert [run.data.tags["scale"] for run in stored_runs()] == ["embedded, smoke"] * 2


# ---- what somebody deleted in MLflow


def delete_experiment() -> None:
    client().delete_experiment(client().get_experiment_by_name(tracking.EXPERIMENT).experiment_id)


def assert_one_run_a_seed_with_its_curve_and_one_model() -> None:
    assert_every_metric_is_there_once()
    runs = stored_runs()
    models = mlflow.search_logged_models([runs[0].info.experiment_id], output_format="list")
    assert [model.source_run_id for model in models] == [run.info.run_id for run in runs if "model" in run.data.tags]


@pytest.fixture
def sent(evaluated: Store) -> None:
    tracking.sync()


def test_a_deleted_experiment_is_restored_with_its_runs_and_one_line_says_so(
    sent: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [run.info.run_id for run in stored_runs()]
    delete_experiment()
    train_variant(tiny_params(seeds=[2]), "baseline")
    capsys.readouterr()
    assert tracking.sync() == 1
    assert capsys.readouterr().err == "MLflow: the experiment alexnet had been deleted; it is restored with its runs\n"
    assert set(before) < {run.info.run_id for run in stored_runs()}
    assert tracking.sync() == 0


def test_a_deleted_run_is_made_again_and_stays_one_when_a_restored_experiment_brings_the_old_one_back(
    sent: None,
) -> None:
    (median,) = (run for run in stored_runs() if "model" in run.data.tags)
    client().delete_run(median.info.run_id)
    assert tracking.sync() == 1
    assert median.info.run_id not in {run.info.run_id for run in stored_runs()}
    delete_experiment()
    tracking.sync()
    assert_one_run_a_seed_with_its_curve_and_one_model()


def test_an_experiment_that_was_deleted_for_good_is_made_anew(sent: None) -> None:
    delete_experiment()
    uri = paths.mlflow_store()
    assert CliRunner().invoke(cli, ["gc", "--backend-store-uri", uri], env={"MLFLOW_TRACKING_URI": uri}).exit_code == 0
    assert client().get_experiment_by_name(tracking.EXPERIMENT) is None
    assert tracking.sync() == 2
    assert_one_run_a_seed_with_its_curve_and_one_model()


def test_of_two_senders_that_restore_the_experiment_at_once_both_go_on(
    sent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_experiment()
    restore = mlflow.MlflowClient.restore_experiment

    def second(self: mlflow.MlflowClient, experiment: str) -> None:
        restore(self, experiment)  # the other sender's
        restore(self, experiment)

    monkeypatch.setattr(mlflow.MlflowClient, "restore_experiment", second)
    assert tracking.sync() == 0
    assert_one_run_a_seed_with_its_curve_and_one_model()


def test_where_restoring_is_not_allowed_the_message_has_the_command(
    sent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = stored_runs()[0].info.experiment_id
    delete_experiment()

    def refuse(*_: object) -> None:
        raise mlflow.MlflowException("Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "restore_experiment", refuse)
        with pytest.raises(UserError, match=r"this user cannot restore it \(Permission denied\)") as refused:
            tracking.sync()
    (command,) = re.findall(r"`(.+ mlflow .+?)`", str(refused.value))
    setting, program, *arguments = shlex.split(command)
    assert program == "mlflow"
    assert CliRunner().invoke(cli, arguments, env=dict([setting.split("=", 1)])).exit_code == 0
    assert stored_runs()[0].info.experiment_id == experiment


# ---- what messages say


def test_a_database_of_another_mlflow_is_one_line_that_keeps_mlflows_own_remedy(sent: None) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("update alembic_version set version_num = '451aebb31d03'")
    done = python("-m", "pipeline", "sync")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: sqlite:///")
    assert "run 'mlflow db upgrade <database_uri>'" in line
    assert "consult your database's documentation for more detail" in line  # the last that MLflow says of it
    assert line.endswith("`alexnet sync` fills it from the files once it is back")


def test_a_folder_as_the_store_is_refused_with_mlflows_own_remedy(
    trained: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(UserError, match=r"set `MLFLOW_ALLOW_FILE_STORE=true` to opt out of this exception\.\); "):
        tracking.sync()


def test_no_message_has_an_addresss_password(
    trained: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    sync.run(background=True)
    warning = capsys.readouterr().err.splitlines()[-1]
    assert warning.startswith("warning: http://me:***@127.0.0.1:9: the MLflow store cannot be used")
    assert "secret" not in warning
