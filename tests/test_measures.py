"""Each claim's and question's measure, sides, splits and views on made-up results whose effects are known.

Which side is which is typed in here from the paper, apart from the registry. Every variant, split and number of crops
has an error of its own, so that another one would give another effect.
"""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.claims.measures import compare, epochs_to
from pipeline.claims.results import ERROR_COLUMNS, Results
from pipeline.claims.table import Row, claim_rows, frame, is_beyond, question_rows
from pipeline.claims.verdicts import Answers
from pipeline.paper.claims import Claim, Question, Registry, Side, registry
from pipeline.params import Net, Recipe, variant_table
from pipeline.report.variant_tables import readings
from tests.fake_runs import fake_params

SEEDS = (3, 5, 8, 9)
IMAGES = {"train": 350, "val": 250, "test": 300}
EPOCHS = 40
CHECKS = {"update_rule": True}


class Look(NamedTuple):
    variant: str
    split: str = "test"
    views: str = "one_crop"


LEFT_OUT = (
    "dropout_fc",
    "no_norm_conv",
    "no_crops",
    "pooling_as",
    "framework",
    "unit",
    "large",
    "sigmoid",
    "no_momentum",
)
VARIANTS = tuple(
    name
    for name in variant_table()
    if name == "no_crops_no_mirror" or not (name.startswith(LEFT_OUT) or name.endswith(("_held", "_as_coded")))
)
LOOKS = [*(Look(variant, split) for variant in VARIANTS for split in IMAGES), Look("baseline", views="ten_crop")]
PLACES = {look: place for place, look in enumerate(LOOKS)}


@cache
def wrong(look: Look, seed: int, top: int) -> int:
    """How many of the split's images the seed's net gets wrong."""
    place = PLACES[look]
    top1 = 60 + (37 * place) % 101 + int(np.random.default_rng([place, seed]).integers(0, 12))
    return top1 if top == 1 else top1 // 3 + place % 5


def of(look: Look, top: int = 1) -> np.ndarray:
    """Errors in %, by seed."""
    return 100 * np.array([wrong(look, seed, top) for seed in SEEDS]) / IMAGES[look.split]


@cache
def predictions(variant: str) -> pd.DataFrame:
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("seed", "split", "views", "index", "rank")}
    for look in LOOKS:
        for seed in SEEDS if look.variant == variant else ():
            images = IMAGES[look.split]
            order = np.random.default_rng([seed, images]).permutation(images)
            rank = np.zeros(images, int)
            rank[order[: wrong(look, seed, 1)]] = 3
            rank[order[: wrong(look, seed, 5)]] = 7
            values = (np.full(images, seed), np.full(images, look.split), np.full(images, look.views))
            for name, column in zip(columns, (*values, np.arange(images), rank), strict=True):
                columns[name].append(column)
    return pd.DataFrame({name: np.concatenate(parts) for name, parts in columns.items()}).assign(p_label=0.5)


def soonest(variant: str, seed: int) -> int:
    """The epoch in which a run gets to 25 % training error."""
    return 4 + (7 * VARIANTS.index(variant) + 3 * seed) % 23


@cache
def histories() -> pd.DataFrame:
    """Training error falls to 25 % in `soonest`; the mean validation loss of five epochs is at its least 4 later."""
    runs = [(variant, seed) for variant in VARIANTS for seed in SEEDS]
    table = pd.DataFrame(
        [(variant, seed, epoch) for variant, seed in runs for epoch in range(1, EPOCHS + 1)],
        columns=["variant", "seed", "epoch"],
    )
    early = table["epoch"] < np.repeat([soonest(*run) for run in runs], EPOCHS)
    table["train_error_top1"] = np.where(early, 25.01, 25.0)
    table["val_loss"] = np.where(early, 2.0, 1.0)
    return table.assign(val_error_top1=24 - table["epoch"] / 2, val_error_top5=1.0)


SHIFTED = {"baseline": (30.0, 44.0), "no_crops_no_mirror": (34.0, 70.0)}  # errors in the middle, an eighth off; of 95
DIVERGENCES = {0.4: 0.09, 0.5: 0.02, 0.6: 0.05}
COLORS = (0.31, 0.12)  # between the columns, between halves at random


