"""The authors' small nets for CIFAR-10, built from their layer tables."""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.alexnet import ACTIVATIONS, Divide
from pipeline.models.response_norm import ResponseNorm, WithinMapNorm
from pipeline.paper.small_nets import SmallLayer, SmallNet, small_nets
from pipeline.params import Net, Settings

POOL_PX, POOL_STRIDE, CHANNELS = 3, 2, 3


class LocalConv2d(nn.Module):
    """A convolution with kernels of its own at each place. (N, C, side, side) to (N, maps, side, side).

    Until it is initialized otherwise it has the weights that torch gives a convolution of that fan-in.
    """

    def __init__(self, maps_in: int, maps: int, size: int, padding: int, side: int) -> None:
        super().__init__()
        self._size, self._padding, self._side = size, padding, side
        bound = 1 / math.sqrt(maps_in * size**2)
        self.weight = nn.Parameter(torch.empty(side**2, maps_in * size**2, maps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(side**2, 1, maps))

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self._size, padding=self._padding)  # (N, C * size**2, places)
        y = torch.baddbmm(self.bias, patches.permute(2, 0, 1), self.weight)  # (places, N, maps)
        maps: Tensor = y.permute(1, 2, 0).unflatten(2, (self._side, self._side))
        return maps


def build(settings: Settings, classes: int) -> nn.Sequential:
    """The net with its initial weights, drawn from torch's global generator.

    Input: (N, 3, crop, crop) float32, levels from 0 to 255 minus the mean image; a grey image may have one channel
    for its three equal ones. Output: (N, classes) logits.
    """
    net = settings.net
    table = small_nets()[net.architecture]
    modules: list[tuple[str, nn.Module]] = [("channels", ThreeChannels())]
    if net.input_divisor != 1:
        modules.append(("input", Divide(net.input_divisor)))
    maps, side = CHANNELS, net.crop_px
    for layer in table.layers:
        modules += _layer(layer, table, net, maps, side, classes)
        maps = layer.kernels
        if layer.pool:
            side = math.ceil((side - POOL_PX) / POOL_STRIDE) + 1
    model = nn.Sequential(OrderedDict(modules))
    if net.initialization == "paper":
        _initialize(model, table)
    return model


class ThreeChannels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, CHANNELS, -1, -1)


def _layer(
    layer: SmallLayer, table: SmallNet, net: Net, maps: int, side: int, classes: int
) -> list[tuple[str, nn.Module]]:
    if layer.kind == "full":
        return [("flatten", nn.Flatten()), (layer.name, nn.Linear(maps * side**2, classes))]
    weights: nn.Module = (
        LocalConv2d(maps, layer.kernels, layer.size, layer.padding, side)
        if layer.kind == "local"
        else nn.Conv2d(maps, layer.kernels, layer.size, padding=layer.padding)
    )
    parts = [("", weights), ("act", ACTIVATIONS[net.activation]())]
    if layer.pool:
        pool = nn.MaxPool2d if layer.pool == "max" else nn.AvgPool2d
        parts.append(("pool", pool(POOL_PX, POOL_STRIDE, ceil_mode=True)))
    if layer.norm and layer.name in net.norm_layers:
        kind = WithinMapNorm if table.norm.within_map else ResponseNorm
        norm = kind(table.norm.n, table.norm.k, table.norm.alpha)
        parts.insert(2 if layer.norm == "before_pool" else 3, ("norm", norm))
    return [(f"{layer.name}_{name}".rstrip("_"), module) for name, module in parts]


@torch.no_grad()
def _initialize(model: nn.Sequential, table: SmallNet) -> None:
    for layer in table.layers:
        module = model.get_submodule(layer.name)
        assert isinstance(module, nn.Conv2d | nn.Linear | LocalConv2d)
        assert module.bias is not None
        module.weight.normal_(0, layer.weight_std)
        module.bias.zero_()
