"""The variables by which torchrun, or a cluster's scheduler, tells a process about the others that train with it.

They count only if all of them are set: a single one may be left over from an earlier program or from another launcher
(mpirun, srun).
"""

import os

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Return whether this process was started as one of a group."""
    return all(os.environ.get(name) for name in VARIABLES)


def size() -> int:
    """Return the number of processes that train one run together: 1 where nothing launched several."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def rank() -> int:
    """Return the place of this process among them, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def local_size() -> int:
    """Return how many of them run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if launched() else 1


def local_rank() -> int:
    """Return the place of this process among those of this machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0
