import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from pipeline.claims.censored import censored_ratio
from pipeline.claims.crossed import crossed_effect, errors_by_seed, image_variance, mean_squares
from pipeline.claims.effects import Censored, Effect, holm, mean_interval, paired_effect
from pipeline.claims.margins import half_width, p_value
from pipeline.claims.power import images_factor, pairs_needed
from pipeline.claims.verdicts import Evidence

NAN = float("nan")


def p_of(effect: Effect, unit: Any = "points", kind: Any = "effect", paper: float = 1.0) -> float | None:
    """Two-sided p of no effect, as the verdict has it."""
    found = effect.interval
    assert found.mean is not None
    return Evidence(
        kind, False, unit, paper, found.mean, found.low, found.high, effect.sd, found.n, effect.image_variance,
        censored=effect.censored,
    ).p_no_effect  # fmt: skip


def seeds(*values: float) -> pd.Series:
    return pd.Series(values, index=range(len(values)))


def test_the_interval_of_one_two_three_is_the_one_worked_by_hand() -> None:
    interval = mean_interval(seeds(1, 2, 3))  # sd 1, t(0.975, 2) = 4.302653, half-width 4.302653 / sqrt(3)
    assert (interval.mean, interval.n) == (2, 3)
    assert interval.low == pytest.approx(2 - 2.484138, abs=1e-5)
    assert interval.high == pytest.approx(2 + 2.484138, abs=1e-5)


def test_a_paired_effect_is_scipys_one_sample_t_test_of_the_differences() -> None:
    rng = np.random.default_rng(3)
    treatment, control = seeds(*rng.normal(8, 1, 5)), seeds(*rng.normal(9, 1, 5))
    effect = paired_effect(treatment, control)
    expected = stats.ttest_1samp(control - treatment, 0)
    interval = expected.confidence_interval(0.95)
    assert p_of(effect) == pytest.approx(expected.pvalue)
    assert (effect.interval.low, effect.interval.high) == pytest.approx((interval.low, interval.high))


def test_an_effect_is_positive_where_the_treatment_has_the_lower_error() -> None:
    assert paired_effect(seeds(8, 9), seeds(9, 10.5)).interval.mean == pytest.approx(1.25)


def test_seeds_are_paired_by_their_number_and_not_by_their_place() -> None:
    treatment = pd.Series({0: 1.0, 1: 2.0})
    control = pd.Series({1: 2.5, 0: 1.5})
    assert paired_effect(treatment, control).interval.mean == pytest.approx(0.5)


def test_a_pair_with_a_failed_or_missing_side_is_left_out_and_counted() -> None:
    effect = paired_effect(pd.Series({0: 1.0, 1: NAN, 2: 1.0, 3: 1.0}), pd.Series({0: 2.0, 1: 2.0, 2: 4.0}))
    assert (effect.interval.n, effect.left_out, effect.interval.mean) == (2, 2, 2)


def test_one_pair_gives_no_interval_and_no_p() -> None:
    effect = paired_effect(seeds(1), seeds(2))
    assert (effect.interval.mean, effect.interval.low, effect.interval.high, p_of(effect)) == (1, None, None, None)


def test_no_pair_gives_nothing() -> None:
    effect = paired_effect(seeds(NAN), seeds(2))
    assert (effect.interval.n, effect.interval.mean, effect.left_out) == (0, None, 1)


@pytest.mark.parametrize(("difference", "p"), [(0.0, 1.0), (0.3, 0.0)])
def test_equal_differences_give_a_point_and_a_p_of_one_or_zero(difference: float, p: float) -> None:
    treatment = seeds(7.1, 8.2, 9.7)
    effect = paired_effect(treatment, treatment + difference)
    assert effect.interval.low == effect.interval.high == pytest.approx(difference)
    assert p_of(effect) == p


