"""Many images at once: worker processes decode a chunk each, measure it and write it to its place in the store."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from pipeline.data.array_file import ArrayFile
from pipeline.data.sources import Images
from pipeline.data.statistics import Sums
from pipeline.data.store import SplitName
from pipeline.errors import UserError
from pipeline.interruption import SIGNALS

CHUNK_BYTES = 4 << 20  # of pixels: what a core's caches hold

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


@dataclass(frozen=True)
class Job:
    """What all chunks have in common."""

    images: dict[SplitName, Images]
    files: dict[SplitName, ArrayFile]
    canvas_px: int
    channels: int

    def chunks(self, rows: dict[SplitName, NDArray[np.intp]]) -> list[Chunk]:
        """The same whatever the number of workers."""
        step = max(1, CHUNK_BYTES // (self.canvas_px**2 * self.channels))
        return [
            Chunk(split, first, picked[first : first + step])
            for split, picked in rows.items()
            for first in range(0, len(picked), step)
        ]

    def run(self, chunk: Chunk) -> Outcome:
        batch = np.empty((len(chunk.rows), self.canvas_px, self.canvas_px, self.channels), np.uint8)
        problems: dict[int, str] = {}
        sha256 = []
        for place, row in enumerate(chunk.rows.tolist()):
            loaded = self.images[chunk.split].load(row, self.canvas_px)
            sha256.append(loaded.sha256)
            if loaded.pixels is None:
                problems[place] = loaded.problem
            batch[place] = 0 if loaded.pixels is None else loaded.pixels
        self.files[chunk.split].write(chunk.first, batch)
        usable = np.delete(batch, list(problems), 0) if problems else batch
        return Outcome(chunk, problems, sha256, Sums.of(usable) if chunk.split == "train" else None)


def outcomes(job: Job, chunks: list[Chunk], workers: int) -> Generator[Outcome]:
    """Of each chunk, in their order. Close the generator to stop early."""
    if workers == 1:
        return (job.run(chunk) for chunk in chunks)
    return _in_processes(job, chunks, min(workers, len(chunks)))


def _in_processes(job: Job, chunks: list[Chunk], workers: int) -> Generator[Outcome]:
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(job,))
    try:
        with _signals_waiting():  # a pool that is half started can neither work nor end
            results = pool.map(_run, chunks)
        yield from results
    except BrokenProcessPool as error:
        raise UserError("prepare: a worker process was killed, maybe for want of memory; run it again") from error
    finally:
        pool.shutdown(cancel_futures=True)


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


def cores() -> int:
    """Physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or 1, usable)


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


def _run(chunk: Chunk) -> Outcome:
    return _job.run(chunk)
