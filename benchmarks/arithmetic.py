"""Operations and bytes of a training step, counted from the layer table, and how many images a second they allow.

Operations: two for each multiplication of a forward pass, the same again for the gradient of the inputs (but conv1's,
which nobody asks for) and for that of the weights. Bytes: what a step has to move if every chain of pointwise
operations is one kernel. Each tensor of activities (a convolution's or product's output, normalized maps, pooled maps)
is written and read forward, read again backward, and its gradient written and read; so is the image, which has no
gradient. Weights are read forward and backward, and their gradient is written; the update reads weight, velocity and
gradient and writes the former two, in fp32. In bf16 the weights are read and written once more, as they are rounded.
"""

from dataclasses import dataclass

import pandas as pd

from benchmarks.setups import params
from pipeline.paper.net import Shape, shapes
from pipeline.params import Params

BYTES = {"bf16": 2, "fp32": 4}  # of an activity
OPERATIONS_S = {"bf16": 790e12, "fp32": 67e12}  # of an H100 and an H200
BYTES_S = {"H100": 3.0e12, "H200": 4.3e12}


@dataclass(frozen=True)
class Step:
    """What a step takes: for each image, and whatever its batch."""

    operations: int
    bytes: int
    weight_bytes: int

    def bytes_an_image(self, batch_images: int) -> float:
        return self.bytes + self.weight_bytes / batch_images


def step_of(chosen: Params, channels: int, classes: int, precision: str) -> Step:
    """Count for the baseline. A gray image has one channel, against which conv1 holds its kernels' sum."""
    table, net = shapes(chosen.net, classes), chosen.net
    operations = activities = 0
    for index, shape in enumerate(table):
        products = shape.multiply_adds * channels // 3 if index == 0 else shape.multiply_adds
        operations += 2 * products * (2 if index == 0 else 3)
        activities += shape.neurons * (2 if shape.layer.name in net.norm_layers else 1) + _pooled(shape)
    size = BYTES[precision]
    image = (1 + 3 * size) * channels * net.crop_px**2  # the stored byte, and what is made of it
    weight = 2 * size + 4 + 5 * 4 + (4 + 2 if precision == "bf16" else 0)
    return Step(operations, 5 * size * activities + image, weight * sum(shape.parameters for shape in table))


def _pooled(shape: Shape) -> int:
    return shape.maps * shape.pooled_side**2 if shape.layer.pool else 0


def table() -> pd.DataFrame:
    """One row for each net and size of batch, with the images a second that two cards allow at most."""
    rows = []
    for size, channels, classes, precision in (("full", 3, 1000, "bf16"), ("embedded", 1, 10, "fp32")):
        step = step_of(params(size), channels, classes, precision)
        for batch_images in (128, 1024) if size == "full" else (128,):
            row = {"net": f"{size}, {precision}", "batch": f"{batch_images:,}"}
            row |= {"GFLOP an image": f"{step.operations / 1e9:.3f}", "MB an image": f"{step.bytes / 1e6:.2f}"}
            row["MB a step for weights"] = f"{step.weight_bytes / 1e6:,.0f}"
            row["by operations"] = f"{OPERATIONS_S[precision] / step.operations:,.0f}"
            for card, bytes_s in BYTES_S.items():
                row[f"by bytes, {card}"] = f"{bytes_s / step.bytes_an_image(batch_images):,.0f}"
            rows.append(row)
    return pd.DataFrame(rows)
