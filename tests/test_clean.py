"""`make clean` forgets what the pipeline wrote, and nothing else."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from pipeline import paths
from pipeline.data.store import Store
from tests.clone import ROOT


def clean(folder: Path, *options: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.tools.clean", *options]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.run(command, cwd=folder, input=answer, capture_output=True, text=True, env=environment)


def test_what_stages_wrote_goes_and_what_somebody_put_there_stays(evaluated: Store, workplace: Path) -> None:
    kept = ["data/fashion_mnist/a.jpg", "runs/notes.txt", "prepared/trees/ash/1.jpg", ".state/thesis.tex", "mlflow.db"]
    for name in kept:
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / name).write_text("somebody's own")
    done = clean(workplace, "--yes")
    assert done.returncode == 0, done.stderr
    assert sorted(str(path.relative_to(workplace)) for path in workplace.rglob("*") if path.is_file()) == sorted(kept)
    assert "left, since the pipeline did not write it: runs/notes.txt" in done.stdout


def test_nothing_goes_without_a_yes(store: Store, workplace: Path) -> None:
    before = sorted(workplace.rglob("*"))
    done = clean(workplace, answer="y\n")  # no terminal: nobody was asked
    assert (done.returncode, sorted(workplace.rglob("*"))) == (2, before)
    assert "--yes" in done.stderr


def test_a_link_to_images_is_not_followed(workplace: Path) -> None:
    originals = workplace / "originals"
    originals.mkdir()
    (originals / "meta.json").write_text("somebody's own")
    (workplace / "runs").symlink_to(originals)
    (workplace / "prepared").mkdir()
    (workplace / "prepared/trees").symlink_to(originals)
    assert clean(workplace, "--yes").returncode == 0
    assert (originals / "meta.json").exists()


@pytest.mark.usefixtures("mlflow_tables")
@pytest.mark.parametrize(("experiment", "stays"), [("alexnet", False), ("somebody's own", True)])
def test_a_store_with_other_experiments_stays(workplace: Path, experiment: str, stays: bool) -> None:
    mlflow.MlflowClient(paths.mlflow_store()).create_experiment(experiment)
    assert clean(workplace, "--yes").returncode == 0
    assert (workplace / "mlflow.db").exists() == stays
