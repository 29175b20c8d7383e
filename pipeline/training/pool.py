"""Many tasks side by side, each in a process of its own: for training, trials and evaluation.

Workers live until all tasks are done, since importing torch costs seconds. A worker that is killed ends its own task
and no other. Workers end when their parent does, however that ends, and hear its signals.
"""

import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.params import Hardware
from pipeline.runtime import launcher, signals
from pipeline.runtime.cores import usable_cores, usable_memory
from pipeline.runtime.exit_status import REFUSALS, notes
from pipeline.runtime.hardware import kind_of_device
from pipeline.runtime.locks import Busy
from pipeline.runtime.signals import Stopped

Tell = Callable[[int], None]  # by a task: so many of its steps are done

LOOK_S = 0.5  # between two looks for a free slot, or at a task that another process is at
END_S = 60.0  # for a worker to end its step


@dataclass(frozen=True)
class Task:
    """`work` has to be picklable, as what it returns: a function of a module, or a functools.partial of one."""

    name: str
    work: Callable[[Tell], Any]
    steps: int = 1


def slot_count(hardware: Hardware) -> int:
    """How many tasks run side by side on this machine at most, whoever starts them."""
    if kind_of_device(hardware.accelerator) == "gpu":
        return hardware.workers or 1
    return max(1, usable_cores() // (hardware.thread_count * hardware.devices))


def worker_count(hardware: Hardware, task_bytes: int) -> int:
    """hardware.workers, or one for each slot; on a CPU no more than there is memory for."""
    if hardware.processes > 1:
        return 1
    wanted = hardware.workers or slot_count(hardware)
    if kind_of_device(hardware.accelerator) == "gpu":
        return wanted
    fit = max(1, usable_memory() // task_bytes)
    if fit < wanted:
        print(f"{fit} processes side by side, not {wanted}: there is no memory for more", flush=True)
    return min(wanted, fit)


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: int | None = None  # its number


def run_tasks(
    tasks: Sequence[Task],
    hardware: Hardware,
    task_bytes: int,
    title: str,
    unit: str,
    says: Callable[[Any], str] = lambda result: "",
    before: int = 0,
    total: int | None = None,
) -> list[Any]:
    """Run all tasks, each of which takes so many bytes of memory; returns what each returned, in their order.

    The line of a finished task holds what `says` makes of its result, and counts it among `total` (by default these
    tasks), of which `before` were finished earlier.

    As many run side by side as `worker_count` says; where that is one, in this process. A task that another process is
    at (Busy) is postponed. All pools of a machine share its slots. Raises the first UserError or OSError of a task once
    the others have stopped; UserError for tasks whose worker was killed, once all others are done.
    """
    if not tasks:
        return []
    workers, slots = min(worker_count(hardware, task_bytes), len(tasks)), slot_count(hardware)
    slots = max(slots, hardware.workers or 1)
    with _Bar(tasks, title, unit, says, before, total or len(tasks)) as bar:
        return _here(tasks, slots, bar) if workers == 1 else _Pool(tasks, workers, slots, bar).results()


class _Bar:
    """One bar for all tasks; where standard error is no terminal, one line for each finished task."""

    def __init__(
        self, tasks: Sequence[Task], title: str, unit: str, says: Callable[[Any], str], before: int, total: int
    ) -> None:
        self._tasks, self._says, self._left = tasks, says, [task.steps for task in tasks]
        self._finished, self._total = before, total
        self._quiet = launcher.rank() != 0  # of processes that do the same tasks together, the first one speaks
        self._bar = tqdm(total=sum(self._left), desc=title, unit=unit, disable=self._quiet or None, mininterval=1)

    def __enter__(self) -> "_Bar":
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, task: int, steps: int) -> None:
        self._left[task] -= steps
        self._bar.update(steps)

    def finish(self, task: int, result: Any, seconds: float) -> None:
        self.advance(task, self._left[task])
        self._finished += 1
        self._show()
        if not self._quiet:
            told = ", ".join(part for part in (self._says(result), tqdm.format_interval(seconds)) if part)
            tqdm.write(f"{self._tasks[task].name}: {told} ({self._finished} of {self._total})")
            sys.stdout.flush()

    def _show(self) -> None:
        self._bar.set_postfix_str(f"{self._finished} of {self._total} done")


def _here(tasks: Sequence[Task], slots: int, bar: _Bar) -> list[Any]:
    results: dict[int, Any] = {}
    waiting = deque(range(len(tasks)))
    while waiting:
        number = waiting.popleft()
        try:
            with nullcontext() if launcher.launched() else _slot(slots):  # a group's first process waits for no other
                begun = time.monotonic()
                results[number] = tasks[number].work(lambda steps: bar.advance(number, steps))  # noqa: B023
            bar.finish(number, results[number], time.monotonic() - begun)
        except Busy:
            waiting.append(number)
            time.sleep(LOOK_S)
    return [results[number] for number in range(len(tasks))]


class _Pool:
    def __init__(self, tasks: Sequence[Task], workers: int, slots: int, bar: _Bar) -> None:
        self._tasks, self._count, self._slots, self._bar = tasks, workers, slots, bar
        self._waiting = deque(range(len(tasks)))
        self._postponed: dict[int, float] = {}  # until when
        self._results: dict[int, Any] = {}
        self._lost: list[int] = []
        self._workers: list[_Worker] = []

    def results(self) -> list[Any]:
        try:
            while len(self._results) + len(self._lost) < len(self._tasks):
                self._hand_out()
                busy = [worker for worker in self._workers if worker.task is not None]
                for pipe in wait([worker.pipe for worker in busy], LOOK_S):
                    self._hear(next(worker for worker in busy if worker.pipe is pipe))
        except Stopped as stop:
            for note in self._end():
                stop.add_note(note)
            raise
        finally:
            self._end()
        if self._lost:
            names = "; ".join(self._tasks[number].name for number in self._lost)
            raise UserError(
                f"{names}: the worker process was killed, maybe for want of memory (hardware.workers sets how many run "
                "side by side); `dvc repro` goes on from what is there"
            )
        return [self._results[number] for number in range(len(self._tasks))]

    def _hand_out(self) -> None:
        for number in [number for number, until in self._postponed.items() if until <= time.monotonic()]:
            del self._postponed[number]
            self._waiting.append(number)
        idle = [worker for worker in self._workers if worker.task is None]
        while self._waiting and (idle or len(self._workers) < self._count):
            worker = idle.pop() if idle else self._start()
            worker.task = self._waiting.popleft()
            try:
                worker.pipe.send(self._tasks[worker.task].work)
            except OSError:  # killed while it had nothing to do
                self._workers.remove(worker)
                self._waiting.appendleft(worker.task)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._slots), daemon=False)
        resource_tracker.ensure_running()  # its start unblocks signals
        with signals.blocked():
            process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _hear(self, worker: _Worker) -> None:
        assert worker.task is not None
        number = worker.task
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.process.join()
            self._lost.append(number)
            return
        match kind:
            case "steps":
                self._bar.advance(number, content)
                return
            case "done":
                self._results[number], seconds = content
                self._bar.finish(number, self._results[number], seconds)
            case "busy":
                self._postponed[number] = time.monotonic() + LOOK_S
            case "stopped":  # by a signal to this worker alone: one to all of them ends this process, too
                self._workers.remove(worker)
                self._lost.append(number)
            case "refused":
                raise content
            case _:
                raise RuntimeError(f"{self._tasks[number].name} failed:\n{content}")
        worker.task = None

    def _end(self) -> list[str]:
        """Have all workers stop at their next step. Returns what they say of where they will go on."""
        said: list[str] = []
        for worker in self._workers:
            if worker.task is None:
                worker.pipe.close()  # it waits for a task, and finds none
            elif worker.process.is_alive():
                worker.process.terminate()
        for worker in self._workers:
            with suppress(EOFError, OSError):
                while worker.task is not None and worker.pipe.poll(END_S):
                    kind, content = worker.pipe.recv()
                    said += content if kind == "stopped" else []
            worker.process.join(END_S)
            if worker.process.is_alive():
                worker.process.kill()
        self._workers = []
        return said


