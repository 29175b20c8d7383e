import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pipeline.claims.crossed import crossed_effect
from pipeline.claims.effects import Censored
from pipeline.claims.verdicts import (
    ARTICLE_WORDS,
    CLAIM_WORDS,
    QUESTION_WORDS,
    Answers,
    Evidence,
    Verdict,
    judge,
    judge_exact,
    judge_question,
    undecidable_bound,
)

PAIRS = 5


def measured(mean: float, half: float, **changes: object) -> Evidence:
    """Five pairs whose mean has a 95 % interval of this half-width; for a ratio both are logarithms of it."""
    sd = half * math.sqrt(PAIRS) / float(stats.t.ppf(0.975, PAIRS - 1))
    ends = [mean, mean - half, mean + half]
    if changes.get("unit") == "ratio":
        ends = [math.exp(end) for end in ends]
    values = {"kind": "effect", "on_paper_data": False, "unit": "points", "paper": 1.0, "sd": sd, "pairs": PAIRS}
    return Evidence(**{**values, **dict(zip(("mean", "low", "high"), ends, strict=True)), **changes})  # type: ignore[arg-type]


def word(*steps: Evidence) -> str:
    return judge(Answers.of(steps)).word


def reason(*steps: Evidence) -> str:
    return judge(Answers.of(steps)).reason


EXCLUDED = "an effect of the paper's size, 1 point, or more is excluded, zero is not"
NOISE = "about 13 seeds would measure it to within ± 0.5 points (estimate)"
# The paper's figure is one point. Columns of the table: no effect excluded or not, the size excluded or not.
CELLS = [
    # mean, half-width, word on other data, word on the paper's own, what the reason says of the size
    (1.2, 0.5, "same direction", "reproduced", ""),
    (0.5, 0.3, "same direction", "reproduced in direction, not in size", "smaller than the paper's"),
    (2.0, 0.5, "same direction", "reproduced", "larger than the paper's"),
    (-0.8, 0.5, "opposite direction", "contradicted", ""),
    (
        0.1,
        0.3,
        "not seen here",
        "contradicted",
        "an effect of the paper's size, 1 point, or more is excluded, zero is not",
    ),
    (
        -0.2,
        0.3,
        "not seen here",
        "contradicted",
        "an effect of the paper's size, 1 point, or more is excluded, zero is not",
    ),
    (
        0.5,
        1.0,
        "too noisy to say",
        "too noisy to say",
        "about 13 seeds would measure it to within ± 0.5 points (estimate)",
    ),
]


@pytest.mark.parametrize(("mean", "half", "elsewhere", "own", "why"), CELLS)
def test_each_cell_of_the_table_earns_its_word(mean: float, half: float, elsewhere: str, own: str, why: str) -> None:
    assert (word(measured(mean, half)), reason(measured(mean, half))) == (elsewhere, why)
    assert word(measured(mean, half, on_paper_data=True)) == own


def test_the_estimated_number_of_seeds_is_that_of_students_t() -> None:
    # the interval of five pairs is ± 1: the first n whose half-width at the same spread is below half a point
    sd = measured(0.5, 1.0).sd
    assert sd is not None
    widths = {n: stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) for n in range(2, 40)}
    first = min(n for n, width in widths.items() if width < 0.5)
    assert f"about {first} seeds" in reason(measured(0.5, 1.0)) + reason(measured(0.5, 1.0, paper=None))


def test_where_the_paper_gives_no_size_one_point_or_a_factor_of_a_quarter_is_looked_for() -> None:
    assert word(measured(0.1, 0.3, paper=None)) == "not seen here"
    assert reason(measured(0.1, 0.3, paper=None)) == "an effect of 1 point or more is excluded, zero is not"
    assert word(measured(0.1, 1.2, paper=None)) == "too noisy to say"
    ratio = {"unit": "ratio", "paper": None}
    assert word(measured(0.0, math.log(1.1), **ratio)) == "not seen here"
    assert word(measured(0.0, math.log(1.4), **ratio)) == "too noisy to say"
    assert "a factor of 1.25" in reason(measured(0.0, math.log(1.1), **ratio))
    assert word(measured(0.5, 0.3, paper=None, on_paper_data=True)) == "reproduced"  # no size that it could miss


