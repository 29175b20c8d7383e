"""Tracking against a real MLflow server."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import tracking
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.training.variant import train_variant
from tests.test_tracking import stored_runs
from tests.tiny_params import tiny_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def server(workplace: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{workplace / 'server.db'}", "--artifacts-destination", "artifacts"]
    process = subprocess.Popen([*command, *store], start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.3)
        yield url, process
    finally:
        with suppress(ProcessLookupError):  # the test may have killed it
            os.killpg(process.pid, 9)
        process.wait()


def test_a_server_gets_every_run_and_when_it_dies_that_is_one_message_within_a_minute(
    store: Store, server: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, process = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    train_variant(tiny_params(), "baseline")
    assert tracking.sync() == 2
    assert tracking.sync() == 0
    assert [run.info.status for run in stored_runs()] == ["FINISHED"] * 2
    os.killpg(process.pid, 9)
    process.wait()
    train_variant(tiny_params(train={"lr": 0.02}), "baseline")
    started = time.monotonic()
    with pytest.raises(UserError, match="the MLflow store cannot be used"):
        tracking.sync()
    assert time.monotonic() - started < 60
