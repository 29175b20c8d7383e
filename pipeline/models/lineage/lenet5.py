"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, section II-B).

As printed: trained subsampling, the sparse connections of C3, the scaled tanh, weights drawn from +-2.4 / fan-in. In
place of the output's radial basis functions, whose centers are drawings of the ten digits, stand linear units under a
softmax, as in every later net.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.lineage.layers import divided, scaled
from pipeline.params import Settings

SIZE = 5  # of every kernel, in pixels
C1, C3, C5, F6 = 6, 16, 120, 84
AMPLITUDE, SLOPE = 1.7159, 2 / 3  # of the squashing function, its appendix A
# Table I: the maps of S2 that each map of C3 sees
TABLE = [
    *((k, (k + 1) % 6, (k + 2) % 6) for k in range(6)),
    *((k, (k + 1) % 6, (k + 2) % 6, (k + 3) % 6) for k in range(6)),
    *((k, k + 1, (k + 3) % 6, (k + 4) % 6) for k in range(3)),
    tuple(range(6)),
]


class Squash(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return AMPLITUDE * torch.tanh(SLOPE * x)


class Grey(nn.Module):
    """(N, 1 or 3, H, W) to (N, 1, H, W): the mean over the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


class Subsampling(nn.Module):
    """The sum over 2 x 2 places, times a trained coefficient of the map, plus its trained bias."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform(torch.empty(maps), fan_in=4))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: Tensor) -> Tensor:
        total = 4 * F.avg_pool2d(x, 2)
        return total * self.weight[:, None, None] + self.bias[:, None, None]


class SparseConv(nn.Module):
    """A convolution of which each map sees some maps only. `table`: those that each sees."""

    places: Tensor

    def __init__(self, maps_in: int, table: list[tuple[int, ...]], size: int) -> None:
        super().__init__()
        pairs = [(k, seen) for k, several in enumerate(table) for seen in several]
        self._shape = (len(table), maps_in, size, size)
        self.register_buffer("places", torch.tensor([k * maps_in + seen for k, seen in pairs]), persistent=False)
        kernels = [_uniform(torch.empty(len(several), size, size), len(several) * size**2) for several in table]
        self.weight = nn.Parameter(torch.cat(kernels))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: Tensor) -> Tensor:
        maps, maps_in, size, _ = self._shape
        whole = self.weight.new_zeros(maps * maps_in, size, size).index_copy(0, self.places, self.weight)
        return F.conv2d(x, whole.view(self._shape), self.bias)


def build(settings: Settings, classes: int) -> nn.Sequential:
    """The net with its initial weights. (N, 1 or 3, crop, crop) float32 to logits (N, classes); printed for 32 px.

    At a reduced width the maps of S2 share the rows of Table I.
    """
    net = settings.net
    maps = {name: scaled(net, count) for name, count in {"C1": C1, "C3": C3, "C5": C5, "F6": F6}.items()}
    table = [tuple(sorted({seen * maps["C1"] // C1 for seen in row})) for row in TABLE[: maps["C3"]]]
    side = ((net.crop_px - SIZE + 1) // 2 - SIZE + 1) // 2
    layers: list[tuple[str, nn.Module]] = [
        *(("input", layer) for layer in divided(net)),
        ("grey", Grey()),
        ("c1", nn.Conv2d(1, maps["C1"], SIZE)),
        ("c1_act", Squash()),
        ("s2", Subsampling(maps["C1"])),
        ("s2_act", Squash()),
        ("c3", SparseConv(maps["C1"], table, SIZE)),
        ("c3_act", Squash()),
        ("s4", Subsampling(maps["C3"])),
        ("s4_act", Squash()),
        ("c5", nn.Conv2d(maps["C3"], maps["C5"], min(side, SIZE))),
        ("c5_act", Squash()),
        ("flatten", nn.Flatten()),
        ("f6", nn.Linear(maps["C5"] * (side - min(side, SIZE) + 1) ** 2, maps["F6"])),
        ("f6_act", Squash()),
        ("output", nn.Linear(maps["F6"], classes)),
    ]
    model = nn.Sequential()
    for name, layer in layers:
        model.add_module(name, layer)
    if net.initialization == "paper":
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _uniform(module.weight.data, module.weight[0].numel())
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return model


def _uniform(weight: Tensor, fan_in: int) -> Tensor:
    """Its appendix A: uniform between -2.4 / fan-in and 2.4 / fan-in."""
    return weight.uniform_(-2.4 / fan_in, 2.4 / fan_in)
