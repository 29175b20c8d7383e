"""Section 4.2: the net with halved outputs stands for the geometric mean over all dropout nets. How well?"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.loader import one_crop
from pipeline.data.store import Store
from pipeline.evaluation.predict import rank_of_label
from pipeline.evaluation.sample import sample, sample_batches
from pipeline.models.alexnet import Dropout
from pipeline.runtime.random_streams import seed_of

IMAGES = 500
NETS = (1, 10, 100)  # dropout nets in the mean

KeptUnits = Callable[[Dropout, int], Tensor]  # from a layer and its number of units: (units,) bool


@torch.inference_mode()
def halved_against_thinned(
    net: nn.Sequential, store: Store, crop_px: int, seed: int, batch_images: int
) -> dict[str, Any]:
    """The halved net's probabilities p beside the renormalized geometric mean q over K dropout nets, for K in NETS.

    kl: of p from q, in nats. agreement: test images on which both have the same best label, in %. Errors in %.
    A sampled net silences the same units for each image; which ones, its number and the net's seed decide.
    """
    layers = list(net)
    first = next((place for place, layer in enumerate(layers) if isinstance(layer, Dropout)), None)
    if first is None:
        return {"reason": "the net has no dropout"}
    units, labels = _before(nn.Sequential(*layers[:first]), store, crop_px, batch_images)
    rest = nn.Sequential(*layers[first:])
    halved = rest(units).log_softmax(1).double().cpu()
    log_mean = LogMean(rest, units)
    compared = []
    for k in range(1, NETS[-1] + 1):
        log_mean.add(partial(_random_units, _generator(seed, k)))
        if k in NETS:
            compared.append({"nets": k, **_compare(log_mean.normalized(), halved, labels)})
    error = _error_top1(halved, labels)
    return {"images": len(labels), "halved_error_top1": error, "geometric_mean": compared}


class LogMean:
    """Logarithm of the geometric mean of the class probabilities that dropout nets give.

    rest: the net from its first dropout on, in evaluation mode. units: (N, D), what that layer is given.
    """

    def __init__(self, rest: nn.Sequential, units: Tensor) -> None:
        self._rest, self._units = rest, units
        self._sum, self._nets = torch.zeros((), dtype=torch.float64), 0

    def add(self, kept_units: KeptUnits) -> None:
        """One more sampled net."""

        def silence(layer: Dropout, inputs: tuple[Tensor], _: Tensor) -> Tensor:
            return inputs[0] * kept_units(layer, inputs[0].shape[1]).to(inputs[0].device)

        layers = [module for module in self._rest if isinstance(module, Dropout)]
        hooks = [layer.register_forward_hook(silence) for layer in layers]
        try:
            self._sum = self._sum + self._rest(self._units).log_softmax(1).double().cpu()
        finally:
            for hook in hooks:
                hook.remove()
        self._nets += 1

    def normalized(self) -> Tensor:
        """(N, classes) float64, log probabilities."""
        return (self._sum / self._nets).log_softmax(1)


def _before(head: nn.Sequential, store: Store, crop_px: int, batch_images: int) -> tuple[Tensor, Tensor]:
    """Of the sampled test images what `head` makes, (N, D) float32 on its device, and the labels."""
    device = next(head.parameters()).device
    view = one_crop(store.meta.image_size, crop_px)[0]
    chosen = sample(store.meta.counts["test"], IMAGES)
    batches = sample_batches(store, "test", crop_px, batch_images, view, device, chosen)
    units, labels = zip(*((head(x), labels) for x, labels in batches), strict=True)
    return torch.cat(units), torch.cat(labels)


def _generator(seed: int, net: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of("sampled dropout nets", seed, net))


def _random_units(generator: torch.Generator, layer: Dropout, units: int) -> Tensor:
    return torch.rand(units, generator=generator) >= layer.p


def _compare(log_mean: Tensor, halved: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        "kl": float((log_mean.exp() * (log_mean - halved)).sum(1).mean()),
        "agreement": 100 * float((log_mean.argmax(1) == halved.argmax(1)).double().mean()),
        "error_top1": _error_top1(log_mean, labels),
    }


def _error_top1(log_probabilities: Tensor, labels: Tensor) -> float:
    return 100 * float((rank_of_label(log_probabilities, labels) >= 1).double().mean())
