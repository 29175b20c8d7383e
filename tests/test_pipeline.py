"""`dvc repro` as a user has it: a fresh clone, real Fashion-MNIST images, the smoke scale."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.__main__ import composed
from pipeline.data.sources import fashion_mnist
from pipeline.params import read_yaml
from pipeline.training.run import HISTORY, WEIGHTS

ROOT = Path(__file__).parents[1]
READER = {"NAME": "a reader", "EMAIL": "reader@example.org"}
VARIANTS = ("baseline", "no_dropout", "tuned")
ALL_STAGES = ["prepare", "tune", *(f"{stage}@{v}" for stage in ("train", "evaluate") for v in VARIANTS), "report"]

pytestmark = pytest.mark.timeout(600)


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "ALEXNET_", "MLFLOW_TRACKING"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    reader = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in READER.items()}
    return kept | reader | {"PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "2"} | more


def run(clone: Path, *command: str, **more: str) -> str:
    done = subprocess.run(command, cwd=clone, env=environment(**more), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stages_run(output: str) -> list[str]:
    return re.findall(r"^Running stage '(.+)'", output, re.MULTILINE)


def write_params(clone: Path, values: dict[str, Any]) -> None:
    YAML().dump(values, clone / "params.yaml")


def digests(clone: Path) -> dict[str, str]:
    """What must not depend on when or how often something ran."""
    patterns = ("runs/**/*.safetensors", "runs/**/*.parquet", "runs/**/seeds.json", "runs/**/best.yaml")
    found = [path for pattern in (*patterns, "data/**/*.*", "reports/smoke/[cr]*.*") for path in clone.glob(pattern)]
    return {str(path.relative_to(clone)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def smoke() -> dict[str, Any]:
    return composed(ROOT / "conf", "scale=smoke")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, smoke: dict[str, Any]) -> Path:
    """The working tree as a new repository in which `dvc repro` has been run once."""
    fashion_mnist.load()  # where it is not there yet, into this repository's downloads
    clone = tmp_path_factory.mktemp("clone")
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    shutil.copytree(ROOT / "downloads", clone / "downloads", dirs_exist_ok=True)
    (clone / "dvc.lock").unlink(missing_ok=True)
    write_params(clone, smoke)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "clone"]):
        run(clone, "git", *command)
    assert stages_run(run(clone, "dvc", "repro")) == ALL_STAGES
    return clone


def test_the_report_puts_the_papers_numbers_beside_the_measured_ones(clone: Path) -> None:
    report = (clone / "reports/smoke/report.md").read_text()
    assert "This report proves the plumbing only" in report
    headline = next(line for line in report.splitlines() if line.startswith("| top-1, ten crops"))
    assert [cell.strip() for cell in headline.split("|")[2:4]] == ["37.5", "40.7"]
    predictions = pd.read_parquet(clone / "runs/smoke/baseline/evaluation/predictions.parquet")
    test = predictions[(predictions["split"] == "test") & (predictions["views"] == "ten_crop")]
    error = 100 * (test["top1"] != test["label"]).groupby(test["seed"]).mean()
    assert headline.split("|")[4].strip().startswith(f"{error.mean():.2f} ± ")


def test_the_images_are_real_ones_with_the_canonical_checksums(clone: Path) -> None:
    meta = json.loads((clone / "data/fashion_mnist/meta.json").read_text())
    assert meta["counts"] == {"train": 200, "val": 100, "test": 100}
    assert meta["sources"]["t10k-labels-idx1-ubyte"].startswith("0402a96d92fd2663957122ceb108a494")


def test_mlflow_holds_one_finished_run_for_each_fingerprint(clone: Path) -> None:
    run(clone, sys.executable, "-m", "pipeline", "sync")
    client = mlflow.MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("alexnet")
    assert experiment is not None
    assert experiment.artifact_location == (clone / "mlartifacts").as_uri()
    runs = client.search_runs([experiment.experiment_id])
    trained = [json.loads(path.read_text())["fingerprint"] for path in clone.glob("runs/smoke/*/train/*/run.json")]
    trials = pd.read_csv(clone / "runs/smoke/tune/trials.csv")
    expected = {*trained, *trials["fingerprint"], *trials["study"]}
    assert sorted(r.data.tags["fingerprint"] for r in runs) == sorted(expected)
    assert {r.info.status for r in runs} == {"FINISHED"}
    stages = {r.data.tags["variant"]: r.data.tags.get("dvc_stage") for r in runs}
    assert stages["no_dropout"] == "train@no_dropout"


def test_dvc_shows_metrics_and_plots(clone: Path) -> None:
    shown = json.loads(run(clone, "dvc", "metrics", "show", "--json"))
    measured = json.loads((clone / "runs/smoke/baseline/evaluation/metrics.json").read_text())
    assert shown[""]["data"]["runs/smoke/baseline/evaluation/metrics.json"]["data"] == measured
    run(clone, "dvc", "plots", "show")
    page = (clone / "dvc_plots/index.html").read_text()
    assert all(f"reports_smoke_curves_{variant}_csv" in page for variant in VARIANTS)
    assert "val_error_top1" in page


def test_where_nothing_has_changed_nothing_runs(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "repro")) == []


def test_a_variants_changed_setting_trains_that_variant_only_and_changed_back_nothing(
    clone: Path, smoke: dict[str, Any]
) -> None:
    before = digests(clone)
    variants = smoke["variants"]
    changed = variants["no_dropout"] | {"set": {"net": {"dropout_layers": ["fc6"]}}}
    write_params(clone, smoke | {"variants": variants | {"no_dropout": changed}})
    assert stages_run(run(clone, "dvc", "repro")) == ["train@no_dropout", "evaluate@no_dropout", "report"]
    assert digests(clone) != before
    write_params(clone, smoke)
    assert stages_run(run(clone, "dvc", "repro")) == ["report"]  # remade: DVC does not cache what Git keeps
    assert digests(clone) == before


def test_another_seed_trains_one_run_more_for_each_variant(clone: Path, smoke: dict[str, Any]) -> None:
    before = digests(clone)
    finished = {path: path.stat().st_mtime_ns for path in clone.glob(".state/runs/*/run.json")}
    variants = {name: variant for name, variant in smoke["variants"].items() if name == "baseline"}
    write_params(clone, smoke | {"seeds": [0, 1, 2], "variants": variants})
    run(clone, "dvc", "repro", "train@baseline")
    now = {path: path.stat().st_mtime_ns for path in clone.glob(".state/runs/*/run.json")}
    assert finished.items() <= now.items()
    assert len(now) == len(finished) + 1
    write_params(clone, smoke)
    assert stages_run(run(clone, "dvc", "repro")) == []
    assert digests(clone) == before


def test_a_scale_switched_and_back_trains_nothing(clone: Path, smoke: dict[str, Any]) -> None:
    before = digests(clone)
    scale = "# @package _global_\ndefaults:\n  - /variant: [baseline]\n  - _self_\n" + "".join(
        f"{key}: {json.dumps(smoke[key])}\n" for key in ("title", "data", "net", "train", "departures")
    )
    (clone / "conf/scale/other.yaml").write_text(scale + "scale: other\nseeds: [3]\n")
    output = run(clone, "dvc", "exp", "run", "-S", "scale=other", "-S", "train.epochs=2")
    assert stages_run(output) == ["tune", "train@baseline", "evaluate@baseline", "report"]
    assert read_yaml(clone / "params.yaml")["train"]["epochs"] == 2
    assert len(pd.read_csv(clone / "runs/other/baseline/train/seed-3" / HISTORY)) == 2
    assert stages_run(run(clone, "dvc", "exp", "run", "-S", "scale=smoke")) == ["report"]
    assert digests(clone) == before
    assert "smoke" in run(clone, "dvc", "exp", "show", "--csv")


def test_a_train_stage_killed_under_dvc_ends_with_the_same_numbers_when_run_again(clone: Path) -> None:
    before = digests(clone)
    state = clone / "state of the killed"
    victim = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", "train@baseline"],
        cwd=clone,
        env=environment(ALEXNET_STATE=str(state)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not list(state.glob(f"runs/*/{HISTORY}")):
            assert victim.poll() is None
            time.sleep(0.01)
    finally:
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
    assert len(list(state.glob(f"runs/*/{WEIGHTS}"))) < 2  # it was not done
    assert not list(clone.glob("runs/smoke/baseline/train/seed-1"))  # DVC removes outs before a stage runs
    run(clone, "dvc", "repro", "--force", "--single-item", "train@baseline", ALEXNET_STATE=str(state))
    assert digests(clone) == before
