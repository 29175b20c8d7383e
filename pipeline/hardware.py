"""What the numbers are computed on."""

import ctypes
import platform
from typing import Literal

import torch

from pipeline import launcher
from pipeline.cores import usable_cores
from pipeline.params import Hardware, Precision

Lightning = Literal["32-true", "bf16-mixed", "16-mixed"]

CPU = torch.device("cpu")
MOST_CUTTERS = 8  # of 80,000 crops of 227 px a second each
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def set_arithmetic(precision: Precision) -> Lightning:
    """Whether a GPU may round the factors of fp32 products to 10 bits (TF32). Returns Lightning's name of the rest."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return "32-true" if precision == "tf32" else precision


def cutters(device: torch.device) -> int:
    """Processes that cut batches beside the one that trains on a GPU. On a CPU, which does both, they only cost."""
    if device.type != "cuda":
        return 0
    return max(1, min(MOST_CUTTERS, usable_cores() // launcher.local_size()))


def set_threads(hardware: Hardware) -> int:
    """Fix the number of threads (results depend on it) and flush denormals, which cost time and carry nothing."""
    threads = hardware.threads or max(1, usable_cores() // launcher.local_size())
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
