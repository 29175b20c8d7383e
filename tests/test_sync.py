"""Filling the store beside the work: bounded, one at a time, repaired after a kill, and never with damaged files."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from filelock import FileLock

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.tracking import store as tracking
from pipeline.tracking import sync
from pipeline.training.run import HISTORY
from tests.mlflow_runs import assert_every_metric_is_there_once, client, stored_runs
from tests.processes import python
from tests.tiny import damage
from tests.tiny_params import tiny_params, train_variant

pytestmark = pytest.mark.usefixtures("mlflow_tables")


@pytest.fixture
def broken_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that answers with errors, with what is no MLflow, not at all, or is not there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"500": 500, "other": 200}[request.param])
            self.send_header("Retry-After", "3600")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            """Not on standard error, where the test counts lines."""

    if request.param in ("hanging", "down"):
        with socket.create_server(("127.0.0.1", 0)) as listening:  # connects, and is never answered
            if request.param == "down":
                listening.close()
            yield f"http://127.0.0.1:{listening.getsockname()[1] if request.param == 'hanging' else 9}"
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("broken_server", ["500", "other", "hanging", "down"], indirect=True)
def test_a_broken_server_costs_one_warning_and_the_store_is_filled_later(
    trained: Store, broken_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", broken_server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    capfd.readouterr()
    sync.run(background=True)
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {broken_server}: the MLflow store cannot be used (")
    assert warning.endswith("`alexnet sync` fills it from the files once it is back")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    sync.run(background=False)
    assert_every_metric_is_there_once()


def test_an_unwritable_store_is_one_warning_too(trained: Store, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mlflow.db").unlink()
    Path("mlflow.db").mkdir()
    sync.run(background=True)
    assert capsys.readouterr().err.count("warning: sqlite:///") == 1
    with pytest.raises(UserError, match="the MLflow store cannot be used"):
        sync.run(background=False)


@pytest.mark.parametrize("stuck", ["in the library", "behind a lock"])
def test_a_sending_that_does_not_end_is_ended_with_one_warning(workplace: Path, stuck: str) -> None:
    code = (
        "import time; from pipeline.tracking import sync\n"
        "sync.FOREGROUND_S = 0.5; sync._send = lambda: time.sleep(60); sync.run(background=False)"
    )
    paths.state().mkdir()
    lock = FileLock(paths.state() / "mlflow-sending.lock")
    with lock if stuck == "behind a lock" else FileLock("other.lock"):
        done = python("-c", code)
    assert done.returncode == 2
    (warning,) = done.stderr.splitlines()
    assert "sending to the MLflow store took longer than 0.5 s; `alexnet sync` sends the rest" in warning


def test_the_stages_process_does_not_wait_and_its_child_is_out_of_reach_of_ctrl_c(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[call-overload]
            children.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    paths.state().mkdir()
    with FileLock(paths.state() / "mlflow-sending.lock"):  # as if another one hung
        sync.start()
        (child,) = children
        assert child.poll() is None
        assert os.getsid(child.pid) == child.pid
        child.kill()
        child.wait()


def test_one_sends_one_waits_and_further_ones_leave_it_to_the_one_that_waits(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(sync, "_send", lambda: sent.append(threading.current_thread().name))
    paths.state().mkdir()
    with FileLock(paths.state() / "mlflow-sending.lock"):
        waiting = threading.Thread(target=sync.run, args=(True,), name="waiting")
        waiting.start()
        probe = FileLock(paths.state() / "mlflow-waiting.lock")
        while True:
            try:
                probe.acquire(blocking=False)
            except TimeoutError:
                break
            probe.release()
            time.sleep(0.01)
        sync.run(background=True)
        assert sent == []
    waiting.join()
    assert sent == ["waiting"]


def test_mlflow_is_asked_only_where_files_or_store_have_changed(
    trained: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    original = tracking.sync
    monkeypatch.setattr(tracking, "sync", lambda: written.append(original()) or written[-1])
    sync.run(background=False)
    sync.run(background=False)
    assert written == [2]
    train_variant(tiny_params(seeds=[0, 1, 2]), "baseline")
    sync.run(background=False)
    assert written == [2, 1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd() / 'other.db'}")
    sync.run(background=False)
    assert written == [2, 1, 3]
    client().delete_run(stored_runs()[0].info.run_id)
    sync.run(background=False)
    assert written == [2, 1, 3, 1]


SLOW_STEPS = [pytest.param(step, marks=pytest.mark.slow) for step in ("create_run", "set_terminated", "set_tag")]


@pytest.mark.parametrize("after", ["log_batch", "log_model_artifacts", *SLOW_STEPS])
def test_a_sending_killed_at_any_step_is_repaired_by_the_next(evaluated: Store, after: str) -> None:
    victim = os.fork()
    if victim == 0:
        step = getattr(mlflow.MlflowClient, after)

        def last(*args: object, **options: object) -> None:
            step(*args, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(mlflow.MlflowClient, after, last)
        try:
            tracking.sync()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) == -signal.SIGKILL
    assert any(run.info.status == "RUNNING" or tracking.SENT not in run.data.tags for run in stored_runs())
    tracking.sync()
    assert_every_metric_is_there_once()
    (model,) = mlflow.search_logged_models([stored_runs()[0].info.experiment_id], output_format="list")
    assert model.status == "READY"
    assert tracking.sync() == 0


def test_a_half_sent_run_whose_files_have_gone_is_closed(trained: Store) -> None:
    tracking.sync()
    experiment = stored_runs()[0].info.experiment_id
    client().create_run(experiment, tags={tracking.FINGERPRINT: "of a run that was since replaced"}, run_name="x")
    tracking.sync()
    assert [run.info.status for run in stored_runs()] == ["FINISHED", "FINISHED", "KILLED"]


def test_a_damaged_file_is_named_and_the_other_runs_are_sent(trained: Store) -> None:
    history = paths.seed("smoke", "baseline", 0) / HISTORY
    whole = history.read_bytes()
    damage(history, "flipped")
    with pytest.raises(UserError, match=rf"^{history}: is damaged \(SHA-256 is .*`dvc repro` restores it"):
        tracking.sync()
    assert [run.info.run_name for run in stored_runs()] == ["baseline seed 1"]
    history.write_bytes(whole)
    assert tracking.sync() == 1
    assert_every_metric_is_there_once()
