"""A trained net in the MLflow store: as a model that takes images, and back from there."""

import os
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.evaluation.image_classifier import of_run, write

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

NET = "net.safetensors"
SCRIPT = Path(__file__).with_name("served_model.py")
PACKAGE = Path(__file__).parents[1]
NEEDS = (
    *("filelock", "mlflow", "numpy", "pandas", "pillow", "pooch", "psutil", "pydantic", "ruamel.yaml", "safetensors"),
    *("simplejpeg", "torch", "tqdm"),
)


def log(run_id: str, folder: Path) -> bool:
    """Log the net of a run's folder with all that it needs to take images.

    Returns whether it could be logged: its mean image and class names are those of the images that it was trained on,
    which have to be here. Raises FileNotFoundError while a stage replaces the folder.
    """
    try:
        store = Store.of_run(folder)
    except UserError:
        return False
    try:
        classifier = of_run(folder, store)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from error
        raise
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that MLflow cannot check types, which served_model.py does
        write(classifier, Path(temporary) / NET)
        Model.log(
            None,
            mlflow.pyfunc,
            name=folder.parent.name,  # the variant's
            run_id=run_id,  # mlflow.pyfunc.log_model would set the run to RUNNING again
            python_model=str(SCRIPT),
            artifacts={"net": str(Path(temporary) / NET)},
            code_paths=[str(PACKAGE)],
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in NEEDS],
            metadata={
                "takes": "images (N, H, W, 3), or (N, H, W) in gray, with whole levels from 0 to 255",
                "returns": f"the probability of each of {len(classifier.classes)} classes, the mean over ten crops",
            },
        )
    return True


def downloaded(address: str) -> Path:
    """Return the net's file of a model that was logged. Raises UserError where the address names none."""
    mlflow.set_tracking_uri(paths.mlflow_store())
    try:
        folder = Path(mlflow.artifacts.download_artifacts(address))
    except (MlflowException, OSError) as error:
        raise UserError(f"{address}: cannot be read ({' '.join(str(error).split())[:200]})") from error
    found = next(folder.rglob(NET), None)
    if found is None:
        raise UserError(f"{address}: has no {NET}; accepted is a model that this pipeline logged")
    return found
