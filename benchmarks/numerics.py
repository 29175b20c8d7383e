"""How far a GPU's numbers are from a CPU's float64, layer by layer, over a step and over ten; and what repeats itself.

An error is the norm of a difference as a share of the norm of float64's own: of a layer the largest of its output's and
its gradients', of steps that of what they changed in the weights. There is no dropout: its masks differ.
"""

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.ours import as_a_run_does
from benchmarks.setups import DEVICE, params, store
from pipeline.models.build import build
from pipeline.params import Hardware, Settings
from pipeline.runtime.hardware import CPU, set_arithmetic
from pipeline.training.optimizer import optimizer
from pipeline.training.pool import Task, Tell, run_tasks
from pipeline.training.run import WEIGHTS, Run, train
from pipeline.training.runs import bytes_of

IMAGES, CLASSES, STEPS = 8, 10, (1, 10)
ARITHMETICS = {"fp32": "32-true", "TF32": "tf32", "bf16": "bf16-mixed"}
EPOCHS = 4  # of the runs that are to repeat themselves
Line = dict[str, object]
Way = Callable[[torch.device, torch.dtype, bool], list[Tensor]]  # device, type, whether by autocast


def errors(size: str) -> Iterator[Line]:
    """One line for each layer and for steps of the whole net, with the error of each arithmetic on the device."""
    settings = params(size).settings("baseline", {"net": {"dropout_layers": []}})
    as_a_run_does()
    torch.manual_seed(0)
    net = build(settings, CLASSES).double()
    image = x = 60 * torch.randn(IMAGES, 3, settings.net.crop_px, settings.net.crop_px, dtype=torch.float64)
    for name, layer in net.named_children():
        way = partial(_through, layer, x)
        exact = way(CPU, torch.float64, False)
        yield {"what": name, **_on_cpu(way, exact), **_on_device(way, exact, tuple(ARITHMETICS))}
        x = layer(x.clone()).detach()
    for steps in STEPS:
        eager, compiled = (partial(_changed, net, image, settings, steps, whether) for whether in (False, True))
        exact = eager(CPU, torch.float64, False)
        line: Line = {"what": f"{steps} steps" if steps > 1 else "a step"}
        line |= _on_cpu(eager, exact) | _on_device(eager, exact, tuple(ARITHMETICS))
        if DEVICE.type == "cuda":
            line |= {f"{name}, compiled": e for name, e in _on_device(compiled, exact, ("fp32", "bf16")).items()}
        yield line


def _on_cpu(way: Way, exact: list[Tensor]) -> dict[str, float]:
    return {"fp32 on the CPU": max(map(_error, way(CPU, torch.float32, False), exact))}


def _on_device(way: Way, exact: list[Tensor], names: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for name in names:
        mixed = set_arithmetic(ARITHMETICS[name]) == "bf16-mixed"
        found[name] = max(map(_error, way(DEVICE, torch.float32, mixed), exact))
    set_arithmetic("32-true")
    return found


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.cpu().double() - exact).norm() / exact.norm())


def _through(layer: nn.Module, x: Tensor, device: torch.device, dtype: torch.dtype, mixed: bool) -> list[Tensor]:
    """Return a layer's output, and the gradients of its input and its parameters for a random one of its output."""
    layer = copy.deepcopy(layer).to(device, dtype)
    x = x.detach().to(device, dtype, copy=True).requires_grad_()
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        y = layer(x.clone())  # which a layer may overwrite
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(device, y.dtype))
    return [part.detach() for part in (y, x.grad, *(p.grad for p in layer.parameters())) if part is not None]


def _changed(
    net: nn.Module,
    image: Tensor,
    settings: Settings,
    steps: int,
    compiled: bool,
    device: torch.device,
    dtype: torch.dtype,
    mixed: bool,
) -> list[Tensor]:
    """Return what so many steps on one batch change in all weights, as one tensor."""
    net = copy.deepcopy(net).to(device, dtype)
    x, labels = image.to(device, dtype), torch.arange(len(image), device=device) % CLASSES
    before = [p.detach().clone() for p in net.parameters()]
    rule = optimizer(net, settings)
    if compiled:
        net.compile(dynamic=False)
    for _ in range(steps):
        rule.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = F.cross_entropy(net(x), labels)
        loss.backward()
        rule.step()
    return [torch.cat([(p - old).flatten() for p, old in zip(net.parameters(), before, strict=True)]).detach()]


def repeats(size: str, workers: int) -> Iterator[Line]:
    """One line for each way in which a run is made once more, with how its weights differ from the first's."""
    settings = params(size).settings("baseline", {"train": {"epochs": EPOCHS}})
    run = Run(size, "baseline", "-", 0, settings, store(size), Hardware(threads=1))
    with TemporaryDirectory() as folder:
        first = _weights(run, f"{folder}/first", "", lambda _: None)
        for way in ("again", "interrupted and resumed", "cut by processes"):
            yield _line(way, first, [_weights(run, f"{folder}/{way}", way, lambda _: None)])
        names = [f"side by side {n}" for n in range(workers)]
        tasks = [Task(name, partial(_weights, run, f"{folder}/{name}", "")) for name in names]
        hardware = Hardware(threads=1, workers=workers)
        yield _line(f"{workers} side by side", first, run_tasks(tasks, hardware, bytes_of(settings), "runs", "run"))


def _line(way: str, first: NDArray[np.float32], found: list[NDArray[np.float32]]) -> Line:
    differences = [float(np.linalg.norm(weights - first) / np.linalg.norm(first)) for weights in found]
    return {"run": way, "same": all(np.array_equal(weights, first) for weights in found), "differs": max(differences)}


class _Interruption(Exception):
    pass


class _Interrupt(pl.Callback):
    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.current_epoch == EPOCHS // 2:
            raise _Interruption


def _weights(run: Run, state: str, way: str, tell: Tell) -> NDArray[np.float32]:
    """Train the run in a resume folder of its own. Returns all its weights in one row."""
    os.environ["ALEXNET_STATE"] = state
    if way == "interrupted and resumed":
        with suppress(_Interruption):
            train(run, [_Interrupt()])
    with patch("pipeline.data.loader.resident", return_value=False) if way == "cut by processes" else nullcontext():
        weights = load_file(train(run) / WEIGHTS)
    return torch.cat([weight.flatten() for weight in weights.values()]).numpy()
