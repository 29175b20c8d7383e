"""Threads and workers are as many as the process may use, and a GPU that cannot be used is one message."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from pipeline.params import Hardware
from pipeline.runtime import cores
from pipeline.runtime.cores import require_accelerator
from tests.clone import ROOT

TRAINED_WITH = (
    "import torch; from pipeline.params import Hardware; from pipeline.runtime.hardware import set_threads; "
    "set_threads(Hardware().thread_count); print(torch.get_num_threads())"
)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="needs two cores to bind")
def test_a_process_bound_to_one_core_trains_with_one_thread() -> None:
    core = min(os.sched_getaffinity(0))
    command = ["taskset", "--cpu-list", str(core), sys.executable, "-c", TRAINED_WITH]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),  # a container, cgroup 2
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),  # half a core is still one thread
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/slurm/job\n", {"slurm/cpu.max": "200000 100000", "slurm/job/cpu.max": "max 100000"}, 2),
        ("0::/only/the/host/has/this\n", {"cpu.max": "200000 100000"}, 2),
        (
            "3:cpu,cpuacct:/docker\n1:name=systemd:/x\n",
            {"cpu,cpuacct/docker/cpu.cfs_quota_us": "400000", "cpu,cpuacct/docker/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("0::/\n", {}, 16),
        ("0::/\n", {"cpu.max": "of another form"}, 16),
    ],
)
def test_the_least_of_affinity_quota_and_cores_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(content)
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr("os.cpu_count", lambda: 32)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 32 if logical else 16)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(32)), raising=False)
    assert cores.usable_cores() == expected
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {7}, raising=False)
    assert cores.usable_cores() == 1


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.params.usable_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # a variable that is left over by itself says nothing
    assert Hardware().thread_count == 8
    assert Hardware(devices=4).thread_count == 2
    assert Hardware(devices=4, threads=3).thread_count == 3


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
