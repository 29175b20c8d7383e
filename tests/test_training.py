"""One run: what it leaves, that its bytes depend on its settings and seed alone, and how it goes on."""

import errno
import json
import os
import platform
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pipeline import paths
from pipeline.data.store import Store
from pipeline.runtime.checksums import SUMS
from pipeline.runtime.files import write_json
from pipeline.training.run import CHECKPOINT, HISTORY, RUN, WEIGHTS, WHERE, publish, train
from tests.processes import EPOCHS, TRAINING, process, wait_for
from tests.tiny import CPU, a_run, interrupt_after_an_epoch, numbers, settings
from tests.tiny_params import tiny_params, train_variant


def facts(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / RUN).read_text()))


def test_the_net_learns_what_can_be_learnt(store: Store) -> None:
    folder = train(a_run(store, train={"epochs": 25, "patience_epochs": 25}, recipe={"weight_std": "coded"}))
    assert numbers(folder)["val_error_top1"].iloc[-1] < 10  # of 75 by chance


def test_a_run_leaves_weights_history_and_facts_and_no_checkpoint_and_is_not_trained_again(trained: Store) -> None:
    folder = a_run(trained).folder
    assert sorted(path.name for path in folder.iterdir()) == sorted([WEIGHTS, HISTORY, RUN, SUMS])
    assert list(numbers(folder)["epoch"]) == [1, 2, 3]
    run = facts(folder)
    assert (run["status"], run["epochs"], run["stopped"], run["seed"]) == ("finished", 3, "budget", 0)
    assert run["settings"] == settings().model_dump()
    where = run["where"]
    assert isinstance(where, dict)
    names = ("processes", "threads", "torch", "machine", "compiled")
    assert [where[name] for name in names] == [1, 1, torch.__version__, platform.machine(), False]
    assert where["device"].endswith(torch.backends.cpu.get_cpu_capability())
    assert run["parameters"] == sum(t.numel() for t in load_file(folder / WEIGHTS).values())
    written = (folder / WEIGHTS).stat().st_mtime_ns
    assert train(a_run(trained)) == folder
    assert (folder / WEIGHTS).stat().st_mtime_ns == written


