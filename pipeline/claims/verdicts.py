"""The word that the evidence earns. No other words stand in the report's verdict columns.

Two questions are asked of every comparison. Is no effect excluded (two-sided)? Is an effect of the paper's size or
larger excluded (one-sided, on the paper's side)? Their null hypotheses cannot both be true, so they need no correction
for each other; table.py adjusts each for the number of claims.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.claims.effects import ALL_ARRIVED, Censored
from pipeline.claims.margins import p_less, p_value
from pipeline.claims.power import images_factor, pairs_needed
from pipeline.paper.claims import Agreement

CLAIM_WORDS = (
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
QUESTION_WORDS = ("differs", "no difference seen")
ARTICLE_WORDS = ("right", "imprecise", "wrong", "outdated")

ALPHA = 0.05  # of a Holm-adjusted p
DEFAULT_POINTS, DEFAULT_FACTOR = 1.0, 1.25  # the size to look for where the paper gives none
STATED_DIGITS = 2  # of the paper's round numbers: 60 million, 650,000


@dataclass(frozen=True)
class Verdict:
    word: str
    reason: str = ""

    def __post_init__(self) -> None:
        if self.word not in (*CLAIM_WORDS, *QUESTION_WORDS, *ARTICLE_WORDS):
            raise ValueError(
                f"{self.word!r} is no verdict: accepted is one of {CLAIM_WORDS + QUESTION_WORDS + ARTICLE_WORDS}"
            )


@dataclass(frozen=True)
class Evidence:
    """One comparison's measured effect, or its measured value where `kind` is absolute or limit."""

    kind: Literal["effect", "absolute", "limit"]
    on_paper_data: bool  # the paper's own data, net, recipe and budget
    unit: Literal["points", "ratio", "percent"]
    paper: float | None
    mean: float
    low: float | None  # None: one pair, no interval. A ratio's is 0, or `high` infinite, where runs were censored
    high: float | None
    sd: float | None  # of the differences; of their logarithms where the unit is ratio
    pairs: int
    image_variance: float = 0.0  # of the mean, from the choice of images
    images: str = "test images"  # which these are
    censored: Censored = ALL_ARRIVED
    name: str = ""  # of the comparison, where a claim makes several

    @property
    def size(self) -> float:
        """The signed effect to look for, on the scale of the differences: points, or the logarithm of a ratio."""
        if self.paper is None:
            return math.log(DEFAULT_FACTOR) if self.unit == "ratio" else DEFAULT_POINTS
        return self.scaled(self.paper)

    @property
    def nothing(self) -> str:
        """What no effect is called."""
        return "one" if self.unit == "ratio" else "zero"

    @property
    def on_paper_side(self) -> bool:
        return self.scaled(self.mean) * self.size > 0

    @property
    def p_no_effect(self) -> float | None:
        """Two-sided p of no effect; for a bound, of a difference within it. None without an interval.

        Runs that never got to what is counted bound the effect on one side only: where the other side matters, p is 1.
        """
        if self.sd is None or self.kind == "absolute":
            return None
        mean = self.scaled(self.mean)
        if self.kind == "limit":
            beyond = abs(mean) - self.size
            return p_value(beyond, self.pairs, self.sd, self.image_variance) if beyond > 0 else 1.0
        if (self.censored.control and mean <= 0) or (self.censored.treatment and mean >= 0):
            return 1.0
        return p_value(mean, self.pairs, self.sd, self.image_variance)

    @property
    def p_size(self) -> float | None:
        """One-sided p of an effect of the size or larger, on the paper's side; for a bound, of one beyond it."""
        if self.sd is None or self.kind == "absolute":
            return None
        size, mean = self.size, self.scaled(self.mean)
        if self.kind == "limit":  # two one-sided tests; the nearer end of the bound decides
            return p_less(abs(mean) - size, self.pairs, self.sd, self.image_variance)
        if self.censored.control if size > 0 else self.censored.treatment:
            return 1.0
        return p_less(self.toward_paper(mean) - abs(size), self.pairs, self.sd, self.image_variance)

    def scaled(self, value: float) -> float:
        """Distance from no effect, on the scale of the differences."""
        if self.unit != "ratio":
            return value
        return math.log(value) if value > 0 else -math.inf

    def toward_paper(self, scaled: float) -> float:
        """A difference, positive on the paper's side."""
        return math.copysign(1, self.size) * scaled

    @property
    def size_text(self) -> str:
        """The size as the reader knows it."""
        if self.unit == "ratio":
            return f"a factor of {math.exp(self.size):.3g}"
        points = abs(self.size)
        return f"{points:.2g} point{'' if points == 1 else 's'}"


@dataclass(frozen=True)
class Answers:
    """What a claim's comparisons say together: their p of each question, before or after Holm's adjustment."""

    steps: tuple[Evidence, ...]
    p_no_effect: float | None
    p_size: float | None

    @classmethod
    def of(cls, steps: Sequence[Evidence]) -> "Answers":
        """A claim that makes several comparisons holds if each does, so the greatest p counts; that one of them goes
        the other way is asked of each, so the least p counts, times their number."""
        none, sizes = [step.p_no_effect for step in steps], [step.p_size for step in steps]
        if None in none or None in sizes:
            return cls(tuple(steps), None, None)
        if len(steps) == 1 or all(step.on_paper_side for step in steps):
            p_no_effect = max(p for p in none if p is not None)
        else:
            against = [p for step, p in zip(steps, none, strict=True) if p is not None and not step.on_paper_side]
            p_no_effect = min(1.0, len(steps) * min(against))
        return cls(tuple(steps), p_no_effect, max(p for p in sizes if p is not None))

    @property
    def excludes_no_effect(self) -> bool:
        return self.p_no_effect is not None and self.p_no_effect < ALPHA

    @property
    def excludes_size(self) -> bool:
        return self.p_size is not None and self.p_size < ALPHA

    @property
    def marked(self) -> bool:
        """The printed interval, which is unadjusted, excludes no effect, and the adjusted p does not."""
        p = self.steps[0].p_no_effect
        return len(self.steps) == 1 and p is not None and p < ALPHA and not self.excludes_no_effect


