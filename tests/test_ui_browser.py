"""MLflow's pages in a real browser: the first page, a training that goes on, a comparison, a registered model."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import pytest

from pipeline.runtime.checksums import write_sums
from pipeline.training.run import HISTORY, RUN, WEIGHTS
from tests.processes import environment
from tests.servers import free_port
from tests.test_ui import answers

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
# The assistant's panel, which MLflow opens at a first visit, covers a third of the page.
NO_PANEL = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
POINTS = "[...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data[0].y.length)"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine (Debian: chromium)"),
]


@dataclass
class Served:
    folder: Path
    table: str  # the addresses that `alexnet ui` printed
    curves: str

    @property
    def pages(self) -> str:
        return self.table.split("experiments/")[0]

    def run_id(self, name: str) -> str:
        client = mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        return next(str(run.info.run_id) for run in client.search_runs(["1"]) if run.info.run_name == name)


@pytest.fixture(scope="module")
def served(_evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`alexnet ui` on two finished runs of the baseline, one without dropout, and one that goes on."""
    folder = tmp_path_factory.mktemp("browser") / "project"
    shutil.copytree(_evaluated, folder)
    _write_variant(folder / "runs/smoke/train")
    _write_running(folder / ".state/runs", epochs=2)
    env = {name: value for name, value in environment().items() if name not in ("ALEXNET_STATE", "MLFLOW_TRACKING_URI")}
    look = "from pipeline.tracking.store import Follower; Follower().look()"
    subprocess.run([sys.executable, "-c", look], cwd=folder, env=env, check=True)
    port = free_port()
    command = [sys.executable, "-m", "pipeline", "ui", "--port", str(port)]
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, cwd=folder, env=env, **pipe) as server:
        try:
            assert server.stdout is not None
            printed = [server.stdout.readline() for _ in range(3)]
            while not answers(f"http://127.0.0.1:{port}"):
                assert server.poll() is None
                time.sleep(0.3)
            yield Served(folder, *(line.split(": ", 1)[1].strip() for line in printed[1:]))
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def _write_variant(train: Path) -> None:
    """A run that differs from the baseline's first seed in one setting."""
    folder = train / "no_dropout/seed-0"
    shutil.copytree(train / "baseline/seed-0", folder)
    facts = json.loads((folder / RUN).read_text()) | {"variant": "no_dropout", "fingerprint": "made up"}
    facts["settings"]["net"]["dropout_layers"] = []
    (folder / RUN).write_text(json.dumps(facts))
    write_sums(folder, HISTORY, WEIGHTS, RUN)


def _write_running(state: Path, epochs: int) -> None:
    """A run of which a checkpoint holds so many epochs, and that this process trains."""
    source = next(state.glob(f"*/{RUN}"))
    about = json.loads(source.with_suffix("").parent.with_suffix(".json").read_text())
    (state / "going.json").write_text(json.dumps(about | {"fingerprint": "going", "variant": "going"}))
    (state / "going.lock").write_text(str(os.getpid()))
    (state / "going.kept").write_text(str(epochs))
    (state / "going").mkdir(exist_ok=True)
    history = pd.read_csv(source.with_name(HISTORY)).iloc[[0] * epochs].assign(epoch=range(1, epochs + 1))
    history["time_ms"] += history["epoch"]
    history.to_csv(state / "going" / HISTORY, index=False)


@pytest.fixture
def page() -> "Iterator[Page]":
    api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives Chromium, is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 950})
        page.add_init_script(NO_PANEL)
        yield page
        browser.close()


def test_the_first_page_shows_the_baseline_first_with_its_test_error(served: Served, page: "Page") -> None:
    measured = json.loads((served.folder / "runs/smoke/evaluation/baseline/seeds.json").read_text())
    page.goto(served.table)
    page.get_by_text("baseline seed 0").wait_for()
    groups = [text.split()[0] for text in page.inner_text("body").split("Group: ")[1:]]
    assert groups == ["baseline", "going", "no_dropout"]
    error = measured["0"]["test"]["one_crop"]["error_top1"]
    page.get_by_text("test_error_top1", exact=True).first.wait_for()
    cells = [text.strip() for text in page.locator('[role="gridcell"]').all_inner_texts()]
    shown = [float(text) for text in cells if re.fullmatch(r"\d+(\.\d+)?", text)]
    assert pytest.approx(error, abs=1e-4) in shown
    page.goto(served.curves)
    page.locator(".js-plotly-plot").first.wait_for()
    page.get_by_text("Errors, %").first.wait_for()


def test_the_curve_of_a_training_that_goes_on_grows_between_two_looks(served: Served, page: "Page") -> None:
    address = f"{served.pages}experiments/1/runs/{served.run_id('going seed 0')}"
    page.goto(address)
    page.get_by_text("Running", exact=True).wait_for()
    page.goto(f"{address}/model-metrics")
    page.wait_for_function(f"() => Math.max(0, ...{POINTS}) === 2")
    env = {name: value for name, value in environment().items() if name not in ("ALEXNET_STATE", "MLFLOW_TRACKING_URI")}
    command = [sys.executable, "-m", "pipeline", "sync", "--live"]
    with subprocess.Popen(command, cwd=served.folder, env=env, stdin=subprocess.PIPE) as sender:
        _write_running(served.folder / ".state/runs", epochs=5)
        page.wait_for_function(f"() => Math.max(0, ...{POINTS}) === 5", timeout=90_000)  # the page asks by itself
        sender.kill()


def test_two_runs_compared_mark_the_one_setting_that_differs(served: Served, page: "Page") -> None:
    runs = json.dumps([served.run_id("baseline seed 0"), served.run_id("no_dropout seed 0")])
    page.goto(f'{served.pages}compare-runs?runs={runs}&experiments=["1"]')
    page.get_by_text("Show diff only").first.wait_for()
    marked = [row.inner_text().split("\t")[0] for row in page.locator("tr.diff-row").all()]
    assert [name for name in marked if name.split(".")[0] in ("net", "recipe", "train", "data")] == [
        "net.dropout_layers"
    ]


def test_the_registered_model_opens_with_its_card(served: Served, page: "Page") -> None:
    page.goto(f"{served.pages}models/alexnet-smoke")
    page.get_by_text("Version 1").wait_for()
    text = page.inner_text("body")
    assert "48 images of Fashion-MNIST" in text
    assert "@\xa0baseline" in text