def analyses(variant: str) -> dict[str, Any]:
    """Each seed's numbers are a little larger than those of the seed before."""
    seeds = {}
    for number, seed in enumerate(SEEDS):
        middle, off = (error + number for error in SHIFTED[variant])
        shifts = [(0, middle), (0.125, off), (0.25, 90.0), (0.375, 94.0)]
        seeds[str(seed)] = {
            "off_centre": {
                "chance": 95.0,
                "shifts": [{"share": share, "px": 0, "error_top1": error} for share, error in shifts],
            },
            "dropout_test_half": {
                "factors": [{"factor": f, "kl": kl * (1 + f * number)} for f, kl in DIVERGENCES.items()],
                "geometric_mean": [{"nets": 100, "kl": 0.7, "agreement": 1.0, "error_top1": 2.0}],
            },
            "gpu_specialisation": {
                "column_1": 0.5,
                "column_2": 0.2,
                "difference": COLORS[0] + number / 100,
                "by_chance": {"mean": COLORS[1] - number / 1000, "quantile_95": 0.25},
            },
        }
    return {"seeds": seeds}


def made_up(variants: tuple[str, ...] = VARIANTS, **changes: Any) -> Results:
    """Results of `variants`, all of which have files."""
    table = {name: {"title": name, "section": "3", "description": "x", "study": None, "set": {}} for name in variants}
    asked = {"ten_crop": ["baseline"], "analyses": [name for name in SHIFTED if name in variants], "batch_images": 100}
    errors = [
        (look.variant, seed, look.split, look.views, f"error_top{top}", value)
        for look in LOOKS
        for top in (1, 5)
        for seed, value in zip(SEEDS, of(look, top), strict=True)
    ]
    runs = [
        {"variant": name, "seed": seed, "status": "finished", "epochs": EPOCHS} for name in VARIANTS for seed in SEEDS
    ]
    return Results(
        params=fake_params(**{"variants": table, "seeds": list(SEEDS), "evaluate": asked, **changes}),
        root=Path("nowhere"),
        errors=pd.DataFrame(errors, columns=ERROR_COLUMNS),
        histories=histories(),
        runs=pd.DataFrame(runs),
        trials={},
        chosen={},
        analyses={name: analyses(name) for name in SHIFTED},
        meta={"classes": [f"class {k}" for k in range(20)]},
        missing=[],
        loaded={name: predictions(name) for name in VARIANTS},
    )


def rows_of(results: Results) -> dict[str, Row]:
    return {row.id: row for row in [*claim_rows(results, CHECKS), *question_rows(results)]}


@pytest.fixture(scope="module")
def whole_net() -> dict[str, Row]:
    return rows_of(made_up())


@pytest.fixture(scope="module")
def small_nets() -> dict[str, Row]:
    return rows_of(made_up(net=Net(architecture="conv_local_13", crop_px=24).model_dump()))


