import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.claims.crossed import crossed_effect
from pipeline.claims.effects import Censored
from pipeline.claims.verdicts import (
    ARTICLE_WORDS,
    CLAIM_WORDS,
    QUESTION_WORDS,
    Evidence,
    Verdict,
    judge,
    judge_exact,
    judge_question,
)

OWN = Evidence(
    kind="effect",
    on_paper_data=True,
    unit="points",
    paper=0.4,
    mean=0.5,
    low=0.3,
    high=0.7,
    sd=0.2,
    p=0.001,
    p_adjusted=0.01,
    pairs=5,
)
PROXY = replace(OWN, on_paper_data=False)
UNSURE = {"mean": 0.1, "low": -0.5, "high": 0.7, "p": 0.6, "p_adjusted": 1.0}


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        (OWN, "reproduced"),
        (replace(OWN, paper=None), "reproduced"),
        (replace(OWN, paper=1.4), "reproduced in direction, not in size"),
        (replace(OWN, mean=-0.5, low=-0.7, high=-0.3), "contradicted"),
        (replace(OWN, mean=-0.5, low=-0.7, high=-0.3, paper=None), "contradicted"),
        # includes no effect, excludes the paper's 0.4, and is narrower than 0.4
        (replace(OWN, mean=0.05, low=-0.05, high=0.15, p=0.2, p_adjusted=0.2), "contradicted"),
        # includes no effect and excludes the paper's 0.4, but is wider than 0.4
        (replace(OWN, mean=-0.3, low=-0.8, high=0.2, p=0.2, p_adjusted=0.2), "inconclusive"),
        (replace(OWN, **UNSURE), "inconclusive"),
        (PROXY, "same direction"),
        (replace(PROXY, paper=1.4), "same direction"),
        (replace(PROXY, mean=-0.5, low=-0.7, high=-0.3), "opposite direction"),
        (replace(PROXY, **UNSURE), "inconclusive"),
        (replace(PROXY, mean=0.05, low=-0.05, high=0.15, p=0.2, p_adjusted=0.2), "inconclusive"),
        (replace(PROXY, p_adjusted=0.06), "inconclusive"),
        (replace(PROXY, low=None, high=None, p=None, p_adjusted=None, pairs=1), "inconclusive"),
    ],
)
def test_an_effect_in_points_earns_its_word(evidence: Evidence, word: str) -> None:
    assert judge(evidence).word == word


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mean": 5.0, "low": 4.0, "high": 6.5}, "reproduced"),
        ({"mean": 2.0, "low": 1.5, "high": 2.7}, "reproduced in direction, not in size"),
        ({"mean": 0.5, "low": 0.4, "high": 0.6}, "contradicted"),
        ({"mean": 1.1, "low": 0.8, "high": 1.5, "p_adjusted": 0.5}, "contradicted"),  # 1.9-fold wide, the paper has 6
        ({"mean": 2.0, "low": 0.7, "high": 5.9, "p_adjusted": 0.5}, "inconclusive"),  # 8-fold wide
    ],
)
def test_no_effect_is_one_for_a_ratio(changes: dict[str, float], word: str) -> None:
    assert judge(replace(OWN, unit="ratio", paper=6.0, **changes)).word == word


def test_a_ratio_below_one_is_on_the_side_of_a_paper_that_has_it_there() -> None:
    assert judge(replace(PROXY, unit="ratio", paper=0.5, mean=0.6, low=0.5, high=0.7)).word == "same direction"


@pytest.mark.parametrize(
    ("low", "high", "word"), [(37.0, 38.0, "reproduced"), (38.0, 39.0, "contradicted"), (None, None, "inconclusive")]
)
def test_an_absolute_error_is_judged_by_whether_its_interval_includes_the_papers(
    low: float | None, high: float | None, word: str
) -> None:
    evidence = replace(
        OWN, kind="absolute", unit="percent", paper=37.5, mean=38.0, low=low, high=high, p=None, p_adjusted=None
    )
    assert judge(evidence).word == word


@pytest.mark.parametrize(
    ("own", "mean", "p_adjusted", "word"),
    [
        (True, 0.02, 0.01, "reproduced"),
        (True, -0.5, 0.01, "contradicted"),
        (False, -0.02, 0.01, "same direction"),
        (False, 0.5, 0.01, "opposite direction"),
        (False, 0.5, 0.2, "inconclusive"),
    ],
)
def test_a_limit_is_kept_or_exceeded_on_either_side(own: bool, mean: float, p_adjusted: float, word: str) -> None:
    evidence = replace(OWN, kind="limit", on_paper_data=own, unit="percent", paper=0.1, mean=mean, low=mean - 0.05)
    assert judge(replace(evidence, high=mean + 0.05, p=0.001, p_adjusted=p_adjusted)).word == word


@pytest.mark.parametrize(
    ("measured", "paper", "agreement", "word"),
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
    measured: float, paper: float, agreement: str, word: str
) -> None:
    assert judge_exact(measured, paper, agreement).word == word  # type: ignore[arg-type]


def test_a_question_of_ours_is_answered_in_its_own_words() -> None:
    question = replace(PROXY, paper=None)
    assert judge_question(question).word == "differs"
    assert judge_question(replace(question, mean=-0.5, low=-0.7, high=-0.3)).word == "differs"
    assert judge_question(replace(question, **UNSURE)).word == "no difference seen"
    assert judge_question(replace(question, low=None, high=None, p=None, p_adjusted=None)).word == "no difference seen"


