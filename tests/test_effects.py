import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.statistics.effects import holm, mean_interval, paired_effect, pairs_needed

NAN = float("nan")


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
    assert effect.p == pytest.approx(expected.pvalue)
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
    assert (effect.interval.mean, effect.interval.low, effect.interval.high, effect.p) == (1, None, None, None)


def test_no_pair_gives_nothing() -> None:
    effect = paired_effect(seeds(NAN), seeds(2))
    assert (effect.interval.n, effect.interval.mean, effect.left_out) == (0, None, 1)


@pytest.mark.parametrize(("difference", "p"), [(0.0, 1.0), (0.3, 0.0)])
def test_equal_differences_give_a_point_and_a_p_of_one_or_zero(difference: float, p: float) -> None:
    treatment = seeds(7.1, 8.2, 9.7)
    effect = paired_effect(treatment, treatment + difference)
    assert effect.interval.low == effect.interval.high == pytest.approx(difference)
    assert effect.p == p


def test_a_ratio_is_averaged_as_logarithms() -> None:
    effect = paired_effect(seeds(6, 5), seeds(12, 40), ratio=True)  # 2 and 8 times: geometric mean 4
    assert effect.interval.mean == pytest.approx(4)
    half = 12.706205 * math.log(2) / math.sqrt(2) * math.sqrt(2)  # t(0.975, 1), sd of log 2 and log 8
    assert effect.interval.high == pytest.approx(4 * math.exp(half), rel=1e-5)
    assert effect.interval.low == pytest.approx(4 * math.exp(-half), rel=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_is_tested_against_the_nearer_side_of_its_limit(sign: int) -> None:
    differences = sign * np.array([0.2, 0.35, 0.3])
    effect = paired_effect(seeds(8, 8, 8), 8 + seeds(*differences), limit=0.1)
    assert effect.p == pytest.approx(stats.ttest_1samp(differences, sign * 0.1).pvalue)


def test_holm_multiplies_the_smallest_p_by_the_number_of_tests_and_keeps_the_order() -> None:
    # sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04 but no less than the one before: .06
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == [
        pytest.approx(p) if p else None for p in (0.03, None, 0.06, 0.06, 0.02)
    ]


def test_holm_of_no_tests_is_empty() -> None:
    assert holm([None, None]) == [None, None]
    assert holm([]) == []


@pytest.mark.parametrize(("sd", "half_width"), [(0.3, 0.2), (1.0, 0.5), (1.0, 0.15), (0.0, 0.2), (0.01, 5.0)])
def test_the_pairs_needed_are_the_first_whose_half_width_is_small_enough(sd: float, half_width: float) -> None:
    first = next(n for n in range(2, 10_000) if stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) < half_width)
    assert pairs_needed(sd, half_width) == first
