import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pipeline import paths
from pipeline.data.store import Store
from pipeline.params import Settings
from pipeline.runtime.checksums import SUMS
from pipeline.runtime.files import write_json
from pipeline.training.run import CHECKPOINT, HISTORY, RUN, WEIGHTS, WHERE, Run, publish, train
from tests.tiny import CPU, make_store, settings
from tests.tiny_params import tiny_params, train_variant

ROOT = Path(__file__).parents[1]
NUMBERS = ["epoch", "lr", "train_loss", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5"]

# Trains in a process of its own, which the test kills. Slowed down so that there is time to.
VICTIM = """
import sys, time
import pytorch_lightning as pl
from pathlib import Path
from pipeline.data.store import Store
from pipeline.runtime.files import write_json
from pipeline.training import callbacks
from pipeline.training.run import Run, train
from tests.tiny import CPU, settings

class Slow(pl.Callback):
    def on_train_batch_end(self, *args):
        time.sleep(0.1)

callbacks.CHECKPOINT_SECONDS = 0
store = Store.open(Path("prepared/fashion_mnist"))
train(Run("smoke", "baseline", "3", 0, settings(train={"epochs": 6}), store, CPU), [Slow()])
"""


def a_run(store: Store, seed: int = 0, chosen: Settings | None = None, variant: str = "baseline") -> Run:
    return Run("smoke", variant, "3", seed, chosen or settings(), store, CPU)


def numbers(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / HISTORY)[NUMBERS]


def facts(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / RUN).read_text()))


def test_the_net_learns_what_can_be_learnt(store: Store) -> None:
    easy = settings(train={"epochs": 25, "patience_epochs": 25}, recipe={"weight_std": "coded"})
    folder = train(a_run(store, chosen=easy))
    assert numbers(folder)["val_error_top1"].iloc[-1] < 10  # of 75 by chance


