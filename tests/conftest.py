import os
from collections import Counter
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


@pytest.fixture(autouse=True)
def _resume_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test leaves unfinished is no other's to go on from."""
    monkeypatch.setenv("ALEXNET_STATE", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory, with resume folder and MLflow store of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "ALEXNET_STATE", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def store(workplace: Path) -> Store:
    return make_store(workplace / "prepared/fashion_mnist")


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
    parser.addoption(
        "--faults", metavar="FILE", help="write what the tests marked `fault` proved, and in how many cases"
    )


FAULTS: Counter[tuple[str, str]] = Counter()  # by test and, where a test counts its cases itself, kind of case


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """For a test that makes many cases of its own: count those of one kind, once all of them are proven."""
    return lambda kind, times: FAULTS.update({(request.function.__name__, kind): times})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    test = report.location[2].partition("[")[0]
    if report.when == "call" and report.passed and "fault" in report.keywords and not _counted(test):
        FAULTS[test, ""] += 1


def _counted(test: str) -> bool:
    return any(name == test and kind for name, kind in FAULTS)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if out := session.config.getoption("--faults"):
        rows = [
            f"| {test.removeprefix('test_').replace('_', ' ').capitalize()} | {kind} | {cases} |"
            for (test, kind), cases in sorted(FAULTS.items())
        ]
        head = (
            "# What was broken on purpose\n\nWritten by `make test-slow`: with real processes, signals, full disks and "
            "damaged files; a row stands here when its test passed.\n"
        )
        Path(out).write_text("\n".join([head, "| proved | where | cases |", "|:--|:--|--:|", *rows]) + "\n")
