"""Section 6.1, Figure 4: the training images nearest to a test image by the last hidden layer, and by pixels."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.loader import Batch, one_crop, view_batches
from pipeline.data.store import Store
from pipeline.evaluation.predict import sample

QUERIES = 500
NEIGHBOURS, EXAMPLES = 6, 5  # Figure 4: six columns, five rows
SPACES = ("features", "pixels")


class Nearest:
    """Keeps the points nearest to each query among those shown so far; of equally near points, the first.

    queries: (Q, D), any floating point. Distances are Euclidean, in float64.
    """

    def __init__(self, queries: Tensor) -> None:
        self._queries = queries.double()
        self._partial = self._queries.new_empty(len(queries), 0)  # squared distance minus the query's own square
        self.indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)  # (Q, NEIGHBOURS)
        self._shown = 0

    def show(self, points: Tensor) -> None:
        """points: (B, D)."""
        points = points.double()
        partial = points.square().sum(1) - 2 * self._queries @ points.T
        indices = torch.arange(self._shown, self._shown + len(points), device=points.device).expand(partial.shape)
        ranked, order = torch.cat([self._partial, partial], 1).sort(dim=1, stable=True)
        self._partial = ranked[:, :NEIGHBOURS]
        self.indices = torch.cat([self.indices, indices], 1).gather(1, order[:, :NEIGHBOURS])
        self._shown += len(points)


@torch.inference_mode()
def nearest_training_images(net: nn.Module, store: Store, crop_px: int, batch_images: int) -> dict[str, Any]:
    """Return the share of a test image's NEIGHBOURS nearest training images that have its label, in %, by each space.

    features: input of the last fully connected layer. pixels: grey levels of the center crop.
    """
    view, device = one_crop(store.meta.image_size, crop_px)[0], next(net.parameters()).device
    chosen = sample(store.meta.counts["test"], QUERIES)
    queries = list(_seen(net, view_batches(store, "test", crop_px, batch_images, view, device, chosen)))
    search = {space: Nearest(torch.cat([points[space] for points, _ in queries])) for space in SPACES}
    for points, _ in _seen(net, view_batches(store, "train", crop_px, batch_images, view, device)):
        for space in SPACES:
            search[space].show(points[space])
    labels = torch.cat([own for _, own in queries])
    train_labels = torch.from_numpy(store.split("train").labels)
    neighbors = {space: search[space].indices.cpu() for space in SPACES}
    agree = {space: train_labels[neighbors[space]] == labels[:, None] for space in SPACES}
    first: dict[int, int] = {}  # row of each class's first query
    for row, label in enumerate(labels.tolist()):
        first.setdefault(label, row)
    return {
        "queries": len(labels),
        "neighbors": NEIGHBOURS,
        **{f"{space}_agreement": 100 * float(agree[space].double().mean()) for space in SPACES},
        "examples": [
            {"query": int(chosen[row]), **{space: neighbors[space][row].tolist() for space in SPACES}}
            for row in list(first.values())[:EXAMPLES]
        ],
    }


def _seen(net: nn.Module, batches: Iterator[Batch]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield each batch's points by space, (B, D) float32 on the net's device, and its labels."""
    answer = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    inputs: list[Tensor] = []
    with answer.register_forward_pre_hook(lambda _, args: inputs.append(args[0])):
        for x, labels in batches:
            net(x)
            yield {"features": inputs.pop(), "pixels": x.flatten(1)}, labels
