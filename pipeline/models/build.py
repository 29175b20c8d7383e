"""The net that settings name."""

from importlib import import_module

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models import MODULES
from pipeline.params import Settings


def build(settings: Settings, classes: int) -> nn.Module:
    """The net with its initial weights, drawn from torch's global generator.

    Input: (N, 1 or 3, crop, crop) float32, grey levels minus the mean image. Output: (N, classes) logits; in
    training, from a net with auxiliary classifiers, a tuple of theirs too, behind the net's own.
    """
    net: nn.Module = import_module(MODULES[settings.net.architecture]).build(settings, classes)
    return net


def multiply_adds(settings: Settings, classes: int, channels: int) -> int:
    """Of the convolutions and products in the net's forward pass of one image with so many channels."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build(settings, classes).eval()(torch.empty(1, channels, settings.net.crop_px, settings.net.crop_px))
    return int(counter.get_total_flops()) // 2
