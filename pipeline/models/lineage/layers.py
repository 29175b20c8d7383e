"""What the nets of several papers are made of, and how their weights start."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.models.alexnet import Divide, Dropout, FirstConv
from pipeline.models.response_norm import ResponseNorm
from pipeline.params import Net

IMAGE_MAPS = 3


def scaled(net: Net, count: int) -> int:
    """The maps or units that a layer of `count` has at the net's width."""
    return max(1, round(count * net.width))


def conv(maps_in: int, maps: int, size: int, stride: int = 1, padding: int = 0, bias: bool = True) -> nn.Conv2d:
    """A convolution. The one that sees the image takes a grey image with its one channel."""
    kind = FirstConv if maps_in == IMAGE_MAPS else nn.Conv2d
    return kind(maps_in, maps, size, stride, padding, bias=bias)


def divided(net: Net) -> list[nn.Module]:
    """What comes first where the pixels are on another scale than from 0 to 255."""
    return [Divide(net.input_divisor)] if net.input_divisor != 1 else []


def fully_connected(inputs: int, units: int, classes: int) -> list[nn.Module]:
    """AlexNet's three layers with dropout behind the maps, as its successors took them over."""
    modules: list[nn.Module] = [nn.Flatten()]
    for count in (inputs, units):
        modules += [nn.Linear(count, units), nn.ReLU(inplace=True), Dropout()]
    return [*modules, nn.Linear(units, classes)]


def norm() -> ResponseNorm:
    """AlexNet's response normalization, over all maps, as its successors took it over."""
    return ResponseNorm(n=5, k=2.0, alpha=1e-4, columns=1)


def weighted(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@torch.no_grad()
def initialize(model: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """Have `draw` fill the weights of each convolution and each fully connected layer; their biases start at 0."""
    for module in weighted(model):
        draw(module.weight)
        if module.bias is not None:
            module.bias.zero_()


@torch.no_grad()
def initialize_normal(model: nn.Module, net: Net, crop_px: int, std: float, layers: Callable[[Net], nn.Module]) -> None:
    """Normal weights of spread `std`, times sqrt(fan-in at full width and `crop_px` / fan-in here), as in AlexNet here.

    Without the factor a narrower net passes on a weaker signal and does not start to learn. `layers` builds the net.
    """
    with torch.device("meta"):
        full = weighted(layers(net.model_copy(update={"width": 1.0, "crop_px": crop_px})))
    factors = iter(
        [math.sqrt(a.weight[0].numel() / b.weight[0].numel()) for a, b in zip(full, weighted(model), strict=True)]
    )
    initialize(model, lambda weight: weight.normal_(0, std * next(factors)))
