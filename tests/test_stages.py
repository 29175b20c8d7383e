"""A stage that cannot do its work ends with status 2 and one line, before any work; and imports what it uses alone."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from pipeline import params
from pipeline.runtime.exit_status import exit_status
from tests.clone import ROOT, write_params
from tests.processes import python
from tests.tiny import make_store
from tests.tiny_params import tiny_params

ALL = ("prepare", "tune", "train", "evaluate")
GPU = {"accelerator": "gpu", "threads": 1}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refusal(stage: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a stage ends."""
    params.load.cache_clear()
    before = files(Path())
    assert exit_status(importlib.import_module(f"stages.{stage}").main) == 2
    params.load.cache_clear()
    assert files(Path()) == before
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        *((stage, {"hardware": GPU}, "hardware.accelerator = 'gpu': no GPU can be used here (torch") for stage in ALL),
        *((stage, {"widht": 1}, "params.yaml: widht: unknown key") for stage in (*ALL, "report")),
        *((stage, {}, "prepared/fashion_mnist/meta.json: cannot be read (No such file") for stage in ALL[2:]),
        ("report", {}, "runs/smoke/evaluation: no variant of params.yaml is evaluated there; run `dvc repro evaluate`"),
    ],
)
def test_what_a_stage_cannot_work_with_is_named_before_its_work(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    write_params(workplace, tiny_params().model_dump() | changes)
    assert refusal(stage, capsys).startswith(message)


@pytest.mark.parametrize("stage", ALL[1:])
def test_a_place_that_cannot_be_written_is_named(
    workplace: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    write_params(workplace, tiny_params().model_dump())
    make_store(workplace / "prepared/fashion_mnist")
    (workplace / "runs").write_text("a file where a folder has to be")
    assert refusal(stage, capsys).startswith("runs/smoke/")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("train", "runs/smoke/tune/baseline/best.yaml: is not there, and tuned takes its values; run `dvc repro tune`"),
        ("evaluate", "runs/smoke/train/baseline/seed-0/run.json: cannot be read"),
    ],
)
def test_what_the_stage_before_has_not_written_is_named(
    workplace: Path, capsys: pytest.CaptureFixture[str], stage: str, message: str
) -> None:
    write_params(workplace, tiny_params().model_dump())
    make_store(workplace / "prepared/fashion_mnist")
    (workplace / "runs/smoke/train").mkdir(parents=True)
    assert refusal(stage, capsys).startswith(message)


@pytest.mark.parametrize("command", [["pipeline", "check"], ["stages.train"]])
def test_a_command_ends_with_status_2_and_no_traceback(workplace: Path, command: list[str]) -> None:
    (workplace / "conf").symlink_to(ROOT / "conf")
    write_params(workplace, tiny_params().model_dump() | {"widht": 1})
    done = python("-m", *command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml: widht: unknown key")
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in workplace.iterdir()) == ["conf", "params.yaml"]


def test_a_stage_imports_no_heavy_library_that_it_does_not_use(tmp_path: Path) -> None:
    """One after the other in one process: none may use what an earlier one must not import."""
    absent = {
        "prepare": {"torch", "pytorch_lightning", "mlflow", "optuna", "matplotlib", "pandas"},
        "evaluate": {"pytorch_lightning", "mlflow", "optuna", "matplotlib"},
        "report": {"pytorch_lightning", "mlflow", "optuna"},
        "train": {"optuna", "mlflow"},
    }
    code = "import sys, importlib\n"
    code += f"for stage in {list(absent)}:\n    s = importlib.import_module('stages.' + stage)\n"
    code += "    try: s.main()\n    except Exception as e: print(e, *sys.modules)"
    lines = python("-c", code, cwd=tmp_path).stdout.splitlines()  # no params.yaml: it ends with everything imported
    for (stage, libraries), line in zip(absent.items(), lines, strict=True):
        assert line.startswith("params.yaml: cannot be read")
        assert not libraries & set(line.split()), stage
