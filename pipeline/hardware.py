"""What the numbers are computed on."""

import ctypes
import os
import platform

import psutil
import torch

from pipeline.params import Hardware

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def set_threads(hardware: Hardware) -> int:
    """Fix the number of threads (results depend on it) and flush denormals, which cost time and carry nothing."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # that train together on this machine
    threads = hardware.threads or max(1, (psutil.cpu_count(logical=False) or 1) // processes)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # none is read
    _keep_freed_memory()
    return threads


def _keep_freed_memory() -> None:
    """Have glibc reuse large blocks, not fetch each anew from the system page by page: half the time of a full step."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def device(hardware: Hardware) -> torch.device:
    """Where to evaluate: the GPU if there is one and the configuration does not say `cpu`."""
    return torch.device("cuda" if hardware.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