@pytest.mark.parametrize(
    ("mean", "low", "paper", "expected"),
    [
        (5.0, 4.0, 6.0, "same direction"),
        (1.12, 0.82, 6.0, "not seen here"),  # Figure 1: six-fold is excluded, none is not
        (0.5, 0.4, 6.0, "opposite direction"),
        (2.0, 0.2, 6.0, "too noisy to say"),
        (0.6, 0.5, 0.5, "same direction"),  # the paper's side is below one
        (1.5, 1.2, 0.5, "opposite direction"),
        (1.0, 0.8, 0.5, "not seen here"),
    ],
)
def test_no_effect_is_one_for_a_ratio(mean: float, low: float, paper: float, expected: str) -> None:
    half = math.log(mean) - math.log(low)
    assert word(measured(math.log(mean), half, unit="ratio", paper=paper)) == expected


def test_an_effect_of_the_papers_size_is_excluded_on_its_side_alone() -> None:
    up = measured(0.0, 0.3)
    p = up.p_size
    assert p == pytest.approx(stats.t.cdf(-1.0 / (up.sd / math.sqrt(PAIRS)), PAIRS - 1))  # type: ignore[operator]
    assert measured(2.5, 0.3).p_size == pytest.approx(1.0, abs=1e-3)
    assert measured(0.0, 0.3, paper=-1.0).p_size == pytest.approx(p)
    assert measured(-2.5, 0.3).p_size == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(37.0, 38.0, "reproduced"), (38.0, 39.0, "contradicted"), (None, None, "too noisy to say")],
)
def test_an_absolute_error_is_judged_by_whether_its_interval_includes_the_papers(
    low: float | None, high: float | None, expected: str
) -> None:
    assert word(measured(38.0, 0.5, kind="absolute", unit="percent", paper=37.5, low=low, high=high)) == expected


@pytest.mark.parametrize(
    ("mean", "half", "elsewhere", "own"),
    [
        (0.02, 0.05, "same direction", "reproduced"),
        (-0.02, 0.05, "same direction", "reproduced"),
        (0.5, 0.2, "opposite direction", "contradicted"),
        (-0.5, 0.2, "opposite direction", "contradicted"),
        (0.0, 0.2, "too noisy to say", "too noisy to say"),
        (0.2, 0.15, "too noisy to say", "too noisy to say"),
    ],
)
def test_a_bound_is_shown_or_exceeded_on_either_side(mean: float, half: float, elsewhere: str, own: str) -> None:
    bound = measured(mean, half, kind="limit", unit="percent", paper=0.1)
    assert (word(bound), word(replace(bound, on_paper_data=True))) == (elsewhere, own)
    assert ("seeds would measure it to within" in reason(bound)) == (elsewhere == "too noisy to say")


def test_a_factor_without_a_lower_end_can_be_larger_than_the_papers() -> None:
    late = {"unit": "ratio", "paper": 0.5, "low": 0.0, "censored": Censored(treatment=1)}
    step = measured(math.log(0.3), 0.3, **late)
    assert (word(step), reason(step).partition(";")[0]) == ("same direction", "larger than the paper's")


def test_a_bound_that_the_images_cannot_decide_says_how_many_could() -> None:
    bound = measured(0.0, 0.5, kind="limit", unit="percent", paper=0.1, image_variance=0.3**2, images="test images")
    times = (1.96 * 0.3 / 0.1) ** 2
    assert f"about {times:,.0f} times as many test images could" in undecidable_bound(bound)
    assert undecidable_bound(replace(bound, image_variance=0.04**2)) == ""
    assert undecidable_bound(measured(0.0, 0.5, image_variance=0.3**2)) == ""


SAME, OTHER, NONE, NOISY = measured(1.2, 0.5), measured(-1.2, 0.5), measured(0.1, 0.3), measured(0.5, 1.5)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([SAME, SAME, SAME], "same direction"),
        ([SAME, OTHER, SAME], "opposite direction"),
        ([NONE, OTHER, NOISY], "opposite direction"),
        ([NONE, NONE, NONE], "not seen here"),
        ([NONE, NONE, NOISY], "too noisy to say"),
        ([SAME, SAME, NOISY], "too noisy to say"),
    ],
)
def test_several_comparisons_hold_together_or_not(steps: list[Evidence], expected: str) -> None:
    assert word(*steps) == expected


def test_one_of_several_goes_the_other_way_only_after_correction_for_their_number() -> None:
    barely = measured(-0.5, 0.48)  # p just below 5 %
    assert barely.p_no_effect == pytest.approx(0.045, abs=0.005)
    assert word(barely) == "opposite direction"
    assert Answers.of([barely, SAME, SAME]).p_no_effect == pytest.approx(3 * barely.p_no_effect)  # type: ignore[operator]
    assert word(barely, SAME, SAME) != "opposite direction"


