"""MLflow as a view of the run files: one MLflow run for each fingerprint, sent as often as one likes.

The files are the truth. `sync` compares each run's files with what the store was sent last and sends what differs;
metrics carry the times of `history.csv`, so that sending twice adds nothing.
"""

import hashlib
import json
import logging
import math
import os
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from pipeline import paths
from pipeline.errors import UserError
from pipeline.files import replacing

# An unreachable server must not hold up a training: one retry, seconds instead of minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

logging.getLogger("mlflow").setLevel(logging.WARNING)

EXPERIMENT = "alexnet"
BATCH_METRICS = 1000  # the most that one call takes
CURVES = ("lr", "train_loss", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5")


@dataclass
class Record:
    """What MLflow is to show of one fingerprint."""

    fingerprint: str
    name: str
    status: str
    start_ms: int
    end_ms: int
    params: dict[str, Any]
    metrics: list[Metric]
    tags: dict[str, str]
    parent: str | None = None  # fingerprint
    model_of: Path | None = None  # the seed's folder, if this run is to carry its variant's model
    figures: list[Path] = field(default_factory=list)

    def digest(self) -> str:
        content: list[Any] = [self.name, self.status, self.params, self.tags, self.parent, str(self.model_of or "")]
        content += [(m.key, m.value, m.timestamp, m.step) for m in self.metrics]
        content += [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.figures]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def store_uri() -> str:
    """$MLFLOW_TRACKING_URI, or a SQLite file in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.root() / 'mlflow.db'}"


def sync() -> int:
    """Send all finished runs under runs/ to the store. Returns the number of MLflow runs written.

    Raises UserError if the store cannot be used; nothing is lost then, a later call sends what is missing.
    """
    with FileLock(_lock_path()):
        try:
            _try_sqlite(store_uri())
            return _send(list(_records(Path("runs"))))
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise UserError(
                f"{store_uri()}: the MLflow store cannot be used ({_first_line(error)}); "
                "`python -m pipeline sync` fills it from the files once it is back"
            ) from error


def sync_or_warn() -> None:
    """`sync` for the stages: a store that is not there costs one warning."""
    try:
        sync()
    except UserError as warning:
        print(f"warning: {warning}", file=sys.stderr)


def _try_sqlite(uri: str) -> None:
    """MLflow would try a file that cannot be used for minutes."""
    if uri.startswith("sqlite:///"):
        _make_sqlite(Path(uri.removeprefix("sqlite:///")))
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=5)) as connection:
            connection.execute("select count(*) from sqlite_master")


def _make_sqlite(path: Path) -> None:
    """MLflow makes its tables in a second of many steps, and cannot use what a kill left of them: made aside, once."""
    if not path.exists():
        with replacing(path) as temporary:
            temporary.unlink(missing_ok=True)
            mlflow.MlflowClient(f"sqlite:///{temporary}").search_experiments()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]


def _lock_path() -> Path:
    paths.state().mkdir(parents=True, exist_ok=True)
    return paths.state() / "mlflow.lock"


def _send(records: list[Record]) -> int:
    mlflow.set_tracking_uri(store_uri())
    client = mlflow.MlflowClient()
    experiment = _experiment(client)
    known = _known(client, experiment)
    written = 0
    for record in sorted(records, key=lambda record: record.parent is not None):  # parents first
        run = known.get(record.fingerprint)
        digest = record.digest()
        if run is not None and run.data.tags.get("sent") == digest:
            continue
        run_id = run.info.run_id if run is not None else _create(client, experiment, record, known)
        _write(client, run_id, record)
        if record.model_of is not None and (run is None or "model" not in run.data.tags):
            _log_model(client, run_id, record)
        client.set_terminated(run_id, record.status, record.end_ms)
        client.set_tag(run_id, "sent", digest)  # last: an interrupted sending is repeated
        known[record.fingerprint] = client.get_run(run_id)
        written += 1
    return written


def _experiment(client: mlflow.MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    local = store_uri().startswith("sqlite:")
    artifacts = (paths.root() / "mlartifacts").as_uri() if local else None
    return client.create_experiment(EXPERIMENT, artifacts, {"mlflow.experimentKind": "custom_model_development"})


def _known(client: mlflow.MlflowClient, experiment: str) -> dict[str, Run]:
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment], run_view_type=ViewType.ACTIVE_ONLY, page_token=token)
        runs += page
        token = page.token
        if not token:
            return {run.data.tags["fingerprint"]: run for run in runs if "fingerprint" in run.data.tags}


def _create(client: mlflow.MlflowClient, experiment: str, record: Record, known: dict[str, Run]) -> str:
    tags = {"fingerprint": record.fingerprint}
    if record.parent is not None:
        tags["mlflow.parentRunId"] = known[record.parent].info.run_id
    return str(client.create_run(experiment, record.start_ms, tags, record.name).info.run_id)


def _write(client: mlflow.MlflowClient, run_id: str, record: Record) -> None:
    parameters = [Param(key, str(value)) for key, value in record.params.items()]
    tags = [RunTag(key, value) for key, value in record.tags.items()]
    client.log_batch(run_id, record.metrics[:BATCH_METRICS], parameters, tags)
    for start in range(BATCH_METRICS, len(record.metrics), BATCH_METRICS):
        client.log_batch(run_id, record.metrics[start : start + BATCH_METRICS])
    for figure in record.figures:
        client.log_artifact(run_id, str(figure), "figures")


def _log_model(client: mlflow.MlflowClient, run_id: str, record: Record) -> None:
    """The net as an exported graph, which needs none of this project's code to be loaded and asked."""
    import torch
    from mlflow.models import infer_signature
    from safetensors.torch import load_file

    from pipeline.models.alexnet import alexnet
    from pipeline.params import Settings

    assert record.model_of is not None
    weights = load_file(record.model_of / "model.safetensors")
    settings = Settings.model_validate(json.loads((record.model_of / "run.json").read_text())["settings"])
    net = alexnet(settings, classes=len(weights["fc8.bias"])).eval()
    net.load_state_dict(weights)
    example = torch.zeros(2, 3, settings.net.crop_px, settings.net.crop_px)
    with torch.no_grad():
        signature = infer_signature(example.numpy(), net(example).numpy())
    with mlflow.start_run(run_id=run_id):
        mlflow.pytorch.log_model(
            net,
            name="model",
            serialization_format="pt2",
            signature=signature,
            input_example=example.numpy(),
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "mlflow"],
        )
    client.set_tag(run_id, "model", str(record.model_of))


