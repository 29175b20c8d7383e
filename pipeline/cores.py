"""How many cores this process may use."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """The least of the cores that the affinity allows, the cgroup's quota, the physical and the logical cores."""
    counts = [os.cpu_count(), psutil.cpu_count(logical=False), _quota()]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    return max(1, min(count for count in counts if count is not None))


def _quota() -> int | None:
    """Whole cores that the CPU time granted to this process' cgroup and to those above it comes to; None: no limit."""
    limits = []
    with suppress(OSError):  # not Linux
        for line in MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                limits += [_limit((folder / "cpu.max",)) for folder in _upwards(CGROUPS, path)]
            elif "cpu" in controllers.split(","):
                files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                root = CGROUPS / controllers
                limits += [_limit(tuple(folder / name for name in files)) for folder in _upwards(root, path)]
    granted = [limit for limit in limits if limit is not None]
    return max(1, int(min(granted))) if granted else None


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
