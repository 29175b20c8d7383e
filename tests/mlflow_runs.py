"""What the MLflow store holds, read through MLflow's own client."""

import mlflow
from mlflow.entities import Run

from pipeline import paths
from pipeline.tracking import store as tracking
from pipeline.tracking.records import CURVES


def client() -> mlflow.MlflowClient:
    return mlflow.MlflowClient(paths.mlflow_store())


def stored_runs() -> list[Run]:
    """The runs in the order of their names."""
    experiment = client().get_experiment_by_name(tracking.EXPERIMENT)
    return sorted(client().search_runs([experiment.experiment_id]), key=lambda run: run.info.run_name)


def assert_every_metric_is_there_once() -> None:
    """Of tests/tiny_params.py's baseline: two finished runs of three epochs."""
    found = [(run.info.run_name, run.info.status) for run in stored_runs()]
    assert found == [("baseline seed 0", "FINISHED"), ("baseline seed 1", "FINISHED")]
    for run in stored_runs():
        for name in CURVES:
            assert [point.step for point in client().get_metric_history(run.info.run_id, name)] == [1, 2, 3]
