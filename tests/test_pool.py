"""Many tasks side by side, with real processes that are killed and stopped."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.params import Hardware
from pipeline.runtime.cores import usable_cores
from pipeline.runtime.locks import locked
from pipeline.runtime.signals import Stopped, only_at_check
from pipeline.runtime.signals import check as check_signals
from pipeline.training import pool as workers
from pipeline.training.pool import Task, Tell, run_tasks, slot_count, worker_count
from tests.processes import process, start, until, wait_for

SMALL = 1 << 20


def hardware(workers: int | None = 2, threads: int = 1) -> Hardware:
    return Hardware(accelerator="cpu", threads=threads, workers=workers)


def run(tasks: list[Task], count: int | None = 2) -> list[object]:
    return run_tasks(tasks, hardware(count), SMALL, "test", "step", says=str)


# What workers do has to stand in a module.
def process_id(tell: Tell) -> int:
    time.sleep(0.3)
    tell(1)
    return os.getpid()


def value(content: object, tell: Tell) -> object:
    return content


def rest(seconds: float, tell: Tell) -> None:
    time.sleep(seconds)


def touch(path: Path, tell: Tell) -> None:
    path.touch()


def die(tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_another(folder: Path) -> None:
    while not any(folder.iterdir()):
        time.sleep(0.05)


def refuse(folder: Path, tell: Tell) -> None:
    wait_for_another(folder)
    raise UserError("data.folder: is not there")


def full_disk(folder: Path, tell: Tell) -> None:
    wait_for_another(folder)
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x")
    error.add_note("12 bytes are needed")
    raise error


def broken(tell: Tell) -> None:
    raise KeyError("a mistake in the code")


def launcher_variables(tell: Tell) -> dict[str, str]:
    return {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name in os.environ}


def under_lock(path: Path, tell: Tell) -> str:
    with locked(path, "test", wait=False):
        return "done"


def until_stopped(folder: Path, tell: Tell) -> None:
    """A training: it hears signals between its steps, and keeps what it has done."""
    (folder / str(os.getpid())).touch()
    try:
        with only_at_check():
            while True:
                time.sleep(0.05)
                check_signals()
    except Stopped as stop:
        (folder / f"kept by {os.getpid()}").touch()
        stop.add_note("7 of 90 epochs are kept")
        raise


def span(folder: Path, number: int, tell: Tell) -> tuple[float, float]:
    start = time.time()
    time.sleep(0.5)
    return start, time.time()


def test_results_come_in_the_order_of_the_tasks_and_workers_are_kept() -> None:
    found = run([Task(str(number), process_id) for number in range(6)])
    assert len(set(found)) == 2
    assert os.getpid() not in found
    assert run([Task(str(number), partial(value, number)) for number in range(5)]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [1, 2])
def test_without_a_terminal_each_finished_task_is_one_line(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [Task(f"trial {number}", partial(value, f"error {number} %")) for number in range(3)]
    run_tasks(tasks, hardware(count), SMALL, "tune", "step", says=str, before=4, total=9)
    run_tasks(tasks[:1], hardware(count), SMALL, "evaluate", "step")
    captured = capsys.readouterr()
    *lines, last = captured.out.splitlines()
    assert sorted(line.split(" (")[0] for line in lines) == [f"trial {n}: error {n} %, 00:00" for n in range(3)]
    assert [line.split(" (")[1] for line in lines] == ["5 of 9)", "6 of 9)", "7 of 9)"]
    assert (last, captured.err) == ("trial 0: 00:00 (1 of 1)", "")


@pytest.mark.parametrize("count", [1, 2])
def test_a_tasks_time_is_that_of_its_work(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    run_tasks([Task("x", partial(rest, 1.2)), Task("y", process_id)], hardware(count), SMALL, "test", "step")
    assert "x: 00:01 (" in capsys.readouterr().out


def test_one_worker_is_this_process() -> None:
    assert run([Task("x", process_id)], count=1) == [os.getpid()]
    assert run([]) == []


def test_a_killed_worker_ends_its_own_task_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [Task("first", die), *(Task(str(number), process_id) for number in range(4))]
    with pytest.raises(UserError, match="first: the worker process was killed, maybe for want of memory"):
        run(tasks)
    assert "(4 of 5)" in capsys.readouterr().out


@pytest.mark.parametrize(("work", "kind", "text"), [(refuse, UserError, "data.folder"), (full_disk, OSError, "space")])
def test_what_a_task_refuses_is_raised_here_and_stops_the_others(
    tmp_path: Path, work: Callable[[Path, Tell], None], kind: type[Exception], text: str
) -> None:
    folder = tmp_path / "started"
    folder.mkdir()
    tasks = [Task("long", partial(until_stopped, folder)), Task("x", partial(work, folder))]
    with pytest.raises(kind, match=text) as error:
        run(tasks)
    assert work is refuse or error.value.__notes__ == ["12 bytes are needed"]
    assert len(list(folder.glob("kept by *"))) == 1


def test_a_failure_shows_where_it_happened() -> None:
    with pytest.raises(RuntimeError, match=r"failed:\nTraceback[\s\S]*KeyError"):
        run([Task("x", broken), Task("y", broken)])


def test_launchers_variables_do_not_reach_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    assert run([Task("x", launcher_variables)] * 2) == [{}, {}]


@pytest.mark.parametrize("count", [1, 2])
def test_a_task_that_another_process_is_at_is_postponed_and_not_waited_for(
    tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path, free = tmp_path / "run.lock", tmp_path / "free"
    script = (
        "import time; from pathlib import Path; from filelock import FileLock\n"
        f"with FileLock({str(path)!r}):\n"
        "    print(1, flush=True)\n"
        f"    while not Path({str(free)!r}).exists(): time.sleep(0.01)\n"
    )
    with process("-c", script) as holder:
        wait_for(holder.stdout, "1")
        tasks = [
            Task("held", partial(under_lock, path)),
            Task("free", partial(value, None)),
            Task("free", partial(touch, free)),
        ]
        assert run(tasks, count)[0] == "done"
    ended = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert ended[0] == "free"  # the second one lets the holder go, and may be heard of after the task that waits for it
    assert sorted(ended) == ["free", "free", "held"]


@pytest.mark.slow
def test_two_pools_share_the_machines_slots(tmp_path: Path) -> None:
    script = (
        "import json; from functools import partial; from pathlib import Path; from tests.test_pool import *\n"
        "if __name__ == '__main__':\n"
        "    tasks = [Task(str(n), partial(span, Path('.'), n)) for n in range(4)]\n"
        "    print(json.dumps(run_tasks(tasks, hardware(None), SMALL, 'test', 'step')))\n"
    )
    (tmp_path / "pool.py").write_text(script)
    pools = [start(tmp_path / "pool.py", cwd=tmp_path) for _ in range(2)]
    spans = [span for pool in pools for span in json.loads(pool.communicate()[0].splitlines()[-1])]
    assert len(spans) == 8
    most = max(sum(start <= at < end for start, end in spans) for at, _ in spans)
    assert most <= usable_cores()


POOL = """
import sys
from functools import partial
from pathlib import Path
from pipeline.runtime.exit_status import exit_status
from tests.test_pool import *