def test_the_reason_lists_every_comparison() -> None:
    named = [replace(SAME, name="a"), replace(NOISY, name="b")]
    assert "a +1.20 [0.70, 1.70]; b +0.50 [-1.00, 2.00]" in reason(*named)


@pytest.mark.parametrize(
    ("value", "paper", "agreement", "expected"),
    [
        (60_965_224, 60_000_000, "leading_digits", "reproduced"),
        (659_272, 650_000, "leading_digits", "reproduced"),
        (661_000, 650_000, "leading_digits", "contradicted"),
        (62_378_344, 60_000_000, "leading_digits", "contradicted"),
        (290_400, 253_440, "equal", "contradicted"),
        (0, 0, "equal", "reproduced"),
        (1.45, 1, "at_most", "contradicted"),
        (0.73, 1, "at_most", "reproduced"),
    ],
)
def test_an_exact_statement_is_reproduced_or_contradicted(
    value: float, paper: float, agreement: str, expected: str
) -> None:
    assert judge_exact(value, paper, agreement).word == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "half", "expected"),
    [(1.5, 0.5, "differs"), (-1.5, 0.5, "differs"), (0.1, 0.3, "no difference seen"), (0.5, 2.0, "no difference seen")],
)
def test_a_question_of_ours_is_answered_in_its_own_words(mean: float, half: float, expected: str) -> None:
    assert judge_question(Answers.of([measured(mean, half, paper=None)])).word == expected


def test_one_seed_gives_no_interval_and_so_no_word() -> None:
    single = measured(1.2, 0.5, low=None, high=None, sd=None, pairs=1)
    assert (word(single), reason(single)) == ("too noisy to say", "1 seed: no interval")
    answer = judge_question(Answers.of([single]))
    assert (answer.word, answer.reason) == ("no difference seen", "1 seed: no interval")


def test_the_seeds_needed_are_those_of_the_comparison_that_is_least_decided() -> None:
    clear, noisy = measured(0.1, 0.5, name="a"), measured(0.4, 3.0, name="b")
    estimate = reason(noisy).split(" (estimate)")[0]
    assert estimate.startswith("about ")
    assert not reason(clear).startswith(estimate)
    for steps in ((clear, noisy), (noisy, clear)):
        assert reason(*steps).startswith(estimate)


def test_an_interval_that_the_adjustment_overrules_is_marked() -> None:
    found = Answers.of([measured(1.2, 1.0)])
    assert found.p_no_effect is not None
    assert found.excludes_no_effect
    assert not found.marked
    overruled = replace(found, p_no_effect=4 * found.p_no_effect)
    assert overruled.marked
    assert "†" in judge(overruled).reason
    assert not Answers.of([measured(0.2, 1.0)]).marked


def test_the_words_are_those_agreed() -> None:
    assert CLAIM_WORDS == (
        "reproduced",
        "reproduced in direction, not in size",
        "contradicted",
        "same direction",
        "opposite direction",
        "not seen here",
        "too noisy to say",
        "not run at this scale",
        "cannot be run",
    )
    assert QUESTION_WORDS == ("differs", "no difference seen")
    assert ARTICLE_WORDS == ("right", "imprecise", "wrong", "outdated")


@pytest.mark.parametrize("one", [*CLAIM_WORDS, *QUESTION_WORDS, *ARTICLE_WORDS])
def test_a_verdict_is_one_of_the_words(one: str) -> None:
    assert Verdict(one).word == one


@pytest.mark.parametrize("other", ["refuted", "inconclusive", ""])
def test_no_other_word_is_a_verdict(other: str) -> None:
    with pytest.raises(ValueError, match="is no verdict: accepted is one of"):
        Verdict(other)


