"""What happens on a file system that is really full: a small one, mounted for the test."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline import paths, tuning
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.report.render import write_report
from pipeline.runtime.exit_status import exit_status
from pipeline.tracking import store as tracking
from pipeline.training import callbacks
from pipeline.training.run import CHECKPOINT, HISTORY, WEIGHTS, train
from tests.fake_runs import fake_params, write_fake_runs
from tests.mlflow_runs import stored_runs
from tests.processes import python
from tests.tiny import a_run
from tests.tiny_params import TUNE, tiny_params, train_variant

pytestmark = pytest.mark.fault

KIB = 1024


class SmallDisk:
    """A file system in memory at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, size_bytes: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(self.folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a file system takes root")

    def fill(self) -> None:
        with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4 * KIB)):
                pass

    def make_room(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=1g", str(self.folder)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True)


@pytest.fixture
def disk(workplace: Path) -> Iterator[Callable[[Path, int], SmallDisk]]:
    disks: list[SmallDisk] = []

    def mounted(folder: Path, size_bytes: int) -> SmallDisk:
        disks.append(SmallDisk(folder))
        disks[-1].mount(size_bytes)
        return disks[-1]

    yield mounted
    for small in disks:
        small.unmount()


Disk = Callable[[Path, int], SmallDisk]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The message; progress bars come before it."""
    return capsys.readouterr().err.splitlines()[-1]


def left_over(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if "partial" in path.name]


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one_to_go_on_from(
    store: Store, disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 0)  # after each of these short epochs
    run = a_run(store)
    monkeypatch.setenv("ALEXNET_STATE", "undisturbed")
    undisturbed = (train(run) / WEIGHTS).read_bytes()
    monkeypatch.setenv("ALEXNET_STATE", "full")
    small = disk(paths.state(), 3 * len(undisturbed))  # weights and momentum fit once
    assert exit_status(lambda: train(run) and None) == 2
    path = run.folder / CHECKPOINT
    message = last_line(capsys)
    assert message.startswith(f"error: {path}: No space left on device; ")
    assert message.endswith(" bytes are needed; make room on that file system")
    needed = int(message.split("; ")[1].split()[0])
    assert path.stat().st_size == pytest.approx(needed, rel=0.01)
    assert torch.load(path, weights_only=True)["epoch"] == 0
    assert left_over(small.folder) == []
    first = pd.read_csv(run.folder / HISTORY)["time_ms"][0]
    small.make_room()
    assert (train(run) / WEIGHTS).read_bytes() == undisturbed
    assert pd.read_csv(run.folder / HISTORY)["time_ms"][0] == first  # that epoch was not repeated


def test_weights_that_do_not_fit_cost_no_epoch(store: Store, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    small = disk(paths.trained("smoke") / "baseline", 20 * KIB)
    params = tiny_params(seeds=[0])
    assert exit_status(lambda: train_variant(params, "baseline")) == 2
    out = paths.seed("smoke", "baseline", 0)
    assert last_line(capsys) == f"error: {out}: No space left on device; make room on that file system"
    assert list(small.folder.iterdir()) == []
    (finished,) = (paths.state() / "runs").glob(f"*/{WEIGHTS}")
    trained = finished.stat().st_mtime_ns
    small.make_room()
    train_variant(params, "baseline")
    assert finished.stat().st_mtime_ns == trained
    assert (out / WEIGHTS).read_bytes() == finished.read_bytes()


def test_a_report_that_does_not_fit_leaves_the_earlier_one(
    workplace: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = fake_params()
    write_fake_runs(workplace, params)
    out = paths.report("fake")
    small = disk(out.parent, 64 * KIB)
    out.mkdir()
    (out / "report.md").write_text("the earlier one")
    assert exit_status(lambda: write_report(params, out)) == 2
    assert last_line(capsys) == f"error: {out}: No space left on device; make room on that file system"
    assert [str(path) for path in small.folder.rglob("*")] == [str(out), str(out / "report.md")]
    assert (out / "report.md").read_text() == "the earlier one"
    small.make_room()
    monkeypatch.setattr(FigureCanvasAgg, "print_figure", lambda *_, **__: None)
    write_report(params, out)
    assert (out / "report.md").read_text().startswith("# ")


@pytest.mark.parametrize("tables", [False, True], ids=["no room for its tables", "no room for a run"])
def test_an_mlflow_store_that_does_not_fit_is_one_message_and_is_filled_later(
    store: Store, disk: Disk, monkeypatch: pytest.MonkeyPatch, tables: bool
) -> None:
    small = disk(Path("mlflow"), 2000 * KIB if tables else 100 * KIB)
    uri = f"sqlite:///{small.folder.resolve() / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if tables:
        tracking.sync()
        small.fill()
    train_variant(tiny_params(), "baseline")
    with pytest.raises(UserError, match=rf"^{uri}: the MLflow store cannot be used"):
        tracking.sync()
    small.make_room()
    assert python("-m", "pipeline", "sync").returncode == 0  # MLflow keeps in memory what it had begun
    assert [run.info.status for run in stored_runs()] == ["FINISHED"] * 2


@pytest.mark.parametrize("size_kib", [40, 200], ids=["no room for its tables", "no room for a trial"])
def test_a_study_that_does_not_fit_goes_on_where_it_was(
    store: Store, disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size_kib: int
) -> None:
    params = tiny_params(tune=TUNE)
    tuning.tune_variant(params, "baseline")
    undisturbed = (paths.tune("smoke", "baseline") / "best.yaml").read_bytes()
    monkeypatch.setenv("ALEXNET_STATE", "full")
    small = disk(paths.state(), size_kib * KIB)
    assert exit_status(lambda: tuning.tune_variant(params, "baseline")) == 2
    full = "the tuning study cannot be kept there" if size_kib == 40 else "No space left on device"
    assert full in last_line(capsys)
    small.make_room()
    tuning.tune_variant(params, "baseline")
    assert (paths.tune("smoke", "baseline") / "best.yaml").read_bytes() == undisturbed
