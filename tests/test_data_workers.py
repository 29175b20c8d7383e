"""Workers end with their parent; a worker that is killed, or a disk that is really full, is one message."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.data import sources
from pipeline.data.prepare import prepare
from pipeline.data.sources import MOST_BYTES, Arrays, Loaded, RawImages
from pipeline.errors import UserError
from pipeline.params import Data
from tests.image_folders import contents
from tests.processes import ROOT, process, start, until

pytestmark = pytest.mark.fault

IN_SMALL_FILE_SYSTEM = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Slow(Arrays):
    def load(self, row: int, image_size: int, most_bytes: int = MOST_BYTES) -> Loaded:
        time.sleep(0.05)
        return super().load(row, image_size)


@dataclass(frozen=True)
class Deadly(Arrays):
    def load(self, row: int, image_size: int, most_bytes: int = MOST_BYTES) -> Loaded:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def prepare_made_up(out: Path, train_images: int, kind: type[Arrays] = Arrays) -> None:
    """With two workers: grey images of 64 x 64, 4 KiB each."""
    labels = np.arange(1000) % 10
    images = kind(np.random.default_rng(0).integers(0, 256, (1000, 64, 64, 1), np.uint8), labels)
    raw = RawImages(images, images, 1, list("abcdefghij"), {"file": "0" * 64})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load", lambda data: raw)
        patch.setattr("pipeline.data.decoding_workers.BATCH_BYTES", 4096)
        asked = {"image_size": 64, "train_images": train_images, "validation_images": 10, "test_images": 10}
        prepare(Data.model_validate({"folder": None, "dataset": "fashion_mnist", "split_seed": 0, **asked}), out, 2)


@contextmanager
def slow_prepare(out: Path) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    """A process that would prepare for half a minute, in a process group of its own; and its workers."""
    program = f"""
from pipeline.runtime.exit_status import exit_status
from tests.test_data_workers import *

sys.exit(exit_status(lambda: prepare_made_up(Path({str(out)!r}), 900, Slow)))
"""
    with process("-c", program) as victim:
        until(lambda: len(psutil.Process(victim.pid).children()) == 2)
        workers = psutil.Process(victim.pid).children()
        until((out.parent / f".{out.name}.partial/new/test/images.npy").exists)
        yield victim, workers


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with slow_prepare(tmp_path / "out") as (victim, workers):
        victim.kill()
        victim.wait()
        until(lambda: not any(worker.is_running() for worker in workers))


def test_an_interrupt_from_the_keyboard_ends_all_and_leaves_nothing(tmp_path: Path) -> None:
    with slow_prepare(tmp_path / "out") as (victim, workers):
        os.killpg(victim.pid, signal.SIGINT)
        assert "Traceback" not in victim.communicate()[1]
        assert victim.returncode == 130
    assert not any(worker.is_running() for worker in workers)
    assert list(tmp_path.iterdir()) == []


INTERRUPTED_AT_ITS_START = """
import os, signal
from concurrent.futures import ProcessPoolExecutor
from pipeline.runtime.exit_status import exit_status
from tests.test_data_workers import *

launch = ProcessPoolExecutor._launch_processes

def launched_and_interrupted(pool):
    launch(pool)
    os.kill(os.getpid(), signal.{signal})

ProcessPoolExecutor._launch_processes = launched_and_interrupted
sys.exit(exit_status(lambda: prepare_made_up(Path({out!r}), 900, Slow)))
"""


@pytest.mark.parametrize(("received", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stage_that_is_interrupted_while_it_starts_its_workers_ends_with_them(
    tmp_path: Path, received: str, status: int
) -> None:
    with process("-c", INTERRUPTED_AT_ITS_START.format(out=str(tmp_path / "out"), signal=received)) as victim:
        victim.communicate(timeout=60)
        assert victim.returncode == status
    assert list(tmp_path.iterdir()) == []


def test_after_kill_9_what_was_left_is_cleared_and_the_store_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    prepare_made_up(tmp_path / "undisturbed/out", 900)
    with slow_prepare(tmp_path / "out") as (victim, workers):
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
        until(lambda: not any(worker.is_running() for worker in workers))
    assert [path.name for path in tmp_path.glob(".*")] == [".out.partial"]
    assert not (tmp_path / "out").exists()
    prepare_made_up(tmp_path / "out", 900)
    assert not list(tmp_path.glob(".*"))
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed/out")


def test_two_at_once_write_one_store_and_the_second_finds_it(tmp_path: Path) -> None:
    program = f"from tests.test_data_workers import *; prepare_made_up(Path({str(tmp_path / 'out')!r}), 50, Slow)"
    pair = [start("-c", program) for _ in range(2)]
    said = sorted(each.communicate()[0] for each in pair)
    assert [each.returncode for each in pair] == [0, 0]
    assert "holds these images already" in said[0]
    assert "70 images; needed: " in said[1]


def test_a_worker_that_is_killed_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a worker process was killed, maybe for want of memory"):
        prepare_made_up(tmp_path / "out", 100, Deadly)
    assert list(tmp_path.iterdir()) == []


def fill_the_disk(folder: Path, foreseen: bool) -> None:
    """A store that fits, then one that does not."""
    prepare_made_up(folder / "out", 50)
    before = contents(folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        if not foreseen:
            patch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(2**40))
        with pytest.raises(UserError) as caught:
            prepare_made_up(folder / "out", 500)
    assert contents(folder / "out") == before
    print(caught.value)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_is_one_message_and_leaves_the_earlier_store(tmp_path: Path, foreseen: bool) -> None:
    alone = ["unshare", "--mount", "--map-root-user"]  # the file system is there for this one process
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system, not even in a name space of its own")
    program = f"from tests.test_data_workers import *; fill_the_disk(Path({str(tmp_path)!r}), {foreseen})"
    command = [*alone, "sh", "-c", IN_SMALL_FILE_SYSTEM, "sh", str(tmp_path), sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    needed = 520 * (64 * 64 + 8) + 64 * 64 * 4
    assert done.stdout.splitlines(True)[-1] == (
        f"{tmp_path}/out: cannot be written (No space left on device); {needed} bytes are needed: "
        "make room, or lower data.train_images or data.image_size\n"
    )
