"""How many cores and how much memory this process may use, and whether it can use a GPU."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

from pipeline.errors import UserError

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the smallest of: the cores of the affinity, the cgroup's quota, the physical and the logical cores."""
    counts = [os.cpu_count(), psutil.cpu_count(logical=False), _quota()]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    return max(1, min(count for count in counts if count is not None))


def usable_memory() -> int:
    """Return bytes: the smaller of what is free on the machine and what the cgroup still grants."""
    free = [psutil.virtual_memory().available]
    for folder in _folders("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):  # "max": no limit
                free.append(int((folder / limit).read_text()) - int((folder / used).read_text()))
    return max(0, min(free))


def _quota() -> int | None:
    """Return how many whole cores the CPU time amounts to that is granted to the cgroup and those above it.

    None: there is no limit. It is quota over period, both in microseconds, from one file (cgroup 2) or two (cgroup 1).
    """
    granted = []
    for folder in _folders("cpu"):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with suppress(OSError, ValueError):
                quota, period = map(float, " ".join((folder / name).read_text() for name in names).split())
                if quota > 0:  # "max" or -1: no limit
                    granted.append(quota / period)
    return max(1, int(min(granted))) if granted else None


def _folders(controller: str) -> list[Path]:
    """Return the folders of the cgroups, of either version, that limit this process; none where this is not Linux."""
    found = []
    with suppress(OSError):
        for line in MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or controller in controllers.split(","):
                root = CGROUPS / controllers
                folder = root / path.lstrip("/")  # in a container, often a path that only the host has
                found += [root, folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    return found


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
