"""Numbers of a GPU beside those of the CPU, where there is one; and of a compiled net beside the same as it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from pipeline.data import loader
from pipeline.data.loader import Preprocess, train_loader
from pipeline.data.store import Store
from pipeline.models.build import build
from pipeline.models.response_norm import ResponseNorm
from pipeline.params import Hardware, Precision
from pipeline.runtime.hardware import CPU as PROCESSOR
from pipeline.runtime.hardware import set_arithmetic
from pipeline.training.run import HISTORY, RUN, WEIGHTS, train
from tests.tiny import CPU, CROP_PX, a_run, make_store, numbers, settings

GPU = torch.device("cuda")
GPU_HARDWARE = Hardware(accelerator="gpu", threads=1, devices=1, compile=False)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

# The largest difference of a gradient from float64's, of its norm: each arithmetic keeps so many bits of a factor.
GRADIENT_ERROR: dict[Precision, float] = {"32-true": 1e-5, "tf32": 1e-2, "bf16-mixed": 1e-1}


@needs_gpu
@pytest.mark.parametrize("by_processes", [False, True])
def test_batches_are_cut_and_finished_to_the_very_numbers_of_the_cpu(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, by_processes: bool
) -> None:
    if by_processes:
        monkeypatch.setattr(loader, "resident", lambda *_: False)
    store = make_store(workplace / "color", channels=3)
    for ours, theirs in zip(
        train_loader(store, settings(), 0), train_loader(store, settings(), 0, device=GPU), strict=True
    ):
        finish = Preprocess(store.mean_image, CROP_PX)
        expected, _ = finish(ours)
        assert torch.equal(finish(theirs.to(GPU))[0].cpu(), expected)


@needs_gpu
@pytest.mark.parametrize("precision", GRADIENT_ERROR)
def test_the_whole_nets_gradients_are_float64s_within_the_precision_that_was_chosen(precision: Precision) -> None:
    generator = torch.Generator().manual_seed(0)
    x, labels = 60 * torch.randn(8, 3, CROP_PX, CROP_PX, generator=generator), torch.arange(8) % 4
    net = build(settings(net={"width": 0.25, "dropout_layers": []}), classes=4)
    gradients = []
    for device, dtype in ((PROCESSOR, torch.float64), (GPU, torch.float32)):
        net.to(device, dtype).zero_grad()
        set_arithmetic(precision)
        mixed = device == GPU and precision == "bf16-mixed"
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = F.cross_entropy(net(x.to(device, dtype)), labels.to(device))
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten().double().cpu() for p in net.parameters() if p.grad is not None]))
    set_arithmetic("32-true")
    exact, found = gradients
    assert float((found - exact).norm() / exact.norm()) < GRADIENT_ERROR[precision]


@needs_gpu
def test_normalization_stays_within_1e_6_of_float64() -> None:
    x = 100 * torch.randn(4, 96, 55, 55, generator=torch.Generator().manual_seed(0))
    norm = ResponseNorm(5, 2.0, 1e-4)
    on_gpu = norm(x.to(GPU, memory_format=torch.channels_last)).cpu().double()
    torch.testing.assert_close(on_gpu, norm(x.double()), rtol=1e-6, atol=0)


@needs_gpu
def test_the_same_seed_trains_the_same_bytes_and_learns_as_on_the_cpu(store: Store) -> None:
    runs = [a_run(store, hardware=where) for where in (GPU_HARDWARE, GPU_HARDWARE, CPU)]
    weights, losses = [], []
    for run in runs:
        folder = train(run)
        weights.append((folder / WEIGHTS).read_bytes())
        losses.append(pd.read_csv(folder / HISTORY)["train_loss"].iloc[0])
        shutil.rmtree(folder)
    assert weights[0] == weights[1]
    assert losses[2] == pytest.approx(losses[0], rel=0.2)  # other dropout masks


@needs_gpu
def test_a_compiled_net_that_diverges_is_a_failed_run(store: Store) -> None:
    hardware = GPU_HARDWARE.model_copy(update={"compile": True})
    folder = train(a_run(store, hardware=hardware, train={"lr": 1e6, "epochs": 20}))
    assert json.loads((folder / RUN).read_text())["status"] == "failed"


NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")


@pytest.mark.parametrize(
    "hardware",
    [
        pytest.param(CPU, marks=[pytest.mark.slow, NEEDS_COMPILER], id="cpu"),
        pytest.param(GPU_HARDWARE, marks=needs_gpu, id="gpu"),
    ],
)
def test_a_compiled_net_learns_as_the_same_net_uncompiled(
    store: Store, monkeypatch: pytest.MonkeyPatch, hardware: Hardware
) -> None:
    histories = []
    for compiled in (False, True):
        monkeypatch.setenv("ALEXNET_STATE", f"state-{compiled}")
        run = a_run(store, hardware=hardware.model_copy(update={"compile": compiled}))
        histories.append(numbers(train(run)))
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-4, atol=2e-4)
