"""Contenders in processes of their own, asked in turn; what comes out is a ratio of their times."""

import importlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context, set_start_method
from multiprocessing.connection import Connection
from time import perf_counter
from types import TracebackType
from typing import Literal, Self

from benchmarks.setups import device_name, synchronize

# peer's time / ours; ours / peer's (>= 1); a part of our time; images that we take in a second
Kind = Literal["speedup", "overhead", "share", "rate"]


@dataclass(frozen=True)
class Row:
    name: str
    kind: Kind
    peer: str
    value: float  # median over rounds
    low: float
    high: float
    rounds: int
    device: str


class Contender:
    """`module:function` is called once with the given arguments, in a new process; the work it returns is then timed,
    but for work that returns seconds of its own.

    A process of its own keeps settings of threads and memory apart. The first time, which warms up, is not counted.
    """

    def __init__(self, target: str, **arguments: object) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, target, arguments))

    def start(self) -> Self:
        """Begin to warm up. Contenders that compile for a minute may do so side by side."""
        self._process.start()
        self._pipe.send(None)
        return self

    def __enter__(self) -> Self:
        if self._process.pid is None:
            self.start()
        self._pipe.recv()
        return self

    def seconds(self) -> float:
        self._pipe.send(None)
        seconds: float = self._pipe.recv()
        return seconds

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, target: str, arguments: dict[str, object]) -> None:
    set_start_method(None, force=True)  # for processes that the work starts: the platform's own way again
    module, function = target.split(":")
    work: Callable[[], float | None] = getattr(importlib.import_module(module), function)(**arguments)
    while True:
        pipe.recv()
        pipe.send(seconds_of(work))


def seconds_of(work: Callable[[], float | None]) -> float:
    """That it takes, or that it says."""
    started = perf_counter()
    own = work()
    synchronize()
    return perf_counter() - started if own is None else own


def rounds_of(contenders: list[Contender], rounds: int) -> list[list[float]]:
    """Seconds of each contender in each round; every other round goes in reverse order."""
    times = []
    for index in range(rounds):
        order = contenders if index % 2 == 0 else contenders[::-1]
        taken = {id(contender): contender.seconds() for contender in order}
        times.append([taken[id(contender)] for contender in contenders])
    return times


def ratio(name: str, kind: Kind, peer: str, ratios: list[float]) -> Row:
    return Row(name, kind, peer, statistics.median(ratios), min(ratios), max(ratios), len(ratios), device_name())
