"""A prepare that is killed goes on where it was: no finished chunk is made again, and the bytes are the same."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import files, paths
from pipeline.data import prepare as module
from pipeline.data import sources, store
from pipeline.data.array_file import ArrayFile
from pipeline.data.prepare import prepare
from pipeline.data.sources import MOST_BYTES, Arrays, Loaded, RawImages
from pipeline.params import Data
from tests.test_data_folder import settings, write_folder

pytestmark = pytest.mark.fault

ROOT = Path(__file__).parents[1]
IMAGES, CHUNK, SIDE = 400, 8, 16  # of the training split; images in a chunk; px
SAMPLED = module.SAMPLE + 2  # images that are made once more to foretell the time
GAP = 17  # one training image that cannot be read


@dataclass(frozen=True)
class Logged(Arrays):
    """Writes down each image that is asked for."""

    log: Path
    pause_seconds: float

    def load(self, row: int, canvas_px: int, most_bytes: int = MOST_BYTES) -> Loaded:
        with self.log.open("a") as file:
            file.write(f"{row}\n")
        time.sleep(self.pause_seconds)
        return Loaded(None, "is no image") if row == GAP else super().load(row, canvas_px)


def prepare_logged(out: Path, log: Path, pause_seconds: float = 0, workers: int = 2) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES + 10, SIDE, SIDE, 1), np.uint8)
    images = Logged(pixels, np.arange(len(pixels)) % 10, log, pause_seconds)
    raw = RawImages(images, Arrays(pixels[:10], images.labels[:10]), 1, list("abcdefghij"), {"file": "0" * 64})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load", lambda data: raw)
        patch.setattr(module, "SAVE_SECONDS", 0)
        patch.setattr("pipeline.data.chunks.CHUNK_BYTES", CHUNK * SIDE**2)
        asked = {"canvas_px": SIDE, "train_images": IMAGES, "validation_images": 10, "test_images": 10}
        values = {"folder": None, "dataset": "fashion_mnist", "split_seed": 0, **asked}
        prepare(Data.model_validate(values), out, workers)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def loads(log: Path) -> Counter[str]:
    return Counter(log.read_text().splitlines())


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, bytes]:
    prepare_logged(tmp_path / "undisturbed", tmp_path / "undisturbed.log")
    assert set(loads(tmp_path / "undisturbed.log")) == {str(row) for row in range(IMAGES + 10)}
    return contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_after_kill_9_the_rest_is_made_and_the_bytes_are_those_of_an_undisturbed_run(
    tmp_path: Path, undisturbed: dict[str, bytes], share: float
) -> None:
    out, log = tmp_path / "out", tmp_path / "killed.log"
    program = f"from tests.test_data_resume import *; prepare_logged(Path({str(out)!r}), Path({str(log)!r}), 0.005)"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, start_new_session=True) as process:
        while not log.exists() or loads(log).total() < share * IMAGES:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    killed = loads(log).total()
    (saved,) = paths.state().glob("prepare/*/progress.npz")
    finished = len(np.load(saved)["crc32"]) * CHUNK
    assert killed - 4 * 2 * CHUNK - SAMPLED <= finished + 2 * CHUNK  # all but what was under way
    prepare_logged(out, tmp_path / "again.log")
    assert loads(tmp_path / "again.log").total() <= IMAGES + 10 - min(finished, IMAGES) + SAMPLED
    assert contents(out) == undisturbed
    assert [path.suffix for path in paths.state().glob("prepare/*")] == [".lock"]


def stop_at(patch: pytest.MonkeyPatch, place: Any, name: str, after: int = 0) -> None:
    """An interrupt in place of a function's call, once it has been called so often."""
    function, calls = getattr(place, name), Counter[str]()

    def interrupted(*arguments: Any, **more: Any) -> Any:
        calls["all"] += 1
        if calls["all"] > after:
            raise KeyboardInterrupt
        return function(*arguments, **more)

    patch.setattr(place, name, interrupted)


def interrupt(out: Path, log: Path, place: Any, name: str, after: int = 0) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, place, name, after)
        with pytest.raises(KeyboardInterrupt):
            prepare_logged(out, log, workers=1)


