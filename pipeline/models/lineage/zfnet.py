"""ZFNet (Zeiler and Fergus 2013, Figure 3 and section 3)."""

from functools import partial

import torch
from torch import Tensor, nn

from pipeline.models.alexnet import FirstConv
from pipeline.models.lineage.layers import IMAGE_MAPS, divided, fully_connected, initialize_normal, norm, scaled
from pipeline.params import Net, Settings

CROP_PX = 224
# maps, kernel, stride, padding, and what follows: pooling over 3 x 3 places at stride 2, and normalization
CONVOLUTIONS = [
    (96, 7, 2, 1, "pool, norm"),
    (256, 5, 2, 0, "pool, norm"),
    (384, 3, 1, 1, ""),
    (384, 3, 1, 1, ""),
    (256, 3, 1, 1, "pool"),
]
UNITS = 4096
WEIGHT_STD = 0.01
LARGEST_RMS = 0.1


class RenormalizedConv(FirstConv):
    """Section 3: a filter whose root mean square exceeds 0.1 is scaled back to that, here before its next use."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                rms = self.weight.square().mean((1, 2, 3), keepdim=True).sqrt()
                self.weight.mul_((LARGEST_RMS / rms).clamp(max=1))
        return super().forward(x)


def build(settings: Settings, classes: int) -> nn.Sequential:
    """The net with its initial weights. (N, 1 or 3, crop, crop) float32 to logits (N, classes); printed for 224 px."""
    layers = partial(_layers, classes=classes)
    model = layers(settings.net)
    if settings.net.initialization == "paper":
        initialize_normal(model, settings.net, CROP_PX, WEIGHT_STD, layers)
    return model


def _layers(net: Net, classes: int) -> nn.Sequential:
    modules = divided(net)
    maps, side = IMAGE_MAPS, net.crop_px
    for count, size, stride, padding, after in CONVOLUTIONS:
        modules += [RenormalizedConv(maps, scaled(net, count), size, stride, padding), nn.ReLU(inplace=True)]
        maps, side = scaled(net, count), (side + 2 * padding - size) // stride + 1
        if after:
            up = "norm" in after  # the first two round up: Figure 3's 55 and 13 places come out in no other way
            modules.append(nn.MaxPool2d(3, 2, ceil_mode=up))
            side = (side - 3 + up) // 2 + 1
        if "norm" in after:
            modules.append(norm())
    return nn.Sequential(*modules, *fully_connected(maps * side**2, scaled(net, UNITS), classes))
