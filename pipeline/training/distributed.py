"""The processes that train one run together: one alone, or as many as torchrun or a cluster's scheduler has started.

They find each other by torchrun's variables (launcher.py).
What they agree on here goes over gloo from processor to processor, whatever way gradients take.
"""

import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    LightningEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.utilities.rank_zero import rank_zero_only  # type: ignore[attr-defined]
from torch import Tensor

from pipeline.errors import UserError
from pipeline.params import Hardware
from pipeline.runtime import launcher, signals
from pipeline.runtime.hardware import device

PATIENCE = timedelta(days=30)  # with the first process, which may wait for others that train the same run
T = TypeVar("T")

_talk: "dist.ProcessGroup | None" = None


size, rank = launcher.size, launcher.rank


def is_global_zero() -> bool:
    """Whether this is the process that writes files and speaks to the user."""
    return rank() == 0


def join(hardware: Hardware) -> None:
    """Meet the others, unless that has been done."""
    global _talk
    if not 0 <= rank() < size():
        raise UserError(f"RANK={rank()} WORLD_SIZE={size()}: accepted is a rank from 0 to {size() - 1}; unset them all")
    if size() != hardware.processes:
        raise UserError(
            f"{size()} processes were started to train a run together; accepted are hardware.devices × "
            f"hardware.nodes = {hardware.devices} × {hardware.nodes}: docs/imagenet.md says how a cluster starts them"
        )
    rank_zero_only.rank = rank()  # type: ignore[attr-defined]  # Lightning reads any single variable
    if size() == 1 or _talk is not None:
        return
    on_gpu = device(hardware.accelerator).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(launcher.local_rank())
    dist.init_process_group("nccl" if on_gpu else "gloo")
    _talk = dist.new_group(backend="gloo", timeout=PATIENCE)


def trainer_arguments() -> dict[str, Any]:
    """How many processes Lightning finds."""
    here = launcher.local_size()
    return {
        "devices": here,
        "num_nodes": size() // here,
        "strategy": "ddp" if size() > 1 else "auto",
        "use_distributed_sampler": False,  # ours knows its share
    }


def environment() -> LightningEnvironment | TorchElasticEnvironment:
    """What Lightning is to take for its surroundings: left to detect Slurm, it would requeue jobs by itself."""
    return TorchElasticEnvironment() if size() > 1 else LightningEnvironment()


def agreed(find: Callable[[], T]) -> T:
    """What the first process finds, in all of them."""
    if size() == 1:
        return find()
    found = [find() if is_global_zero() else None]
    dist.broadcast_object_list(found, src=0, group=_talk)
    return found[0]  # type: ignore[return-value]


def total(numbers: Tensor) -> Tensor:
    """Their sum over all processes; in float64 and on the CPU where there are several."""
    if size() == 1:
        return numbers
    numbers = numbers.detach().cpu().double()
    dist.all_reduce(numbers, group=_talk)
    return numbers


def check() -> None:
    """signals.check, for a signal that any of the processes has received."""
    if size() == 1:
        return signals.check()
    received = torch.tensor(signals.received())
    dist.all_reduce(received, dist.ReduceOp.MAX, group=_talk)
    if received:
        raise signals.Stopped(signal.Signals(int(received)))
    return None
