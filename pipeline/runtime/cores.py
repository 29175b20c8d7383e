"""How many cores and how much memory this process may use, and whether it can use a GPU."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

from pipeline.errors import UserError

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """The least of the cores that the affinity allows, the cgroup's quota, the physical and the logical cores."""
    counts = [os.cpu_count(), psutil.cpu_count(logical=False), _quota()]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    return max(1, min(count for count in counts if count is not None))


def usable_memory() -> int:
    """Bytes: the less of what is free on the machine and what the cgroup still grants."""
    free = [psutil.virtual_memory().available]
    for folder in _folders("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):  # "max": no limit
                free.append(int((folder / limit).read_text()) - int((folder / used).read_text()))
    return max(0, min(free))


def _quota() -> int | None:
    """Whole cores that the CPU time granted to this process' cgroup and to those above it comes to; None: no limit."""
    limits = [
        _limit(tuple(folder / name for name in names))
        for folder in _folders("cpu")
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    ]
    granted = [limit for limit in limits if limit is not None]
    return max(1, int(min(granted))) if granted else None


def _folders(controller: str) -> list[Path]:
    """The folders of the cgroups, of either version, that limit this process; none where this is not Linux."""
    found = []
    with suppress(OSError):
        for line in MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or controller in controllers.split(","):
                found += _upwards(CGROUPS / controllers, path)
    return found


def _upwards(root: Path, path: str) -> list[Path]:
    """The cgroup's folder and those above it; in a container the path is often one that only the host has."""
    folder = root / path.lstrip("/")
    return [root, folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _limit(files: tuple[Path, ...]) -> float | None:
    """Cores: quota over period, both in microseconds, from one file (cgroup 2) or two (cgroup 1)."""
    with suppress(OSError, ValueError):
        quota, period = " ".join(file.read_text() for file in files).split()
        if float(quota) > 0:  # "max" or -1: no limit
            return float(quota) / float(period)
    return None


def require_accelerator(accelerator: str, devices: int) -> None:
    """Raise UserError where the configuration asks for a GPU, or for more of them, than torch can use."""
    if accelerator != "gpu":
        return
    import torch

    found = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if found == 0:
        reason = "torch finds none; `nvidia-smi` tells whether there is a driver"
        if torch.version.cuda is None and torch.version.hip is None:
            reason = f"torch {torch.__version__} is a build for the CPU alone; install a CUDA build into .venv"
        raise UserError(f"hardware.accelerator = 'gpu': no GPU can be used here ({reason}); accepted is cpu or auto")
    if devices > found:
        raise UserError(f"hardware.devices = {devices}: accepted is at most {found}, the GPUs of this machine")
