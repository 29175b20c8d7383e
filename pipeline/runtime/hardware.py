"""What the numbers are computed on: threads, rounding, the processor and the device."""

import ctypes
import platform
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast

import torch

from pipeline.runtime import launcher
from pipeline.runtime.cores import usable_cores

Lightning = Literal["32-true", "bf16-mixed"]

CPU = torch.device("cpu")
MOST_LOADER_WORKERS = 8  # of 80,000 crops of 227 px a second each
RESIDENT_SHARE = 1 / 16  # of a GPU's memory: the splits of eight runs side by side leave half of it to their nets
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def set_arithmetic(precision: str) -> Lightning:
    """Set whether a GPU may round the factors of fp32 products to 10 bits (TF32). Returns Lightning's precision."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return "32-true" if precision == "tf32" else cast("Lightning", precision)


def loader_workers(device: torch.device) -> int:
    """Return how many processes cut batches beside the one that trains on a GPU. On a CPU they would only cost time."""
    if device.type != "cuda":
        return 0
    return max(1, min(MOST_LOADER_WORKERS, usable_cores() // launcher.local_size()))


def resident(device: torch.device, images_bytes: int) -> bool:
    """Return whether a split of so many bytes is to lie in the device's memory: on a GPU with room for it."""
    if device.type != "cuda":
        return False
    return images_bytes <= RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory


def set_threads(threads: int) -> None:
    """Fix the number of threads (results depend on it) and flush denormals, which cost time and carry nothing."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # none is read
    if platform.libc_ver()[0] == "glibc":
        # glibc shall reuse large blocks: to fetch them anew from the system takes half the time of a full step.
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def cpu_model() -> str:
    """Return the processor's name, family and model: two with the same instructions may still sum in another order."""
    with suppress(OSError):
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
        facts = {name.strip(): value.strip() for name, _, value in lines}
        if "model name" in facts:
            return f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')})"
    return platform.processor() or "cpu"


def kind_of_device(accelerator: str) -> Literal["cpu", "gpu"]:
    """Return what a run's numbers are computed on: sums on a GPU differ from those on a CPU."""
    return "gpu" if accelerator == "gpu" or device(accelerator).type != "cpu" else "cpu"


def device(accelerator: str) -> torch.device:
    """Return where to evaluate: the GPU if there is one and the configuration does not say `cpu`."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