def test_a_run_leaves_weights_history_and_facts_and_no_checkpoint(store: Store) -> None:
    folder = train(a_run(store))
    assert sorted(path.name for path in folder.iterdir()) == sorted([WEIGHTS, HISTORY, RUN, SUMS])
    assert list(numbers(folder)["epoch"]) == [1, 2, 3]
    run = facts(folder)
    assert (run["status"], run["epochs"], run["stopped"], run["seed"]) == ("finished", 3, "budget", 0)
    assert run["settings"] == settings().model_dump()
    assert run["parameters"] == sum(t.numel() for t in load_file(folder / WEIGHTS).values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(a_run(store))
    torch.manual_seed(99)  # no state that is left lying about may matter
    monkeypatch.setenv("ALEXNET_STATE", "elsewhere")
    second, other = train(a_run(store)), train(a_run(store, seed=1))
    assert first != second
    assert (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes() != (other / WEIGHTS).read_bytes()
    pd.testing.assert_frame_equal(numbers(first), numbers(second))


@pytest.mark.timeout(120)
def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_from_the_last_one_to_the_same_bytes(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(workplace / "prepared/fashion_mnist")
    run = a_run(store, chosen=settings(train={"epochs": 6}))
    victim = subprocess.Popen([sys.executable, "-c", VICTIM], env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        while not (run.folder / HISTORY).exists() or len(numbers(run.folder)) < 3:
            assert victim.poll() is None
            time.sleep(0.02)
        time.sleep(0.15)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    before = pd.read_csv(run.folder / HISTORY)
    assert 3 <= len(before) < 6
    assert (run.folder / CHECKPOINT).exists()
    resumed = train(run)
    after = pd.read_csv(resumed / HISTORY)
    assert list(after["time_ms"][: len(before) - 1]) == list(before["time_ms"][:-1])  # those epochs were not repeated
    monkeypatch.setenv("ALEXNET_STATE", "undisturbed")
    whole = train(run)
    assert (whole / WEIGHTS).read_bytes() == (resumed / WEIGHTS).read_bytes()
    pd.testing.assert_frame_equal(numbers(whole), numbers(resumed))


def test_a_finished_run_is_not_trained_again(store: Store) -> None:
    folder = train(a_run(store))
    written = (folder / WEIGHTS).stat().st_mtime_ns
    train(a_run(store))
    assert (folder / WEIGHTS).stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_run_starts_anew(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    expected = (train(a_run(store)) / WEIGHTS).read_bytes()
    monkeypatch.setenv("ALEXNET_STATE", "damaged")
    run = a_run(store)
    interrupt_after_an_epoch(run)
    content = bytearray((run.folder / CHECKPOINT).read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 255
    (run.folder / CHECKPOINT).write_bytes(content)
    folder = train(run)
    assert f"{run.folder / CHECKPOINT} is damaged" in capsys.readouterr().out
    assert (folder / WEIGHTS).read_bytes() == expected


def test_a_run_interrupted_in_its_warm_up_keeps_the_biases_rate_that_the_source_never_drops(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_block = {"epochs": 9, "warmup_epochs": 3, "patience_epochs": 1, "lr": 1e-5}
    chosen = settings(train=train_block, recipe={"bias_rule": "coded"})
    monkeypatch.setenv("ALEXNET_STATE", "undisturbed")
    undisturbed = train(a_run(store, chosen=chosen))
    assert pd.read_csv(undisturbed / HISTORY)["lr"].iloc[-1] < 1e-5  # the weights' rate has dropped
    monkeypatch.setenv("ALEXNET_STATE", "interrupted")
    interrupt_after_an_epoch(a_run(store, chosen=chosen))
    resumed = train(a_run(store, chosen=chosen))
    assert (resumed / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()


def test_a_run_begun_with_another_torch_starts_anew(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(store)
    interrupt_after_an_epoch(run)
    where = json.loads((run.folder / WHERE).read_text())
    write_json(run.folder / WHERE, where | {"torch": "2.0.0"})
    train(run)
    assert f"torch was 2.0.0, is {torch.__version__}" in capsys.readouterr().out


def test_another_number_of_threads_changes_the_last_bits_and_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_STATE", "one")
    one = load_file(train(a_run(store)) / WEIGHTS)
    monkeypatch.setenv("ALEXNET_STATE", "two")
    two_threads = CPU.model_copy(update={"threads": 2})
    two = load_file(train(Run("smoke", "baseline", "3", 0, settings(), store, two_threads)) / WEIGHTS)
    difference = max(float((two[name] - w).norm() / w.norm()) for name, w in one.items())
    assert 0 < difference < 1e-4


def test_the_order_in_which_variants_are_trained_does_not_matter(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = {name: tiny_params().variants["baseline"] for name in ("baseline", "no_dropout")}
    variants["no_dropout"] = variants["no_dropout"].model_copy(update={"set": {"net": {"dropout_layers": []}}})
    params = tiny_params(seeds=[0]).model_copy(update={"variants": variants})
    trained = {}
    for order in (["baseline", "no_dropout"], ["no_dropout", "baseline"]):
        monkeypatch.setenv("ALEXNET_STATE", "-".join(order))
        for name in order:
            train_variant(params, name)
        trained[order[0]] = [(paths.seed("smoke", name, 0) / WEIGHTS).read_bytes() for name in sorted(order)]
    assert trained["baseline"] == trained["no_dropout"]
    assert len(set(trained["baseline"])) == 2


def interrupt_after_an_epoch(run: Run) -> None:
    import pytorch_lightning as pl

    class Interruption(Exception):
        pass

    class Interrupt(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise Interruption

    with pytest.raises(Interruption):
        train(run, [Interrupt()])
    assert (run.folder / CHECKPOINT).exists()


def test_a_run_that_diverges_is_a_result_with_step_rate_and_gradient(store: Store) -> None:
    wild = settings(train={"lr": 1e6})
    folder = train(a_run(store, chosen=wild))
    run = facts(folder)
    assert (run["status"], run["stopped"]) == ("failed", "diverged")
    failure = run["failure"]
    assert isinstance(failure, dict)
    assert failure["lr"] == 1e6
    assert failure["step"] >= 1
    assert failure["gradient_norm"] is None or failure["gradient_norm"] > 0  # None: it had overflowed
    assert not (folder / WEIGHTS).exists()
    publish(a_run(store, chosen=wild), paths.seed("smoke", "wild", 0))
    assert facts(paths.seed("smoke", "wild", 0))["status"] == "failed"


def test_publishing_replaces_what_was_there(store: Store) -> None:
    out = paths.seed("smoke", "baseline", 0)
    run = a_run(store)
    train(run)
    publish(run, out)
    (out / "stale").touch()
    publish(run, out)
    assert sorted(path.name for path in out.iterdir()) == sorted([WEIGHTS, HISTORY, RUN, SUMS])
    assert (facts(out)["scale"], facts(out)["variant"], facts(out)["section"]) == ("smoke", "baseline", "3")
    assert [path.name for path in out.parent.iterdir()] == ["seed-0"]
