"""The plan: its arithmetic by hand, its measurement beside a real run, its command."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline.compose import composed
from pipeline.data.sources import fashion_mnist
from pipeline.params import Params, validate
from pipeline.plan import measure, needs, sizes, table
from pipeline.plan.command import plan
from pipeline.plan.measure import cost
from pipeline.plan.stopwatch import Epoch
from pipeline.plan.work import STAGES, Machine, NetCost, Row, Work, cost_key, rows
from tests.tiny_params import tiny_params

ROOT = Path(__file__).parents[1]
DAY_S, HOUR_S = 86_400, 3_600


def scale(name: str, *overrides: str) -> Params:
    return validate(composed(ROOT / "conf", f"scale={name}", *overrides), name)


def work_of(params: Params) -> Work:
    source = sizes.source(params.data)
    return Work(params, sizes.counts(params.data, source), source.classes, source.channels)


def machine(**changes: Any) -> Machine:
    """On which only what `changes` name takes any time to speak of."""
    values: dict[str, Any] = {"start_s": dict.fromkeys(STAGES, 0.0), "source_image_s": 1e-12, "hash_byte_s": 0.0}
    return Machine(**{**values, "table_image_s": 0.0, "workers": 1, **changes})


def net_cost(**changes: Any) -> NetCost:
    values: dict[str, Any] = {"measured": "", "image_s": 0.0, "validation_s": 1e-12, "epoch_s": 0.0, "run_s": 0.0}
    return NetCost(**{**values, "parameters": 0, **changes})


def planned(work: Work, here: Machine, each: NetCost) -> dict[tuple[str, str], Row]:
    costs = {cost_key(work.params.settings(variant)): each for variant in work.params.variants}
    return {(row.stage, row.name): row for row in rows(work, here, costs)}


@pytest.fixture(scope="module")
def imagenet() -> Work:
    return work_of(scale("imagenet2012"))


def test_imagenets_images_are_counted_without_the_data(imagenet: Work) -> None:
    assert imagenet.counts == {"train": 1_281_167 - 50_000, "val": 50_000, "test": 50_000}
    assert imagenet.store_bytes == 1_331_167 * (256 * 256 * 3 + 8) + 256 * 256 * 3 * 4


def test_90_epochs_at_25_images_a_second_take_51_days(imagenet: Work) -> None:
    row = planned(imagenet, machine(), net_cost(image_s=1 / 25))["train", "baseline"]
    assert (row.runs, row.epochs) == (1, 90)
    assert row.seconds / DAY_S == pytest.approx(51.299, abs=1e-3)  # 90 * 1,231,167 / 25 / 86,400


def test_a_run_is_its_images_its_validation_and_what_lies_between() -> None:
    work = work_of(tiny_params(train={"epochs": 3}))  # 48 + 16 images, two seeds
    each = net_cost(image_s=0.25, validation_s=0.125, epoch_s=2.0, run_s=5.0)
    row = planned(work, machine(start_s=dict.fromkeys(STAGES, 7.0)), each)["train", "baseline"]
    assert row.seconds == 7 + 2 * (5 + 3 * (48 * 0.25 + 16 * 0.125 + 2))


def test_tuning_counts_every_trial_with_all_its_epochs() -> None:
    work = work_of(scale("embedded"))
    row = planned(work, machine(), net_cost(image_s=0.001))["tune", "baseline"]
    assert (row.runs, row.epochs) == (8, 40)
    assert row.seconds == pytest.approx(8 * 40 * 1000 * 0.001, rel=1e-3)


@pytest.mark.parametrize(("trials", "runs"), [(0, 0), (3, 2)])
def test_runs_that_two_variants_share_are_trained_once(trials: int, runs: int) -> None:
    tune = tiny_params().tune.model_dump() | {"trials": trials}
    by_name = planned(work_of(tiny_params(tune=tune)), machine(), net_cost(image_s=1.0))
    assert by_name["train", "baseline"].runs == 2
    assert by_name["train", "tuned"].runs == runs  # without trials it takes over what the baseline has


def test_prepare_is_shared_by_its_processes_until_the_one_that_takes_checksums_is_the_slowest(imagenet: Work) -> None:
    each = net_cost()
    four = planned(imagenet, machine(source_image_s=0.002, workers=4), each)["prepare", ""]
    assert four.seconds == pytest.approx(1_331_167 * 0.002 / 4)
    many = machine(source_image_s=0.002, workers=1000, hash_byte_s=1e-9)
    assert planned(imagenet, many, each)["prepare", ""].seconds == pytest.approx(1_331_167 * 196_608 * 1e-9)


def test_ten_crops_and_analyses_are_looks_more(imagenet: Work) -> None:
    by_name = planned(imagenet, machine(), net_cost(validation_s=0.01))
    assert by_name["evaluate", "no_dropout"].seconds == pytest.approx(1_331_167 * 0.01)
    # ten crops of the test images; all training images and 500 queries, 13 places of 1,000 images, 500 halved
    more = 10 * 50_000 + (1_231_167 + 500) + 13 * 1_000 + 500
    assert by_name["evaluate", "baseline"].seconds == pytest.approx((1_331_167 + more) * 0.01)


def test_five_full_nets_need_three_copies_of_their_weights(imagenet: Work) -> None:
    costs = {
        cost_key(imagenet.params.settings(name)): net_cost(parameters=60_965_224) for name in imagenet.params.variants
    }
    disk = needs.disk(imagenet, costs)
    assert disk["weights: resume folder, outs, DVC's cache"] == 5 * 3 * 4 * 60_965_224
    assert disk["image store"] == disk["its copy in DVC's cache"] == imagenet.store_bytes


def test_a_stopwatchs_times_come_apart_into_images_validation_epochs_and_run() -> None:
    # 10 s to start; an epoch: 4 images in 3 s (loaders are made), 8 in 4 s, 6 validated in 3 s, 2 s until the next
    first = Epoch(10, 30, 34, 37, 4, 8)  # slow to start
    epochs = [first, *(Epoch(t, t + 3, t + 7, t + 10, 4, 8) for t in (39, 51, 63))]
    found = cost(epochs, {"train": 12, "val": 6, "test": 1}, whole_s=80, parameters=9)
    assert (found.image_s, found.validation_s) == (0.5, 0.5)
    assert found.epoch_s == 12 - 12 * 0.5 - 6 * 0.5
    assert found.run_s == 80 - 4 * 12


def test_a_single_epoch_that_was_cut_short_gives_its_later_batches_rate() -> None:
    found = cost([Epoch(0, 9, 13, 15, 128, 128)], {"train": 1280, "val": 128, "test": 1}, 20, 9)
    assert (found.image_s, found.validation_s, found.epoch_s) == (4 / 128, 2 / 128, 0)


def test_nets_are_measured_once_for_each_cost_of_a_step() -> None:
    params = scale("embedded")
    keys = {name: cost_key(params.settings(name)) for name in params.variants}
    assert keys["tuned"] == keys["baseline"]
    assert len(set(keys.values())) == 5  # the others differ in their net, or in where its normalisation stands


def test_the_price_is_that_of_the_hours_and_the_papers_days_stand_beside(imagenet: Work) -> None:
    costs = {cost_key(imagenet.params.settings(name)): net_cost(image_s=0.001) for name in imagenet.params.variants}
    text = table.text(imagenet, machine(hash_byte_s=1e-12), costs, table.Here("a GPU", 10**12, 10**11, 10**10), 60, 2.5)
    # 90 * 1,231,167 / 1,000 s = 30.779 h; 5.5 days are 132 h
    assert "One run of the baseline: 1.3 days, 76.95 at 2.5 an hour." in text
    assert "5 to 6 days on two GTX 580 (its section 5); this is 4.3 times as fast." in text


def test_a_folders_images_are_counted(tmp_path: Path) -> None:
    for split, images in {"train": 3, "test": 2}.items():
        for label in ("ash", "oak"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(images):
                Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / split / label / f"{number}.png")
    data = tiny_params().data.model_copy(update={"folder": str(tmp_path), "dataset": "trees"})
    assert sizes.source(data)[:4] == (6, 4, 2, 3)


def test_a_plan_is_measured_without_data_and_leaves_no_file(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_start_s", lambda stage: 1.0)
    text = plan(tiny_params(evaluate={"ten_crop": [], "analyses": ["baseline"], "batch_images": 7}), None, seconds=2)
    assert "| **all**" in text
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scale=imagenet", "scale=imagenet: does not fit conf/ (In 'config': Could not find 'scale/imagenet'"),
        ("train.epoch=1", "train.epoch=1: does not fit conf/ (Could not override 'train.epoch'."),
        ("train.epochs=few", "train.epochs=few: train.epochs = 'few': input should be a valid integer"),
    ],
)
def test_an_override_that_does_not_fit_is_one_message(override: str, message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "plan", override]
    state = {"PYTHONPATH": str(ROOT), "ALEXNET_STATE": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=state)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert (
        "does not fit" not in message or "accepted is scale=<one of cifar10, cifar10_alexnet, embedded" in done.stderr
    )


PLAN = """
from pipeline import params
from pipeline.plan import sizes
from pipeline.plan.measure import measure
from pipeline.plan.work import Work, rows
configuration = params.load()
source = sizes.source(configuration.data)
work = Work(configuration, sizes.counts(configuration.data, source), source.classes, source.channels)
(row,) = (row for row in rows(work, *measure(work, source, 20)) if row.stage == "train")
print(row.seconds)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_embedded_run_takes_what_was_planned_within_25_percent(workplace: Path) -> None:
    """Planned and run in turn, so that both see the same load of the machine; what is compared are their means."""
    params = scale("embedded", "hardware.threads=1", "train.epochs=20", "seeds=[0]").model_dump()
    params["variants"] = {"baseline": params["variants"]["baseline"]}
    YAML().dump(params, workplace / "params.yaml")
    fashion_mnist.load()  # into this test's downloads, where it is nowhere else
    in_the_root = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": str(Path(sys.executable).parent)}

    def run(*command: str, state: str = "state") -> tuple[str, float]:
        environment = in_the_root | {"ALEXNET_STATE": str(workplace / state)}
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, *command], cwd=workplace, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, time.monotonic() - started

    run("-m", "stages.prepare")
    planned_s, taken_s = [], []
    for turn in range(3):
        planned_s.append(float(run("-c", PLAN)[0].splitlines()[-1]))
        taken_s.append(run("-m", "stages.train", "baseline", state=f"state-{turn}")[1])
    assert sum(planned_s) == pytest.approx(sum(taken_s), rel=0.25), (planned_s, taken_s)
