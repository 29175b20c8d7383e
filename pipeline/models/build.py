"""The net that settings name."""

from torch import nn

from pipeline.models.alexnet import alexnet
from pipeline.models.small_nets import small_net
from pipeline.params import Settings


def build(settings: Settings, classes: int) -> nn.Sequential:
    """The net with its initial weights, drawn from torch's global generator.

    Input: (N, 1 or 3, crop, crop) float32, grey levels minus the mean image. Output: (N, classes) logits.
    """
    return (alexnet if settings.net.architecture == "alexnet" else small_net)(settings, classes)
