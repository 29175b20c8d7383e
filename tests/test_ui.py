"""`make ui`: MLflow's own server on the store that everything else uses, for this machine alone."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.tools import ui
from tests.mlflow_runs import client
from tests.processes import environment
from tests.servers import free_port
from tests.tiny import ODD, make_store
from tests.tiny_params import tiny_params, train_variant

ROOT = Path(__file__).parents[1]


class Executed(Exception):
    """The process would be another one from here on."""

    def __init__(self, path: str, command: list[str], environment: dict[str, str]) -> None:
        self.path, self.command, self.environment = path, command, environment


@pytest.fixture
def nothing_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(*arguments: Any) -> None:
        raise Executed(*arguments)

    monkeypatch.setattr(os, "execve", execute)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.usefixtures("nothing_executed", "mlflow_tables")
def test_missing_runs_are_sent_and_mlflow_serves_them_to_this_machine_alone(
    trained: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with pytest.raises(Executed) as executed:
        ui.serve(port)
    server = executed.value
    served = ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    served += ["--uvicorn-opts", "--log-level=warning"]
    assert (server.path, server.command) == (sys.executable, [sys.executable, *served])
    assert server.environment["MLFLOW_BACKEND_STORE_URI"] == paths.mlflow_store()
    sent, table, curves = capfd.readouterr().out.splitlines()
    assert sent.startswith("MLflow: 2 runs written")
    page = f"http://127.0.0.1:{port}/#/experiments/1/runs?"
    assert (table.startswith(f"The runs: {page}"), curves.startswith(f"Their curves: {page}")) == (True, True)
    assert table.endswith("viewStateShareKey=alexnet&compareRunsMode=TABLE")
    shared = client().get_experiment("1").tags["mlflow.sharedViewState.alexnet"]
    assert "metrics.`test_error_top1`" in json.loads(shared)["selectedColumns"]


@pytest.mark.usefixtures("nothing_executed")
def test_a_sending_that_fails_is_only_a_warning(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("mlflow.db").mkdir()
    port = free_port()
    with pytest.raises(Executed):
        ui.serve(port)
    printed = capfd.readouterr()
    assert printed.err.count("\n") == printed.err.count("warning: sqlite:///") == 1
    assert printed.out == f"The runs: http://127.0.0.1:{port}\n"


@pytest.mark.usefixtures("nothing_executed")
@pytest.mark.parametrize("server", ["http://127.0.0.1:9", "https://me:secret@server/mlflow", "databricks"])
def test_where_a_server_keeps_the_runs_its_address_is_printed_and_none_started(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], server: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    ui.serve(5000)
    assert capfd.readouterr() == (f"The runs: {server.replace('secret', '***')}\n", "")


@pytest.mark.usefixtures("nothing_executed")
@pytest.mark.parametrize("listens_on", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_or_does_not_exist_is_one_line_that_says_how_to_name_another(
    workplace: Path, listens_on: str
) -> None:
    with socket.create_server((listens_on, 0)) as other:
        taken = other.getsockname()[1]
        for port, reason in ((taken, "Address already in use"), (70000, "there is no such"), (-1, "there is no such")):
            with pytest.raises(UserError) as refused:
                ui.serve(port)
            assert str(refused.value).startswith(f"port {port} of 127.0.0.1 cannot be used ({reason}")
            assert "`make ui PORT=...`" in str(refused.value)
            assert "\n" not in str(refused.value)


def test_a_port_that_was_just_left_can_be_used_again(
    nothing_executed: None, workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # who closes first keeps the address for a minute
    with pytest.raises(Executed):
        ui.serve(port)


def test_make_ui_works_in_a_path_with_spaces_and_takes_a_port(tmp_path: Path) -> None:
    folder = tmp_path / "my projects" / "alexnet (2)"
    (folder / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venv/.installed").touch()
    (folder / ".venv/bin/python").write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$@"\n')
    (folder / ".venv/bin/python").chmod(0o755)
    command = ["make", "--silent", "--old-file", ".venv/.installed", "ui"]
    for given, port in ([], "5000"), (["PORT=5050"], "5050"):
        done = subprocess.run([*command, *given], cwd=folder, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [str(folder), "-m", "pipeline", "ui", "--port", port]


@pytest.mark.slow
def test_the_real_server_shows_the_runs_of_a_repository_of_any_name_and_logs_no_request(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / ODD).mkdir()
    monkeypatch.chdir(ODD)
    make_store(Path("prepared/fashion_mnist"))
    train_variant(tiny_params(seeds=[0]), "baseline")
    port = free_port()
    command = [sys.executable, "-m", "pipeline", "ui", "--port", str(port)]
    log = Path("server.log")
    with (
        log.open("w") as file,
        subprocess.Popen(command, env=environment(), start_new_session=True, stdout=file, stderr=file) as server,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            while not answers(address):
                assert server.poll() is None
                time.sleep(0.3)
            query = json.dumps({"experiment_ids": ["1"]}).encode()
            asked = urllib.request.Request(
                f"{address}/api/2.0/mlflow/runs/search", query, {"Content-Type": "application/json"}
            )
            found = json.load(urllib.request.urlopen(asked))
            assert [run["info"]["run_name"] for run in found["runs"]] == ["baseline seed 0"]
            listening = [
                connection.laddr.ip
                for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
                for connection in process.net_connections()
                if connection.status == psutil.CONN_LISTEN
            ]
            assert set(listening) == {"127.0.0.1"}
            assert "The runs: " in log.read_text()
            assert "/health" not in log.read_text()
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{address}/health", timeout=1).status == 200)
    except OSError:
        return False
