"""What a trained net answers to the images of a split, through one crop or averaged over ten."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.data.loader import Indices, View, view_batches
from pipeline.data.store import SplitName, Store
from pipeline.models.build import build
from pipeline.params import Settings

TOP = 5


def load_net(weights: Path, settings: Settings, classes: int) -> nn.Module:
    """Return the net with its trained weights, in evaluation mode. Raises safetensors' error on a damaged file."""
    net = build(settings, classes)
    net.load_state_dict(load_file(weights))
    net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


@torch.inference_mode()
def class_probabilities(
    net: nn.Module, store: Store, split: SplitName, crop_px: int, views: list[View], batch_images: int
) -> Tensor:
    """Return the softmax averaged over `views` (section 4.1), (N, classes) float32, in the split's order.

    Raises ValueError where the net's answer to an image is not a number.
    """
    device = next(net.parameters()).device
    total = torch.zeros(store.meta.counts[split], len(store.meta.classes))
    for view in views:
        start = 0
        for x, labels in view_batches(store, split, crop_px, batch_images, view, device):
            total[start : start + len(labels)] += net(x).softmax(1).cpu()
            start += len(labels)
    lost = int((~torch.isfinite(total).all(1)).sum())
    if lost:
        raise ValueError(f"the net's answer is not a number for {lost} of {len(total)} {split} images")
    return total / len(views)


def rank_of_label(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the rank of the true label (0: first), (N,) int64. probabilities: (N, classes), labels: (N,).

    A class of equal probability counts as ahead of the true label. Raises ValueError where a probability is not a
    number.
    """
    if torch.isnan(probabilities).any():
        raise ValueError("a probability is not a number")
    return (probabilities >= probabilities.gather(1, labels[:, None])).sum(1) - 1


def prediction_table(probabilities: Tensor, labels: Tensor) -> pd.DataFrame:
    """Return a row for each image: label, rank of the true label, its probability, and the TOP best labels."""
    own = probabilities.gather(1, labels[:, None])
    rank = rank_of_label(probabilities, labels)
    p, top = probabilities.topk(min(TOP, probabilities.shape[1]))
    columns = {"index": np.arange(len(labels), dtype=np.int32), "label": labels.numpy().astype(np.int16)}
    columns |= {"rank": rank.numpy().astype(np.int16), "p_label": own[:, 0].numpy()}
    columns |= {f"top{k + 1}": top[:, k].numpy().astype(np.int16) for k in range(top.shape[1])}
    columns |= {f"p{k + 1}": p[:, k].numpy() for k in range(p.shape[1])}
    return pd.DataFrame(columns)


def sample(images: int, at_most: int) -> Indices:
    """Return indices spread evenly over a split of `images`: a split sorted by class is sampled in all its parts."""
    count = min(images, at_most)
    return np.arange(count) * images // count