def test_a_run_says_after_which_epochs_its_rate_dropped_and_what_ended_it(store: Store) -> None:
    fixed = {"schedule": "fixed", "lr_drops": 3, "drop_at": [0.25, 0.5, 0.75]}
    dropped = train(a_run(store, train={"epochs": 4, **fixed}))
    assert (facts(dropped)["lr_drops"], facts(dropped)["stopped"]) == ([1, 2, 3], "budget")
    assert numbers(dropped)["lr"].tolist() == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])
    still = {"schedule": "plateau", "patience_epochs": 1, "lr_drops": 1, "lr": 1e-12}  # nothing improves on epoch 1
    ended = train(a_run(store, train={"epochs": 9, **still}))
    assert (facts(ended)["lr_drops"], facts(ended)["stopped"], facts(ended)["epochs"]) == ([3], "plateau", 5)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    trained: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = (a_run(trained, seed).folder.resolve() for seed in (0, 1))
    torch.manual_seed(99)  # no state that is left lying about may matter
    monkeypatch.setenv("ALEXNET_STATE", "elsewhere")
    second = train(a_run(trained))
    assert (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes() != (other / WEIGHTS).read_bytes()
    pd.testing.assert_frame_equal(numbers(first), numbers(second))


@pytest.mark.fault
def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_from_the_last_one_to_the_same_bytes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(store, train={"epochs": EPOCHS})
    with process("-c", TRAINING, "0") as victim:  # seconds between checkpoints
        wait_for(victim.stdout, "ready")
        victim.kill()
        victim.wait()
    before = pd.read_csv(run.folder / HISTORY)
    assert len(before) == 2
    assert (run.folder / CHECKPOINT).exists()
    resumed = train(run)
    after = pd.read_csv(resumed / HISTORY)
    assert list(after["time_ms"][:2]) == list(before["time_ms"])  # those epochs were not repeated
    resumed_weights, resumed_numbers = (resumed / WEIGHTS).read_bytes(), numbers(resumed)
    monkeypatch.setenv("ALEXNET_STATE", "undisturbed")
    whole = train(run)
    assert (whole / WEIGHTS).read_bytes() == resumed_weights
    pd.testing.assert_frame_equal(numbers(whole), resumed_numbers)


def test_a_run_interrupted_in_its_warm_up_keeps_the_biases_rate_that_the_source_never_drops(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"epochs": 9, "warmup_epochs": 3, "patience_epochs": 1, "lr": 1e-5}
    run = a_run(store, train=training, recipe={"bias_rule": "coded"})
    monkeypatch.setenv("ALEXNET_STATE", "undisturbed")
    undisturbed = train(run)
    assert pd.read_csv(undisturbed / HISTORY)["lr"].iloc[-1] < 1e-5  # the weights' rate has dropped
    monkeypatch.setenv("ALEXNET_STATE", "interrupted")
    interrupt_after_an_epoch(run)
    assert (train(run) / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("training", "ended_by", "epochs"),
    [
        ({"epochs": 4, "schedule": "fixed", "lr_drops": 3, "drop_at": [0.25, 0.5, 0.75]}, "budget", 4),
        ({"epochs": 9, "patience_epochs": 1, "lr_drops": 1, "lr": 1e-12}, "plateau", 5),
        ({"epochs": 9, "stop_at_train_error": 99.0}, "goal", 1),
    ],
)
def test_a_run_interrupted_after_its_last_epoch_trains_no_further(
    store: Store, monkeypatch: pytest.MonkeyPatch, training: dict[str, object], ended_by: str, epochs: int
) -> None:
    def full_disk(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    run = a_run(store, train=training)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.training.run.write_bytes", full_disk)
        with pytest.raises(OSError, match=re.escape(WEIGHTS)):
            train(run)
    before = pd.read_csv(run.folder / HISTORY)
    resumed = train(run)
    pd.testing.assert_frame_equal(pd.read_csv(resumed / HISTORY), before)  # with the times of its epochs
    after, weights = facts(resumed), (resumed / WEIGHTS).read_bytes()
    assert (after["stopped"], after["epochs"]) == (ended_by, epochs)
    monkeypatch.setenv("ALEXNET_STATE", "undisturbed")
    undisturbed = train(run)
    assert (undisturbed / WEIGHTS).read_bytes() == weights
    assert facts(undisturbed)["lr_drops"] == after["lr_drops"]


def test_a_run_goes_on_in_a_resume_folder_that_was_moved_and_leaves_no_checkpoint_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(store)
    interrupt_after_an_epoch(run)
    begun_ms = int(pd.read_csv(run.folder / HISTORY)["time_ms"].iloc[0])
    paths.state().rename("moved")
    monkeypatch.setenv("ALEXNET_STATE", "moved")
    train(run)
    assert pd.read_csv(run.folder / HISTORY)["time_ms"].iloc[0] == begun_ms  # that epoch was not repeated
    assert sorted(path.name for path in run.folder.iterdir()) == sorted([WEIGHTS, HISTORY, RUN, SUMS])


def test_a_run_begun_with_another_torch_starts_anew(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(store)
    interrupt_after_an_epoch(run)
    where = json.loads((run.folder / WHERE).read_text())
    write_json(run.folder / WHERE, where | {"torch": "2.0.0"})
    train(run)
    assert f"torch was 2.0.0, is {torch.__version__}" in capsys.readouterr().out


def test_another_number_of_threads_changes_the_last_bits_and_no_more(trained: Store) -> None:
    one, two = (
        load_file(train(a_run(trained, hardware=CPU.model_copy(update={"threads": threads}))) / WEIGHTS)
        for threads in (1, 2)
    )
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


def test_publishing_replaces_what_was_there(trained: Store) -> None:
    out = paths.seed("smoke", "baseline", 0)
    (out / "stale").touch()
    publish(a_run(trained), out)
    assert sorted(path.name for path in out.iterdir()) == sorted([WEIGHTS, HISTORY, RUN, SUMS])
    assert (facts(out)["scale"], facts(out)["variant"], facts(out)["section"]) == ("smoke", "baseline", "3")
    assert sorted(path.name for path in out.parent.iterdir()) == ["seed-0", "seed-1"]
