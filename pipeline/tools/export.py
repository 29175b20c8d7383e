"""`alexnet export`: a trained net, with its preprocessing, as one file."""

from pathlib import Path

import torch

from pipeline.errors import UserError
from pipeline.evaluation.image_classifier import ImageClassifier, write
from pipeline.runtime.files import replacing
from pipeline.tools.predict import chosen

TOLERANCE = 1e-4  # of a probability, between torch and ONNX Runtime
CHECKED_IMAGES = 8


def export(run: str | None, form: str, out: str | None, crops: int) -> str:
    """Write the file, and return a line that says what it holds. Raises UserError where it cannot be made."""
    classifier, name = chosen(run, crops)
    path = Path(out or f"alexnet.{form}")
    if form == "safetensors":
        write(classifier, path)
        held = "weights, mean image, settings and class names; `alexnet predict --run` reads it"
    else:
        difference = write_onnx(classifier, path)
        held = (
            f"takes images (N, {classifier.image_size}, {classifier.image_size}, {classifier.channels}) float32 with "
            f"levels from 0 to 255, returns probabilities; ONNX Runtime and torch differ by at most {difference:.0e}"
        )
    return f"{path}: {name}, {path.stat().st_size / 1e6:.1f} MB, {held}"


def write_onnx(classifier: ImageClassifier, path: Path) -> float:
    """Write an ONNX file, and return how far ONNX Runtime's probabilities are from torch's at most.

    Raises UserError where a package is missing, or where they differ by more than TOLERANCE.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which an ONNX file needs; run `pip install -c constraints.txt -e "
            "'.[onnx]'`"
        ) from error
    shape = (CHECKED_IMAGES, classifier.image_size, classifier.image_size, classifier.channels)
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float()
    program = torch.onnx.export(
        classifier,
        (images,),
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model_proto.metadata_props.add(key="classes", value="\n".join(classifier.classes))
    with replacing(path) as temporary:
        onnx.save(program.model_proto, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            difference = float((classifier(images) - torch.from_numpy(found)).abs().max())
        if not difference <= TOLERANCE:
            raise UserError(f"{path}: ONNX Runtime's probabilities differ from torch's by {difference:.1e}")
    return difference