def test_inconclusive_names_the_seeds_that_would_settle_it() -> None:
    # sd 1 and a paper's effect of 1: the first n with t(0.975, n - 1) / sqrt(n) < 0.5 is 18
    evidence = replace(PROXY, **UNSURE, paper=1.0, sd=1.0)  # type: ignore[arg-type]
    assert judge(evidence).reason == "18 seeds would settle it"
    assert judge(replace(evidence, paper=None)).reason == "18 seeds would settle it"  # 0.5 points where it gives none


def test_an_interval_that_the_adjustment_overrules_is_marked() -> None:
    evidence = replace(PROXY, p=0.02, p_adjusted=0.08)
    assert evidence.marked
    assert "†" in judge(evidence).reason
    assert not replace(PROXY, p=0.02, p_adjusted=0.04).marked
    assert not replace(PROXY, p=0.3, p_adjusted=1.0).marked


def test_the_words_are_those_agreed() -> None:
    assert CLAIM_WORDS == (
        "reproduced",
        "reproduced in direction, not in size",
        "contradicted",
        "same direction",
        "opposite direction",
        "inconclusive",
        "not run at this scale",
        "cannot be run",
    )
    assert QUESTION_WORDS == ("differs", "no difference seen")
    assert ARTICLE_WORDS == ("right", "imprecise", "wrong", "outdated")


@pytest.mark.parametrize("word", [*CLAIM_WORDS, *QUESTION_WORDS, *ARTICLE_WORDS])
def test_a_verdict_is_one_of_the_words(word: str) -> None:
    assert Verdict(word).word == word


def test_no_other_word_is_a_verdict() -> None:
    with pytest.raises(ValueError, match="'refuted' is no verdict: accepted is one of"):
        Verdict("refuted")


def synthetic(effect: float, seed_sd: float, *, own: bool, paper: float | None = 1.0) -> Evidence:
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
    assert found.interval.mean == pytest.approx(effect, abs=0.05)
    return Evidence(
        kind="effect",
        on_paper_data=own,
        unit="points",
        paper=paper,
        mean=effect,
        low=found.interval.low,
        high=found.interval.high,
        sd=found.sd,
        p=found.p,
        p_adjusted=found.p,
        pairs=found.interval.n,
        image_variance=found.image_variance,
    )


@pytest.mark.parametrize(
    ("effect", "seed_sd", "own", "word"),
    [
        (1.2, 0.3, True, "reproduced"),
        (3.0, 0.3, True, "reproduced in direction, not in size"),
        (-1.0, 0.3, True, "contradicted"),
        (0.1, 0.3, True, "contradicted"),  # none is not excluded, one point is
        (0.5, 2.0, True, "inconclusive"),
        (3.0, 0.3, False, "same direction"),
        (-1.0, 0.3, False, "opposite direction"),
        (0.1, 0.3, False, "inconclusive"),
    ],
)
def test_made_up_nets_earn_the_word_that_their_effect_deserves(
    effect: float, seed_sd: float, own: bool, word: str
) -> None:
    assert judge(synthetic(effect, seed_sd, own=own)).word == word


@pytest.mark.parametrize(("effect", "word"), [(1.5, "differs"), (-1.5, "differs"), (0.1, "no difference seen")])
def test_made_up_nets_answer_a_question_of_ours(effect: float, word: str) -> None:
    assert judge_question(synthetic(effect, 0.3, own=False, paper=None)).word == word


def test_inconclusive_asks_for_more_images_where_no_number_of_seeds_would_do() -> None:
    # half the paper's effect is 0.2 points; the images alone give a half-width of 1.96 times 0.3
    evidence = replace(PROXY, **UNSURE, image_variance=0.3**2)  # type: ignore[arg-type]
    assert judge(evidence).reason == (
        "no number of seeds would settle it with fewer than 8.6 times as many test images"  # (1.96 · 0.3 / 0.2)²
    )


SPEED = replace(OWN, unit="ratio", paper=6.0, mean=8.0, low=5.0, high=math.inf, censored=Censored(control=2))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "reproduced"),
        ({"low": 6.5}, "reproduced in direction, not in size"),
        ({"low": 0.7, "p": 0.3, "p_adjusted": 0.3}, "inconclusive"),
        ({"on_paper_data": False}, "same direction"),
        ({"mean": 0.5, "low": 0.0, "high": 0.8, "censored": Censored(treatment=2)}, "contradicted"),
        ({"low": 0.0, "p": 1.0, "p_adjusted": 1.0, "censored": Censored(1, 1)}, "inconclusive"),
    ],
)
def test_an_interval_with_an_open_end_earns_its_word(changes: dict[str, object], word: str) -> None:
    assert judge(replace(SPEED, **changes)).word == word  # type: ignore[arg-type]


def test_the_reason_counts_the_runs_that_did_not_get_there() -> None:
    assert judge(SPEED).reason == "the control did not get there in 2 of 5 pairs, so the ratio is at least this"
    late = replace(SPEED, low=0.0, p=1.0, p_adjusted=1.0, censored=Censored(treatment=1, control=2, both=1))
    assert judge(late).reason == (
        "how many seeds would settle it cannot be told from runs that end too early; "
        "the control did not get there in 2 of 6 pairs, the treatment did not get there in 1 of 6 pairs, "
        "neither got there in 1 of 6 pairs, so the ratio is bounded on neither side"
    )
