"""Section 6.1: does the net recognize objects that are off the center?"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.data.loader import View, view_batches
from pipeline.data.store import Store
from pipeline.evaluation.predict import rank_of_label, sample

IMAGES = 1000
SHIFTS = (0, 1 / 8, 1 / 4, 3 / 8)  # of the crop's side
DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))


@torch.inference_mode()
def error_when_shifted(net: nn.Module, store: Store, crop_px: int, batch_images: int) -> dict[str, Any]:
    """Return the top-1 error in % on test images whose crop is moved from the center, mean over the four DIRECTIONS.

    Beyond the canvas lies the mean image, which is zero to the net: the further the shift, the less of the object is
    seen.
    """
    device = next(net.parameters()).device
    image_size = store.meta.image_size
    pixels = [round(shift * crop_px) for shift in SHIFTS]
    border = max(pixels)
    center = border + (image_size - crop_px) // 2
    chosen = sample(store.meta.counts["test"], IMAGES)
    wrong = [0.0] * len(SHIFTS)
    for x, labels in view_batches(store, "test", image_size, batch_images, View(0, 0, False), device, chosen):
        padded = F.pad(x, [border] * 4)
        for number, shift in enumerate(pixels):
            directions = DIRECTIONS if shift else DIRECTIONS[:1]
            for down, right in directions:
                top, left = center + shift * down, center + shift * right
                crop = padded[:, :, top : top + crop_px, left : left + crop_px]
                answer = net(crop.contiguous(memory_format=torch.channels_last)).softmax(1).cpu()
                wrong[number] += int((rank_of_label(answer, labels) >= 1).sum()) / len(directions)
    return {
        "images": len(chosen),
        "chance": 100 * (1 - 1 / len(store.meta.classes)),  # error of a guess
        "shifts": [
            {"share": share, "px": px, "error_top1": 100 * count / len(chosen)}
            for share, px, count in zip(SHIFTS, pixels, wrong, strict=True)
        ],
    }
