"""What a report says that it departs in, and what it cannot show, is true of its own settings and numbers."""

import pandas as pd
import pytest

from pipeline.claims.results import Results, collect
from pipeline.claims.table import Row, claim_rows, frame
from pipeline.params import Train
from pipeline.report.limits import departures, what_it_cannot_show
from tests.fake_runs import EPOCHS, fake_params, write_fake_runs


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("limits")
    train = Train(epochs=EPOCHS, schedule="fixed", lr_drops=2, drop_at=[0.5, 0.75, 0.975]).model_dump()
    params = fake_params(train=train)
    write_fake_runs(root, params)
    return collect(params, root)


@pytest.fixture(scope="module")
def rows(results: Results) -> list[Row]:
    return claim_rows(results, {"update_rule": True})


def test_the_departures_have_the_budget_and_the_drops_that_are_taken(results: Results) -> None:
    text = "\n".join(departures(results))
    assert "The net has a quarter of the paper's kernels and units and sees crops of 67 px" in text
    assert "The net learns from 600 grey images of Fashion-MNIST in 10 classes" in text
    assert "A run takes at most 30 steps; the paper's took about 900,000." in text  # 6 epochs of 5 batches
    assert "The rate drops after fixed shares of the epochs (50 %, 75 %);" in text
    assert "chosen on runs of 2 epochs" in text


def test_with_plateaus_the_departures_have_the_patience(results: Results) -> None:
    params = fake_params(train=Train(epochs=EPOCHS, patience_epochs=4).model_dump())
    text = "\n".join(departures(Results(**{**vars(results), "params": params})))
    assert "when the validation error has not improved for 4 epochs" in text
    assert "fixed shares" not in text


def test_what_cannot_be_shown_has_the_width_of_the_intervals_and_the_papers_smallest_effect(
    results: Results, rows: list[Row]
) -> None:
    lines = what_it_cannot_show(results, rows)
    table = frame(rows)
    points = table[(table["unit"] == "points") & (table["metric"] != "test_error_top5") & (table["low"] != "")]
    halves = sorted((pd.to_numeric(points["high"]) - pd.to_numeric(points["low"])) / 2)
    assert len(halves) > 2
    (widths,) = [line for line in lines if "half-widths" in line]
    assert widths.startswith("With 3 seeds ")
    assert f"from {halves[0]:.2f} to {halves[-1]:.2f} points" in widths
    assert "The smallest of the paper's effects that is tested here has 0.4 points (`overlap_pool`)." in lines
    assert any("other images than the 800 test images" in line for line in lines)
    assert any("Top-5 error says nothing with 10 classes" in line for line in lines)


def test_what_cannot_be_shown_counts_the_claims_that_no_run_tests(results: Results, rows: list[Row]) -> None:
    table = frame(rows)
    main = table[~table["id"].str.endswith("_top5")]
    lines = what_it_cannot_show(results, rows)
    for verdict, says in {
        "not run at this scale": "are not tested here",
        "cannot be run": "cannot be tested by anyone today",
    }.items():
        names = main.loc[main["verdict"] == verdict, "id"]
        listed = ", ".join(f"`{name}`" for name in names)
        assert f"Of the paper's {len(main)} claims {len(names)} {says}: {listed}." in lines
    tested = (~main["verdict"].isin(["not run at this scale", "cannot be run", "reproduced", "contradicted"])).sum()
    says = f"Claims tested on other data or a smaller net than the paper's: {tested}."
    assert any(line.startswith(says) for line in lines)
