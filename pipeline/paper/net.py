"""The layer table (section 3.5, Figure 2) and the arithmetic that follows from it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.params import Net, Strict, read_yaml

POOL_STRIDE = 2  # section 3.4
FIRST_SHARED, LAST_CONV = "conv2", "conv5"  # between these a removed layer's parameters are shared out
HALVED = ("conv1", "conv2", "conv3", "conv4")  # in the control of section 3.2 (its footnote 2)
SHARED = ("conv1", "fc8")  # what even separate columns have in common: the image and the answer
LOGGED_CONV2_PADDING = 1  # of the source's control of pooling (net 147)

PRINTED = Net()  # the schema's defaults are the paper's


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
    padding: int
    removed: bool

    @property
    def fan_in(self) -> int:
        """Inputs of one kernel."""
        return self.maps_in // self.groups * (self.layer.size or 1) ** 2

    @property
    def parameters(self) -> int:
        return 0 if self.removed else self.maps * self.fan_in + self.maps

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


def shapes(net: Net, classes: int) -> list[Shape]:
    """The layer table of `net`. A removed layer stays in it, for its pooling."""
    if not (net.removed_layer and net.match_params):
        return _shapes(net, classes, 1.0)
    whole = _parameters(_shapes(net.model_copy(update={"removed_layer": None}), classes, 1.0))
    growths = [step / 64 for step in range(32, 193)]
    return min((_shapes(net, classes, growth) for growth in growths), key=lambda table: abs(_parameters(table) - whole))


def full_size(net: Net) -> list[Shape]:
    """The same net with the paper's kernels, crop and classes."""
    paper = paper_net()
    return shapes(net.model_copy(update={"crop_px": paper.crop_px, "width": 1.0}), paper.classes)


def paper_shapes(towers: Literal["two", "joined", "separate", "half"] = "two") -> list[Shape]:
    return full_size(PRINTED.model_copy(update={"towers": towers}))


def _shapes(net: Net, classes: int, growth: float) -> list[Shape]:
    """growth: of the kernels from conv2 to conv5."""
    result = []
    paper = paper_net()
    maps, side = paper.input_maps, net.crop_px
    names = [layer.name for layer in paper.layers]
    for index, layer in enumerate(paper.layers):
        convolves, removed = layer.size is not None, layer.name == net.removed_layer
        kernels = round(layer.kernels * net.width)
        if net.towers == "half" and layer.name in HALVED:
            kernels //= 2
        if names.index(FIRST_SHARED) <= index <= names.index(LAST_CONV):
            kernels = 2 * round(kernels * growth / 2)
        if layer is paper.layers[-1]:
            kernels = classes
        padding = LOGGED_CONV2_PADDING if net.pool_shapes == "logged" and layer.name == "conv2" else layer.padding
        maps_in = maps if convolves else maps * side**2
        if removed:
            kernels, out = maps, side
        else:
            out = (side + 2 * padding - (layer.size or 1)) // layer.stride + 1 if convolves else 1
        pooled = _pooled(out, net) if layer.pool else out
        result.append(Shape(layer, maps_in, kernels, out, pooled, _groups(layer, net), padding, removed))
        maps, side = kernels, pooled
    return result


def _pooled(side: int, net: Net) -> int:
    beyond = side - net.pool_px
    return (-(-beyond // POOL_STRIDE) if net.pool_shapes == "logged" else beyond // POOL_STRIDE) + 1


def _groups(layer: Layer, net: Net) -> int:
    if net.towers == "separate":
        return 1 if layer.name in SHARED else 2
    return layer.columns if net.towers == "two" else 1


def _parameters(table: list[Shape]) -> int:
    return sum(shape.parameters for shape in table)


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
        for two, one in zip(paper_shapes(), paper_shapes("joined"), strict=True)
    ]