def damage_a_chunk(folder: Path) -> None:
    with (folder / "store/train/images.npy").open("r+b") as file:
        file.seek(128 + (CHUNK + 1) * SIDE**2)
        file.write(bytes(SIDE**2))  # as after a loss of power


def lose_the_array(folder: Path) -> None:
    (folder / "store/train/images.npy").unlink()


def cut_the_array(folder: Path) -> None:
    os.truncate(folder / "store/train/images.npy", 128 + CHUNK * SIDE**2)


def damage_the_progress(folder: Path) -> None:
    (folder / "progress.npz").write_bytes((folder / "progress.npz").read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "made_again"),
    [(damage_a_chunk, CHUNK), (lose_the_array, 80), (cut_the_array, 80 - CHUNK), (damage_the_progress, 80)],
)
def test_what_did_not_reach_the_disk_is_made_again(
    tmp_path: Path, undisturbed: dict[str, bytes], damage: Callable[[Path], None], made_again: int
) -> None:
    out, log = tmp_path / "out", tmp_path / "again.log"
    interrupt(out, tmp_path / "first.log", ArrayFile, "write", after=80 // CHUNK)
    (saved,) = paths.state().glob("prepare/*/progress.npz")
    damage(saved.parent)
    prepare_logged(out, log, workers=1)
    assert contents(out) == undisturbed
    found = loads(log).total() - (IMAGES + 10 - 80)
    assert made_again < found <= made_again + 2 * SAMPLED


@pytest.mark.parametrize(
    ("place", "name", "made_again"),
    [
        (module, "_write_labels", 0),
        (module, "checksum", 3 * CHUNK),  # the chunk with a gap, and the last, which filled it
        (files, "place_folder", 0),
    ],
)
def test_ended_with_all_images_made_it_makes_none_again(
    tmp_path: Path, undisturbed: dict[str, bytes], place: Any, name: str, made_again: int
) -> None:
    log = tmp_path / "again.log"
    log.touch()
    interrupt(tmp_path / "out", tmp_path / "first.log", place, name)
    assert not (tmp_path / "out").exists()
    prepare_logged(tmp_path / "out", log)
    assert contents(tmp_path / "out") == undisturbed
    assert loads(log).total() <= made_again


def test_it_does_not_go_on_from_files_that_have_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "images", test=40)
    spoiled = folder / "test/ash/000.jpg"
    whole = spoiled.read_bytes()
    spoiled.write_bytes(b"no image")
    (folder / ".loop").symlink_to(".")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, module, "checksum")
        with pytest.raises(KeyboardInterrupt):
            prepare(settings(folder), tmp_path / "out", workers=1)
    spoiled.write_bytes(whole)
    prepare(settings(folder), tmp_path / "out", workers=1)
    monkeypatch.setenv("ALEXNET_STATE", str(tmp_path / "fresh"))
    prepare(settings(folder), tmp_path / "expected", workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_a_large_arrays_checksum_is_what_split_and_sha256sum_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PART_BYTES", 1 << 20)
    for size in (1 << 20, (1 << 20) + 1, 5 << 19, 3 << 20):
        path = tmp_path / "array"
        path.write_bytes(np.random.default_rng(size).bytes(size))
        filtered = "split -b 1M --filter=sha256sum array | sha256sum" if size > 1 << 20 else "sha256sum array"
        printed = subprocess.run(filtered, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert store.checksum(path) == printed.split()[0]


def test_where_it_cannot_be_renamed_a_copy_takes_its_place(
    tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    state = other / f"alexnet-{os.getpid()}"
    monkeypatch.setenv("ALEXNET_STATE", str(state))
    try:
        (tmp_path / "out/train").mkdir(parents=True)
        (tmp_path / "out/train/labels.npy").touch()
        prepare_logged(tmp_path / "out", tmp_path / "log")
        assert contents(tmp_path / "out") == undisturbed
        assert [path.suffix for path in state.glob("prepare/*")] == [".lock"]
    finally:
        shutil.rmtree(state)
