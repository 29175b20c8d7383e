"""Files made to do harm: refused with one message, and nothing in them is run."""

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import paths
from pipeline.data.sources import fashion_mnist
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.training.run import CHECKPOINT, WEIGHTS, train
from tests.downloads import install_apt, package
from tests.tiny import a_run, damage, interrupt_after_an_epoch
from tests.tiny_params import evaluate_variant, tiny_params

pytestmark = pytest.mark.fault


class Bomb:
    """Unpickling it writes a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


@pytest.fixture(autouse=True)
def _nothing_explodes(workplace: Path) -> Any:
    torch.save({"bomb": Bomb()}, "trial.ckpt")
    torch.load("trial.ckpt", weights_only=False)
    assert Path("exploded").exists()  # so would it
    Path("exploded").unlink()
    yield
    assert not (workplace / "exploded").exists()


@pytest.mark.parametrize("bomb", ["in the checkpoint", "alone", "old format", "truncated", "flipped"])
def test_a_pickle_or_damage_in_place_of_a_checkpoint_is_named_and_the_run_starts_anew(
    trained: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bomb: str
) -> None:
    expected = (a_run(trained).folder / WEIGHTS).read_bytes()
    monkeypatch.setenv("ALEXNET_STATE", "hostile")
    run = a_run(trained)
    interrupt_after_an_epoch(run)
    checkpoint = run.folder / CHECKPOINT
    if bomb in ("truncated", "flipped"):
        damage(checkpoint, bomb)
    else:
        content = torch.load(checkpoint, weights_only=True) if bomb == "in the checkpoint" else {}
        torch.save(content | {"bomb": Bomb()}, checkpoint, _use_new_zipfile_serialization=bomb != "old format")
    assert (train(run) / WEIGHTS).read_bytes() == expected
    (message,) = (line for line in capsys.readouterr().out.splitlines() if CHECKPOINT in line)
    assert f"the checkpoint {checkpoint} is damaged (" in message
    assert message.endswith("this run starts anew")


def npy(text: str, version: int = 1) -> bytes:
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text.encode()


def described(shape: str, descr: str = "'|u1'") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")


@pytest.mark.parametrize(
    "content",
    [
        described(f"({10**15},)"),
        described(f"({10**30},)"),
        described("(4294967296, 4294967296, 2)"),
        described("(True,)"),
        described("(48, 76, 76, 1)", "'|O'"),
        described("(48, 76, 76, 1)", "[('a', '|O')]"),
        npy("-" * 9990 + "1\n"),
        npy("(" * 9000 + "\n"),
        npy("{[]: 1}\n"),
        npy("{'descr': __import__('pathlib').Path('exploded').touch(), 'fortran_order': False, 'shape': (1,)}\n"),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{",
        b"PK\x03\x04",
        "a pickle",
    ],
    ids=str,
)
def test_an_absurd_array_header_or_a_pickle_is_one_message(store: Store, content: bytes | str) -> None:
    path = store.folder / "train/images.npy"
    if isinstance(content, str):
        np.save(path, np.array([Bomb()], object), allow_pickle=True)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"train/images\.npy: is truncated or no array file") as refusal:
        Store.open(store.folder)
    assert len(str(refusal.value).splitlines()) == 1


def safetensors(header: Any, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


HUGE = {"a": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}
OVERFLOWING = {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}


@pytest.mark.parametrize(
    "content",
    [
        safetensors({}, length=2**63),
        safetensors({}, length=10**8 - 1),
        safetensors(HUGE),
        safetensors(OVERFLOWING),
        safetensors({}),
        "a pickle",
    ],
    ids=["length", "length that is allowed", "shape", "overflow", "empty", "pickle"],
)
def test_weights_that_are_none_are_one_message_also_where_no_checksum_tells(trained: Store, content: Any) -> None:
    weights = paths.seed("smoke", "baseline", 0) / WEIGHTS
    if isinstance(content, str):
        torch.save({"bomb": Bomb()}, weights)
    else:
        weights.write_bytes(content)
    (weights.parent / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match=rf"^{weights}: cannot be loaded \(") as refusal:
        evaluate_variant(tiny_params(), "baseline")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb, without which no package is unpacked")
def test_a_package_cannot_write_beside_the_folder_it_is_unpacked_in(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    escape = "../" * 20 + str(workplace / "exploded").lstrip("/")
    install_apt(workplace / "bin", package(dict.fromkeys((escape, "../exploded", str(workplace / "exploded")), b"x")))
    monkeypatch.setenv("PATH", f"{workplace / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(fashion_mnist, "INSTALLED", Path("/nowhere"))
    monkeypatch.setattr(fashion_mnist, "URLS", ())
    with pytest.raises(UserError, match="no place has its four files"):
        fashion_mnist.load()
    assert not list(workplace.rglob("exploded"))
