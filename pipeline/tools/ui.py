"""`alexnet ui`: MLflow's pages about the runs, served to this machine alone."""

import os
import socket
import sys

from pipeline import paths
from pipeline.errors import UserError
from pipeline.tracking import sync

HOST = "127.0.0.1"
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # nothing here asks for any: ten processes less
NO_LOG = ["--uvicorn-opts", "--log-level=warning"]  # a line for each file of a page would bury the addresses
SERVERS = ("http", "https", *paths.NO_PATHS)


def serve(port: int) -> None:
    """Send what the store lacks, print the addresses of its pages, and become the MLflow server behind them.

    Where the store is a server already, only its address is printed. Raises UserError where the port cannot be used.
    """
    store = paths.mlflow_store()
    if store.partition(":")[0] in SERVERS:
        print(f"The runs: {paths.without_passwords(store)}")
        return
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind((HOST, port))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise UserError(
            f"port {port} of {HOST} cannot be used ({reason}); name another one from 1024 to 65535, by "
            "`make ui PORT=...` or `alexnet ui --port ...`"
        ) from error
    sync.finish()
    from pipeline.tracking import store as tracking

    for what, address in tracking.pages(f"http://{HOST}:{port}").items():
        print(f"{what}: {address}", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1", *NO_LOG]
    # The store's address may hold a password, so it is no argument: everybody on the machine may read those.
    here = {"MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_TRACKING_URI": store}
    os.execve(sys.executable, command, NO_JOBS | os.environ | here)
