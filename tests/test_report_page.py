"""What report.md refers to is there: its own sections, the stages that it names, every part of an analyzed scale."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from ruamel.yaml import YAML

from pipeline import paths
from pipeline.params import Params
from pipeline.report.html import html_page
from pipeline.report.render import write_report
from pipeline.report.training_tables import unsettled
from tests.fake_runs import fake_params, mark_failed, write_fake_runs
from tests.synthetic import ANALYSES, results
from tests.test_html import Seen

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FigureCanvasAgg, "print_figure", lambda *_, **__: None)


def report(root: Path, params: Params) -> str:
    write_report(params, root / "report", root)
    return (root / "report/report.md").read_text()


def test_a_report_with_missing_results_links_to_their_list(tmp_path: Path) -> None:
    write_fake_runs(tmp_path, fake_params())
    mark_failed(tmp_path, fake_params(), "no_dropout", 1)
    page = Seen(html_page(report(tmp_path, fake_params()), tmp_path))
    inner = [str(link["href"])[1:] for link in page.every("a") if str(link["href"]).startswith("#")]
    assert "missing-results" in inner
    assert set(inner) <= set(page.anchors)


def test_an_analyzed_scale_has_a_table_for_each_analysis(tmp_path: Path) -> None:
    params = fake_params(evaluate={"ten_crop": ["baseline"], "analyses": ["baseline"], "batch_images": 100})
    write_fake_runs(tmp_path, params)
    (tmp_path / paths.evaluation("fake", "baseline") / "analyses.json").write_text(json.dumps(ANALYSES))
    text = report(tmp_path, params)
    halved = text.split("### Half the outputs for many nets\n")[1].split("\n##")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in halved.splitlines() if line.startswith("| ")]
    assert rows[1:4] == [[str(nets), "80.00 ± 0.00 (3 seeds)"] for nets in (1, 10, 100)]
    kl = {0.4: 0.11, 0.5: 0.01, 0.6: 0.11}
    assert rows[5:] == [[f"{factor:g}", f"{value:.4f} ± 0.0000 (3 seeds)"] for factor, value in kl.items()]


def test_a_run_whose_last_error_is_far_from_those_before_is_named() -> None:
    made = results(fake_params(), epochs=60)
    made = replace(made, histories=made.histories.assign(val_error_top1=20.0))
    assert unsettled(made).startswith("Every run ended settled")
    last = (made.histories["variant"] == "tuned") & (made.histories["seed"] == 1) & (made.histories["epoch"] == 60)
    histories = made.histories.copy()
    histories.loc[last, "val_error_top1"] = 17.9
    assert unsettled(replace(made, histories=histories)).endswith("`tuned`, seed 1 (-2.1 points).")
    histories.loc[last, "val_error_top1"] = 21.9
    assert unsettled(replace(made, histories=histories)).startswith("Every run ended settled")


def test_a_report_names_stages_that_dvc_knows(tmp_path: Path) -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    text = report(tmp_path, fake_params())
    commands = re.findall(r"`dvc (?:repro|exp run)(.*?)`", text)
    assert commands
    for command in commands:
        words = re.sub(r"-S \S+", "", command).split()
        assert set(words) <= set(stages), command
