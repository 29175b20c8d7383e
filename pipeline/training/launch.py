"""A stage run again by torchrun, as several processes that train together on this machine."""

import logging
import sys
from typing import NoReturn

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipeline.params import Hardware
from pipeline.runtime.launcher import launched


def wanted(hardware: Hardware) -> bool:
    """Whether this process is to launch others. Where torchrun or a cluster has started it, it is one of them."""
    return hardware.devices > 1 and not launched()


def launch(hardware: Hardware) -> NoReturn:
    """Run this very command as `hardware.devices` processes, and end as they do.

    Where one fails the others are ended. A signal is passed on; they have half a minute to heed it.
    """
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the processes speak for themselves
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=hardware.devices,
        run_id="stage",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)(*sys.orig_argv[1:])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    sys.exit(0)
