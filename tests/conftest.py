"""What every test finds around it: threads, resume folder and working directory of its own, and what several share."""

import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")

import torch

from pipeline.data.store import Store
from pipeline.runtime.cores import usable_cores
from tests.clone import ALL_STAGES, make_clone, run, smoke_params, stages_run
from tests.tiny import make_store
from tests.tiny_params import LEARNS, alone_in, evaluate_variant, tiny_params, train_variant

MOST_PROCESSES = 8  # of the tests, each of which takes a gibibyte of memory
SHARING = {  # files whose tests share something costly, and what
    **dict.fromkeys(("test_pipeline", "test_kills", "test_dvc_cache", "test_tour"), "the clone"),
    **dict.fromkeys(("test_analyses", "test_predict"), "trained nets"),
    "test_cluster": "Slurm",
    "test_recompute": "complete runs",
    "test_report": "complete runs and their report",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `--numprocesses=auto` starts: one for each core that this process may use."""
    return min(usable_cores(), MOST_PROCESSES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have tests that share something costly run in one process, so that it is made once; all others run anywhere."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            """Return the name of what shares a process. xdist_group, which would do, has no effect with pytest 9.2."""
            file, _, test = nodeid.partition("::")
            name = Path(file).stem
            alone = test.startswith("test_images_where")  # these have clones of their own
            return SHARING.get(name, nodeid) if not alone else nodeid

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """Whatever has been imported stays: no later collection of garbage looks through it (statsmodels asks for many)."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Other trainings of this machine, which share its cores with each other, take no part in a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("slots")))
        patch.setattr("tempfile.tempdir", None)
        yield


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
    alone_in(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def store(workplace: Path) -> Store:
    return make_store(workplace / "prepared/fashion_mnist")


@contextmanager
def _place_with_images(folder: Path) -> Iterator[Path]:
    """A working directory for a session's fixture, which trains there on tests/tiny.py's store."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        alone_in(folder, patch)
        make_store(folder / "prepared/fashion_mnist")
        yield folder


@pytest.fixture(scope="session")
def _evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with _place_with_images(tmp_path_factory.mktemp("evaluated")) as folder:
        train_variant(tiny_params(), "baseline")
        evaluate_variant(tiny_params(), "baseline")
    return folder


@pytest.fixture
def evaluated(_evaluated: Path, workplace: Path) -> Store:
    """A copy of the place where tests/tiny_params.py's baseline has been trained and evaluated."""
    shutil.copytree(_evaluated, workplace, dirs_exist_ok=True)
    return Store.open(workplace / "prepared/fashion_mnist")


@pytest.fixture
def trained(evaluated: Store) -> Store:
    """A copy of the place where tests/tiny_params.py's baseline has been trained and not yet evaluated."""
    shutil.rmtree("runs/smoke/evaluation")
    shutil.rmtree(".state/evaluations")
    Path("runs/smoke/metrics.json").unlink()
    return evaluated


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where both seeds of the baseline have learned in part and nothing is evaluated. Tests only copy it."""
    with _place_with_images(tmp_path_factory.mktemp("learned")) as folder:
        train_variant(tiny_params(**LEARNS), "baseline")
    return folder


@pytest.fixture(scope="session")
def _mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("mlflow")
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", folder.as_uri())
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_tables(_mlflow_tables: Path, workplace: Path) -> None:
    """An MLflow store with its tables and nothing in them, which MLflow needs seconds to make."""
    shutil.copy(_mlflow_tables, workplace / "mlflow.db")


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
def faults(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """For a test that makes many cases of its own: count those of one kind, once all of them are proven."""
    return lambda kind, times: record_property("fault", (kind, times))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count a passed test. A process that runs tests for another one sends its reports there, with their properties."""
    if report.when == "call" and report.passed and "fault" in report.keywords:
        counted = [value for name, value in report.user_properties if name == "fault"]
        for kind, times in counted or [("", 1)]:
            FAULTS[report.location[2].partition("[")[0], kind] += times


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (out := session.config.getoption("--faults")) and not hasattr(session.config, "workerinput"):
        rows = [
            f"| {test.removeprefix('test_').replace('_', ' ').capitalize()} | {kind} | {cases} |"
            for (test, kind), cases in sorted(FAULTS.items())
        ]
        head = (
            "# What was broken on purpose\n\nWritten by `make test-slow`: with real processes, signals, full disks and "
            "damaged files; a row stands here when its test passed.\n"
        )
        Path(out).write_text("\n".join([head, "| proved | where | cases |", "|:--|:--|--:|", *rows]) + "\n")