def judge(tested: Answers) -> Verdict:
    """Return the verdict on a claim of the paper."""
    first, *others = tested.steps
    own = first.on_paper_data
    if first.kind == "absolute" and first.low is not None and first.high is not None:
        assert first.paper is not None
        return Verdict("reproduced" if first.low <= first.paper <= first.high else "contradicted")
    if first.kind == "absolute" or tested.p_no_effect is None:
        fewest = min(step.pairs for step in tested.steps)
        return Verdict("too noisy to say", f"{'1 seed' if fewest == 1 else f'{fewest} seeds'}: no interval")
    if first.kind == "limit":
        word = ("contradicted" if own else "opposite direction") if tested.excludes_no_effect else "too noisy to say"
        if tested.excludes_size:
            word = "reproduced" if own else "same direction"
        return Verdict(word, "" if word != "too noisy to say" else _too_noisy(tested))
    if tested.excludes_no_effect:
        if all(step.on_paper_side for step in tested.steps):
            smaller = tested.excludes_size and first.paper is not None
            word = "same direction"
            if own:
                word = "reproduced in direction, not in size" if smaller else "reproduced"
            beside = size_beside_papers(tested)
            verdict = Verdict(word, f"{beside} than the paper's" if beside else "")
        else:
            verdict = Verdict("contradicted" if own else "opposite direction")
    elif tested.excludes_size:
        looked_for = " the paper's size" if first.paper is not None else ""
        about = f"of{looked_for}, {first.size_text}," if looked_for else f"of {first.size_text}"
        verdict = Verdict(
            "contradicted" if own else "not seen here", f"an effect {about} or more is excluded, {first.nothing} is not"
        )
    else:
        verdict = Verdict("too noisy to say", _too_noisy(tested))
    reasons = [verdict.reason, *([_listed(tested)] if others else []), _bounds(first)]
    return Verdict(verdict.word, "; ".join(filter(None, reasons)))


def judge_question(tested: Answers) -> Verdict:
    """Return the verdict on a question of ours."""
    (evidence,) = tested.steps
    if evidence.low is None:
        return Verdict("no difference seen", f"{evidence.pairs} seed: no interval")
    word = "differs" if tested.excludes_no_effect else "no difference seen"
    reason = "" if tested.excludes_no_effect else _dagger(tested)
    return Verdict(word, "; ".join(filter(None, [reason, _bounds(evidence)])))


def judge_exact(measured: float, paper: float, agreement: Agreement) -> Verdict:
    """Return the verdict on what is computed rather than trained.

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


def undecidable_bound(evidence: Evidence) -> str:
    """Return why no number of seeds could decide a bound with these images; empty where some could."""
    if evidence.kind != "limit" or not (factor := images_factor(evidence.size, evidence.image_variance)) >= 1:
        return ""
    return (
        f"with so few images a bound of {evidence.paper:g} points cannot be decided; about {_times(factor)} times as "
        f"many {evidence.images} could (estimate)"
    )


def size_beside_papers(tested: Answers) -> str:
    """Return whether an effect on the paper's side is smaller or larger than the paper's; empty where none is sure."""
    (first, *others) = tested.steps
    if first.paper is None or others:
        return ""
    if tested.excludes_size:
        return "smaller"
    assert first.low is not None
    assert first.high is not None
    least = min(first.toward_paper(first.scaled(end)) for end in (first.low, first.high))
    return "larger" if least > abs(first.size) else ""


def _too_noisy(tested: Answers) -> str:
    """How many seeds an interval half as wide as the size would take, or images where no number of seeds will do."""
    evidence = max(tested.steps, key=lambda step: step.p_size or 0.0)
    half = abs(evidence.size) / 2
    if evidence.censored.control or evidence.censored.treatment:
        return "runs that end before they get there give no estimate of the seeds needed"
    assert evidence.sd is not None
    narrow = f"to within ± {half:.2g} points"
    if evidence.unit == "ratio":
        narrow = f"to within a factor of {math.exp(half):.3g} either way"
    needed = pairs_needed(evidence.sd, half, evidence.image_variance)
    if needed is None:
        factor = images_factor(half, evidence.image_variance)
        reason = (
            f"no number of seeds measures it {narrow} with fewer than {_times(factor)} times as many {evidence.images}"
        )
    else:
        reason = f"about {needed:,} seeds would measure it {narrow} (estimate)"
    return "; ".join(filter(None, [reason, _dagger(tested)]))


def _dagger(tested: Answers) -> str:
    if not tested.marked:
        return ""
    return f"† the interval excludes {tested.steps[0].nothing}, the Holm-adjusted p ({tested.p_no_effect:.2f}) does not"


def _listed(tested: Answers) -> str:
    """Each comparison of a claim that makes several."""
    return "; ".join(
        f"{step.name} {step.mean:+.2f} [{step.low:.2f}, {step.high:.2f}]"
        for step in tested.steps
        if step.low is not None and step.high is not None
    )


def _bounds(evidence: Evidence) -> str:
    """What the runs that ended too early leave open."""
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
    return ", ".join(told)


def _times(factor: float) -> str:
    return f"{factor:.1f}" if factor < 10 else f"{factor:,.0f}"