def synthetic(effect: float, seed_sd: float) -> Evidence:
    """Five pairs of nets on 4,000 images, 10 % of which the nets of a pair see differently."""
    rng = np.random.default_rng(8)
    spread = rng.permutation([-1.2, -0.5, 0.0, 0.5, 1.2]) * seed_sd
    images = 4000
    differences = np.zeros((5, images))
    for row, gain in zip(differences, (effect + spread) / 100 * images, strict=True):
        differ = rng.permutation(images)[: images // 10]
        control_errs = round((len(differ) + gain) / 2)
        row[differ[:control_errs]], row[differ[control_errs:]] = 100, -100
    found = crossed_effect([differences])
    ends = (found.interval.mean, found.interval.low, found.interval.high)
    assert ends[0] == pytest.approx(effect, abs=0.05)
    values = {"sd": found.sd, "image_variance": found.image_variance, "pairs": found.interval.n}
    return measured(effect, 1.0, **{**values, "low": ends[1], "high": ends[2]})


@pytest.mark.parametrize(
    ("effect", "seed_sd", "expected"),
    [
        (1.2, 0.3, "same direction"),
        (3.0, 0.3, "same direction"),
        (-1.0, 0.3, "opposite direction"),
        (0.1, 0.3, "not seen here"),
        (0.5, 2.0, "too noisy to say"),
    ],
)
def test_made_up_nets_earn_the_word_that_their_effect_deserves(effect: float, seed_sd: float, expected: str) -> None:
    assert word(synthetic(effect, seed_sd)) == expected


def rates(effect: float, half: float = 0.8, draws: int = 1500) -> Counter[str]:
    """Shares of the words where five pairs scatter around a true effect; the paper's size is one point."""
    rng = np.random.default_rng(2012)
    sd = half * math.sqrt(PAIRS) / float(stats.t.ppf(0.975, PAIRS - 1))
    words: Counter[str] = Counter()
    for pairs in rng.normal(effect, sd, (draws, PAIRS)):
        mean, spread = float(pairs.mean()), float(pairs.std(ddof=1))
        width = spread / math.sqrt(PAIRS) * float(stats.t.ppf(0.975, PAIRS - 1))
        words[word(measured(mean, width))] += 1
    return Counter({one: count / draws for one, count in words.items()})  # type: ignore[misc]


def test_the_words_err_no_more_often_than_they_say() -> None:
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
    nothing, half, full = rates(0.0), rates(0.5), rates(1.0)
    assert nothing["same direction"] + nothing["opposite direction"] < allowed
    assert nothing["not seen here"] > 0.5  # a clear null is called one
    assert full["not seen here"] < allowed
    assert full["opposite direction"] < 0.01
    assert full["same direction"] > 0.5
    assert half["opposite direction"] < 0.01


def test_more_images_are_asked_for_where_no_number_of_seeds_would_do() -> None:
    # half the paper's effect is 0.5 points; the images alone give a half-width of 1.96 times 0.6
    assert reason(measured(0.1, 1.5, image_variance=0.6**2)) == (
        "no number of seeds measures it to within ± 0.5 points with fewer than 5.5 times as many test images"
    )


def speed(mean: float, half: float, **changes: object) -> Evidence:
    return measured(math.log(mean), half, unit="ratio", paper=6.0, **changes)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (speed(8.0, 0.5, high=math.inf, censored=Censored(control=2)), "same direction"),
        (speed(2.0, 0.3, high=math.inf, censored=Censored(control=2)), "same direction"),  # may be as large as six
        (speed(1.1, 0.3, high=math.inf, censored=Censored(control=2)), "too noisy to say"),
        (speed(0.5, 0.3, high=math.inf, censored=Censored(control=2)), "too noisy to say"),  # a bound on the near side
        (speed(0.5, 0.3, low=0.0, censored=Censored(treatment=2)), "opposite direction"),
        (speed(8.0, 0.3, low=0.0, censored=Censored(treatment=2)), "too noisy to say"),
        (speed(1.1, 0.3, low=0.0, censored=Censored(treatment=2)), "not seen here"),
        (speed(8.0, 0.3, low=0.0, high=math.inf, censored=Censored(1, 1)), "too noisy to say"),
    ],
)
def test_an_interval_with_an_open_end_earns_its_word(evidence: Evidence, expected: str) -> None:
    assert word(evidence) == expected
    assert "smaller" not in reason(evidence)


def test_the_reason_counts_the_runs_that_did_not_get_there() -> None:
    late = speed(6.5, 0.2, high=math.inf, censored=Censored(control=2))
    assert reason(late) == "the control did not get there in 2 of 5 pairs, so the ratio is at least this"
    both = speed(1.5, 0.9, low=0.0, high=math.inf, censored=Censored(treatment=1, control=2, both=1))
    assert reason(both) == (
        "runs that end before they get there give no estimate of the seeds needed; "
        "the control did not get there in 2 of 6 pairs, the treatment did not get there in 1 of 6 pairs, "
        "neither got there in 1 of 6 pairs, so the ratio is bounded on neither side"
    )
