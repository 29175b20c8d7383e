"""MLflow as a view of the run files: one MLflow run for each fingerprint.

The files are the truth. `sync` compares each run's files with what the store was sent last, and sends what differs.
Metrics carry the times of `history.csv`, so that sending twice adds nothing.

On one machine one process sends at a time (sync.py). Machines that share a server have no lock in common: where two
send the same run at once, one of them gives way (`_claim`).
"""

import json
import logging
import os
import random
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote

from pipeline import paths
from pipeline.errors import UserError
from pipeline.runtime.files import replacing
from pipeline.tracking import records, running, view
from pipeline.tracking.records import CURVES, NOTE, DataSet, Point, Record

# A server that cannot be reached or does not answer is given up after seconds instead of minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    LoggedModel,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

for noisy in ("mlflow", "urllib3"):  # what fails is said once, by us
    logging.getLogger(noisy).setLevel(logging.CRITICAL)

EXPERIMENT = "alexnet"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
OWN = "alexnet."  # begins the names of tags that are bookkeeping
FINGERPRINT, SENT, MODEL, SENT_BY, EPOCH = (OWN + n for n in ("fingerprint", "sent", "model", "sender", "epoch"))
PLACES = {  # the columns of MLflow's tables that say where artifacts lie
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
BATCH_METRICS = 1000  # the most that one call takes
LONGEST_REASON = 1000  # characters: more than MLflow's remedies have, less than a proxy's page of HTML
STORE_ERRORS = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError)
SENDER = f"{socket.gethostname()}:{paths.root()}"


def sync() -> int:
    """Send all finished runs under runs/ to the store. Returns the number of MLflow runs written.

    Raises UserError if the store cannot be used, or if files are damaged; the other runs are sent before. Nothing is
    lost then: a later call sends what is missing.
    """
    found, problems = records.read(Path("runs"))
    with _failures_as_user_errors():
        _prepare_sqlite()
        written = _send(found)
    if problems:
        raise UserError("\n".join(problems))
    return written


@contextmanager
def _failures_as_user_errors() -> Iterator[None]:
    try:
        yield
    except STORE_ERRORS as error:
        raise _store_error(
            f"the MLflow store cannot be used ({_in_one_line(error)}); `alexnet sync` fills it from the "
            "files once it is back"
        ) from error


def pages(server: str) -> dict[str, str]:
    """Return where an MLflow server shows the runs, as a table and as curves; without runs, the server's own address.

    Both addresses apply the view that the experiment keeps.
    """
    experiment = None
    with suppress(*STORE_ERRORS):
        _prepare_sqlite()
        experiment = mlflow.MlflowClient(paths.mlflow_store()).get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return {"The runs": server}
    runs = f"{server}/#/experiments/{experiment.experiment_id}/runs?{view.QUERY}"
    return {"The runs": f"{runs}TABLE", "Their curves": f"{runs}CHART"}


def _prepare_sqlite() -> None:
    """Make the store where it is a SQLite file that is not there, and try it: MLflow itself would try for minutes.

    MLflow makes its tables in a second of many steps, and cannot use what a kill left of them. So they are made in a
    temporary file. MLflow would also name the working directory for artifacts, in SQL that colons and quotes break.
    """
    path = paths.sqlite_file(paths.mlflow_store())
    if path is None:
        return
    if not path.exists():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with replacing(path) as temporary:
            temporary.unlink(missing_ok=True)
            SqlAlchemyStore(paths.sqlite_address(temporary), _artifacts())
    with closing(sqlite3.connect(path, timeout=5)) as connection:
        connection.execute("select count(*) from sqlite_master")
        if path.parent == paths.root():
            _follow_move(connection)


def _follow_move(connection: sqlite3.Connection) -> None:
    """Where the project folder has moved with its store, name its new place, since MLflow keeps artifacts' whole paths.

    An experiment whose artifacts somebody has put elsewhere stays as it is.
    """
    found = connection.execute("select artifact_location from experiments where name = ?", [EXPERIMENT]).fetchone()
    before, here = found[0] if found else "", _artifacts()
    if before == here or not before.endswith(f"/{paths.ARTIFACTS}"):
        return
    for table, column in PLACES.items():
        moved = f"update {table} set {column} = ? || substr({column}, ?) where substr({column} || '/', 1, ?) = ?"
        connection.execute(moved, (here, len(before) + 1, len(before) + 1, f"{before}/"))
    connection.commit()
    print("MLflow: the project folder has moved; figures and models are found in their new place", file=sys.stderr)


