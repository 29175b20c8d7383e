"""Real servers on loopback addresses, for tests: PostgreSQL, and MLflow with the command that compose.yaml has."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from pipeline.params import read_yaml

ROOT = Path(__file__).parents[1]
COMPOSE = read_yaml(ROOT / "compose.yaml")
PASSWORD = "correct horse battery"
DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """A new cluster with the user and password of a team. Yields the environment in which clients find it."""
    binaries = os.pathsep.join([*map(str, DEBIAN), os.environ["PATH"]])
    initdb, server = shutil.which("initdb", path=binaries), shutil.which("postgres", path=binaries)
    if not (initdb and server):
        pytest.skip("PostgreSQL's binaries are not on this machine (Debian: postgresql)")
    user = "nobody" if os.getuid() == 0 else getpass.getuser()  # PostgreSQL refuses to run as root
    port, folder = str(free_port()), Path(tempfile.mkdtemp(prefix="alexnet-postgres-"))
    (folder / "password").write_text(PASSWORD)
    shutil.chown(folder, user)
    shutil.chown(folder / "password", user)
    how = {"cwd": folder, "user": user, "stdout": subprocess.DEVNULL}
    data = ["-D", str(folder / "data")]
    made = [initdb, *data, "-U", "alexnet", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"]
    subprocess.run(made, check=True, **how)  # type: ignore[call-overload]
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-p", port]
    running = subprocess.Popen([server, *data, *options], stderr=(folder / "log").open("w"), **how)  # type: ignore[call-overload]
    found = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "alexnet", "PGPASSWORD": PASSWORD}
    try:
        with wait_for_database(running, found) as connection:
            connection.execute(f"create database {COMPOSE['services']['database']['environment']['POSTGRES_DB']}")
            connection.execute(COMPOSE["configs"]["databases"]["content"].split(";")[0])
        yield found
    finally:
        running.send_signal(signal.SIGINT)  # a fast shutdown
        running.wait(60)
        shutil.rmtree(folder)


def wait_for_database(server: subprocess.Popen[bytes], found: dict[str, str]) -> psycopg.Connection:
    place = {"host": found["PGHOST"], "port": found["PGPORT"], "user": found["PGUSER"]}
    while True:
        try:
            return psycopg.connect(**place, password=found["PGPASSWORD"], dbname="postgres", autocommit=True)
        except psycopg.OperationalError:
            assert server.poll() is None
            time.sleep(0.2)


@contextmanager
def running(command: list[str], health: str, environment: dict[str, str]) -> Iterator[None]:
    """Run a server until the block ends, which begins when it answers."""
    process = subprocess.Popen(command, env=os.environ | environment, start_new_session=True)
    try:
        for _ in range(600):
            with suppress(OSError):
                urllib.request.urlopen(health, timeout=1)
                break
            assert process.poll() is None
            time.sleep(0.3)
        else:
            raise AssertionError("the server does not start")
        yield
    finally:
        os.killpg(process.pid, 9)
        process.wait()


class MlflowServer:
    """`mlflow server`, which can be killed and started again on the same port and store."""

    def __init__(self, *store: str, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1", *store]
        self.environment = os.environ | environment

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env=self.environment, start_new_session=True)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=1)
                return
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.3)
        raise AssertionError("mlflow server does not start")

    def kill(self) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait()


def team_server(database: dict[str, str], artifacts: Path) -> MlflowServer:
    """compose.yaml's MLflow server, except for address, port, number of processes and folder."""
    options = COMPOSE["services"]["mlflow"]["command"][2:]
    options = ["127.0.0.1" if o == "0.0.0.0" else str(artifacts) if o == "/artifacts" else o for o in options]
    given = {"PGDATABASE": "mlflow", "MLFLOW_AUTH_CONFIG_PATH": str(ROOT / "conf/mlflow-auth.ini")}
    secrets = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "for tests"}
    return MlflowServer(*options, **database, **given, **secrets)