def test_a_ratio_is_averaged_as_logarithms() -> None:
    effect = paired_effect(seeds(6, 5), seeds(12, 40), ratio=True)  # 2 and 8 times: geometric mean 4
    assert effect.interval.mean == pytest.approx(4)
    half = 12.706205 * math.log(2) / math.sqrt(2) * math.sqrt(2)  # t(0.975, 1), sd of log 2 and log 8
    assert effect.interval.high == pytest.approx(4 * math.exp(half), rel=1e-5)
    assert effect.interval.low == pytest.approx(4 * math.exp(-half), rel=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_is_tested_against_the_nearer_side_of_its_limit(sign: int) -> None:
    differences = sign * np.array([0.2, 0.35, 0.3])
    effect = paired_effect(seeds(8, 8, 8), 8 + seeds(*differences))
    p = p_of(effect, unit="percent", kind="limit", paper=0.1)
    assert p == pytest.approx(stats.ttest_1samp(differences, sign * 0.1).pvalue)


def test_holm_multiplies_the_smallest_p_by_the_number_of_tests_and_keeps_the_order() -> None:
    # sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04 but no less than the one before: .06
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == [
        pytest.approx(p) if p else None for p in (0.03, None, 0.06, 0.06, 0.02)
    ]


def test_holm_is_rs_p_adjust() -> None:
    # p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])


def test_holm_of_no_tests_is_empty() -> None:
    assert holm([None, None]) == [None, None]
    assert holm([]) == []


@pytest.mark.parametrize(("sd", "half_width"), [(0.3, 0.2), (1.0, 0.5), (1.0, 0.15), (0.0, 0.2), (0.01, 5.0)])
def test_the_pairs_needed_are_the_first_whose_half_width_is_small_enough(sd: float, half_width: float) -> None:
    first = next(n for n in range(2, 10_000) if stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) < half_width)
    assert pairs_needed(sd, half_width) == first


def test_the_pairs_needed_allow_for_the_part_of_the_images_that_seeds_do_not_shrink() -> None:
    first = next(n for n in range(2, 1000) if half_width(n, 1.0, 0.01) < 0.3)
    assert pairs_needed(1.0, 0.3, 0.01) == first > pairs_needed(1.0, 0.3, 0.0)  # type: ignore[operator]


def test_no_number_of_pairs_will_do_where_the_images_alone_give_a_wider_interval() -> None:
    assert pairs_needed(1.0, 0.3, (0.301 / 1.96) ** 2) is None
    assert pairs_needed(0.0, 0.3, (0.301 / 1.96) ** 2) is None
    assert pairs_needed(1.0, 0.3, (0.299 / 1.96) ** 2) is not None


def test_as_many_times_the_images_as_the_factor_says_bring_the_images_part_down_to_the_size() -> None:
    factor = images_factor(0.3, 0.1)
    assert 1.959964 * math.sqrt(0.1 / factor) == pytest.approx(0.3)


def test_the_half_width_lies_between_a_t_interval_of_the_seeds_and_a_normal_one_of_the_images() -> None:
    assert half_width(3, 1.0) == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3))
    assert half_width(3, 0.0, 0.04) == pytest.approx(0.2 * stats.norm.ppf(0.975))
    # equal parts, 1/3 each: half the seeds' share, so twice their degrees of freedom
    assert half_width(3, 1.0, 1 / 3) == pytest.approx(stats.t.ppf(0.975, 4) * math.sqrt(2 / 3))


@pytest.mark.parametrize(("n", "sd", "variance"), [(3, 1.0, 0.0), (5, 0.4, 0.05), (10, 0.0, 0.05)])
def test_p_is_five_per_cent_at_the_end_of_the_interval(n: int, sd: float, variance: float) -> None:
    assert p_value(half_width(n, sd, variance), n, sd, variance) == pytest.approx(0.05)


def crossed(rng: np.random.Generator, n: int, m: int, seed_sd: float, image_sd: float, sd: float = 1.0) -> np.ndarray:
    """(seeds, images) of normal differences with mean 0."""
    return rng.normal(0, seed_sd, (n, 1)) + rng.normal(0, image_sd, m) + rng.normal(0, sd, (n, m))


def test_mean_squares_are_those_of_a_two_way_analysis_of_variance() -> None:
    table = crossed(np.random.default_rng(1), 4, 6, 1.0, 2.0)
    long = pd.DataFrame([{"seed": s, "image": i, "d": d} for (s, i), d in np.ndenumerate(table)])
    expected = anova_lm(ols("d ~ C(seed) + C(image)", long).fit())["mean_sq"]
    found = mean_squares(table)
    assert (found.seeds, found.images, found.residual) == pytest.approx(tuple(expected))