# With the paper's ingredient, then without it: the effect is the second's error minus the first's
SIDES = {
    "two_gpu_vs_half": [(Look("baseline"), Look("one_column"))],
    "column_communication": [(Look("baseline"), Look("separate_columns"))],
    "lrn_imagenet": [(Look("baseline"), Look("no_response_norm"))],
    "overlap_pool": [(Look("baseline"), Look("non_overlapping_pooling"))],
    "importance_order": [  # each step of section 3's order costs more than the next
        (Look("one_column"), Look("tanh")),
        (Look("no_response_norm"), Look("one_column")),
        (Look("non_overlapping_pooling"), Look("no_response_norm")),
    ],
    "depth_needed": [(Look("baseline"), Look(f"no_conv{k}")) for k in (2, 3, 4)],
    "ten_crop": [(Look("baseline", views="ten_crop"), Look("baseline"))],
    "pca_colour": [(Look("baseline"), Look("no_color_noise"))],
    "wd_reduces_train_error": [(Look("baseline", "train"), Look("no_weight_decay", "train"))],
    "larger_longer": [(Look("baseline"), Look("narrow")), (Look("baseline"), Look("short"))],
    "printed_vs_coded": [(Look("baseline"), Look("as_coded"))],
    "as_printed_vs_coded": [(Look("as_printed"), Look("as_coded"))],
    "items_from_the_source": [(Look("as_printed"), Look("baseline"))],
    "plateau_vs_fixed": [(Look("plateau_schedule"), Look("baseline"))],
    "tuned_vs_paper": [(Look("tuned"), Look("baseline"))],
    "relu_vs_tanh_error": [(Look("tuned"), Look("tanh"))],
    "lrn_as_coded": [(Look("as_coded"), Look("as_coded_no_norm"))],
    "no_mirror": [(Look("baseline"), Look("no_mirror"))],
    "adam": [(Look("baseline"), Look("adam"))],
}
SIDES_OF_SMALL_NETS = {
    "lrn_cifar": [(Look("baseline"), Look("no_response_norm"))],
    "lrn_cifar_as_published": [(Look("published_11"), Look("no_response_norm"))],
}
OVERFITTING = {"aug_crop_flip": "no_crops_no_mirror", "dropout_overfit": "no_dropout"}
EPOCHS_TO_25 = {
    "bias_one_init": ("baseline", "biases_zero"),
    "relu_vs_tanh_whole_net": ("baseline", "tanh"),
    "relu_vs_sigmoid_speed": ("four_layer_relu", "four_layer_sigmoid"),
    "relu_vs_tanh_one_rate": ("four_layer_relu", "four_layer_tanh_relu_rate"),
    "relu_vs_tanh_framework": ("four_layer_relu_framework", "four_layer_tanh_framework"),
    "relu_vs_tanh_unit_inputs": ("four_layer_relu_unit_inputs", "four_layer_tanh_unit_inputs"),
}
PRIMARY = ("lrn_imagenet", "lrn_cifar", "overlap_pool", "dropout_overfit")


@pytest.mark.parametrize("top", [1, 5])
@pytest.mark.parametrize("name", [*SIDES, *SIDES_OF_SMALL_NETS])
def test_an_error_without_the_ingredient_minus_that_with_it(
    whole_net: dict[str, Row], small_nets: dict[str, Row], name: str, top: int
) -> None:
    rows = small_nets if name in SIDES_OF_SMALL_NETS else whole_net
    row_id = name if top == 1 else f"{name}_top5"
    if row_id not in rows:
        assert top == 5
        assert name in ("lrn_cifar", "importance_order", "depth_needed", "pca_colour", "wd_reduces_train_error",
                        "larger_longer")  # fmt: skip
        return
    row, steps = rows[row_id], (SIDES | SIDES_OF_SMALL_NETS)[name]
    gains = [of(control, top) - of(treatment, top) for treatment, control in steps]
    assert [step.mean for step in row.evidence] == pytest.approx([gain.mean() for gain in gains])
    assert [step.sd for step in row.evidence] == pytest.approx([gain.std(ddof=1) for gain in gains])
    shown = [round(gain.mean(), 6) for gain in gains].index(round(float(row.effect.mean or 0), 6))
    treatment, control = steps[shown]
    assert row.treatment_value == pytest.approx(of(treatment, top).mean())
    assert row.control_value == pytest.approx(of(control, top).mean())
    assert row.metric == f"{treatment.split}_error_top{top}"
    (cells,) = frame([row]).to_dict("records")
    for column, value in (
        ("treatment_value", of(treatment, top).mean()),
        ("control_value", of(control, top).mean()),
        ("effect", gains[shown].mean()),
        ("low", row.effect.low),
        ("high", row.effect.high),
    ):
        assert float(cells[column]) == pytest.approx(value, abs=6e-5), column
    assert cells["treatment"].split(" (")[0] == treatment.variant
    assert cells["control"].split(" (")[0] == control.variant
    assert int(cells["seeds"]) == len(SEEDS)


def test_of_several_comparisons_the_one_that_speaks_least_for_the_claim_is_shown(whole_net: dict[str, Row]) -> None:
    for name in ("importance_order", "depth_needed", "larger_longer"):
        row = whole_net[name]
        ratios = [step.mean / ((step.high or 0) - (step.low or 0)) for step in row.evidence]
        assert row.effect.mean == row.evidence[int(np.argmin(ratios))].mean


