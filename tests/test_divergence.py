"""A variant whose loss leaves the numbers, from training to report."""

import json
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline import paths, tracking
from pipeline.data.store import Store
from pipeline.errors import exit_status
from pipeline.evaluation.evaluate import evaluate_variant
from pipeline.params import Params
from pipeline.report.render import write_report
from pipeline.training.variant import train_variant
from tests.test_tracking import stored_runs
from tests.tiny_params import tiny_params

LR = 1e6


@pytest.fixture
def params() -> Params:
    """`no_dropout` cannot but diverge; `baseline` is as ever."""
    variants = tiny_params().model_dump()["variants"]
    wild = variants["baseline"] | {"title": "no dropout", "set": {"train": {"lr": LR}}}
    return tiny_params(variants={"baseline": variants["baseline"], "no_dropout": wild})


def test_diverged_runs_are_recorded_the_others_go_on_and_the_report_counts_them(
    store: Store, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variant in ("no_dropout", "baseline"):
        assert exit_status(lambda: train_variant(params, variant)) == 0  # noqa: B023
    for seed in (0, 1):
        facts = json.loads((paths.seed("smoke", "no_dropout", seed) / "run.json").read_text())
        assert (facts["status"], facts["failure"]["lr"]) == ("failed", LR)
        assert {"step", "gradient_norm"} < set(facts["failure"])
        assert json.loads((paths.seed("smoke", "baseline", seed) / "run.json").read_text())["status"] == "finished"
    tracking.sync()
    assert [run.info.status for run in stored_runs()] == ["FINISHED"] * 2 + ["FAILED"] * 2  # baseline comes first
    for variant in params.variants:
        evaluate_variant(params, variant)
    monkeypatch.setattr(FigureCanvasAgg, "print_figure", lambda *_, **__: None)
    write_report(params, Path("reports/smoke"))
    report = Path("reports/smoke/report.md").read_text()
    for seed in (0, 1):
        assert f"no_dropout, seed {seed}: the run failed at step " in report
        assert f"baseline, seed {seed}: the run failed" not in report