def test_the_variance_of_a_crossed_effect_is_that_of_its_mean_over_repetitions() -> None:
    # seeds .3² / 4, images of two parts 3² / 100 and 2² / 50, rests 1 / 400 and 1 / 200
    rng = np.random.default_rng(2)
    effects = []
    for _ in range(1000):
        first, second = crossed(rng, 4, 100, 0.3, 3.0), crossed(rng, 4, 50, 0.0, 2.0)
        effects.append(crossed_effect([first, second]))
    truth = 0.3**2 / 4 + 9 / 100 + 4 / 50 + 1 / 400 + 1 / 200
    assert np.var([effect.interval.mean for effect in effects]) == pytest.approx(truth, rel=0.135)  # 3 sd of a variance
    assert np.mean([effect.sd**2 / 4 + effect.image_variance for effect in effects if effect.sd]) == pytest.approx(
        truth, rel=0.05
    )


def test_a_crossed_effect_whose_images_do_not_differ_is_scipys_t_test_over_seeds() -> None:
    rng = np.random.default_rng(4)
    by_seed = rng.normal(1, 0.5, 5)
    balanced = np.tile([[1.0, -1.0], [-1.0, 1.0]], (3, 50))[:5]  # no image is better than the others for every seed
    differences = by_seed[:, None] + balanced
    effect = crossed_effect([differences])
    expected = stats.ttest_1samp(by_seed, 0)
    interval = expected.confidence_interval(0.95)
    assert effect.image_variance == 0
    assert p_of(effect) == pytest.approx(expected.pvalue)
    assert (effect.interval.low, effect.interval.high) == pytest.approx((interval.low, interval.high))


def test_nets_that_are_the_same_for_every_seed_differ_as_mcnemar_says() -> None:
    images, worse, better = 10_000, 620, 550
    difference = np.zeros(images)
    difference[:worse], difference[worse : worse + better] = 100, -100
    effect = crossed_effect([np.tile(difference, (3, 1))])
    table = [[images - worse - better, worse], [better, 0]]
    assert effect.interval.mean == pytest.approx(100 * (worse - better) / images)
    assert p_of(effect) == pytest.approx(mcnemar(table, exact=False, correction=False).pvalue, rel=0.01)


def test_the_error_of_nets_that_are_the_same_for_every_seed_has_the_binomial_interval() -> None:
    errors = np.tile(np.repeat([100.0, 0.0], [2000, 8000]), (5, 1))
    low, high = proportion_confint(2000, 10_000, method="normal")
    interval = crossed_effect([errors]).interval
    assert (interval.low, interval.high) == pytest.approx((100 * low, 100 * high), rel=1e-4)


def test_two_parts_add_their_means_and_pair_their_seeds() -> None:
    rng = np.random.default_rng(5)
    seed_effects = rng.normal(0, 3, (4, 1))  # cancel: as large on training as on test images
    test, train = 2 + seed_effects + rng.normal(0, 1, (4, 300)), seed_effects + rng.normal(0, 1, (4, 500))
    effect = crossed_effect([test, -train])
    assert effect.interval.mean == pytest.approx(test.mean() - train.mean())
    assert effect.sd == pytest.approx(np.std(test.mean(1) - train.mean(1), ddof=1))
    assert effect.image_variance == pytest.approx(image_variance(test) + image_variance(train))


def test_a_seed_without_a_net_in_one_part_is_left_out_of_all_and_counted() -> None:
    test, train = np.ones((3, 4)), np.ones((3, 5))
    test[:, 0] = [3, 4, 5]
    train[1] = NAN
    effect = crossed_effect([test, train])
    assert (effect.interval.n, effect.left_out) == (2, 1)
    assert effect.interval.mean == pytest.approx((6 / 4 + 8 / 4) / 2 + 1)


def test_one_seed_or_none_gives_no_interval_whatever_the_images() -> None:
    effect = crossed_effect([np.array([[1.0, 0.0, 0.0, 1.0]])])
    assert (effect.interval.mean, effect.interval.low, p_of(effect), effect.image_variance) == (0.5, None, None, 0.0)
    nothing = crossed_effect([np.full((3, 1), NAN)])
    assert (nothing.interval.n, nothing.interval.mean, nothing.left_out) == (0, None, 3)


def test_a_crossed_difference_is_tested_against_the_nearer_side_of_its_limit() -> None:
    differences = -0.5 + crossed(np.random.default_rng(6), 5, 200, 0.1, 1.0)
    p = p_of(crossed_effect([differences]), unit="percent", kind="limit", paper=0.1)
    assert p == pytest.approx(p_of(crossed_effect([differences + 0.1])))


