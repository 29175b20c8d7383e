"""`dvc repro` as a user has it: a fresh clone, real Fashion-MNIST images, the smoke scale."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from pipeline.params import read_yaml
from pipeline.training.run import HISTORY
from tests.clone import ROOT, VARIANTS, digests, make_clone, run, stages_run, tried, write_params
from tests.image_folders import write_squares

COLUMNS = 200  # of a terminal

pytestmark = pytest.mark.timeout(600)


def test_the_images_are_real_ones_and_the_report_puts_the_papers_numbers_beside_the_measured_ones(clone: Path) -> None:
    meta = json.loads((clone / "prepared/fashion_mnist/meta.json").read_text())
    assert meta["counts"] == {"train": 200, "val": 100, "test": 100}
    assert meta["sources"]["t10k-labels-idx1-ubyte"].startswith("0402a96d92fd2663957122ceb108a494")
    report = (clone / "reports/smoke/report.md").read_text()
    assert "This report proves the plumbing only" in report
    headline = next(line for line in report.splitlines() if line.startswith("| top-1, ten crops"))
    assert [cell.strip() for cell in headline.split("|")[2:4]] == ["37.5", "40.7"]
    predictions = pd.read_parquet(clone / "runs/smoke/evaluation/baseline/predictions.parquet")
    test = predictions[(predictions["split"] == "test") & (predictions["views"] == "ten_crop")]
    error = 100 * (test["top1"] != test["label"]).groupby(test["seed"]).mean()
    assert headline.split("|")[4].strip().startswith(f"{error.mean():.2f} ± ")


def test_mlflow_holds_one_finished_run_for_each_fingerprint(clone: Path) -> None:
    run(clone, sys.executable, "-m", "pipeline", "sync")
    client = mlflow.MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("alexnet")
    assert experiment is not None
    assert experiment.artifact_location == (clone / "mlartifacts").as_uri()
    runs = client.search_runs([experiment.experiment_id])
    trained = [json.loads(path.read_text())["fingerprint"] for path in clone.glob("runs/smoke/train/*/*/run.json")]
    trials = pd.read_csv(clone / "runs/smoke/tune/baseline/trials.csv")
    expected = {*trained, *trials["fingerprint"], *trials["study"], "report smoke"}
    assert sorted(r.data.tags["alexnet.fingerprint"] for r in runs) == sorted(expected)
    assert {r.info.status for r in runs} == {"FINISHED"}
    stages = {r.data.tags["variant"]: r.data.tags.get("alexnet.dvc_stage") for r in runs}
    assert stages["no_dropout"] == "train"


def test_dvc_shows_metrics_and_plots(clone: Path) -> None:
    shown = json.loads(run(clone, "dvc", "metrics", "show", "--json"))
    measured = json.loads((clone / "runs/smoke/metrics.json").read_text())
    assert shown[""]["data"]["runs/smoke/metrics.json"]["data"] == measured
    run(clone, "dvc", "plots", "show")
    page = (clone / "dvc_plots/index.html").read_text()
    (chart,) = re.findall(r"var spec = (\{.*\});", page)
    points = pd.DataFrame(json.loads(chart)["data"]["values"])
    assert set(points["variant"]) == set(VARIANTS)
    assert set(points["field"]) == {"train_error_top1", "val_error_top1"}


def test_where_nothing_has_changed_nothing_runs(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "repro")) == []


def finished_runs(clone: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in clone.glob(".state/runs/*/run.json")}


def test_a_variants_changed_setting_trains_that_variant_only_and_changed_back_nothing(clone: Path) -> None:
    before, finished = digests(clone), finished_runs(clone)
    table = (clone / "conf/variants.yaml").read_text()
    assert table.count("set: {net: {dropout_layers: []}}") == 1
    (clone / "conf/variants.yaml").write_text(
        table.replace("set: {net: {dropout_layers: []}}", "set: {net: {dropout_layers: [fc6]}}")
    )
    assert stages_run(run(clone, "dvc", "repro"))[-3:] == ["train", "evaluate", "report"]
    assert digests(clone) != before
    now = finished_runs(clone)
    assert finished.items() <= now.items()
    assert len(now) == len(finished) + 2  # its two seeds
    (clone / "conf/variants.yaml").write_text(table)
    run(clone, "dvc", "repro")
    assert finished_runs(clone) == now
    assert digests(clone) == before


@pytest.fixture
def copy(clone: Path, tmp_path: Path) -> Path:
    """A copy of the clone, for tests that would not leave it as they found it."""
    return Path(shutil.copytree(clone, tmp_path / "copy", symlinks=True))


def experiment(*settings: str) -> list[str]:
    return ["dvc", "exp", "run", *(word for setting in settings for word in ("-S", setting))]


@pytest.mark.slow
def test_an_experiment_changes_no_other_line_of_params_yaml_and_dvcs_tables_fit_two_hundred_columns(
    copy: Path, smoke: dict[str, Any]
) -> None:
    default = read_yaml(ROOT / "params.yaml")["variants"]  # of which the tables have a column each
    write_params(copy, smoke | {"variants": default, "seeds": [0]})
    run(copy, "git", "commit", "--quiet", "--all", "-m", "the default scale's variants")
    run(copy, *experiment("scale=smoke", f"variants=[{','.join(default)}]", "seeds=[0]", "train.lr=0.02"))
    changed = run(copy, "git", "diff", "--unified=0", "params.yaml").splitlines()
    assert changed[-2:] == ["-  lr: 0.01", "+  lr: 0.02"]
    assert len(changed) == 7  # with git's head
    (command,) = re.findall(r"^dvc exp show [^#\n]*", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert " train.lr " in run(copy, *shlex.split(command))
    for shown in (shlex.split(command), ["dvc", "dag"], ["dvc", "metrics", "show"]):
        lines = run(copy, *shown).replace("runs/smoke/", "runs/embedded/").splitlines()
        assert max(map(len, lines)) <= COLUMNS, shown


@pytest.mark.slow
def test_another_scale_is_begun_without_a_warning_for_each_of_its_outs(copy: Path) -> None:
    done = tried(copy, *experiment("scale=lineage", "data.folder=/nowhere", "data.dataset=trees"))
    assert "error: /nowhere/train: cannot be read" in done.stderr  # prepare, which ends at once
    assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.slow
def test_another_seed_trains_one_run_more_for_each_variant(clone: Path, smoke: dict[str, Any]) -> None:
    before, finished = digests(clone), finished_runs(clone)
    write_params(clone, smoke | {"seeds": [0, 1, 2], "variants": ["baseline"]})
    run(clone, "dvc", "repro", "train")
    now = finished_runs(clone)
    assert finished.items() <= now.items()
    assert len(now) == len(finished) + 1
    write_params(clone, smoke)
    run(clone, "dvc", "repro")
    assert digests(clone) == before


def test_a_scale_switched_and_back_trains_nothing(clone: Path, smoke: dict[str, Any]) -> None:
    before = digests(clone)
    blocks = "".join(f"{key}: {json.dumps(smoke[key])}\n" for key in ("data", "net", "train", "departures"))
    own = "scale: other\nreports: {fashion_mnist: other}\nseeds: [3]\nvariants: [baseline]\n"
    (clone / "conf/scale/other.yaml").write_text("# @package _global_\n" + blocks + own)
    output = run(clone, "dvc", "exp", "run", "-S", "scale=other", "-S", "train.epochs=2")
    assert stages_run(output) == ["tune", "train", "evaluate", "report"]
    assert read_yaml(clone / "params.yaml")["train"]["epochs"] == 2
    assert len(pd.read_csv(clone / "runs/other/train/baseline/seed-3" / HISTORY)) == 2
    assert stages_run(run(clone, "dvc", "exp", "run", "-S", "scale=smoke")) == ["report"]
    assert digests(clone) == before
    assert "smoke" in run(clone, "dvc", "exp", "show", "--csv")


@pytest.mark.slow
def test_what_was_damaged_between_two_repros_is_restored_without_training(clone: Path) -> None:
    before = digests(clone)
    places = ["train/baseline/seed-0/model.safetensors"]
    places += ["evaluation/baseline/predictions.parquet", "evaluation/baseline/seeds.json"]
    for path in (*(clone / "runs/smoke" / place for place in places), clone / "prepared/fashion_mnist/meta.json"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    finished = finished_runs(clone)
    assert stages_run(run(clone, "dvc", "repro"))[:1] == [
        "prepare"
    ]  # DVC caches no run of a stage that it must not empty
    assert finished_runs(clone) == finished
    assert digests(clone) == before


OWN = ("-S", "scale=smoke", "-S", "data.dataset=trees", "-S", "data.train_images=null", "-S", "data.test_images=null")


SIZES = {"train": {"ash": 6, "birch": 6}, "test": {"ash": 2, "birch": 2}}


@pytest.mark.parametrize(
    ("command", "place", "named"),
    [
        ("exp run", "prepared/trees", True),
        ("exp run", "a link", True),
        ("exp run", "a link", False),
        ("repro", "prepared/trees", False),
        ("stage", "a link", False),
    ],
)
def test_images_where_the_store_would_be_are_kept_and_told_of(
    tmp_path_factory: pytest.TempPathFactory, command: str, place: str, named: bool
) -> None:
    clone = tmp_path_factory.mktemp("clone")
    make_clone(clone)
    images = tmp_path_factory.mktemp("originals") if place == "a link" else clone / place
    write_squares(images, 80, **SIZES)
    if place == "a link":
        (clone / "prepared").mkdir()
        (clone / "prepared/trees").symlink_to(images)
    folder = images if named else tmp_path_factory.mktemp("others")
    if not named:
        write_squares(folder, 80, **SIZES)
    before, params = sorted(images.rglob("*")), (clone / "params.yaml").read_text()
    if command == "exp run":
        line = ["dvc", "exp", "run", *OWN, "-S", f"data.folder={folder}", "-S", "data.validation_images=2", "prepare"]
    else:  # as somebody edits the file by hand
        values = read_yaml(clone / "params.yaml")
        values["data"] |= {"folder": str(folder), "dataset": "trees", "validation_images": 2}
        values["data"] |= {"train_images": None, "test_images": None}
        write_params(clone, values | {"report": "smoke_trees"})
        line = ["dvc", "repro", "prepare"] if command == "repro" else [sys.executable, "-m", "stages.prepare"]
    done = tried(clone, *line)
    assert done.returncode != 0
    assert "error: " in done.stderr
    assert str(images if named else "prepared/trees") in done.stderr
    assert sorted(images.rglob("*")) == before
    assert command != "exp run" or (clone / "params.yaml").read_text() == params


def test_a_value_that_is_refused_leaves_params_yaml_as_it_was(clone: Path) -> None:
    before = (clone / "params.yaml").read_bytes()
    done = tried(clone, "dvc", "exp", "run", "-S", "scale=smoke", "-S", "train.lr=-1")
    assert (done.returncode, done.stderr) == (2, "error: conf: train.lr = -1: input should be greater than 0\n")
    assert (clone / "params.yaml").read_bytes() == before
