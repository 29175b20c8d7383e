"""The net that settings name."""

from importlib import import_module

from torch import nn

from pipeline.models import MODULES
from pipeline.params import Settings


def build(settings: Settings, classes: int) -> nn.Module:
    """The net with its initial weights, drawn from torch's global generator.

    Input: (N, 1 or 3, crop, crop) float32, grey levels minus the mean image. Output: (N, classes) logits; in
    training, from a net with auxiliary classifiers, a tuple of theirs too, behind the net's own.
    """
    net: nn.Module = import_module(MODULES[settings.net.architecture]).build(settings, classes)
    return net
