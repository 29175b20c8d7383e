"""The word that the evidence earns. No other words stand in the report's verdict columns."""

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.claims.effects import ALL_ARRIVED, Censored
from pipeline.claims.power import images_factor, pairs_needed
from pipeline.paper.claims import Agreement

CLAIM_WORDS = (
    "reproduced",
    "reproduced in direction, not in size",
    "contradicted",
    "same direction",
    "opposite direction",
    "inconclusive",
    "not run at this scale",
    "cannot be run",
)
QUESTION_WORDS = ("differs", "no difference seen")
ARTICLE_WORDS = ("right", "imprecise", "wrong", "outdated")
NO_WORD = ""  # shown, and not judged

ALPHA = 0.05  # of the Holm-adjusted p
DEFAULT_SIZE = 1.0  # points; the size to look for where the paper gives none
STATED_DIGITS = 2  # of the paper's round numbers: 60 million, 650,000


@dataclass(frozen=True)
class Verdict:
    word: str
    reason: str = ""

    def __post_init__(self) -> None:
        if self.word not in (*CLAIM_WORDS, *QUESTION_WORDS, *ARTICLE_WORDS, NO_WORD):
            raise ValueError(
                f"{self.word!r} is no verdict: accepted is one of {CLAIM_WORDS + QUESTION_WORDS + ARTICLE_WORDS}"
            )


@dataclass(frozen=True)
class Evidence:
    """One row's measured effect, or its measured value where `kind` is absolute or limit."""

    kind: Literal["effect", "absolute", "limit"]
    on_paper_data: bool  # the claim's own data set and net
    unit: Literal["points", "ratio", "percent"]
    paper: float | None
    mean: float
    low: float | None  # None: one pair, no interval. A ratio's is 0, or `high` infinite, where runs were censored
    high: float | None
    sd: float | None  # of the differences; of their logarithms where the unit is ratio
    p: float | None
    p_adjusted: float | None
    pairs: int
    image_variance: float = 0.0  # of the mean, from the choice of images
    images: str = "test images"  # which these are
    censored: Censored = ALL_ARRIVED

    @property
    def excludes_no_effect(self) -> bool:
        return self.p_adjusted is not None and self.p_adjusted < ALPHA

    @property
    def marked(self) -> bool:
        """The printed interval, which is unadjusted, excludes no effect, and the adjusted p does not."""
        return self.p is not None and self.p < ALPHA and not self.excludes_no_effect


def judge(evidence: Evidence) -> Verdict:
    """The verdict on a claim of the paper."""
    return _with_bounds(_judge(evidence), evidence)


def judge_question(evidence: Evidence) -> Verdict:
    """The verdict on a question of ours."""
    if evidence.low is None:
        return Verdict("no difference seen", f"{_seeds(evidence.pairs)}: no interval")
    if evidence.excludes_no_effect:
        return _with_bounds(Verdict("differs"), evidence)
    return _with_bounds(Verdict("no difference seen", _inconclusive(evidence).reason), evidence)


def judge_exact(measured: float, paper: float, agreement: Agreement) -> Verdict:
    """The verdict on what is computed rather than trained.

    leading_digits: the paper's figure is the measured one with all digits but the first two cut off.
    """
    if agreement == "leading_digits":
        unit = 10 ** (math.floor(math.log10(measured)) + 1 - STATED_DIGITS)
        agrees = math.floor(measured / unit) * unit == paper
        reason = f"the paper's figure is {measured:,.0f} with all digits but the first two cut off" if agrees else ""
    elif agreement == "at_most":
        agrees, reason = measured <= paper, ""
    else:
        agrees, reason = measured == paper, ""
    return Verdict("reproduced" if agrees else "contradicted", reason)


