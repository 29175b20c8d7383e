"""Whether the accelerator that the configuration asks for can be used here."""

from pipeline.errors import UserError


def require(accelerator: str, devices: int) -> None:
    """Raise UserError where a GPU is asked for that torch cannot use. Imports torch only then."""
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
