"""docs/tour.ipynb runs where `dvc repro` has run, and what it says is what the report and the evaluation say."""

import re
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat import NotebookNode

from pipeline.data.sources.fashion_mnist import CLASSES
from tests.clone import run

ROOT = Path(__file__).parents[1]
TOUR = "docs/tour.ipynb"
SHOWN = {"stdout", "execute_result", "display_data"}  # no warning, no error


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(notebook: NotebookNode) -> str:
    return "".join(output.text for output in outputs(notebook) if output.get("name") == "stdout")


def figures(notebook: NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def assert_its_effect_is_the_tables(notebook: NotebookNode, repository: Path) -> None:
    row = pd.read_csv(repository / "reports/embedded/claims.csv", index_col="id").loc["lrn_imagenet"]
    found = dict(re.findall(r"(effect|low|high|seeds) (-?[\d.]+\d|\d+)", printed(notebook)))
    assert {name: float(value) for name, value in found.items()} == row[["effect", "low", "high", "seeds"]].to_dict()


@pytest.fixture
def executed(clone: Path) -> NotebookNode:
    """The notebook as it comes out of a clone in which the smoke scale's nets have been trained."""
    committed = (clone / TOUR).read_bytes()
    run(clone, sys.executable, "docs/execute_tour.py", PYTHONPATH=str(clone))
    notebook = nbformat.read(clone / TOUR, as_version=4)
    (clone / TOUR).write_bytes(committed)
    return notebook


@pytest.mark.timeout(600)
def test_executed_it_finds_the_tables_effect_and_the_evaluations_answer(executed: NotebookNode, clone: Path) -> None:
    assert_its_effect_is_the_tables(executed, clone)
    assert figures(executed) == 2
    ((seed, label, p),) = re.findall(r"runs/smoke/train/baseline/seed-(\d): (.+), (.+) %", printed(executed))
    answers = pd.read_parquet(clone / "runs/smoke/evaluation/baseline/predictions.parquet")
    (found,) = answers.query(f"seed == {seed} and split == 'test' and views == 'ten_crop' and index == 0").itertuples()
    assert label == CLASSES[found.top1]
    assert float(p) == pytest.approx(100 * found.p1, abs=0.01)


def test_as_committed_it_shows_the_committed_report_and_no_path_of_a_machine() -> None:
    committed = nbformat.read(ROOT / TOUR, as_version=4)
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.get("name", output.output_type) for output in outputs(committed)} == SHOWN
    assert_its_effect_is_the_tables(committed, ROOT)
    assert figures(committed) == 2
    assert not re.search(r"[\"'\s(](/\w|~/|[A-Z]:\\)", printed(committed))
    assert not re.search(r"/(home|root|tmp|work|Users)/", (ROOT / TOUR).read_text())
