"""GoogLeNet (Szegedy et al. 2014, Table 1 and section 5), without batch normalization, which came later.

The paper prints neither its initialization nor its first learning rate. The weights here are Glorot and Bengio's.
"""

import torch
from torch import Tensor, nn

from pipeline.models.alexnet import Dropout
from pipeline.models.lineage.layers import IMAGE_MAPS, conv, divided, initialize, norm, scaled
from pipeline.params import Net, Settings

# Table 1: 1 x 1; 1 x 1 before 3 x 3, 3 x 3; 1 x 1 before 5 x 5, 5 x 5; 1 x 1 after pooling
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED_BEFORE = ("3a", "4a", "5a")  # 3 x 3 places at stride 2
WITH_CLASSIFIER = ("4a", "4d")  # section 5: what follows these is also asked for the class, in training
CLASSIFIER_MAPS, CLASSIFIER_UNITS, CLASSIFIER_DROPOUT = 128, 1024, 0.7
DROPOUT = 0.4


class Inception(nn.Module):
    """Four branches side by side. (N, maps, side, side) to (N, the branches' maps together, side, side)."""

    def __init__(self, maps: int, one: int, before3: int, three: int, before5: int, five: int, after: int) -> None:
        super().__init__()
        self.maps = one + three + five + after
        self.one = nn.Sequential(*_conv(maps, one, 1))
        self.three = nn.Sequential(*_conv(maps, before3, 1), *_conv(before3, three, 3))
        self.five = nn.Sequential(*_conv(maps, before5, 1), *_conv(before5, five, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), *_conv(maps, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class GoogLeNet(nn.Module):
    """In training the logits of the net and of its two auxiliary classifiers, else those of the net."""

    def __init__(self, net: Net, classes: int) -> None:
        super().__init__()
        maps, side = scaled(net, 64), (net.crop_px - 1) // 2 + 1
        self.stem = nn.Sequential(*divided(net), *_conv(IMAGE_MAPS, maps, 7, stride=2), _pool(), norm())
        maps, side = scaled(net, 192), _pooled(side)
        self.stem.extend([*_conv(scaled(net, 64), scaled(net, 64), 1), *_conv(scaled(net, 64), maps, 3), norm()])
        self.inception, self.classifiers = nn.ModuleDict(), nn.ModuleDict()
        for name, branches in INCEPTION.items():
            if name in POOLED_BEFORE:
                side = _pooled(side)
            module = Inception(maps, *(scaled(net, count) for count in branches))
            self.inception[name], maps = module, module.maps
            if name in WITH_CLASSIFIER:
                self.classifiers[name] = _classifier(net, maps, side, classes)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Dropout(DROPOUT), nn.Linear(maps, classes))
        self.pool = _pool()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.stem(x)
        auxiliary = []
        for name, module in self.inception.items():
            x = module(self.pool(x) if name in POOLED_BEFORE else x)
            if self.training and name in self.classifiers:
                auxiliary.append(self.classifiers[name](x))
        return (self.head(x), *auxiliary) if self.training else self.head(x)


def build(settings: Settings, classes: int) -> nn.Module:
    """The net with its initial weights. (N, 1 or 3, crop, crop) float32 to logits (N, classes); printed for 224 px."""
    model = GoogLeNet(settings.net, classes)
    if settings.net.initialization == "paper":
        initialize(model, nn.init.xavier_uniform_)
    return model


def _conv(maps_in: int, maps: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [conv(maps_in, maps, size, stride, padding=size // 2), nn.ReLU(inplace=True)]


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)  # Table 1's 56, 28, 14 and 7 places


def _pooled(side: int) -> int:
    return max(1, (side - 2) // 2 + 1)


def _classifier(net: Net, maps: int, side: int, classes: int) -> nn.Module:
    """Section 5: averages over 5 x 5 places at stride 3 (fewer where the map is smaller), 1 x 1, two layers."""
    window = min(5, side)
    places = ((side - window) // 3 + 1) ** 2
    reduced, units = scaled(net, CLASSIFIER_MAPS), scaled(net, CLASSIFIER_UNITS)
    return nn.Sequential(
        nn.AvgPool2d(window, 3),
        *_conv(maps, reduced, 1),
        nn.Flatten(),
        nn.Linear(reduced * places, units),
        nn.ReLU(inplace=True),
        Dropout(CLASSIFIER_DROPOUT),
        nn.Linear(units, classes),
    )
