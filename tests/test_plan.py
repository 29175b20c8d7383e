"""The plan: its arithmetic by hand, its measurement beside a real run, its command."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import paths
from pipeline.data.prepare import prepare
from pipeline.data.sources import contents
from pipeline.data.store import SplitName
from pipeline.params import Params, validate
from pipeline.tools.compose import composed
from pipeline.tools.plan import Cost, cost_key, counts_of, lines_of, plan, text_of, wall_seconds
from pipeline.training.runs import train_all
from tests.image_folders import write_squares
from tests.tiny_params import tiny_params

ROOT = Path(__file__).parents[1]
DAY_S = 86_400


def scale(name: str, *overrides: str) -> Params:
    return validate(composed(ROOT / "conf", f"scale={name}", *overrides), name)


def counts(params: Params) -> dict[SplitName, int]:
    return counts_of(params.data, contents(params.data))


def same(params: Params, **cost: Any) -> dict[str, Cost]:
    """Every net costs the same."""
    each = Cost(**{"epoch_s": 0.0, "start_s": 0.0, "parameters": 0, **cost})
    return {cost_key(params.settings(name)): each for name in params.variants}


def planned(params: Params, **cost: Any) -> dict[tuple[str, str], float]:
    return {(line.stage, line.what): line.seconds for line in lines_of(params, counts(params), same(params, **cost))}


def text(params: Params, busy: float = 0.0, price: float | None = None, workers: int = 1, **cost: Any) -> str:
    return text_of(params, contents(params.data), counts(params), same(params, **cost), workers, busy, price)


def test_imagenets_images_are_counted_without_the_data() -> None:
    assert counts(scale("imagenet2012")) == {"train": 1_281_167 - 50_000, "val": 50_000, "test": 50_000}


def test_a_folders_images_are_counted(tmp_path: Path) -> None:
    write_squares(tmp_path, train={"ash": 3, "oak": 3}, test={"ash": 2, "oak": 2})
    data = tiny_params().data.model_copy(update={"folder": str(tmp_path), "dataset": "trees"})
    assert contents(data) == (6, 4, 2, 3)


def test_a_run_is_its_start_and_its_epochs_for_each_seed_and_tuning_all_epochs_of_every_trial() -> None:
    found = planned(tiny_params(train={"epochs": 3}), epoch_s=2.0, start_s=5.0)  # two seeds
    assert found["train", "baseline"] == 2 * (5 + 3 * 2)
    assert planned(scale("embedded"), epoch_s=0.5)["tune", "baseline"] == 6 * 40 * 0.5


@pytest.mark.parametrize(("trials", "trained"), [(0, False), (3, True)])
def test_runs_that_two_variants_share_are_trained_once(trials: int, trained: bool) -> None:
    tune = tiny_params().tune.model_dump() | {"trials": trials}
    found = planned(tiny_params(tune=tune), epoch_s=1.0)
    assert ("train", "baseline") in found
    assert (("train", "tuned") in found) == trained  # without trials it takes over what the baseline has


def test_ten_crops_are_ten_looks_more() -> None:
    params = scale("imagenet2012", "evaluate.analyses=[]")
    found = planned(params, epoch_s=1.0)
    ratio = found["evaluate", "baseline"] / found["evaluate", "no_dropout"]
    assert ratio == pytest.approx((1_331_167 + 10 * 50_000) / 1_331_167)


def test_workers_share_the_runs_of_a_stage_and_no_more_than_there_are() -> None:
    params = tiny_params(train={"epochs": 100})
    lines = [line for line in lines_of(params, counts(params), same(params, epoch_s=10.0)) if line.stage == "train"]
    alone, two, many = (wall_seconds(lines, workers) for workers in (1, 2, 64))
    assert alone - two == pytest.approx(1000)  # two seeds of 100 epochs of 10 s
    assert many == two


def test_nets_are_measured_once_for_each_cost_of_an_epoch() -> None:
    params = scale("embedded")
    keys = {name: cost_key(params.settings(name)) for name in params.variants}
    assert keys["tuned"] == keys["baseline"]
    assert len(set(keys.values())) == 5  # the others differ in their net, or in where its normalization stands


def test_the_price_is_that_of_the_hours_and_the_papers_days_stand_beside() -> None:
    page = text(scale("imagenet2012"), price=2.5, epoch_s=1_231_167 / 1000)  # 90 epochs: 30.78 hours
    assert "One run of the baseline takes 1.3 days (76.95 at 2.5 an hour)." in page
    assert "The paper's run took 5 to 6 days (section 5), 4.3 times as long." in page


def test_five_full_nets_need_two_copies_of_their_weights_and_images() -> None:
    page = text(scale("imagenet2012"), parameters=60_965_224, epoch_s=1.0)
    store = 1_331_167 * (256 * 256 * 3 + 8) + 256 * 256 * 3 * 4
    assert f"images, and their copy in DVC's cache: {2 * store / 1e9:.0f}G" in page
    assert "weights, and their copy in DVC's cache: 2.44GB" in page  # 5 * 2 * 4 * 60,965,224


def test_a_busy_machine_is_said() -> None:
    assert "Other programs use 63 % of this machine" in text(tiny_params(), busy=63.0)
    assert "Other programs" not in text(tiny_params(), busy=5.0)


def test_a_plan_is_measured_without_data_and_leaves_no_file(workplace: Path) -> None:
    page = plan(tiny_params(evaluate={"ten_crop": [], "analyses": ["baseline"], "batch_images": 7}), None, seconds=2)
    assert "| train" in page
    assert list(workplace.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_embedded_run_takes_what_was_planned_within_25_percent(workplace: Path) -> None:
    """Planned and run in turn, so that both see the same load of the machine; what is compared are their means."""
    params = scale("embedded", "hardware.threads=1", "train.epochs=40", "seeds=[0,1]", "variants=[baseline]")
    prepare(params.data, paths.data(params.data.dataset))
    planned_s, taken_s = [], []
    for turn in range(3):
        page = plan(params, None, 20)
        (line,) = (line for line in page.splitlines() if line.startswith("| train"))
        number, unit = line.split("|")[4].split()
        planned_s.append(float(number) * {"s": 1, "minutes": 60}[unit] / 2)  # two side by side
        os.environ["ALEXNET_STATE"] = str(workplace / f"state-{turn}")
        started = time.monotonic()
        train_all(params)
        taken_s.append(time.monotonic() - started)
    assert sum(planned_s) == pytest.approx(sum(taken_s), rel=0.25), (planned_s, taken_s)
