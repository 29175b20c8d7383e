import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")

import torch

from pipeline.data.store import Store
from tests.clone import ALL_STAGES, make_clone, run, smoke_params, stages_run
from tests.tiny import make_store


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory, with resume folder and MLflow store of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "ALEXNET_STATE", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def store(workplace: Path) -> Store:
    return make_store(workplace / "data/fashion_mnist")


@pytest.fixture(scope="session")
def smoke() -> dict[str, Any]:
    return smoke_params()


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which `dvc repro` has been run once. Tests leave it as they found it."""
    clone = tmp_path_factory.mktemp("clone")
    make_clone(clone)
    assert stages_run(run(clone, "dvc", "repro")) == ALL_STAGES
    return clone


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", metavar="FILE", help="write what the tests with a `faults` fixture counted")


FAULTS: list[tuple[str, str, int, str]] = []


@pytest.fixture
def faults() -> Callable[[str, str, int, str], None]:
    """Count a fault, where it hit, how often it was tried and what came of it. Called when all of that is proven."""
    return lambda *row: FAULTS.append(row)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if out := session.config.getoption("--faults"):
        rows = [f"| {fault} | {where} | {times} | {outcome} |" for fault, where, times, outcome in sorted(FAULTS)]
        head = "# What was broken on purpose\n\nWritten by `make test-slow`; a row stands here when its test passed.\n"
        table = ["| fault | where | times | outcome |", "|:--|:--|--:|:--|", *rows]
        Path(out).write_text("\n".join([head, *table]) + "\n")
