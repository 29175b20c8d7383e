"""The model that MLflow serves: images in, the probability of each class out. MLflow runs this file to load it."""

from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from numpy.typing import NDArray

from pipeline.data.sources.decoding import on_canvas
from pipeline.evaluation.image_classifier import read

ACCEPTED = "accepted are images (N, H, W, 3) or, of gray ones, (N, H, W), with whole levels from 0 (black) to 255"
BATCH_IMAGES = 100


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """Ten crops of each image's central square, resized as `prepare` does it."""

    def load_context(self, context: Any) -> None:
        self.classifier = read(context.artifacts["net"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow checks by the types
        """Return for each image the probability of each class by its name.

        model_input: (N, H, W, 3) or (N, H, W), integers or whole floats from 0 to 255. Raises MlflowException where the
        levels are plainly on another scale, which a net would answer with nonsense.
        """
        images = checked(model_input)
        squares = [self.classifier.of_color(square(image, self.classifier.image_size)) for image in images]
        found: list[dict[str, float]] = []
        for start in range(0, len(squares), BATCH_IMAGES):
            with torch.inference_mode():
                p = self.classifier(torch.from_numpy(np.stack(squares[start : start + BATCH_IMAGES])))
            found += [dict(zip(self.classifier.classes, row, strict=True)) for row in p.tolist()]
        return found


def checked(model_input: Any) -> NDArray[np.uint8]:
    """Return the images as (N, H, W, 1 or 3) bytes. Raises MlflowException where they are none."""
    try:
        images = np.asarray(model_input)
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
            raise ValueError(f"the shape is {np.shape(model_input)}")
        if not np.issubdtype(images.dtype, np.number) or np.issubdtype(images.dtype, np.complexfloating):
            raise ValueError(f"the type is {images.dtype}")
        low, high = images.min(), images.max()
        if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 255:
            raise ValueError(f"the levels run from {low:g} to {high:g}")
        if high <= 1:
            raise ValueError(f"no level is above {high:g}, as if they had been divided by 255")
        if (images != np.floor(images)).any():
            raise ValueError("there are fractions among the levels")
    except ValueError as error:
        raise MlflowException(f"{error}; {ACCEPTED}", INVALID_PARAMETER_VALUE) from error
    return images.astype(np.uint8)


def square(image: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Return the image's central square at the stored size: (S, S, 3)."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    cut = image[top : top + side, left : left + side]
    return on_canvas(np.ascontiguousarray(np.broadcast_to(cut, (side, side, 3))), image_size)


mlflow.models.set_model(ServedModel())
