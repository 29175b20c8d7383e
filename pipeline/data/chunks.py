"""Many images at once: worker processes decode a chunk each, measure it and write it to its place in the store."""

import multiprocessing
import os
import signal
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.array_file import ArrayFile
from pipeline.data.sources import Images
from pipeline.data.statistics import Sums
from pipeline.data.store import SplitName
from pipeline.errors import UserError
from pipeline.interruption import SIGNALS

CHUNK_BYTES = 4 << 20  # of pixels: what a core's caches hold
AHEAD = 4  # chunks for each worker that are under way at a time: more would pile up where the parent is slower

Item = TypeVar("Item")
Result = TypeVar("Result")

_job: "Job"  # of this process, where it is a worker


class Chunk(NamedTuple):
    """Consecutive images of a split."""

    split: SplitName
    first: int
    rows: NDArray[np.intp]  # where the source has them


class Outcome(NamedTuple):
    chunk: Chunk
    problems: dict[int, str]  # why there is no image, by its place in the chunk
    sha256: list[str]  # of the images' files
    sums: Sums | None  # of the train split
    crc32: int  # of the pixels


@dataclass(frozen=True)
class Job:
    """What all chunks have in common."""

    images: dict[SplitName, Images]
    files: dict[SplitName, ArrayFile]
    canvas_px: int
    channels: int
    most_bytes: int  # of one decoded image

    def chunks(self, rows: dict[SplitName, NDArray[np.intp]]) -> list[Chunk]:
        """The same whatever the number of workers."""
        step = max(1, CHUNK_BYTES // (self.canvas_px**2 * self.channels))
        return [
            Chunk(split, first, picked[first : first + step])
            for split, picked in rows.items()
            for first in range(0, len(picked), step)
        ]

    def write(self, chunk: Chunk) -> Outcome:
        batch, problems, sha256 = self._load(chunk)
        self.files[chunk.split].write(chunk.first, batch)
        usable = np.delete(batch, list(problems), 0) if problems else batch
        sums = Sums.of(usable) if chunk.split == "train" else None
        return Outcome(chunk, problems, sha256, sums, zlib.crc32(batch.data))

    def is_written(self, known: tuple[Chunk, int]) -> bool:
        chunk, crc32 = known
        return self.files[chunk.split].crc32(chunk.first, len(chunk.rows)) == crc32

    def seconds(self, chunk: Chunk) -> float:
        """To make the chunk's images, libraries loaded."""
        self._load(chunk._replace(rows=chunk.rows[:1]))
        start = time.perf_counter()
        Sums.of(self._load(chunk)[0])
        return time.perf_counter() - start

    def _load(self, chunk: Chunk) -> tuple[NDArray[np.uint8], dict[int, str], list[str]]:
        batch = np.empty((len(chunk.rows), self.canvas_px, self.canvas_px, self.channels), np.uint8)
        problems: dict[int, str] = {}
        sha256 = []
        for place, row in enumerate(chunk.rows.tolist()):
            loaded = self.images[chunk.split].load(row, self.canvas_px, self.most_bytes)
            sha256.append(loaded.sha256)
            if loaded.pixels is None:
                problems[place] = loaded.problem
            batch[place] = 0 if loaded.pixels is None else loaded.pixels
        return batch, problems, sha256


class Each(Protocol):
    """Applies one of Job's methods to each item. Results come in the order of the items."""

    def __call__(self, method: Callable[[Job, Item], Result], items: Iterable[Item]) -> Iterator[Result]: ...


@contextmanager
def working(job: Job, workers: int) -> Iterator[Each]:
    """In this block there are so many worker processes, or none where it is one."""
    if workers == 1:
        yield lambda method, items: map(partial(method, job), items)
        return
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(job,))
    try:
        yield partial(_in_order, pool, AHEAD * workers)
    except BrokenProcessPool as error:
        raise UserError("prepare: a worker process was killed, maybe for want of memory; run it again") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, ahead: int, method: Callable[[Job, Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """As pool.map, which would submit all at once."""
    left = iter(items)
    with _signals_waiting():  # a pool that is half started can neither work nor end
        waiting = deque(pool.submit(_run, method, item) for item in islice(left, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(_run, method, item) for item in islice(left, 1))
        yield result


@contextmanager
def _signals_waiting() -> Iterator[None]:
    """In this block no signal interrupts; one that came is heard at its end. Blocked ones, other threads would hear."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for came in received[:1]:
            signal.raise_signal(came)


def _start(job: Job) -> None:
    """A worker leaves interrupts to its parent, and ends with it."""
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(method: Callable[[Job, Item], Result], item: Item) -> Result:
    return method(_job, item)
