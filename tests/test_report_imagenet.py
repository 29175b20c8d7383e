"""A report on ImageNet's photographs judges top-5 errors, sets others' results beside ours, and shows no photograph."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.claims.results import collect
from pipeline.claims.table import TOP5_CLASSES
from pipeline.params import Params, validate
from pipeline.report.figures import all_figures
from pipeline.report.limits import departures
from pipeline.report.render import write_report
from pipeline.tools.compose import composed
from tests import fake_runs
from tests.fake_runs import fake_params, write_fake_runs

CONF = Path(__file__).parents[1] / "conf"
TOP5 = ["overlap_pool_top5", "lrn_imagenet_top5", "ten_crop_top5"]  # those claims for which the paper prints top-5


def params_of(dataset: str, **data: Any) -> Params:
    values = fake_params().data.model_dump() | {"dataset": dataset, "folder": "/images"} | data
    return fake_params(reports={dataset: "fake"}, data=values)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of made-up runs on 12 of Tiny ImageNet's classes."""
    root = tmp_path_factory.mktemp("imagenet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_runs, "CLASSES", [f"class {label}" for label in range(12)])
        patch.setattr(all_figures, "_drawings", lambda *_: iter(()))
        params = params_of("tiny_imagenet", classes=12)
        write_fake_runs(root, params)
        write_report(params, root / "report", root)
    return root / "report"


def test_top5_errors_of_more_than_ten_classes_are_tested_and_judged(report: Path) -> None:
    rows = pd.read_csv(report / "claims.csv", index_col="id").loc[TOP5]
    assert set(rows["verdict"]) <= {"same direction", "opposite direction", "not seen here", "too noisy to say"}
    assert rows[["effect", "low", "high"]].notna().all(axis=None)
    assert (rows["metric"] == "test_error_top5").all()
    assert "Response normalization, top-5" in (report / "report.md").read_text()


@pytest.mark.parametrize(("scale", "classes"), [("tiny_imagenet", 50), ("tiny_imagenet_200", 200)])
def test_the_scales_have_enough_classes_for_that(scale: str, classes: int) -> None:
    params = validate(composed(CONF, f"scale={scale}"), scale)
    assert (params.data.classes or 200) == classes > TOP5_CLASSES


@pytest.mark.parametrize("error", ["68.2 / –", "67.1 / –", "58.2 / –", "55.0 / –"])
def test_published_errors_stand_below_ours_with_what_differs(report: Path, error: str) -> None:
    section = (report / "report.md").read_text().split("### What others measured")[1].split("## ")[0]
    first, *others = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert first.startswith("| **here (Tiny ImageNet, AlexNet at a quarter of its width, 12 classes)** ")
    (line,) = [line for line in others if error in line]
    _, _, _, differs, source = line.rstrip("|").split("|")
    assert "all 200 classes" in differs
    assert source.strip()


def test_the_departures_tell_which_images_these_are(report: Path) -> None:
    text = (report / "report.md").read_text()
    assert "The classes are 12 of 200, spread evenly over the sorted WNIDs." in text
    assert "Its validation images are the test images here" in text


def test_the_departures_tell_what_the_baseline_takes_from_the_source_and_when_its_rate_drops(tmp_path: Path) -> None:
    params = validate(composed(CONF, "scale=tiny_imagenet"), "tiny_imagenet")
    lines = departures(collect(params, tmp_path))
    (taken,) = [line for line in lines if "as in the authors' source and not as printed" in line]
    assert {"conv3", "conv4", "conv5", "0.03", "0.01"} <= set(taken.replace(",", "").split())
    assert any("(75 %, 90 %, 97.5 %)" in line for line in lines)


@pytest.mark.parametrize("dataset", ["imagenet2012", "imagenet2010", "tiny_imagenet"])
def test_no_figure_shows_a_photograph_of_imagenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    for name in ("effects", "curves", "filters", "examples", "_neighbors"):
        monkeypatch.setattr(all_figures, name, lambda *_: "not drawn")
    for name, shown in ((dataset, False), ("trees", True)):
        results = collect(params_of(name), tmp_path)
        results.analyses["baseline"] = {"seeds": {}}
        drawn = [figure for figure, _ in all_figures._drawings(results, [], [])]
        assert ("examples" in drawn, "neighbors" in drawn) == (shown, shown)
        assert "filters" in drawn
