"""What the numbers are computed on."""

import psutil
import torch

from pipeline.params import Hardware


def set_threads(hardware: Hardware) -> int:
    """Fix the number of threads (results depend on it) and flush denormals, which cost time and carry nothing."""
    threads = hardware.threads or psutil.cpu_count(logical=False) or 1
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    return threads


def device(hardware: Hardware) -> torch.device:
    """Where to evaluate: the GPU if there is one and the configuration does not say `cpu`."""
    return torch.device("cuda" if hardware.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