def test_where_the_baseline_is_not_as_printed_no_question_takes_it_for_that(whole_net: dict[str, Row]) -> None:
    mixed = rows_of(made_up(recipe={"weight_std": "coded"}))
    assert {"printed_vs_coded", "other_items_as_coded"} & {*whole_net} == {"printed_vs_coded"}
    assert {"printed_vs_coded", "other_items_as_coded"} & {*mixed} == {"other_items_as_coded"}
    gain = of(Look("as_coded")) - of(Look("baseline"))
    assert mixed["other_items_as_coded"].effect.mean == pytest.approx(gain.mean())


def test_the_table_of_the_two_readings_has_each_comparison_of_them_and_no_other() -> None:
    names = ("baseline", "as_coded", "as_printed", "no_mirror")
    results = made_up(names)
    values = {"variants": {name: variant_table()[name] for name in names}, "recipe": {"weight_std": "coded"}}
    results = replace(results, params=fake_params(**(results.params.model_dump() | values)))
    shown = [row.id for row in readings(results, question_rows(results))]
    assert shown == ["as_printed_vs_coded", "items_from_the_source", "other_items_as_coded"]


@pytest.mark.parametrize("name", OVERFITTING)
def test_overfitting_is_the_test_error_minus_the_training_error(whole_net: dict[str, Row], name: str) -> None:
    row = whole_net[name]
    with_it = of(Look("baseline")) - of(Look("baseline", "train"))
    without = of(Look(OVERFITTING[name])) - of(Look(OVERFITTING[name], "train"))
    assert row.effect.mean == pytest.approx((without - with_it).mean())
    assert row.evidence[0].sd == pytest.approx((without - with_it).std(ddof=1))
    assert (row.treatment_value, row.control_value) == pytest.approx((with_it.mean(), without.mean()))
    assert row.effect.mean == pytest.approx(float(row.control_value or 0) - float(row.treatment_value or 0))


def test_the_gap_is_the_test_error_minus_the_validation_error() -> None:
    claim, results = registry().claim("val_test_gap"), made_up(("baseline",))
    assert claim.treatment is not None
    assert claim.control is not None
    for top, key in ((1, "top1"), (5, "top5")):
        measured = compare(results, claim.measure, claim.treatment, claim.control, key, limit=True)  # type: ignore[arg-type]
        val, test = of(Look("baseline", "val"), top), of(Look("baseline"), top)
        assert measured.effect.interval.mean == pytest.approx((test - val).mean())
        assert measured.effect.sd == pytest.approx((test - val).std(ddof=1))
        assert measured.arms == pytest.approx([val.mean(), test.mean()])


@pytest.mark.parametrize(("sure", "said"), [("val", "test"), ("test", "validation")])
def test_of_two_seeds_too_it_says_which_splits_images_make_the_gap_uncertain(sure: str, said: str) -> None:
    hard = predictions("baseline")["index"] < 60  # for either seed, and no other image
    table = predictions("baseline").assign(rank=hard.astype(int))
    table.loc[table["split"] == sure, "rank"] = 0  # right in every image
    results = replace(made_up(("baseline",), seeds=[3, 5]), loaded={"baseline": table})
    sides = (Side(variant="baseline", split="val"), Side(variant="baseline"))
    assert compare(results, "error", *sides, "top1", limit=True).images == f"{said} images"


@pytest.mark.parametrize("name", [*EPOCHS_TO_25, "relu_vs_tanh_speed"])
def test_epochs_to_25_percent_without_the_ingredient_over_those_with_it(
    whole_net: dict[str, Row], small_nets: dict[str, Row], name: str
) -> None:
    treatment, control = EPOCHS_TO_25.get(name, ("four_layer_relu", "four_layer_tanh"))
    row = (small_nets if "four" in treatment else whole_net)[name]
    first, second = ([soonest(arm, seed) for seed in SEEDS] for arm in (treatment, control))
    logs = np.log(second) - np.log(first)
    assert row.effect.mean == pytest.approx(np.exp(logs.mean()))
    half = stats.t.ppf(0.975, len(SEEDS) - 1) * logs.std(ddof=1) / math.sqrt(len(SEEDS))
    assert (row.effect.low, row.effect.high) == pytest.approx((np.exp(logs.mean() - half), np.exp(logs.mean() + half)))
    assert (row.treatment_value, row.control_value) == pytest.approx((stats.gmean(first), stats.gmean(second)))


