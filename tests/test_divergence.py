"""A variant whose loss leaves the numbers, from training to report."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from safetensors.torch import load_file, save_file

from pipeline import paths
from pipeline.claims.crossed import errors_by_seed
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import rounded
from pipeline.evaluation.metrics import metrics
from pipeline.evaluation.predict import rank_of_label
from pipeline.params import Params
from pipeline.report.render import write_report
from pipeline.runtime.checksums import write_sums
from pipeline.runtime.exit_status import exit_status
from pipeline.tracking import store as tracking
from pipeline.training.module import Classifier
from pipeline.training.run import train
from tests.mlflow_runs import stored_runs
from tests.tiny import a_run
from tests.tiny_params import evaluate_variant, tiny_params, train_variant

LR = 1e6


@pytest.fixture
def params() -> Params:
    """`no_dropout` cannot but diverge; `baseline` is as ever."""
    variants = tiny_params().model_dump()["variants"]
    wild = variants["baseline"] | {"title": "no dropout", "set": {"train": {"lr": LR}}}
    return tiny_params(variants={"baseline": variants["baseline"], "no_dropout": wild})


@pytest.mark.usefixtures("mlflow_tables")
def test_diverged_runs_are_recorded_the_others_go_on_and_the_report_counts_them(
    store: Store, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variant in ("no_dropout", "baseline"):
        assert exit_status(lambda: train_variant(params, variant)) == 0  # noqa: B023
    for seed in (0, 1):
        facts = json.loads((paths.seed("smoke", "no_dropout", seed) / "run.json").read_text())
        assert (facts["status"], facts["stopped"], facts["failure"]["lr"]) == ("failed", "diverged", LR)
        assert facts["failure"]["step"] >= 1
        norm = facts["failure"]["gradient_norm"]
        assert norm is None or norm > 0  # None: it had overflowed
        assert json.loads((paths.seed("smoke", "baseline", seed) / "run.json").read_text())["status"] == "finished"
    tracking.sync()
    assert [run.info.status for run in stored_runs()] == ["FINISHED"] * 2 + ["FAILED"] * 2  # baseline comes first
    for variant in params.variants:
        evaluate_variant(params, variant)
    measured = json.loads((paths.evaluation("smoke", "no_dropout") / "seeds.json").read_text())
    assert measured == {"0": {"status": "failed"}, "1": {"status": "failed"}}
    assert json.loads(paths.metrics("smoke").read_text()) == {"test": {}}
    monkeypatch.setattr(FigureCanvasAgg, "print_figure", lambda *_, **__: None)
    write_report(params, Path("reports/smoke"))
    report = Path("reports/smoke/report.md").read_text()
    for seed in (0, 1):
        failure = json.loads((paths.seed("smoke", "no_dropout", seed) / "run.json").read_text())["failure"]
        assert f"no_dropout, seed {seed}: the run failed at step {failure['step']} (learning rate {LR}," in report
        assert f"baseline, seed {seed}: the run failed" not in report


class Spoil(pl.Callback):
    """Makes the weights NaN in a given batch, as an update on an accelerator may, where the loss is seldom read."""

    def __init__(self, epoch: int, batch: int) -> None:
        self._when = (epoch, batch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self._when:
            with torch.no_grad():
                next(pl_module.net.parameters()).mul_(torch.nan)


@pytest.mark.parametrize("when", [(0, 0), (0, 2), (2, 2)], ids=["first batch", "last batch", "last of the run"])
@pytest.mark.parametrize("every_step", [True, False], ids=["", "where the loss is seldom read"])
def test_a_net_that_is_no_number_is_a_failed_run_wherever_that_begins(
    store: Store, monkeypatch: pytest.MonkeyPatch, when: tuple[int, int], every_step: bool
) -> None:
    if not every_step:
        monkeypatch.setattr(Classifier, "training_step", unwatched_step)
    folder = train(a_run(store), [Spoil(*when)])
    facts = json.loads((folder / "run.json").read_text())
    assert facts["status"] == "failed"
    assert facts["failure"]["step"] > 0
    assert not (folder / "model.safetensors").exists()
    assert not pd.read_csv(folder / "history.csv").isna().any(axis=None)


def test_on_a_processor_the_loss_is_looked_at_in_every_step(store: Store) -> None:
    facts = json.loads((train(a_run(store), [Spoil(0, 0)]) / "run.json").read_text())
    assert facts["failure"]["step"] == 1  # the next one


def unwatched_step(module: Classifier, batch: Any, batch_index: int) -> torch.Tensor:
    x, labels = batch
    loss = torch.nn.functional.cross_entropy(logits := module.net(x), labels)
    module.train_metrics.add(loss, logits, labels)
    return loss


def test_a_run_whose_last_gradients_are_gone_is_a_failed_run_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwritten(_: Any) -> torch.Tensor:
        raise RuntimeError("accessing tensor output of CUDAGraphs that has been overwritten by a subsequent run")

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", overwritten)
    facts = json.loads((train(a_run(store, train={"lr": LR})) / "run.json").read_text())
    assert (facts["status"], facts["failure"]["gradient_norm"]) == ("failed", None)


def test_what_a_net_answers_with_no_number_is_an_error_and_never_right() -> None:
    probabilities, labels = torch.full((2, 4), torch.nan), torch.tensor([0, 3])
    with pytest.raises(ValueError, match="not a number"):
        rank_of_label(probabilities, labels)
    for table in ({"rank": [-1, 0], "p_label": [0.5, 0.5]}, {"rank": [0, 0], "p_label": [0.5, float("nan")]}):
        with pytest.raises(ValueError, match="a prediction has no rank"):
            metrics(pd.DataFrame(table))
    with pytest.raises(ValueError, match="a rank is below 0"):
        errors_by_seed(
            pd.DataFrame({"seed": [0], "split": ["test"], "views": ["one_crop"], "index": [0], "rank": [-1]}),
            [0],
            split="test",
        )
    with pytest.raises(ValueError, match="not a number"):
        rounded({"nn_4096": {"features_agreement": float("nan")}})


def test_a_finished_run_whose_weights_are_spoilt_later_is_one_message_and_no_result(trained: Store) -> None:
    folder = paths.seed("smoke", "baseline", 0)
    weights = {name: value * torch.nan for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    write_sums(folder, "history.csv", "model.safetensors", "run.json")
    with pytest.raises(UserError, match=r"the net's answer is not a number for 48 of 48 train images"):
        evaluate_variant(tiny_params(), "baseline")
    assert not paths.metrics("smoke").exists()
