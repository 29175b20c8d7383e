"""A trained net with all that stands before and behind it: from gray levels to the probabilities of named classes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.data.loader import one_crop, ten_crops
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.evaluation.predict import load_net
from pipeline.models.build import build
from pipeline.params import Settings
from pipeline.runtime.checksums import verify
from pipeline.runtime.files import write_bytes

MEAN = "mean_image"  # among a file's tensors; all others are the net's
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow has it; gray stays as it is


class ImageClassifier(nn.Module):
    """Images of the stored size in, probabilities out, as evaluation computes them (section 4.1).

    The mean image, the crops, the softmax and its mean over the crops are part of the module, so that an export has
    them, too.
    """

    mean_image: Tensor

    def __init__(self, net: nn.Module, mean_image: Tensor, settings: Settings, classes: list[str], crops: int) -> None:
        """mean_image: (S, S, C) float32. crops: 1 or 10."""
        super().__init__()
        self.net, self.settings, self.classes = net, settings, classes
        self.register_buffer("mean_image", mean_image)
        views = ten_crops if crops == 10 else one_crop
        self.views = views(self.image_size, settings.net.crop_px)
        self.eval()

    @property
    def image_size(self) -> int:
        """The side of the images that it takes, in pixels."""
        return len(self.mean_image)

    @property
    def channels(self) -> int:
        return self.mean_image.shape[2]

    def of_color(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return color pixels (…, 3) with the channels that the net takes: (…, C)."""
        if self.channels == 3:
            return pixels
        gray: NDArray[np.uint8] = np.rint(pixels @ LUMA).astype(np.uint8)[..., None]
        return gray

    def forward(self, images: Tensor) -> Tensor:
        """images: (N, S, S, C) of any numeric type, levels from 0 to 255. Returns (N, classes) float32."""
        x = (images.float() - self.mean_image).permute(0, 3, 1, 2)
        px = self.settings.net.crop_px
        total = torch.zeros(())
        for view in self.views:
            crop = x[:, :, view.top : view.top + px, view.left : view.left + px]
            crop = crop.flip(3) if view.mirror else crop
            total = total + self.net(crop.contiguous(memory_format=torch.channels_last)).softmax(1)
        return total / len(self.views)


def of_run(folder: Path, store: Store, crops: int = 10) -> ImageClassifier:
    """Return the classifier of a finished run's folder. Raises UserError where files are missing or do not fit."""
    try:
        for name in ("run.json", "model.safetensors"):
            verify(folder / name)
        settings = Settings.model_validate(json.loads((folder / "run.json").read_text())["settings"])
        net = load_net(folder / "model.safetensors", settings, len(store.meta.classes))
    except OSError as error:
        raise UserError(
            f"{folder}: has no trained net ({error.strerror or error}); `dvc repro` trains it, and `dvc pull` fetches "
            "it from a remote"
        ) from error
    except (ValueError, KeyError, SafetensorError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder}: is no run on the {len(store.meta.classes)} classes of {store.folder} ({problem})"
        ) from error
    return ImageClassifier(net, torch.from_numpy(store.mean_image), settings, store.meta.classes, crops)


def write(classifier: ImageClassifier, path: Path) -> None:
    """Write all that `read` needs to one safetensors file: weights, mean image, settings and class names."""
    tensors = {name: tensor.contiguous() for name, tensor in classifier.net.state_dict().items()}
    facts = {"settings": classifier.settings.model_dump_json(), "classes": json.dumps(classifier.classes)}
    write_bytes(path, save(tensors | {MEAN: classifier.mean_image}, facts))


def read(path: Path, crops: int = 10) -> ImageClassifier:
    """Return the classifier of a file that `write` wrote. Raises UserError where it is another or damaged."""
    try:
        with safe_open(path, "pt") as file:
            facts: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        settings, classes = Settings.model_validate_json(facts["settings"]), json.loads(facts["classes"])
        mean_image = tensors.pop(MEAN)
        net = build(settings, len(classes))
        net.load_state_dict(tensors)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, SafetensorError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: is no file that `alexnet export` wrote ({problem})") from error
    return ImageClassifier(net.to(memory_format=torch.channels_last), mean_image, settings, classes, crops)  # type: ignore[call-overload]