def test_epochs_to_converge_are_those_until_five_epochs_mean_loss_is_near_the_least(whole_net: dict[str, Row]) -> None:
    row = whole_net["dropout_doubles_iters"]
    arms = ("no_lr_drops", "no_lr_drops_no_dropout")  # with dropout, without it
    first, second = ([soonest(arm, seed) + 4 for seed in SEEDS] for arm in arms)
    assert row.effect.mean == pytest.approx(stats.gmean(second) / stats.gmean(first))
    assert (row.treatment_value, row.control_value) == pytest.approx((stats.gmean(first), stats.gmean(second)))


def test_epochs_to_leave_guessing_are_those_until_90_percent_of_a_guesss_error() -> None:
    """Of 20 classes a guess errs in 95 %, so that the first epoch counts with at most 85.5 %."""
    begun = histories().copy()
    begun["train_error_top1"] = np.where(begun["train_error_top1"] > 25, 85.51, 85.5)
    found = rows_of(replace(made_up(("baseline", "biases_zero")), histories=begun))["bias_one_start"]
    first, second = ([soonest(arm, seed) for seed in SEEDS] for arm in ("baseline", "biases_zero"))
    assert found.effect.mean == pytest.approx(stats.gmean(second) / stats.gmean(first))
    assert (found.treatment_value, found.control_value) == pytest.approx((stats.gmean(first), stats.gmean(second)))


def test_a_run_that_never_gets_there_counts_for_its_own_arm() -> None:
    late = histories().copy()
    late.loc[(late["variant"] == "biases_zero") & (late["seed"] == 5), "train_error_top1"] = 80.0
    row = rows_of(replace(made_up(("baseline", "biases_zero")), histories=late))["bias_one_init"]
    first = [soonest("baseline", seed) for seed in SEEDS]
    second = [EPOCHS if seed == 5 else soonest("biases_zero", seed) for seed in SEEDS]
    assert row.effect.mean == pytest.approx(stats.gmean(second) / stats.gmean(first))
    assert row.effect.high == math.inf
    assert (row.evidence[0].censored.treatment, row.evidence[0].censored.control) == (0, 1)


def test_a_variants_further_seeds_have_their_place_also_where_they_have_no_run() -> None:
    results = made_up(("baseline", "biases_zero"), more_seeds={"variants": ["baseline"], "seeds": [11]})
    found = epochs_to(results, "epochs_to_25_train_error", "baseline")
    assert found.drop(11).to_dict() == {seed: soonest("baseline", seed) for seed in SEEDS}
    assert math.isnan(found[11])
    assert list(epochs_to(results, "epochs_to_25_train_error", "biases_zero").index) == list(SEEDS)


def test_where_no_run_gets_there_that_is_the_reason() -> None:
    late = histories().assign(train_error_top1=25.01)
    row = rows_of(replace(made_up(("baseline", "biases_zero")), histories=late))["bias_one_init"]
    assert row.verdict.word == "too noisy to say"
    assert row.verdict.reason == "neither run of a pair got there within its epochs, in 4 pairs"


def lost(variant: str) -> np.ndarray:
    middle, off = (np.array([error + number for number in range(len(SEEDS))]) for error in SHIFTED[variant])
    return 100 * (off - middle) / (95 - middle)


def test_accuracy_lost_off_the_center_is_held_against_half_and_against_no_crops(whole_net: dict[str, Row]) -> None:
    rows = whole_net
    assert rows["off_centre"].effect.mean == pytest.approx((50 - lost("baseline")).mean())
    assert rows["off_centre"].treatment_value == pytest.approx(lost("baseline").mean())
    assert rows["off_centre"].control_value == 50
    difference = lost("no_crops_no_mirror") - lost("baseline")
    assert rows["off_centre_without_crops"].effect.mean == pytest.approx(difference.mean())
    assert rows["off_centre_without_crops"].evidence[0].sd == pytest.approx(difference.std(ddof=1))


