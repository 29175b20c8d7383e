"""A GPU that cannot be used is one message before the first stage."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import UserError
from pipeline.params import Hardware
from pipeline.runtime.cores import require_accelerator
from tests.clone import ROOT, write_params
from tests.tiny_params import tiny_params


def asked(**changes: Any) -> Hardware:
    return Hardware(**{"accelerator": "gpu", "threads": 1, **changes})


@pytest.mark.parametrize("stage", ["prepare", "tune", "train", "evaluate"])
def test_a_stage_that_wants_a_gpu_where_there_is_none_ends_before_its_work(tmp_path: Path, stage: str) -> None:
    write_params(tmp_path, tiny_params(hardware=asked().model_dump()).model_dump())
    command = [sys.executable, "-m", f"stages.{stage}"]
    environment = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: hardware.accelerator = 'gpu': no GPU can be used here (torch")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("cuda", "reason"), [(None, "is a build for the CPU alone; install a CUDA build"), ("13.0", "`nvidia-smi` tells")]
)
def test_the_message_tells_a_cpu_build_from_a_missing_driver(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, reason: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(UserError, match=reason):
        require_accelerator("gpu", 1)


def test_more_devices_than_there_are_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    require_accelerator("gpu", 2)
    with pytest.raises(UserError, match=r"hardware\.devices = 3: accepted is at most 2"):
        require_accelerator("gpu", 3)


def test_no_gpu_is_needed_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for wanted in ("cpu", "auto"):
        require_accelerator(wanted, 2)
