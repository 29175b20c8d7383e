"""MLflow read back through its own client."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.entities import Run

from pipeline import paths, tracking
from pipeline.data.store import Store
from pipeline.evaluation.evaluate import evaluate_variant
from pipeline.evaluation.predict import load_net
from pipeline.records import CURVES
from pipeline.report.collect import collect
from pipeline.training.variant import train_variant
from tests.tiny import CROP_PX, settings
from tests.tiny_params import tiny_params


@pytest.fixture
def trained(store: Store) -> Store:
    train_variant(tiny_params(), "baseline")
    return store


def stored_runs() -> list[Run]:
    client = mlflow.MlflowClient(paths.mlflow_store())
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    return sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.run_name)


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
    client = mlflow.MlflowClient(paths.mlflow_store())
    for name in CURVES:
        curve = client.get_metric_history(first.info.run_id, name)
        assert [metric.step for metric in curve] == list(history["epoch"])
        assert [metric.value for metric in curve] == pytest.approx(list(history[name]))
        assert [metric.timestamp for metric in curve] == list(history["time_ms"])


def test_sending_twice_adds_nothing(trained: Store) -> None:
    tracking.sync()
    ids = [run.info.run_id for run in stored_runs()]
    assert tracking.sync() == 0
    client = mlflow.MlflowClient(paths.mlflow_store())
    client.set_tag(ids[0], "sent", "forgotten")  # as if the sending had been cut off before its last step
    assert tracking.sync() == 1
    assert [run.info.run_id for run in stored_runs()] == ids
    assert len(client.get_metric_history(ids[0], "val_loss")) == 3


def test_a_changed_parameter_is_a_new_run_beside_the_old_one(trained: Store) -> None:
    tracking.sync()
    train_variant(tiny_params(train={"lr": 0.02}), "baseline")
    tracking.sync()
    assert sorted(run.data.params["train.lr"] for run in stored_runs()) == ["0.01", "0.01", "0.02", "0.02"]


def test_what_evaluation_found_is_added_to_the_run(trained: Store) -> None:
    tracking.sync()
    evaluate_variant(tiny_params(), "baseline")
    tracking.sync()
    measured = json.loads((paths.evaluation("smoke", "baseline") / "seeds.json").read_text())["0"]
    first, _ = stored_runs()
    assert first.data.metrics["test/ten_crop/error_top1"] == pytest.approx(measured["test"]["ten_crop"]["error_top1"])


def test_the_median_seeds_net_can_be_loaded_by_mlflow_and_answers_as_the_trained_one(trained: Store) -> None:
    evaluate_variant(tiny_params(), "baseline")
    tracking.sync()
    tracking.sync()
    models = mlflow.search_logged_models([stored_runs()[0].info.experiment_id], output_format="list")
    assert len(models) == 1
    run = mlflow.MlflowClient(paths.mlflow_store()).get_run(models[0].source_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["seed"] == str(collect(tiny_params(), Path()).median_seed("baseline"))
    loaded = mlflow.pytorch.load_model(models[0].model_uri)
    images = torch.from_numpy(np.random.default_rng(0).normal(0, 50, (3, 3, CROP_PX, CROP_PX)).astype(np.float32))
    trained_net = load_net(Path(run.data.tags["model"]) / "model.safetensors", settings(), 4)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), trained_net(images))


def test_a_failed_run_reads_failed(store: Store) -> None:
    train_variant(tiny_params(train={"lr": 1e6}, seeds=[0]), "baseline")
    tracking.sync()
    (run,) = stored_runs()
    assert run.info.status == "FAILED"


def test_a_run_that_two_scales_share_is_one_run_that_names_both(store: Store) -> None:
    for scale in ("smoke", "embedded"):
        train_variant(tiny_params(scale=scale), "baseline")
    tracking.sync()
    assert [run.data.tags["scale"] for run in stored_runs()] == ["embedded, smoke"] * 2