def _serve(pipe: Connection, slots: int) -> None:
    """What a worker does."""
    for name in launcher.VARIABLES:  # of processes that train one run together, which workers do not
        os.environ.pop(name, None)
    try:
        with signals.listening(with_parent=True):
            signals.unblock()
            while True:
                try:
                    work = pipe.recv()
                except (EOFError, OSError):
                    return
                pipe.send(_outcome(work, lambda steps: pipe.send(("steps", steps)), slots))
    except Stopped as stop:
        with suppress(OSError):
            pipe.send(("stopped", notes(stop)))
        sys.exit(128 + stop.signal)
    except BrokenPipeError:
        sys.exit(1)


def _outcome(work: Callable[[Tell], Any], tell: Tell, slots: int) -> tuple[str, Any]:
    try:
        with _slot(slots):
            begun = time.monotonic()
            return "done", (work(tell), time.monotonic() - begun)
    except Busy:
        return "busy", None
    except (BrokenPipeError, Stopped):
        raise
    except UserError as error:
        return "refused", error
    except OSError as error:
        if error.errno in REFUSALS:
            return "refused", error
        return "failed", traceback.format_exc()
    except Exception:
        return "failed", traceback.format_exc()


@contextmanager
def _slot(slots: int) -> Iterator[None]:
    """Hold one of the machine's slots, which all pools of this user share; wait for one to become free."""
    folder = Path(tempfile.gettempdir(), f"alexnet-{os.getuid() if hasattr(os, 'getuid') else 0}")
    folder.mkdir(exist_ok=True)
    with ExitStack() as held:
        while True:
            for number in range(slots):
                lock = FileLock(folder / f"slot-{number}.lock")
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                held.callback(lock.release)
                yield
                return
            signals.check()
            time.sleep(LOOK_S)
