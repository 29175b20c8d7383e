"""Tracking against real servers, real locks and real stages."""

import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from ruamel.yaml import YAML

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.tracking import store as tracking
from pipeline.tracking import sync
from pipeline.training.run import RUN
from tests.mlflow_runs import assert_every_metric_is_there_once, client, stored_runs
from tests.processes import environment, process, wait_for
from tests.servers import PASSWORD, MlflowServer, postgres, team_server
from tests.tiny_params import tiny_params, train_variant

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(240)]


@pytest.fixture
def server(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    server = MlflowServer(
        "--backend-store-uri", f"sqlite:///{workplace / 'server.db'}", "--artifacts-destination", "artifacts"
    )
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    try:
        yield server
    finally:
        server.kill()


def test_a_server_that_dies_while_runs_are_sent_has_every_metric_once_when_it_is_back(
    store: Store, server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_variant(tiny_params(), "baseline")
    log_batch = mlflow.MlflowClient.log_batch

    def last(*args: Any, **options: Any) -> None:
        log_batch(*args, **options)
        server.kill()

    started = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", last)
        with pytest.raises(UserError, match="the MLflow store cannot be used"):
            tracking.sync()
    assert time.monotonic() - started < 60
    server.start()
    assert tracking.sync() == 2
    assert_every_metric_is_there_once()
    assert tracking.sync() == 0


def test_the_train_stage_ends_while_the_store_still_hangs(store: Store) -> None:
    YAML().dump(tiny_params().model_dump(mode="json"), Path("params.yaml"))
    with socket.create_server(("127.0.0.1", 0)) as hanging, Path("errors").open("wb") as errors:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        patience = environment(MLFLOW_TRACKING_URI=url, MLFLOW_HTTP_REQUEST_TIMEOUT="20")
        stage = [sys.executable, "-m", "stages.train"]
        subprocess.run(stage, env=patience, stderr=errors, timeout=120, check=True)
        assert (paths.seed("smoke", "baseline", 1) / RUN).exists()
        assert b"warning" not in Path("errors").read_bytes()  # the sending has not come to its end
        hanging.settimeout(60)
        hanging.accept()[0].close()
        hanging.close()
        until = time.monotonic() + 60
        while b"warning" not in Path("errors").read_bytes():
            assert time.monotonic() < until
            time.sleep(0.1)
    assert Path("errors").read_bytes().count(b"warning: " + url.encode()) == 1
    sync.run(background=False)
    assert_every_metric_is_there_once()


def test_a_database_that_another_process_has_locked_costs_one_warning(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    train_variant(tiny_params(seeds=[0]), "baseline")
    sync.run(background=True)
    train_variant(tiny_params(), "baseline")
    code = "import sqlite3; c = sqlite3.connect('mlflow.db'); c.execute('begin exclusive'); print(flush=True); input()"
    with process("-c", code) as locker:
        wait_for(locker.stdout, "")
        capfd.readouterr()
        sync.run(background=True)
        (warning,) = capfd.readouterr().err.splitlines()
        assert "the MLflow store cannot be used (database is locked)" in warning
        locker.communicate("\n")
    sync.run(background=True)
    assert_every_metric_is_there_once()
    with closing(sqlite3.connect("mlflow.db")) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


# It has seen an empty store, as all others, before any of them sends. The one to be killed leaves a run behind.
SENDER = """
import os, sys, time
from pathlib import Path
import mlflow
from pipeline.tracking import sync, store as tracking

known, create, me = tracking._known, mlflow.MlflowClient.create_run, sys.argv[1]

def held(client, experiment, query=""):
    runs = known(client, experiment, query)
    if not query:
        Path(f"ready-{me}").touch()
        while not Path("go").exists():
            time.sleep(0.05)
    return runs

def last(*args):
    create(*args)
    os.kill(os.getpid(), 9)

tracking._known = held
if me == "3":
    mlflow.MlflowClient.create_run = last
sync.run(background=False)
"""


@pytest.fixture
def team(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """compose.yaml's servers, and what a member has in the environment."""
    with postgres() as database:
        server = team_server(database, workplace / "artifacts")
        server.start()
        mine = {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_TRACKING_USERNAME": "admin"}
        patience = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}  # for eight at once on a busy machine
        for name, value in (mine | patience | {"MLFLOW_TRACKING_PASSWORD": PASSWORD}).items():
            monkeypatch.setenv(name, value)
        try:
            yield
        finally:
            server.kill()


@pytest.mark.timeout(600)
def test_eight_machines_that_send_the_same_runs_at_once_leave_one_of_each_also_if_one_is_killed(
    store: Store, team: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_variant(tiny_params(), "baseline")
    senders = [
        subprocess.Popen([sys.executable, "-c", SENDER, str(k)], env=environment(DVC_ROOT=f"machine-{k}"))
        for k in range(8)
    ]
    try:
        while len(list(Path().glob("ready-*"))) < 8:
            assert [sender.poll() for sender in senders] == [None] * 8
            time.sleep(0.2)
        Path("go").touch()
        assert [sender.wait(300) for sender in senders] == [0, 0, 0, -9, 0, 0, 0, 0]
    finally:
        for sender in senders:
            sender.kill()
            sender.wait()
    tracking.sync()
    assert_every_metric_is_there_once()
    assert tracking.sync() == 0

    run_id = stored_runs()[0].info.run_id
    client().log_text(run_id, "a figure", "figures/a.txt")  # through the server, into its folder
    assert [path.read_text() for path in Path("artifacts").rglob("a.txt")] == ["a figure"]

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(UserError, match=r"the MLflow store cannot be used \(.*401"):
        tracking.sync()