def test_errors_by_seed_follow_the_seeds_and_the_images_of_the_predictions() -> None:
    rows = [(2, 1, 0), (2, 0, 7), (1, 0, 1), (1, 1, 5)]  # seed, image, rank of the label
    predictions = pd.DataFrame(rows, columns=["seed", "index", "rank"]).assign(split="test", views="one_crop")
    predictions = pd.concat([predictions, predictions.assign(split="val", rank=9)])
    errors = errors_by_seed(predictions, [1, 2, 3], split="test")
    assert np.array_equal(errors, [[100, 100], [100, 0], [NAN, NAN]], equal_nan=True)
    top5 = errors_by_seed(predictions, [1, 2, 3], split="test", top=5)
    assert np.array_equal(top5, [[0, 100], [100, 0], [NAN, NAN]], equal_nan=True)


def test_a_variant_without_predictions_leaves_every_pair_out() -> None:
    nothing = errors_by_seed(pd.DataFrame(), [1, 2], split="test")
    effect = crossed_effect([np.zeros((2, 10)) - nothing])
    assert (effect.interval.n, effect.left_out) == (0, 2)


def ratio_of(treatment: list[float], control: list[float], late_treatment: str, late_control: str) -> Effect:
    """One letter for each seed: L where the run ended too early."""
    late = [seeds(*(letter == "L" for letter in letters)) for letters in (late_treatment, late_control)]
    return censored_ratio(seeds(*treatment), seeds(*control), treatment_censored=late[0], control_censored=late[1])


def test_with_nothing_censored_the_ratio_is_the_plain_one() -> None:
    treatment, control = [6.0, 5.0, 7.0], [30.0, 36.0, 28.0]
    assert ratio_of(treatment, control, "...", "...") == paired_effect(seeds(*treatment), seeds(*control), ratio=True)


def test_controls_that_never_get_there_bound_the_ratio_from_below() -> None:
    treatment, control = [6.0, 5.0, 7.0], [30.0, 40.0, 40.0]
    effect, bounds = ratio_of(treatment, control, "...", ".LL"), ratio_of(treatment, control, "...", "...")
    assert (effect.interval.low, effect.interval.high) == (bounds.interval.low, math.inf)
    assert effect.censored == Censored(control=2)
    assert p_of(effect, "ratio") == p_of(bounds, "ratio")


def test_treatments_that_never_get_there_bound_the_ratio_from_above() -> None:
    treatment, control = [30.0, 40.0, 40.0], [6.0, 5.0, 7.0]
    effect, bounds = ratio_of(treatment, control, ".LL", "..."), ratio_of(treatment, control, "...", "...")
    assert (effect.interval.low, effect.interval.high) == (0, bounds.interval.high)
    assert effect.censored == Censored(treatment=2)
    assert p_of(effect, "ratio") == p_of(bounds, "ratio")


def test_bounds_on_the_near_side_of_no_effect_are_no_evidence() -> None:
    assert (
        p_of(ratio_of([10, 20, 30], [10, 15, 20], "...", ".LL"), "ratio") == 1.0
    )  # control / treatment is at least 0.8
    assert p_of(ratio_of([10, 15, 20], [10, 20, 30], ".LL", "..."), "ratio") == 1.0


def test_bounds_on_either_side_leave_everything_open() -> None:
    effect = ratio_of([6, 40, 7], [40, 5, 30], ".L.", "L..")
    assert (effect.interval.low, effect.interval.high, p_of(effect, "ratio")) == (0, math.inf, 1.0)
    assert effect.censored == Censored(treatment=1, control=1)


def test_a_pair_of_which_neither_gets_there_says_nothing_and_is_counted() -> None:
    effect = ratio_of([6, 40, NAN, 5], [30, 40, 40, 20], ".L..", ".LL.")
    assert effect.censored == Censored(both=1)
    assert (effect.interval.n, effect.left_out, effect.interval.mean) == (2, 1, pytest.approx(math.sqrt(20)))
    nothing = ratio_of([40], [40], "L", "L")
    assert (nothing.interval.n, nothing.interval.mean) == (0, None)


def test_the_bound_from_censored_controls_seldom_exceeds_the_true_ratio() -> None:
    rng = np.random.default_rng(7)
    exceeds = []
    for _ in range(400):
        treatment, control = np.exp(rng.normal(2, 0.4, 5)), np.exp(rng.normal(3, 0.4, 5))
        late = seeds(*(control > 25))
        effect = censored_ratio(
            seeds(*treatment), seeds(*np.minimum(control, 25)), treatment_censored=late & False, control_censored=late
        )
        exceeds.append((effect.interval.low or 0) > math.e)
    assert np.mean(exceeds) < 0.025 + 3 * math.sqrt(0.025 * 0.975 / 400)
