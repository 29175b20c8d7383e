"""A real Slurm of one node, this machine, in a folder of its own and on the loopback interface."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
CPUS = 4  # that Slurm counts, whatever there is

# cred_expire: seconds, which a requeued job waits. linuxproc, none: no cgroups, which containers lack.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1
ReturnToService=2
KillWait=10
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """In this block `sbatch` and the like speak to it. Skips the test where it cannot start."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"no Slurm here ({', '.join(missing)} missing): apt-get install slurm-wlm munge")
    if os.getuid():
        pytest.skip("slurmd needs root")
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(CONFIGURATION.format(host=host, ports=_free_ports(2), folder=folder, cpus=CPUS))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(configuration)
    munge = {f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")}
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    ]
    servers = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.log").open("w") as log:
                servers.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(1)
        _wait_until_idle(folder)
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(["scancel", "--user=root"], capture_output=True, timeout=20)
        for server in reversed(servers):
            server.terminate()
        for server in servers:
            server.wait(timeout=60)
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def _wait_until_idle(folder: Path) -> None:
    for _ in range(60):
        found = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
        if found.stdout.strip() == "idle":
            return
        time.sleep(1)
    logs = "\n".join(path.read_text()[-500:] for path in sorted(folder.glob("*.log")))
    pytest.skip(f"Slurm does not start here: {found.stdout}{found.stderr}\n{logs}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports
