"""`python -m pipeline plan`: size up, measure, print."""

import resource
import time

import torch

from pipeline.params import Params
from pipeline.plan import sizes, table
from pipeline.plan.measure import SECONDS, measure
from pipeline.plan.work import Work


def plan(params: Params, price: float | None, seconds: float = SECONDS) -> str:
    """The plan as Markdown. Writes nothing but to a temporary folder. price: of an hour on this machine."""
    started = time.monotonic()
    source = sizes.source(params.data)
    work = Work(params, sizes.counts(params.data, source), source.classes, source.channels)
    machine, costs = measure(work, source, seconds)
    where = table.here(work, _used_memory())
    return table.text(work, machine, costs, where, time.monotonic() - started, price)


def _used_memory() -> int:
    """Bytes at most so far, of the GPU where there is one."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
