"""VGG-11 and VGG-16 (Simonyan and Zisserman 2014, Table 1, columns A and D)."""

from functools import partial

from torch import nn

from pipeline.models.lineage.layers import (
    IMAGE_MAPS,
    conv,
    divided,
    fully_connected,
    initialize,
    initialize_normal,
    scaled,
)
from pipeline.params import Net, Settings

CROP_PX = 224
# maps of the 3 x 3 convolutions in each block, which 2 x 2 pooling ends
BLOCKS = {
    "vgg11": [[64], [128], [256, 256], [512, 512], [512, 512]],
    "vgg16": [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]],
}
UNITS = 4096
WEIGHT_STD = 0.01


def build(settings: Settings, classes: int) -> nn.Sequential:
    """The net with its initial weights. (N, 1 or 3, crop, crop) float32 to logits (N, classes); printed for 224 px.

    Section 3.1: net A starts from normal weights of spread 0.01. The deeper nets took their first and last layers
    from a trained A; here they start as its footnote says that they can, from Glorot and Bengio's uniform weights.
    """
    net = settings.net
    layers = partial(_layers, classes=classes)
    model = layers(net)
    if net.initialization == "paper" and net.architecture == "vgg11":
        initialize_normal(model, net, CROP_PX, WEIGHT_STD, layers)
    elif net.initialization == "paper":
        initialize(model, nn.init.xavier_uniform_)
    return model


def _layers(net: Net, classes: int) -> nn.Sequential:
    modules = divided(net)
    maps, side = IMAGE_MAPS, net.crop_px
    for block in BLOCKS[net.architecture]:
        for count in block:
            modules += [conv(maps, scaled(net, count), 3, padding=1), nn.ReLU(inplace=True)]
            maps = scaled(net, count)
        modules.append(nn.MaxPool2d(2))
        side //= 2
    return nn.Sequential(*modules, *fully_connected(maps * side**2, scaled(net, UNITS), classes))