def _judge(evidence: Evidence) -> Verdict:
    if evidence.low is None or evidence.high is None:
        return Verdict("inconclusive", f"{_seeds(evidence.pairs)}: no interval")
    if evidence.kind == "absolute":
        return Verdict("reproduced" if _includes_paper(evidence) else "contradicted")
    if evidence.on_paper_data:
        return _on_paper_data(evidence)
    if not evidence.excludes_no_effect:
        return _inconclusive(evidence)
    return Verdict("same direction" if _on_paper_side(evidence) else "opposite direction")


def _on_paper_data(evidence: Evidence) -> Verdict:
    if evidence.excludes_no_effect and not _on_paper_side(evidence):
        return Verdict("contradicted")
    if evidence.excludes_no_effect:
        as_large = evidence.kind == "limit" or evidence.paper is None or _includes_paper(evidence)
        return Verdict("reproduced" if as_large else "reproduced in direction, not in size")
    if (
        evidence.kind == "effect"
        and evidence.paper is not None
        and not _includes_paper(evidence)
        and _is_narrow(evidence)
    ):
        return Verdict("contradicted", "no effect is not excluded, and the paper's figure is")
    return _inconclusive(evidence)


def _inconclusive(evidence: Evidence) -> Verdict:
    assert evidence.sd is not None
    nothing = "the paper's bound" if evidence.kind == "limit" else "no effect"
    size = _size(evidence) / 2
    needed = pairs_needed(evidence.sd, size, evidence.image_variance)
    if evidence.censored.control or evidence.censored.treatment:
        reason = "how many seeds would settle it cannot be told from runs that end too early"
    elif needed is None:
        factor = images_factor(size, evidence.image_variance)
        times = f"{factor:.1f}" if factor < 10 else f"{factor:,.0f}"
        reason = f"no number of seeds would settle it with fewer than {times} times as many {evidence.images}"
    elif needed <= evidence.pairs:
        reason = f"the half-width is below half the size looked for, and {nothing} is not excluded"
    else:
        reason = f"{needed:,} seeds would settle it"
    if evidence.marked:
        reason += f"; † the interval excludes {nothing}, the Holm-adjusted p ({evidence.p_adjusted:.2f}) does not"
    return Verdict("inconclusive", reason)


def _with_bounds(verdict: Verdict, evidence: Evidence) -> Verdict:
    """The verdict with what the runs that ended too early leave open."""
    late, of = evidence.censored, f"of {evidence.pairs + evidence.censored.both} pairs"
    told = [
        f"{who} in {count} {of}"
        for who, count in (
            ("the control did not get there", late.control),
            ("the treatment did not get there", late.treatment),
            ("neither got there", late.both),
        )
        if count
    ]
    if late.control and late.treatment:
        told.append("so the ratio is bounded on neither side")
    elif late.control or late.treatment:
        told.append(f"so the ratio is at {'least' if late.control else 'most'} this")
    return Verdict(verdict.word, "; ".join(filter(None, [verdict.reason, ", ".join(told)])))


def _size(evidence: Evidence) -> float:
    """The effect to look for, on the scale of the differences."""
    if evidence.paper is None:
        return math.log(2) if evidence.unit == "ratio" else DEFAULT_SIZE
    return abs(_scaled(evidence, evidence.paper))


def _scaled(evidence: Evidence, value: float) -> float:
    """Distance from no effect, on the scale of the differences."""
    if evidence.unit != "ratio":
        return value
    return math.log(value) if value > 0 else -math.inf


def _on_paper_side(evidence: Evidence) -> bool:
    if evidence.kind == "limit":
        return evidence.paper is not None and abs(evidence.mean) < evidence.paper
    side = 1.0 if evidence.paper is None else _scaled(evidence, evidence.paper)
    return _scaled(evidence, evidence.mean) * side > 0


def _includes_paper(evidence: Evidence) -> bool:
    assert evidence.low is not None
    assert evidence.high is not None
    assert evidence.paper is not None
    return evidence.low <= evidence.paper <= evidence.high


def _is_narrow(evidence: Evidence) -> bool:
    assert evidence.low is not None
    assert evidence.high is not None
    return _scaled(evidence, evidence.high) - _scaled(evidence, evidence.low) < _size(evidence)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
