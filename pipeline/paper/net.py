"""The layer table (section 3.5, Figure 2) and the arithmetic that follows from it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import Field

from pipeline.params import Strict, read_yaml

POOL_STRIDE = 2  # section 3.4
PAPER_POOL_PX = 3


class Layer(Strict):
    name: str
    kernels: int
    size: int | None = None  # None: fully connected
    stride: int = 1
    padding: int = 0
    columns: int = 1
    bias: float
    pool: bool = False
    figure2_neurons: int


class PaperNet(Strict):
    input_maps: int
    crop_px: int
    classes: int
    layers: list[Layer] = Field(min_length=1)


@dataclass(frozen=True)
class Shape:
    """One layer at a given size: what it takes in, what it puts out."""

    layer: Layer
    maps_in: int  # maps, or units of a fully connected layer; the flattened maps for the first of these
    maps: int
    side: int  # of the output maps before pooling, in pixels; 1 where fully connected
    pooled_side: int
    groups: int

    @property
    def fan_in(self) -> int:
        """Inputs of one kernel."""
        return self.maps_in // self.groups * (self.layer.size or 1) ** 2

    @property
    def parameters(self) -> int:
        return self.maps * self.fan_in + self.maps

    @property
    def neurons(self) -> int:
        return self.maps * self.side**2

    @property
    def multiply_adds(self) -> int:
        """Multiplications of one image's forward pass, biases not counted."""
        return self.neurons * self.fan_in


@cache
def paper_net() -> PaperNet:
    return PaperNet.model_validate(read_yaml(Path(__file__).with_name("net.yaml")))


def shapes(crop_px: int, width: float, grouped: bool, pool_px: int, classes: int) -> list[Shape]:
    """The layer table at another crop (pixels), width (share of the kernels) and number of classes."""
    net = paper_net()
    result = []
    maps, side = net.input_maps, crop_px
    for layer in net.layers:
        last = layer is net.layers[-1]
        kernels = classes if last else round(layer.kernels * width)
        if layer.size is None:
            maps_in, out, pooled = maps * side**2, 1, 1
        else:
            maps_in = maps
            out = (side + 2 * layer.padding - layer.size) // layer.stride + 1
            pooled = (out - pool_px) // POOL_STRIDE + 1 if layer.pool else out
        result.append(Shape(layer, maps_in, kernels, out, pooled, layer.columns if grouped else 1))
        maps, side = kernels, pooled
    return result


def paper_shapes(grouped: bool = True) -> list[Shape]:
    net = paper_net()
    return shapes(net.crop_px, 1.0, grouped, PAPER_POOL_PX, net.classes)


def full_size_table() -> list[dict[str, str | int]]:
    """One row for each layer of the full-size net: maps, parameters, neurons, multiply-adds."""
    return [
        {
            "layer": two.layer.name,
            "maps": f"{two.side} × {two.side} × {two.maps}" if two.layer.size else str(two.maps),
            "parameters": two.parameters,
            "parameters_ungrouped": one.parameters,
            "neurons": two.neurons,
            "multiply_adds": two.multiply_adds,
            "multiply_adds_ungrouped": one.multiply_adds,
            "figure2_neurons": two.layer.figure2_neurons,
        }
        for two, one in zip(paper_shapes(), paper_shapes(grouped=False), strict=True)
    ]
