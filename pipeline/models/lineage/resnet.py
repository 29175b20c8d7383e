"""ResNet-18, -34 and -50 (He, Zhang, Ren, Sun 2015, Table 1 and section 3)."""

from torch import Tensor, nn

from pipeline.models.lineage.layers import IMAGE_MAPS, conv, divided, initialize, scaled
from pipeline.params import Net, Settings

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
MAPS = (64, 128, 256, 512)
EXPANSION = 4  # of a bottleneck: the maps that its last layer has for each of its first


class Block(nn.Module):
    """Two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1, beside a shortcut: the identity, or 1 x 1 where shapes differ.

    The first convolution has the stride. (N, maps_in, side, side) to (N, maps_out, side / stride, side / stride).
    """

    def __init__(self, maps_in: int, maps: int, maps_out: int, stride: int) -> None:
        super().__init__()
        if maps_out == maps:
            parts = [_conv(maps_in, maps, 3, stride), _conv(maps, maps, 3)]
        else:
            parts = [_conv(maps_in, maps, 1, stride), _conv(maps, maps, 3), _conv(maps, maps_out, 1)]
        self.body = nn.Sequential(*(module for part in parts for module in (*part, nn.ReLU(inplace=True))))[:-1]
        self.shortcut = nn.Sequential()
        if stride > 1 or maps_in != maps_out:
            self.shortcut.extend(_conv(maps_in, maps_out, 1, stride))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.body(x) + self.shortcut(x))
        return y


def build(settings: Settings, classes: int) -> nn.Sequential:
    """The net with its initial weights. (N, 1 or 3, crop, crop) float32 to logits (N, classes); printed for 224 px."""
    net = settings.net
    model = _layers(net, classes)
    if net.initialization == "paper":
        initialize(model, nn.init.kaiming_normal_)  # He et al. 2015: variance 2 / fan-in
    return model


def _layers(net: Net, classes: int) -> nn.Sequential:
    maps_in = scaled(net, MAPS[0])
    modules = [*divided(net), *_conv(IMAGE_MAPS, maps_in, 7, stride=2), nn.ReLU(inplace=True)]
    modules.append(nn.MaxPool2d(3, 2, padding=1))
    for stage, blocks in enumerate(BLOCKS[net.architecture]):
        maps = scaled(net, MAPS[stage])
        maps_out = maps * (EXPANSION if net.architecture == "resnet50" else 1)
        for block in range(blocks):
            modules.append(Block(maps_in, maps, maps_out, stride=2 if stage and not block else 1))
            maps_in = maps_out
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps_in, classes))


def _conv(maps_in: int, maps: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution and its batch normalization, which has the bias."""
    return [conv(maps_in, maps, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(maps)]
