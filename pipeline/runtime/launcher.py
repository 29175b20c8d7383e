"""The variables by which torchrun, or a cluster's scheduler, tells a process of the others that train with it.

They count together or not at all: one that an earlier program or another launcher (mpirun, srun) left in the
environment makes no process of a group.
"""

import os

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether this process was started as one of a group."""
    return all(os.environ.get(name) for name in VARIABLES)


def size() -> int:
    """The number of processes that train one run together: 1 where nothing launched several."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def rank() -> int:
    """The place of this process among them, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def local_size() -> int:
    """How many of them run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if launched() else 1


def local_rank() -> int:
    """The place of this process among those of this machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0