def _artifacts() -> str:
    return (paths.root() / paths.ARTIFACTS).as_uri()


def _store_error(problem: str) -> UserError:
    return UserError(paths.without_passwords(f"{paths.mlflow_store()}: {problem}"))


def _in_one_line(error: Exception) -> str:
    """Return what MLflow says, with the remedy that it names; of SQLAlchemy's errors, all but the statement."""
    return " ".join(str(error).split("\n[SQL", 1)[0].split())[:LONGEST_REASON]


def _send(found: list[Record]) -> int:
    mlflow.set_tracking_uri(paths.mlflow_store())
    client = mlflow.MlflowClient()
    experiment = _experiment(client)
    if client.get_experiment(experiment).tags.get(view.TAG) != view.state():
        client.set_experiment_tag(experiment, view.TAG, view.state())
    known = _known(client, experiment)
    current = {record.fingerprint for record in found}
    current |= {path.stem for path in running.files() if running.is_trained(path)}
    for fingerprint, (run, *_) in known.items():
        here = run.data.tags.get(SENT_BY, SENDER) == SENDER
        if run.info.status == "RUNNING" and here and fingerprint not in current:  # it was interrupted
            client.set_terminated(run.info.run_id, "KILLED")
    written = 0
    for record in found:
        if record.fingerprint in known and _outdated(known[record.fingerprint][0], record):
            _delete(client, experiment, known.pop(record.fingerprint))
    ids = {fingerprint: str(runs[0].info.run_id) for fingerprint, runs in known.items()}
    for record in found:
        tags = known[record.fingerprint][0].data.tags if record.fingerprint in known else {}
        with suppress(FileNotFoundError):  # a stage is replacing what is to be sent: the next sync sends it
            digest = record.digest()
            if tags.get(SENT) == digest:
                continue
            if record.fingerprint not in ids:
                ids[record.fingerprint], mine = _claim(client, experiment, record)
                if not mine:
                    continue
            run_id = ids[record.fingerprint]
            _write(client, run_id, record, _number(tags.get(EPOCH)), ids)
            if record.report in ids:
                link = f"#/experiments/{experiment}/runs/{ids[record.report]}/artifacts/report.html"
                client.set_tag(run_id, NOTE, f"{record.tags[NOTE]}\n\n[The report of its scale]({link})")
            client.set_terminated(run_id, record.status, record.end_ms)
            if record.model_of is not None:
                if MODEL not in tags:
                    _log_model(client, experiment, run_id, record.model_of)
                _register(client, experiment, run_id, record)
            client.set_tag(run_id, SENT, digest)  # last: an interrupted sending is repeated
            written += 1
    for _, *doubles in known.values():
        _delete(client, experiment, doubles)
    return written


def _delete(client: mlflow.MlflowClient, experiment: str, runs: list[Run]) -> None:
    for run in runs:
        _delete_models(client, experiment, run.info.run_id)
        client.delete_run(run.info.run_id)


def _outdated(run: Run, record: Record) -> bool:
    """Return whether this project sent an epoch that was since trained again: metrics cannot be undone.

    The files of a study do not say at what times the epochs of its trials ended.
    """
    last, here = run.data.tags.get(EPOCH), run.data.tags.get(SENT_BY, SENDER) == SENDER
    return here and record.kind == "training" and last not in (None, *map(_epoch, record.points))


def _epoch(point: Point) -> str:
    return f"{point.epoch} at {point.time_ms}"


def _number(epoch: str | None) -> int:
    return int(epoch.split()[0]) if epoch else 0