def main():
    run([Task(str(n), partial(until_stopped, Path(sys.argv[1]))) for n in range(2)])

if __name__ == "__main__":
    sys.exit(exit_status(main))
"""


@pytest.mark.parametrize("how", ["SIGINT to all", pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGKILL"])
def test_workers_stop_with_their_parent_and_keep_what_they_have(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "started"
    folder.mkdir()
    (tmp_path / "pool.py").write_text(POOL)
    with process(tmp_path / "pool.py", folder) as pool:
        until(lambda: len(list(folder.iterdir())) == 2)
        processes = [psutil.Process(int(path.name)) for path in folder.iterdir()]
        if how == "SIGINT to all":  # as Ctrl-C in a terminal
            os.killpg(pool.pid, signal.SIGINT)
        else:
            pool.send_signal(getattr(signal, how))
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert not alive
        assert len(list(folder.glob("kept by *"))) == 2
        _, errors = pool.communicate()
    assert pool.returncode == {"SIGINT to all": 130, "SIGTERM": 143, "SIGKILL": -9}[how]
    assert how == "SIGKILL" or "7 of 90 epochs are kept" in errors


INTERRUPTED_AT_ITS_START = """
import os, signal
from pipeline.training import pool

start = pool._Pool._start

def start_and_interrupt(self):
    worker = start(self)
    if __name__ == "__main__":
        time.sleep(0.2)  # it imports
        os.killpg(0, signal.SIGINT)
    return worker

pool._Pool._start = start_and_interrupt
"""


def test_a_worker_that_hears_ctrl_c_while_it_starts_says_nothing_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text(INTERRUPTED_AT_ITS_START + POOL)
    with process(tmp_path / "pool.py", tmp_path) as pool:
        _, errors = pool.communicate()
    assert (pool.returncode, "Traceback" in errors) == (130, False)


def test_more_workers_than_there_is_memory_for_are_fewer_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "usable_memory", lambda: 5 << 30)
    monkeypatch.setattr(workers, "usable_cores", lambda: 8)
    assert worker_count(hardware(None), 2 << 30) == 2
    assert "2 processes side by side, not 8: there is no memory for more" in capsys.readouterr().out
    assert worker_count(hardware(None), 1 << 20) == 8
    assert worker_count(hardware(3), 1 << 20) == 3
    assert worker_count(hardware(None), 9 << 30) == 1  # one always runs


def test_slots_are_cores_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: 8)
    assert [slot_count(hardware(None, threads)) for threads in (1, 2, 3, 8, 16)] == [8, 4, 2, 1, 1]


def test_several_processes_a_run_and_several_runs_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hardware\.workers = 2: accepted is 1 or null where hardware\.devices"):
        Hardware(workers=2, devices=2)