def test_what_an_analysis_could_not_measure_is_left_out() -> None:
    results = made_up(("baseline", "no_crops_no_mirror"))
    for number, seed in enumerate(results.analyses["baseline"]["seeds"].values()):
        seed["off_centre"] = {"reason": f"reason {number}"}
    rows = rows_of(results)
    assert rows["off_centre"].verdict.reason == "reason 0"
    assert rows["off_centre"].effect.n == rows["off_centre_without_crops"].effect.n == 0


def test_an_analysis_that_one_seed_lacks_or_all_of_them_leaves_out_pairs() -> None:
    results = made_up(("baseline",))
    results.analyses["baseline"]["seeds"]["5"]["off_centre"] = {"chance": 95.0}
    row = rows_of(results)["off_centre"]
    others = np.delete(50 - lost("baseline"), SEEDS.index(5))
    assert (row.effect.n, row.left_out, row.effect.mean) == (3, 1, pytest.approx(others.mean()))
    assert "1 of 4 pairs left out" in row.verdict.reason
    for found in ({}, {"no_crops_no_mirror": analyses("no_crops_no_mirror")}):
        row = rows_of(replace(made_up(("baseline",)), analyses=found))["off_centre"]
        assert (row.verdict.word, row.verdict.reason) == ("too noisy to say", "no pair is complete, 4 left out")


def test_divergence_at_other_factors_is_held_against_that_at_one_half(whole_net: dict[str, Row]) -> None:
    by_factor = {f: np.array([kl * (1 + f * number) for number in range(4)]) for f, kl in DIVERGENCES.items()}
    row = whole_net["dropout_test_half"]
    expected = [stats.gmean(by_factor[factor] / by_factor[0.5]) for factor in (0.4, 0.6)]
    assert [step.mean for step in row.evidence] == pytest.approx(expected)
    logarithms = [np.log(by_factor[factor] / by_factor[0.5]) for factor in (0.4, 0.6)]
    weakest = int(np.argmin([stats.ttest_1samp(values, 0).statistic for values in logarithms]))
    assert row.effect.mean == pytest.approx(expected[weakest])


def test_of_several_comparisons_with_one_seed_the_least_is_shown() -> None:
    row = rows_of(made_up(seeds=[SEEDS[0]]))["dropout_test_half"]
    at_04, at_06 = (DIVERGENCES[factor] / DIVERGENCES[0.5] for factor in (0.4, 0.6))
    assert at_06 < at_04
    assert row.effect.mean == pytest.approx(at_06)


def test_nets_that_were_not_analyzed_give_no_pair() -> None:
    sides = [Side(variant="baseline", of=of) for of in ("the columns", "halves at random")]
    for found in ({}, {"baseline": {}}, {"baseline": {"seeds": {"0": {}}}}):
        effect = compare(replace(made_up(), analyses=found), "likeness_of_the_columns_colors", *sides, "value").effect
        assert effect.interval.n == 0


def test_the_columns_colors_differ_more_than_halves_at_random_by(whole_net: dict[str, Row]) -> None:
    row = whole_net["gpu_specialisation"]
    numbers = np.arange(len(SEEDS))
    gains = 100 * ((COLORS[0] + numbers / 100) - (COLORS[1] - numbers / 1000))
    assert row.effect.mean == pytest.approx(gains.mean())
    assert row.evidence[0].sd == pytest.approx(gains.std(ddof=1))


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("size_params", 60_965_224, "reproduced"),
        ("size_neurons", 659_272, "reproduced"),
        ("fig2_conv1_neurons", 55 * 55 * 96, "contradicted"),
        ("conv_layer_share", 100 * 885_120 / 60_965_224, "contradicted"),
        ("update_rule", 0, "reproduced"),
    ],
)
def test_what_is_computed_is_what_was_counted_by_hand(
    whole_net: dict[str, Row], name: str, value: float, word: str
) -> None:
    row = whole_net[name]
    assert row.effect.mean == pytest.approx(value)
    assert row.verdict.word == word


