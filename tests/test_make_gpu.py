"""`make gpu` on a CPU: it refuses, or goes through its steps dry, in a copy without Git, DVC and MLflow."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import arithmetic
from benchmarks.__main__ import NOT_YET, ON_GPU
from benchmarks.gpu import LIMITS, reduced
from benchmarks.setups import params
from pipeline.params import read_yaml, validate
from pipeline.tools.compose import composed
from tests.clone import copy_tree, tried, write_params

ROOT = Path(__file__).parents[1]
REVISION = 39 * "0" + "1"
WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.split(".")[0] in ("mlflow", "dvc", "dvc_objects")
        return None if absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""  # as if these packages were not installed


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the working tree as on a machine without Git, DVC and MLflow, whose Python finds it alone."""
    copy_tree(tmp_path / "copy")
    (tmp_path / "copy/REVISION").write_text(REVISION)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(WITHOUT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(tmp_path / "copy")]))
    return tmp_path / "copy"


def dry_run(machine: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--out", "out", *options)
    return tried(machine, *command, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


def test_without_a_gpu_it_refuses_in_one_line() -> None:
    done = subprocess.run(
        ["make", "gpu", f"PYTHON={sys.executable}", "OUT=/nowhere/gpu"],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    first, *others = done.stderr.splitlines()
    assert first.startswith(f"error: make gpu needs a GPU, and torch {torch.__version__} finds none here")
    assert [line.startswith("make") for line in others] == [True]


def test_without_git_dvc_and_mlflow_a_scale_is_trained_evaluated_and_reported(machine: Path) -> None:
    done = dry_run(machine, "--step", "embedded_gpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MLflow is not installed here" in done.stdout
    found = machine / "out/embedded_gpu"
    provenance = (found / "provenance.md").read_text()
    assert REVISION in provenance
    assert len(pd.read_csv(found / "claims.csv")) > 30
    kept = {str(path.relative_to(found / "runs")) for path in (found / "runs").rglob("*.*")}
    seeds = [f"{variant}/seed-{seed}" for variant in ("baseline", "no_dropout", "tuned") for seed in (0, 1)]
    assert kept == {f"{folder}/{name}" for folder in seeds for name in ("run.json", "history.csv")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_steps_run_dry_and_leave_their_tables_and_runs_that_are_reported_elsewhere(
    machine: Path, tmp_path: Path
) -> None:
    cut_off = dry_run(machine, "--step", "embedded_gpu", "--minutes", "1.5")  # which evaluation and report would take
    assert (cut_off.returncode, "baseline's runs were not finished" in cut_off.stderr) == (2, True)
    done = dry_run(machine, "--minutes", "14")
    assert done.returncode == 0, done.stdout + done.stderr
    out = machine / "out"
    steps = pd.read_csv(out / "steps.csv")
    assert dict(zip(steps["step"], steps["ended"], strict=True)) == dict.fromkeys(LIMITS, "done")
    assert f"revision {REVISION}\n" in (out / "environment.txt").read_text()
    errors = pd.read_csv(out / "numerics.csv").set_index("what")
    assert {"conv1", "conv1_norm", "fc8", "a step", "10 steps"} <= set(errors.index)
    assert errors["fp32"].max() < 1e-4  # 24 bits; some are lost where numbers of both signs are added
    assert errors.loc["conv1", "bf16"] == pytest.approx(2**-8, rel=0.5)  # 8 bits
    repeated = pd.read_csv(out / "determinism.csv").set_index("run")
    assert repeated["same"].all()
    assert list(repeated.index) == ["again", "interrupted and resumed", "cut by processes", "2 side by side"]
    rows = pd.read_csv(out / "benchmarks.csv")
    named = {"16": "128", "32": "1024", "2": "8"}  # by the sizes of a dry run
    names = {"_".join(named.get(part, part) for part in name.split("_")) for name in rows["name"]}
    assert names == set(ON_GPU)
    assert (rows["value"] > 0).all()
    report_elsewhere(out / "embedded_gpu", tmp_path / "elsewhere")


def report_elsewhere(found: Path, elsewhere: Path) -> None:
    """Unpack the runs, make the report anew, and compare."""
    elsewhere.mkdir()
    with tarfile.open(found / "runs.tar") as archive:
        archive.extractall(elsewhere, filter="data")
    write_params(elsewhere, read_yaml(found / "params.yaml"))
    for name in ("conf", "downloads"):
        (elsewhere / name).symlink_to(ROOT / name)
    for stage in ("prepare", "report"):
        done = tried(elsewhere, sys.executable, "-m", f"stages.{stage}", PYTHONPATH=str(ROOT))
        assert done.returncode == 0, done.stderr
    for name in ("report.md", "claims.csv", "figures/filters.png"):
        assert (elsewhere / "reports/embedded_gpu" / name).read_bytes() == (found / name).read_bytes(), name


def test_a_scale_that_was_cut_off_is_a_valid_configuration_of_its_finished_variants() -> None:
    values = reduced(composed(ROOT / "conf", "scale=embedded_all_gpu"), ["baseline", "tuned", "tanh"])
    chosen = validate(values, "reduced")
    assert list(chosen.variants) == ["baseline", "tuned", "tanh"]
    assert (chosen.studies, chosen.evaluate.analyses) == (["baseline", "tanh"], ["baseline"])


def test_on_a_gpu_the_scales_train_eight_runs_at_once_and_the_embedded_one_has_eight_seeds() -> None:
    for scale, seeds in (("embedded_gpu", 8), ("embedded_all_gpu", 5)):
        chosen = params(scale)
        assert (chosen.hardware.accelerator, chosen.hardware.workers, len(chosen.seeds)) == ("gpu", 8, seeds)


def test_a_steps_operations_and_bytes_are_those_of_the_papers_layers() -> None:
    step = arithmetic.step_of(params("full"), channels=3, classes=1000, precision="bf16")
    assert step.operations == 2 * (3 * 724_406_816 - 105_415_200)  # but for the gradient of the image
    normalized, pooled = (96 * 55**2, 256 * 27**2), (96 * 27**2, 256 * 13**2, 256 * 6**2)
    activities = 659_272 + sum(normalized) + sum(pooled)
    assert step.bytes == 10 * activities + 7 * 3 * 227**2
    assert step.weight_bytes == 34 * 60_965_224


def test_the_page_says_what_no_gpu_has_measured_yet() -> None:
    page, table = (ROOT / "reports/benchmarks.md").read_text(), pd.read_csv(ROOT / "reports/benchmarks.csv")
    measured = set(table["name"]) & set(ON_GPU)
    assert (NOT_YET in page) == (not measured)
    assert all(f"| {name} " in page for name in measured or ON_GPU)