class Follower:
    """Sends the epochs of trainings that are going on. It stays connected, and remembers what it has sent."""

    def __init__(self) -> None:
        with _failures_as_user_errors():
            _prepare_sqlite()
            mlflow.set_tracking_uri(paths.mlflow_store())
            self._client = mlflow.MlflowClient()
            self._experiment = _experiment(self._client)
        self._runs: dict[str, tuple[str, str | None]] = {}  # MLflow's id, and the last epoch there

    def look(self) -> None:
        """Send what is new of each run that is trained, or has ended since the last look. Raises UserError."""
        for about in running.files():
            if about.stem in self._runs or running.is_trained(about):
                with _failures_as_user_errors(), suppress(FileNotFoundError, ValueError):  # files that are replaced
                    self._send(running.record(about))

    @property
    def follows(self) -> bool:
        """Return whether a run that it has begun to send has not ended."""
        return bool(self._runs)

    def _send(self, record: Record) -> None:
        _, before = self._runs.get(record.fingerprint, ("", None))
        started_anew = record.points and before not in (None, *map(_epoch, record.points))
        if record.fingerprint not in self._runs or started_anew:
            self._runs[record.fingerprint] = self._begin(record)
        run_id, before = self._runs[record.fingerprint]
        last, sent = record.last_epoch(), _number(before)
        if last is not None and last.epoch > sent:
            metrics = [Metric(*point) for point in record.points if point.epoch > sent]
            for start in range(0, len(metrics), BATCH_METRICS):
                self._client.log_batch(run_id, metrics[start : start + BATCH_METRICS])
            self._client.set_tag(run_id, EPOCH, _epoch(last))
            self._runs[record.fingerprint] = run_id, _epoch(last)
        if record.status != "RUNNING":
            self._client.set_terminated(run_id, record.status, record.end_ms)
            del self._runs[record.fingerprint]

    def _begin(self, record: Record) -> tuple[str, str | None]:
        known = _known(self._client, self._experiment, f"tags.`{FINGERPRINT}` = '{record.fingerprint}'")
        for run in known.get(record.fingerprint, []):
            if _outdated(run, record):
                _delete(self._client, self._experiment, [run])
                continue
            self._client.update_run(run.info.run_id, "RUNNING")
            return str(run.info.run_id), run.data.tags.get(EPOCH)
        run_id, _ = _claim(self._client, self._experiment, record)
        _write(self._client, run_id, replace(record, points=[]), 0, {})
        return run_id, None


