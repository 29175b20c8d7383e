"""`alexnet predict`: the five likeliest classes of a photograph, by a trained net."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline import params, paths
from pipeline.data.sources.decoding import load, read_file
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.evaluation.image_classifier import ImageClassifier, of_run, read
from pipeline.runtime.checksums import verify
from pipeline.tracking.records import representative

TOP = 5
FEW_CLASSES = 20  # are all named


@dataclass(frozen=True)
class Answer:
    """What the net says of one file: its likeliest classes with their probabilities, the likeliest first."""

    file: str
    labels: dict[str, float]


def chosen(run: str | None, crops: int) -> tuple[ImageClassifier, str]:
    """Return the classifier that `run` names, and how to call it: a run's folder, an exported file, an MLflow address.

    Without a name it is the baseline's net of the scale of params.yaml, of the seed with the median validation error.
    Raises UserError where there is none.
    """
    if run is not None and ":/" in run:
        from pipeline.tracking.model import downloaded

        return read(downloaded(run), crops), run
    path = Path(run) if run is not None else _of_the_report()
    if path.suffix == ".safetensors" and not (path.parent / "run.json").exists():
        return read(path, crops), str(path)
    folder = path.parent if path.suffix == ".safetensors" else path
    return of_run(folder, Store.of_run(folder), crops), str(folder)


def _of_the_report() -> Path:
    """Return the folder of the run that stands for the baseline of params.yaml."""
    configured = params.load()
    seeds = paths.evaluation(configured.scale, "baseline") / "seeds.json"
    try:
        verify(seeds)
        seed = representative(json.loads(seeds.read_text()))
    except (OSError, ValueError, KeyError):
        seed = None
    return paths.seed(configured.scale, "baseline", configured.seeds[0] if seed is None else seed)


def photograph(path: Path, classifier: ImageClassifier) -> NDArray[np.uint8]:
    """Return the image of a file as `prepare` would store it: (S, S, C). Raises UserError where it cannot be used."""
    loaded = load(lambda: read_file(path), classifier.image_size)
    if loaded.pixels is None:
        raise UserError(f"{path}: {loaded.problem}; accepted is an image file")
    return classifier.of_color(loaded.pixels)


@torch.inference_mode()
def answers(files: list[Path], classifier: ImageClassifier) -> list[Answer]:
    """Return what the net says of each file. Raises UserError at the first that is no image, before any answer."""
    images = [photograph(path, classifier) for path in files]
    found = []
    for path, image in zip(tqdm(files, desc="predict", unit="image", disable=len(files) < 50), images, strict=True):
        p, labels = classifier(torch.from_numpy(image)[None])[0].topk(min(TOP, len(classifier.classes)))
        names = (classifier.classes[label] for label in labels.tolist())
        found.append(Answer(str(path), dict(zip(names, p.tolist(), strict=True))))
    return found


def predict(files: list[str], run: str | None, crops: int, as_json: bool) -> str:
    """Return the answers as text for people, or as JSON."""
    classifier, name = chosen(run, crops)
    found = answers([Path(file) for file in files], classifier)
    if as_json:
        return json.dumps([asdict(answer) for answer in found], indent=2, ensure_ascii=False)
    blocks = []
    for answer in found:
        lines = [f"  {100 * p:5.1f} %  {label}" for label, p in answer.labels.items()]
        blocks.append("\n".join([answer.file, *lines]))
    known = classifier.classes
    which = f": {', '.join(known)}" if len(known) <= FEW_CLASSES else ""
    kind = "gray images" if classifier.channels == 1 else "color images"
    blocks.append(f"{name} knows {len(known)} classes of {kind} and nothing else{which}.")
    return "\n\n".join(blocks)
