"""Operations and bytes of a training step, counted from the layer table, and how many images a second they allow.

Operations: two for each multiplication of a forward pass, the same again for the gradient of the inputs (but conv1's,
which nobody asks for) and for that of the weights. Bytes: what a step has to move if every chain of pointwise
operations is one kernel. Each tensor of activities (a convolution's or product's output, normalized maps, pooled maps)
is written and read forward, read again backward, and its gradient written and read, in bf16; so is the image, which has
no gradient. Weights are read, as bf16, forward and backward, and their update reads weight, velocity and gradient and
writes the former two, in fp32; the copies in bf16 and the gradient are written, too.
"""

from dataclasses import dataclass

import pandas as pd

from benchmarks.setups import params
from pipeline.paper.net import Shape, shapes
from pipeline.params import Params

ACTIVITY_BYTES = 5 * 2
IMAGE_BYTES = 1 + 3 * 2  # the stored byte; written, read forward and backward as bf16
WEIGHT_BYTES = 5 * 4 + 4 + (4 + 2) + 2 * 2  # update; gradient; copy in bf16; two uses of it
CARDS = {"H100": (790e12, 3.0e12), "H200": (790e12, 4.3e12)}  # bf16 operations and bytes a second that are reached


@dataclass(frozen=True)
class Step:
    """What a step takes: for each image, and whatever its batch."""

    operations: int
    bytes: int
    weight_bytes: int

    def bound(self, batch_images: int, operations_s: float, bytes_s: float) -> tuple[float, float]:
        """Return images a second, by operations and by bytes."""
        return operations_s / self.operations, bytes_s / (self.bytes + self.weight_bytes / batch_images)


def step_of(chosen: Params, channels: int, classes: int) -> Step:
    """Count for the baseline. A gray image has one channel, against which conv1 holds its kernels' sum."""
    table, net = shapes(chosen.net, classes), chosen.net
    operations = activities = 0
    for index, shape in enumerate(table):
        products = shape.multiply_adds * channels // 3 if index == 0 else shape.multiply_adds
        operations += 2 * products * (2 if index == 0 else 3)
        activities += shape.neurons * (2 if shape.layer.name in net.norm_layers else 1) + _pooled(shape)
    image = channels * net.crop_px**2
    weights = sum(shape.parameters for shape in table)
    return Step(operations, ACTIVITY_BYTES * activities + IMAGE_BYTES * image, WEIGHT_BYTES * weights)


def _pooled(shape: Shape) -> int:
    return shape.maps * shape.pooled_side**2 if shape.layer.pool else 0


def table() -> pd.DataFrame:
    """One row for each net and size of batch, with the images a second that two cards can reach at most."""
    rows = []
    for size, channels, classes, title in (("full", 3, 1000, "full, 227 px"), ("embedded", 1, 10, "embedded, 67 px")):
        step = step_of(params(size), channels, classes)
        for batch_images in (128, 1024):
            row = {"net": title, "batch": f"{batch_images:,}", "GFLOP an image": f"{step.operations / 1e9:.3f}"}
            row["MB an image"] = f"{step.bytes / 1e6:.2f}"
            row["MB a step for weights"] = f"{step.weight_bytes / 1e6:,.0f}"
            for card, speeds in CARDS.items():
                bounds = step.bound(batch_images, *speeds)
                row |= {f"{card}, by {what}": f"{bound:,.0f}" for what, bound in zip(("operations", "bytes"), bounds)}
            rows.append(row)
    return pd.DataFrame(rows)
