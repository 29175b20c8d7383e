"""Response normalization, forward and backward, at both layers that have it, beside torch's own in either layout."""

from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

import torch
from torch import nn

from benchmarks.harness import Contender, Row, ratio, rounds_of
from benchmarks.setups import DEVICE, HARDWARE, params
from pipeline.models.response_norm import ResponseNorm
from pipeline.paper.net import shapes
from pipeline.runtime.hardware import set_threads

ROUNDS = 5
REPETITIONS = {"full": 2, "embedded": 40}


def contender(size: str, layer: str, kind: str) -> Callable[[], None]:
    """kind: torch_contiguous, torch_channels_last or ours."""
    chosen = params(size)
    net, images = chosen.net, min(chosen.train.batch_images, 64)
    table = {shape.layer.name: shape for shape in shapes(net, 10)}
    x = torch.randn(images, table[layer].maps, table[layer].side, table[layer].side, device=DEVICE)
    norm: nn.Module = nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)  # torch divides alpha by n
    if kind == "ours":
        set_threads(HARDWARE.thread_count)
        norm = ResponseNorm(5, 2.0, 1e-4)
    if kind != "torch_contiguous":
        x = x.contiguous(memory_format=torch.channels_last)
    gradient = torch.randn_like(x)
    x.requires_grad_()

    def work() -> None:
        for _ in range(REPETITIONS[size]):
            norm(x).backward(gradient)
            x.grad = None

    return work


def rows() -> list[Row]:
    return [_row(size) for size in REPETITIONS]


def _row(size: str) -> Row:
    """Of the two layers the one where less is gained."""
    by_layer = [_ratios(size, layer) for layer in ("conv1", "conv2")]
    return ratio(f"lrn_{size}", "speedup", "torch's local_response_norm", min(by_layer, key=median))


def _ratios(size: str, layer: str) -> list[float]:
    kinds = ("torch_contiguous", "torch_channels_last", "ours")
    with ExitStack() as stack:
        contenders = [
            stack.enter_context(Contender("benchmarks.lrn:contender", size=size, layer=layer, kind=kind))
            for kind in kinds
        ]
        return [min(one, other) / ours for one, other, ours in rounds_of(contenders, ROUNDS)]
