"""Section 4.2: how well does the net with halved outputs stand for the geometric mean over all dropout nets?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.loader import one_crop, view_batches
from pipeline.data.store import Store
from pipeline.evaluation.predict import rank_of_label, sample
from pipeline.models.alexnet import Dropout
from pipeline.runtime.random_streams import seed_of

IMAGES = 500
NETS = (1, 10, 100)  # dropout nets in the mean
FACTORS = (0.4, 0.5, 0.6)  # of the outputs at test; the paper's is 0.5

KeptUnits = Callable[[Dropout, int], Tensor]  # from a layer and its number of units: (units,) bool


@torch.inference_mode()
def halved_against_dropout_nets(
    net: nn.Module, store: Store, crop_px: int, seed: int, batch_images: int
) -> dict[str, Any]:
    """Compare the halved net's probabilities p with the renormalized geometric mean q over K dropout nets, K in NETS.

    kl: of p from q, in nats. agreement: test images on which both have the same best label, in %. Errors in %.
    factors: kl with the most dropout nets, where the outputs are scaled by each of FACTORS instead of halved.
    A sampled net silences the same units for every image; its number and the net's seed decide which units.
    """
    if not isinstance(net, nn.Sequential):
        return {"reason": "the net's layers are no chain, of which dropout begins a part"}
    layers = list(net)
    first = next((place for place, layer in enumerate(layers) if isinstance(layer, Dropout)), None)
    if first is None:
        return {"reason": "the net has no dropout"}
    head, rest = nn.Sequential(*layers[:first]), nn.Sequential(*layers[first:])
    view, device = one_crop(store.meta.image_size, crop_px)[0], next(net.parameters()).device
    chosen = sample(store.meta.counts["test"], IMAGES)
    batches = list(view_batches(store, "test", crop_px, batch_images, view, device, chosen))
    units, labels = torch.cat([head(x) for x, _ in batches]), torch.cat([labels for _, labels in batches])
    halved = rest(units).log_softmax(1).double().cpu()

    def error_top1(log_probabilities: Tensor) -> float:
        return 100 * float((rank_of_label(log_probabilities, labels) >= 1).double().mean())

    def divergence(mean: Tensor, log_probabilities: Tensor) -> float:
        return float((mean.exp() * (mean - log_probabilities)).sum(1).mean())

    log_mean = LogMean(rest, units)
    compared = []
    for k in range(1, NETS[-1] + 1):
        generator = torch.Generator().manual_seed(seed_of("sampled dropout nets", seed, k))
        log_mean.add(lambda layer, units: torch.rand(units, generator=generator) >= layer.p)  # noqa: B023
        if k in NETS:
            mean = log_mean.normalized()
            agreement = 100 * float((mean.argmax(1) == halved.argmax(1)).double().mean())
            compared.append(
                {"nets": k, "kl": divergence(mean, halved), "agreement": agreement, "error_top1": error_top1(mean)}
            )
    factors = []
    for factor in FACTORS:
        with _hooked(rest, lambda _, units: units * factor):  # noqa: B023
            scaled = rest(units).log_softmax(1).double().cpu()
        factors.append({"factor": factor, "kl": divergence(log_mean.normalized(), scaled)})
    found = {"images": len(labels), "halved_error_top1": error_top1(halved)}
    return {**found, "geometric_mean": compared, "factors": factors}


@contextmanager
def _hooked(rest: nn.Sequential, replaced: Callable[[Dropout, Tensor], Tensor]) -> Iterator[None]:
    """In this block `replaced` makes each dropout layer's output of the layer and its input."""
    layers = [module for module in rest if isinstance(module, Dropout)]
    hooks = [layer.register_forward_hook(lambda layer, inputs, _: replaced(layer, inputs[0])) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class LogMean:
    """Logarithm of the geometric mean of the class probabilities that dropout nets give.

    rest: the net from its first dropout on, in evaluation mode. units: (N, D), the input of that layer.
    """

    def __init__(self, rest: nn.Sequential, units: Tensor) -> None:
        self._rest, self._units = rest, units
        self._sum, self._nets = torch.zeros((), dtype=torch.float64), 0

    def add(self, kept_units: KeptUnits) -> None:
        """Add one sampled net."""

        with _hooked(self._rest, lambda layer, units: units * kept_units(layer, units.shape[1]).to(units.device)):
            self._sum = self._sum + self._rest(self._units).log_softmax(1).double().cpu()
        self._nets += 1

    def normalized(self) -> Tensor:
        """Return the log probabilities, (N, classes) float64."""
        return (self._sum / self._nets).log_softmax(1)
