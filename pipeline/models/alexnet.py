"""AlexNet from the paper's layer table, at any crop and width, in either reading of the recipe and its ablations."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.response_norm import ResponseNorm, WithinMapNorm
from pipeline.paper import recipe as paper
from pipeline.paper.net import POOL_STRIDE, Shape, full_size, shapes
from pipeline.params import Net, Recipe, Settings

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),  # what it overwrites, no gradient needs
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Dropout(nn.Module):
    """Section 4.2 to the letter: units are silenced in training and scaled at test.

    torch's own scales in training instead: the same function, but twice the gradient and the initial scale.
    """

    def __init__(self, p: float = paper.DROPOUT_P) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * (1 - self.p)
        return x * (torch.rand_like(x) >= self.p)  # several times faster than bernoulli_


class FirstConv(nn.Conv2d):
    """Takes a grey image for one whose three channels are equal: one channel against the kernels' sum.

    The same function with a third of the arithmetic. Input: (N, 3, H, W) or (N, 1, H, W).
    """

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if x.shape[1] == self.in_channels else self.weight.sum(1, keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class ColumnLinear(nn.Conv1d):
    """A fully connected layer whose two halves see their own half of the units before (section 3.2). (N, units)."""

    def __init__(self, units_in: int, units: int, columns: int) -> None:
        super().__init__(units_in, units, kernel_size=1, groups=columns)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :, None]).flatten(1)


class Divide(nn.Module):
    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor


def build(settings: Settings, classes: int) -> nn.Sequential:
    """The net with its initial weights, drawn from torch's global generator.

    Input: (N, 3, crop, crop) float32, levels from 0 to 255 minus the mean image; a grey image may have one channel
    for its three equal ones. Output: (N, classes) logits.
    """
    net = settings.net
    table = shapes(net, classes)
    model = nn.Sequential(OrderedDict(_modules(table, net, settings.recipe)))
    if net.initialization == "paper":
        _initialize(model, table, net, settings.recipe)
    return model


def _modules(table: list[Shape], net: Net, recipe: Recipe) -> list[tuple[str, nn.Module]]:
    modules: list[tuple[str, nn.Module]] = []
    if net.input_divisor != 1:
        modules.append(("input", Divide(net.input_divisor)))
    for shape in table:
        modules += _conv(shape, net, recipe) if shape.layer.size else _fully_connected(shape, net, table[-1])
    return modules


def _conv(shape: Shape, net: Net, recipe: Recipe) -> list[tuple[str, nn.Module]]:
    layer = shape.layer
    kind = FirstConv if layer.name == "conv1" else nn.Conv2d
    pool = (
        [("pool", nn.MaxPool2d(net.pool_px, POOL_STRIDE, ceil_mode=net.pool_shapes == "logged"))] if layer.pool else []
    )
    if shape.removed:
        return [(f"{layer.name}_{name}", module) for name, module in pool]
    conv = kind(shape.maps_in, shape.maps, layer.size or 0, layer.stride, shape.padding, groups=shape.groups)
    activation = ("act", ACTIVATIONS[net.activation]())
    norms: list[tuple[str, nn.Module]] = []
    if layer.name in net.norm_layers:
        alpha, columns = paper.item(recipe, "lrn_alpha"), paper.item(recipe, "lrn_columns")
        norms.append(("norm", ResponseNorm(paper.LRN_N, paper.LRN_K, alpha, columns)))
        within = paper.item(recipe, "second_norm")
        if layer.name == "conv2" and within:
            norms.append(("norm_within", WithinMapNorm(within.n, within.k, within.alpha)))
    if layer.name == "conv1" and norms and paper.item(recipe, "first_norm") == "before_activation":
        rest = [*norms, *pool, activation]
    else:
        rest = [activation, *norms, *pool]
    return [(layer.name, conv), *((f"{layer.name}_{name}", module) for name, module in rest)]


def _fully_connected(shape: Shape, net: Net, last: Shape) -> list[tuple[str, nn.Module]]:
    name = shape.layer.name
    modules: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())] if name == "fc6" else []
    if shape.groups == 1:
        modules.append((name, nn.Linear(shape.maps_in, shape.maps)))
    else:
        modules.append((name, ColumnLinear(shape.maps_in, shape.maps, shape.groups)))
    if shape is last:
        return modules
    modules.append((f"{name}_act", ACTIVATIONS[net.activation]()))
    if name in net.dropout_layers:
        modules.append((f"{name}_drop", Dropout()))
    return modules


@torch.no_grad()
def _initialize(model: nn.Sequential, table: list[Shape], net: Net, recipe: Recipe) -> None:
    """Section 5, with each layer's spread times sqrt(its fan-in at full size / its fan-in here).

    At full size the factor is 1. Without it a narrower net passes on a weaker signal and does not start to learn.
    """
    stds = paper.item(recipe, "weight_std")
    for shape, full in zip(table, full_size(net), strict=True):
        if shape.removed:
            continue
        module = model.get_submodule(shape.layer.name)
        assert isinstance(module, nn.Conv2d | nn.Linear | ColumnLinear)
        assert module.bias is not None
        module.weight.normal_(0, stds[shape.layer.name] * math.sqrt(full.fan_in / shape.fan_in))
        module.bias.fill_(net.hidden_bias * shape.layer.bias)