def _experiment(client: mlflow.MlflowClient) -> str:
    """Return the id of the experiment. It is made where there is none, and restored where somebody deleted it.

    MLflow restores runs that were deleted before it, too: `_send` keeps one of each fingerprint. Raises UserError where
    the store does not allow this user to restore it.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        artifacts = _artifacts() if paths.sqlite_file(paths.mlflow_store()) else None
        try:
            return str(client.create_experiment(EXPERIMENT, artifacts, EXPERIMENT_TAGS))
        except MlflowException:
            experiment = client.get_experiment_by_name(EXPERIMENT)  # another machine was faster
            if experiment is None:
                raise
    name = str(experiment.experiment_id)
    if experiment.lifecycle_stage != LifecycleStage.DELETED:
        return name
    try:
        client.restore_experiment(name)
    except MlflowException as error:
        if client.get_experiment(name).lifecycle_stage == LifecycleStage.ACTIVE:
            return name  # another sender was faster
        command = f"MLFLOW_TRACKING_URI={quote(paths.mlflow_store())} mlflow experiments restore -x {name}"
        raise _store_error(
            f"the experiment {EXPERIMENT} was deleted there, and this user cannot restore it ({_in_one_line(error)}); "
            f"`{command}`, run by a user who can, does; then `alexnet sync` sends what is missing"
        ) from error
    print(f"MLflow: the experiment {EXPERIMENT} had been deleted; it is restored with its runs", file=sys.stderr)
    return name


def _known(client: mlflow.MlflowClient, experiment: str, query: str = "") -> dict[str, list[Run]]:
    """Return the runs by fingerprint: several where a sender was killed while it gave way. The first is to stay."""
    page = client.search_runs([experiment], query, ViewType.ACTIVE_ONLY)
    runs: list[Run] = list(page)
    while page.token:
        page = client.search_runs([experiment], query, ViewType.ACTIVE_ONLY, page_token=page.token)
        runs += page
    known: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (SENT not in run.data.tags, run.info.run_id)):
        if FINGERPRINT in run.data.tags:
            known.setdefault(run.data.tags[FINGERPRINT], []).append(run)
    return known


def _claim(client: mlflow.MlflowClient, experiment: str, record: Record) -> tuple[str, bool]:
    """Return the id of the record's run, and whether this process is to write it.

    A run is created, then kept only if no other has its fingerprint. Of two runs that were created one after the
    other, the later sender always finds the earlier run and deletes its own. Where both did, both wait and try again.
    """
    tags = {FINGERPRINT: record.fingerprint, SENT_BY: SENDER}
    query = f"tags.`{FINGERPRINT}` = '{record.fingerprint}'"
    while True:
        run_id = str(client.create_run(experiment, record.start_ms, tags, record.name).info.run_id)
        if len(_known(client, experiment, query)[record.fingerprint]) == 1:
            return run_id, True
        client.delete_run(run_id)
        time.sleep(random.uniform(0, 1))
        if others := _known(client, experiment, query):
            return str(others[record.fingerprint][0].info.run_id), False


def _write(client: mlflow.MlflowClient, run_id: str, record: Record, epochs: int, ids: dict[str, str]) -> None:
    """Send all of the record but those `epochs` that the run has. `ids`: of the runs that may be its parent."""
    parameters = [Param(key, str(value)) for key, value in record.params.items()]
    facts = {OWN + name: value for name, value in record.facts.items()}
    named = {"kind": record.kind, "mlflow.runName": record.name}
    if record.parent is not None:
        named["mlflow.parentRunId"] = ids[record.parent]
    tags = [RunTag(key, value) for key, value in (record.tags | facts | named).items()]
    metrics = [Metric(*point) for point in record.points if point.key not in CURVES or point.epoch > epochs]
    client.log_batch(run_id, metrics[:BATCH_METRICS], parameters, tags)
    for start in range(BATCH_METRICS, len(metrics), BATCH_METRICS):
        client.log_batch(run_id, metrics[start : start + BATCH_METRICS])
    if (last := record.last_epoch()) and record.kind == "training":
        client.set_tag(run_id, EPOCH, _epoch(last))
    if record.data:
        client.log_inputs(run_id, [_dataset(split) for split in record.data])
    for path, folder in record.artifacts.items():
        client.log_artifact(run_id, str(path), folder or None)


def _dataset(split: DataSet) -> DatasetInput:
    source = json.dumps({"uri": split.folder})
    return DatasetInput(
        Dataset(split.name, split.digest, "local", source), [InputTag("mlflow.data.context", split.context)]
    )


def _log_model(client: mlflow.MlflowClient, experiment: str, run_id: str, folder: Path) -> None:
    from pipeline.tracking import model

    _delete_models(client, experiment, run_id)  # that were not finished
    mlflow.set_experiment(experiment_id=experiment)
    if model.log(run_id, folder):
        client.set_tag(run_id, MODEL, str(folder))


def _register(client: mlflow.MlflowClient, experiment: str, run_id: str, record: Record) -> None:
    """Link the run's model to its errors, and register it as alexnet-<scale> with the variant as its alias."""
    model = next(iter(_models(client, experiment, run_id)), None)
    if model is None:  # it could not be logged
        return
    test = next((split for split in record.data if split.context == "test"), None)
    of = (model.model_id, test and test.name, test and test.digest)
    client.log_batch(run_id, [Metric(*point, *of) for point in record.points if point.key.startswith("test_")])
    registered = []
    for scale in record.tags["scale"].split(", "):
        name = f"alexnet-{scale}"
        with suppress(MlflowException):  # it is there
            client.create_registered_model(name)
        versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        source = f"models:/{model.model_id}"
        version = next((version for version in versions if version.source == source), None)
        if version is None:
            version = client.create_model_version(name, source, run_id, model_id=model.model_id)
        registered.append({"name": name, "version": int(version.version)})
        client.update_model_version(name, version.version, record.card)
        for variant in record.tags["variant"].split(", "):
            client.set_registered_model_alias(name, variant, version.version)
            if variant == "baseline":
                client.update_registered_model(name, record.card)
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(registered)})  # the pages' links


def _models(client: mlflow.MlflowClient, experiment: str, run_id: str) -> list[LoggedModel]:
    return list(client.search_logged_models([experiment], f"source_run_id = '{run_id}'"))


def _delete_models(client: mlflow.MlflowClient, experiment: str, run_id: str) -> None:
    for model in _models(client, experiment, run_id):
        client.delete_logged_model(model.model_id)