def _records(runs: Path) -> Iterable[Record]:
    """One record for each fingerprint; a run that several scales share lists them all."""
    by_fingerprint: dict[str, Record] = {}
    for path in sorted(runs.glob("*/*/train")):
        for record in _variant_records(path):
            if record.fingerprint in by_fingerprint:
                scales = {record.tags["scale"], *by_fingerprint[record.fingerprint].tags["scale"].split(", ")}
                by_fingerprint[record.fingerprint].tags["scale"] = ", ".join(sorted(scales))
            else:
                by_fingerprint[record.fingerprint] = record
    yield from by_fingerprint.values()
    for path in sorted(runs.glob("*/tune/trials.csv")):
        yield from _trial_records(path)


def _variant_records(train: Path) -> list[Record]:
    folders = sorted(path.parent for path in train.glob("seed-*/run.json"))
    evaluation = train.parent / "evaluation" / "seeds.json"
    measured = json.loads(evaluation.read_text()) if evaluation.exists() else {}
    records = {folder: _run_record(folder, measured) for folder in folders}
    if measured and (folder := _median(records)):
        records[folder].model_of = folder
        figures = paths.report(train.parts[-3]) / "figures"
        records[folder].figures = sorted(figures.glob("*.png")) if train.parts[-2] == "baseline" else []
    return list(records.values())


def _median(records: dict[Path, Record]) -> Path | None:
    """The finished seed with the median validation error (the lower one of an even number)."""
    last = {
        folder: next(metric.value for metric in reversed(record.metrics) if metric.key == "val_error_top1")
        for folder, record in records.items()
        if record.status == "FINISHED"
    }
    return sorted(last, key=lambda folder: (last[folder], folder))[(len(last) - 1) // 2] if last else None


def _run_record(folder: Path, measured: dict[str, Any]) -> Record:
    facts = json.loads((folder / "run.json").read_text())
    history = pd.read_csv(folder / "history.csv")
    seed = facts["seed"]
    finished_ms = facts["finished_ms"]
    metrics = [
        Metric(name, float(row[name]), int(row["time_ms"]), int(row["epoch"]))
        for row in history.to_dict("records")
        for name in CURVES
    ]
    for split, by_views in measured.get(str(seed), {}).items():
        if split == "status":
            continue
        for views, values in by_views.items():
            metrics += [
                Metric(f"{split}/{views}/{name}", value, finished_ms, facts["epochs"]) for name, value in values.items()
            ]
    return Record(
        fingerprint=facts["fingerprint"],
        name=f"{facts['variant']} seed {seed}",
        status=RunStatus.to_string(RunStatus.FINISHED if facts["status"] == "finished" else RunStatus.FAILED),
        start_ms=facts["started_ms"],
        end_ms=finished_ms,
        params={"seed": seed, **_flat(facts["settings"])},
        metrics=[metric for metric in metrics if math.isfinite(metric.value)],
        tags={name: str(facts[name]) for name in ("scale", "variant", "section", "seed", "stopped")}
        | _flat(facts["origin"]),
    )


def _trial_records(path: Path) -> Iterable[Record]:
    """The study, and every trial as its child."""
    trials = pd.read_csv(path, keep_default_na=False)
    scale = path.parts[-3]
    if trials.empty:
        return
    done = trials[trials["state"] != "FAIL"].drop_duplicates("fingerprint", keep="last")
    study = str(trials["study"].iloc[0])
    start, end = int(trials["start_ms"].min()), int(trials["end_ms"].max())
    tags = {"scale": scale, "variant": "tune", "section": "5"}
    yield Record(study, f"tune {scale}", "FINISHED", start, end, {}, [], tags)
    for trial in done.to_dict("records"):
        curve = [float(value) for value in str(trial["curve"]).split()]
        yield Record(
            fingerprint=str(trial["fingerprint"]),
            name=f"trial {trial['number']}",
            status="FINISHED" if trial["state"] == "COMPLETE" else "KILLED",
            start_ms=int(trial["start_ms"]),
            end_ms=int(trial["end_ms"]),
            params={"train.lr": trial["lr"], "train.weight_decay": trial["weight_decay"]},
            metrics=[Metric("val_error_top1", value, int(trial["end_ms"]), k + 1) for k, value in enumerate(curve)],
            tags={**tags, "state": str(trial["state"])},
            parent=study,
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