@pytest.mark.parametrize("precision", ["32-true", "tf32"])
@pytest.mark.parametrize(("dataset", "name"), [("imagenet2010", "ilsvrc2010"), ("imagenet2012", "ilsvrc2012_1cnn")])
def test_an_error_by_itself_is_that_of_ten_crops_of_test_images(dataset: str, name: str, precision: str) -> None:
    data = {"dataset": dataset, "folder": "images", "image_size": 256, "train_images": None}
    data |= {"validation_images": 50_000, "test_images": None, "split_seed": 0}
    exact = {"net": Net().model_dump(), "recipe": Recipe().model_dump(), "train": {"precision": precision}}
    rows = rows_of(made_up(("baseline",), data=data, report=dataset, reports={dataset: dataset}, **exact))
    for top, row_id in ((1, name), (5, f"{name}_top5")):
        expected = of(Look("baseline", views="ten_crop"), top)
        assert rows[row_id].effect.mean == rows[row_id].treatment_value == pytest.approx(expected.mean())
        assert rows[row_id].evidence[0].on_paper_data


def test_a_claim_about_the_other_nets_says_which_ones_the_scale_trains(
    whole_net: dict[str, Row], small_nets: dict[str, Row]
) -> None:
    assert whole_net["lrn_cifar"].verdict.reason == "this scale trains the whole net"
    assert small_nets["lrn_imagenet"].verdict.reason == "this scale trains the authors' small nets"


def test_ones_own_images_cannot_test_an_observation_on_ilsvrc_and_published_ones_may() -> None:
    observations = [claim for claim in registry().claims if claim.kind == "observation" and claim.net == "alexnet"]
    assert observations
    data = fake_params().data.model_dump()
    own = made_up(data=data | {"dataset": "trees", "folder": "trees"}, reports={}, report="fake_trees")
    assert all(is_beyond(own, claim) for claim in observations)
    assert not any(is_beyond(made_up(), claim) for claim in observations)


def test_a_measure_that_there_is_not_is_said_and_the_claim_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = registry().claim("overlap_pool").model_copy(update={"measure": "beauty"})
    monkeypatch.setattr("pipeline.claims.table.registry", lambda: Registry(claims=[claim], questions=[]))
    results = made_up()
    (row, _) = claim_rows(results, CHECKS)
    assert (row.verdict.word, row.verdict.reason) == ("not run at this scale", "its measure beauty is unknown")
    assert results.missing[0].startswith("overlap_pool: measure = 'beauty'; accepted is one of error, overfitting, ")


def test_predictions_that_cannot_be_used_are_named() -> None:
    damaged = predictions("baseline").drop(columns="rank")
    partly = predictions("no_dropout")
    partly = partly[(partly["seed"] != 8) | (partly["index"] > 0)]
    results = made_up(("baseline", "no_dropout"))
    results.loaded.update(baseline=damaged, no_dropout=partly)
    sides = (Side(variant="baseline"), Side(variant="no_dropout"))
    assert compare(results, "error", *sides, "top1").effect.interval.n == 0
    assert results.missing[0].startswith("baseline: predictions cannot be used (")
    assert results.missing[1:] == ["no_dropout, seed 8: predictions of some images are missing"]


def step_down(p_values: list[float]) -> list[float]:
    """Holm's: the least of m times m, the next times m - 1, and none below the one before."""
    adjusted, order = [0.0] * len(p_values), np.argsort(p_values)
    least = 0.0
    for place, number in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = least
    return adjusted


@pytest.mark.parametrize("which", ["whole_net", "small_nets"])
def test_holms_families_are_the_primary_claims_the_other_main_rows_and_top5(
    which: str, request: pytest.FixtureRequest
) -> None:
    rows = request.getfixturevalue(which).values()
    for kind in (Claim, Question):
        families: dict[str, list[Row]] = {}
        for row in [row for row in rows if isinstance(row.claim, kind)]:
            if row.tested is not None:
                family = "top5" if row.id.endswith("_top5") else "primary" if row.id in PRIMARY else "main"
                families.setdefault(family, []).append(row)
        assert which == "small_nets" or min(len(families[name]) for name in ("main", "top5")) > 1
        for members in families.values():
            for name in ("p_no_effect", "p_size"):
                raw = [getattr(Answers.of(row.evidence), name) for row in members]
                adjusted = [getattr(row.tested, name) for row in members]
                assert adjusted == pytest.approx(step_down(raw))
