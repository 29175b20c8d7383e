"""The registry's claims and questions, each with what was measured and the word that earns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import pandas as pd

from pipeline.claims.effects import Interval, holm
from pipeline.claims.measures import Measured, Unequal, absolute, compare, unmeasured
from pipeline.claims.results import Results
from pipeline.claims.verdicts import Answers, Evidence, Verdict, judge, judge_exact, judge_question, undecidable_bound
from pipeline.paper.claims import EPOCH_MEASURES, RUN_MEASURES, Claim, Figures, Key, Question, Side, Step, registry
from pipeline.paper.net import full_size_table
from pipeline.paper.small_nets import SMALL_NETS_EPOCHS
from pipeline.params import DATASETS, Net, Recipe, Train

COLUMNS = [
    *("id", "section", "statement", "metric", "unit", "treatment", "control", "treatment_value", "control_value"),
    *("paper_effect", "effect", "low", "high", "seeds", "verdict", "reason"),
]
TOP5_CLASSES = 10  # with no more classes than these top-5 says nothing
NOTHING = Interval(0)
NOT_RUN = Verdict("not run at this scale")
SMALL = "small"  # claims about the authors' small nets


@dataclass(frozen=True)
class Row:
    """One (claim, metric) or (question, metric)."""

    id: str
    claim: Claim | Question
    key: Key
    metric: str
    unit: Literal["points", "ratio", "count", "percent"]
    figures: Figures
    treatment: str = ""
    control: str = ""
    treatment_value: float | None = None
    control_value: float | None = None
    effect: Interval = NOTHING
    left_out: int = 0
    evidence: tuple[Evidence, ...] = ()  # of each of its comparisons
    tested: Answers | None = None  # what they say together, adjusted
    verdict: Verdict = NOT_RUN

    @property
    def main(self) -> bool:
        return self.key != "top5"

    @property
    def computed(self) -> bool:
        """Whether the value follows from the layer table or the code, without a run."""
        return isinstance(self.claim, Claim) and self.claim.kind == "exact" and self.effect.mean is not None

    @property
    def compared(self) -> str:
        """The two sides as the effect is made of them."""
        return f"{self.control} {'/' if self.unit == 'ratio' else '−'} {self.treatment}"

    @property
    def family(self) -> Literal["primary", "main", "top5"]:
        """Which rows Holm's adjustment counts it with."""
        if not self.main:
            return "top5"
        return "primary" if isinstance(self.claim, Claim) and self.claim.primary else "main"


def claim_rows(results: Results, checks: Mapping[str, bool]) -> list[Row]:
    """The rows of the paper's claims."""
    rows = [_claim_row(results, claim, key, checks) for claim in registry().claims for key in claim.figures]
    return _all_judged(rows)


def question_rows(results: Results) -> list[Row]:
    """The rows of our own questions, and of each variant that nothing else compares."""
    variants, recipe = results.params.variants, "printed" if results.params.recipe == Recipe() else "mixed"
    asked = [q for q in registry().questions if {q.treatment.variant, q.control.variant} <= set(variants)]
    asked = [question for question in asked if question.recipe in (None, recipe)]
    questions = [*asked, *_other_variants(results)]
    return _all_judged([_question_row(results, question, key) for question in questions for key in question.keys])


def frame(rows: list[Row]) -> pd.DataFrame:
    """claims.csv. Numbers as short as they are exact to four decimals."""
    return pd.DataFrame(
        [
            {
                "id": row.id,
                "section": row.claim.section if isinstance(row.claim, Claim) else "",
                "statement": row.claim.statement,
                "metric": row.metric,
                "unit": row.unit,
                "treatment": row.treatment,
                "control": row.control,
                "treatment_value": _short(row.treatment_value),
                "control_value": _short(row.control_value),
                "paper_effect": _short(row.figures.effect),
                "effect": _short(row.effect.mean),
                "low": _short(row.effect.low),
                "high": _short(row.effect.high),
                "seeds": str(row.effect.n),
                "verdict": row.verdict.word,
                "reason": row.verdict.reason,
            }
            for row in rows
        ],
        columns=COLUMNS,
    )


def is_paper_experiment(results: Results, claim: Claim) -> bool:
    """Whether runs of this scale are the claim's own: its data as published, all of them, net, recipe and budget."""
    params = results.params
    data, train = params.data, params.train
    whole = data.train_images is None and data.test_images is None
    published = data.folder is None or data.dataset.startswith("imagenet")  # CIFAR-10 in a folder was encoded anew
    if claim.net == SMALL:
        as_published = claim.measure in EPOCH_MEASURES or train.epochs >= SMALL_NETS_EPOCHS
    else:
        free = {"patience_epochs": train.patience_epochs, "precision": train.precision}  # the paper gives no number
        exact = train.precision in ("32-true", "tf32")
        printed = (params.net, params.recipe, train) == (Net(), Recipe(), Train().model_copy(update=free))
        as_published = exact and printed
    return data.dataset in claim.data and whole and published and as_published


def is_beyond(results: Results, claim: Claim) -> bool:
    """Whether no run on images of somebody's own can test a claim that runs on published data may test.

    Such claims are about the errors on ILSVRC, about other nets, or without any result by whatever run.
    """
    elsewhere = claim.kind in ("absolute", "observation") or (claim.kind != "exact" and not _applies(results, claim))
    return results.params.data.dataset not in DATASETS and elsewhere


def _other_variants(results: Results) -> list[Question]:
    """A question for each variant that no claim and no question of the registry compares with the baseline."""
    compared = [(claim.treatment, claim.control) for claim in registry().claims if _applies(results, claim)]
    compared += [(step.treatment, step.control) for claim in registry().claims for step in claim.steps]
    compared += [(question.treatment, question.control) for question in registry().questions]
    names = {side.variant for sides in compared for side in sides if side} | {"baseline"}
    return [
        Question(
            id=name,
            title=variant.title,
            statement=f"{variant.description} Does that change the error?",
            treatment=Side(variant="baseline"),
            control=Side(variant=name),
        )
        for name, variant in results.params.variants.items()
        if name not in names
    ]


def _claim_row(results: Results, claim: Claim, key: Key, checks: Mapping[str, bool]) -> Row:
    row = Row(
        id=claim.row_id(key),
        claim=claim,
        key=key,
        metric=claim.metric(key),
        unit=claim.unit,
        figures=claim.figures[key],
        treatment=str(claim.treatment or ""),
        control=str(claim.control or ""),
    )
    if claim.cannot_run:
        return replace(row, verdict=Verdict("cannot be run", claim.cannot_run))
    if claim.not_run:
        return replace(row, verdict=Verdict(NOT_RUN.word, claim.not_run))
    if claim.kind == "exact":
        return _exact_row(row, claim, checks)
    if not _applies(results, claim):
        nets = "the whole net" if results.params.net.architecture == "alexnet" else "the authors' small nets"
        return replace(row, verdict=Verdict(NOT_RUN.word, f"this scale trains {nets}"))
    return _run_row(results, row, claim)


def _applies(results: Results, claim: Claim) -> bool:
    return (claim.net == SMALL) == (results.params.net.architecture != "alexnet")


def _exact_row(row: Row, claim: Claim, checks: Mapping[str, bool]) -> Row:
    measured = _exact_value(claim, checks)
    if measured is None or row.figures.effect is None:
        return replace(row, verdict=Verdict(NOT_RUN.word, f"the check {claim.id} was not made"))
    verdict = judge_exact(measured, row.figures.effect, claim.agreement)
    return replace(row, effect=Interval(0, measured), verdict=verdict)


def _exact_value(claim: Claim, checks: Mapping[str, bool]) -> float | None:
    layers = full_size_table()
    parameters = {str(layer["layer"]): int(layer["parameters"]) for layer in layers}
    neurons = {str(layer["layer"]): int(layer["neurons"]) for layer in layers}
    total = sum(parameters.values())
    match claim.measure:
        case "parameters":
            return total
        case "neurons":
            return sum(neurons.values())
        case "conv1_neurons":
            return neurons["conv1"]
        case "largest_conv_share":
            return max(100 * count / total for layer, count in parameters.items() if layer.startswith("conv"))
        case _:
            return None if claim.id not in checks else float(not checks[claim.id])


def _run_row(results: Results, row: Row, claim: Claim) -> Row:
    if claim.measure not in RUN_MEASURES:
        results.missing.append(f"{claim.id}: measure = {claim.measure!r}; accepted is one of {', '.join(RUN_MEASURES)}")
        return replace(row, verdict=Verdict(NOT_RUN.word, f"its measure {claim.measure} is unknown"))
    own = is_paper_experiment(results, claim)
    if claim.kind == "absolute":
        assert claim.treatment is not None
        if not own:
            needs = " or ".join(claim.data)
            reason = f"an error by itself needs {needs}, the full net, and the paper's recipe and budget"
            return replace(row, verdict=Verdict(NOT_RUN.word, reason))
        if missing := _missing(results, [claim.treatment]):
            return replace(row, verdict=Verdict(NOT_RUN.word, missing))
        return _measured(results, row, absolute(results, claim.treatment, row.key), own)
    steps = claim.steps or [Step(treatment=cast("Side", claim.treatment), control=cast("Side", claim.control))]
    if missing := _missing(results, [side for step in steps for side in (step.treatment, step.control)]):
        return replace(row, verdict=Verdict(NOT_RUN.word, missing))
    if reason := unmeasured(results, claim.id, steps[0].treatment):
        return replace(row, verdict=Verdict(NOT_RUN.word, reason))
    rows = [_compared(results, row, claim.measure, step, own) for step in steps]
    evidence = tuple(step for compared in rows for step in compared.evidence)
    if len(evidence) < len(rows):
        return next(compared for compared in rows if not compared.evidence)
    return replace(_weakest(rows), evidence=evidence)


def _weakest(rows: list[Row]) -> Row:
    """Return the comparison that speaks least for the claim, which is the one shown."""

    def strength(row: Row) -> float:
        (step,) = row.evidence
        mean, low, high = step.scaled(step.mean), step.low, step.high
        if low is None or high is None:  # one seed
            return mean
        half = (step.scaled(high) - step.scaled(low)) / 2
        return mean / half if half else math.copysign(math.inf, mean)

    return min(rows, key=strength) if len(rows) > 1 else rows[0]


def _question_row(results: Results, question: Question, key: Key) -> Row:
    row = Row(
        id=f"{question.id}_top5" if key == "top5" else question.id,
        claim=question,
        key=key,
        metric=question.metric(key),
        unit=question.unit,
        figures=Figures(),
        treatment=str(question.treatment),
        control=str(question.control),
    )
    if missing := _missing(results, [question.treatment, question.control]):
        return replace(row, verdict=Verdict(NOT_RUN.word, missing))
    return _compared(
        results, row, question.measure, Step(treatment=question.treatment, control=question.control), False
    )


def _compared(results: Results, row: Row, measure: str, step: Step, own: bool) -> Row:
    row = replace(row, treatment=str(step.treatment), control=str(step.control))
    limit = isinstance(row.claim, Claim) and row.claim.kind == "limit"
    try:
        measured = compare(results, measure, step.treatment, step.control, row.key, limit)
    except Unequal as problem:
        results.missing.append(f"{row.id}: {problem}")
        return replace(row, verdict=Verdict(_unjudged(row), str(problem)))
    return _measured(results, row, measured, own)


def _unjudged(row: Row) -> str:
    """Return the word of a comparison that gave no number."""
    return "too noisy to say" if isinstance(row.claim, Claim) else "no difference seen"


def _measured(results: Results, row: Row, measured: Measured, own: bool) -> Row:
    """The row with its numbers and the evidence for a verdict; without numbers where there can be none."""
    effect, interval = measured.effect, measured.effect.interval
    if row.key == "top5" and len(results.classes) <= TOP5_CLASSES:
        reason = f"top-5 of {len(results.classes) or 'unknown'} classes says nothing"
        return replace(row, verdict=Verdict(NOT_RUN.word, reason))
    if interval.mean is None:
        reason = f"no pair is complete, {effect.left_out} left out"
        if effect.censored.both:
            reason = f"neither run of a pair got there within its epochs, in {effect.censored.both} pairs"
        return replace(row, left_out=effect.left_out, verdict=Verdict(_unjudged(row), reason))
    kind = row.claim.kind if isinstance(row.claim, Claim) else "effect"
    evidence = Evidence(
        kind=cast("Literal['effect', 'absolute', 'limit']", kind),
        on_paper_data=own,
        unit=cast("Literal['points', 'ratio', 'percent']", row.unit),
        paper=row.figures.effect,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        sd=effect.sd,
        pairs=interval.n,
        image_variance=effect.image_variance,
        images=measured.images,
        censored=effect.censored,
        name=row.compared,
    )
    if reason := undecidable_bound(evidence):
        return replace(row, verdict=Verdict(NOT_RUN.word, reason))
    return replace(
        row,
        treatment_value=measured.arms[0],
        control_value=measured.arms[1] if len(measured.arms) > 1 else None,
        effect=interval,
        left_out=effect.left_out,
        evidence=(evidence,),
    )


def _all_judged(rows: list[Row]) -> list[Row]:
    """The rows with their verdicts. Holm's adjustment spans, for each of the two questions, each family by itself."""
    tested = {number: Answers.of(row.evidence) for number, row in enumerate(rows) if row.evidence}
    for family in {row.family for row in rows}:
        members = [number for number in tested if rows[number].family == family]
        none = holm([tested[number].p_no_effect for number in members])
        size = holm([tested[number].p_size for number in members])
        for number, p_no_effect, p_size in zip(members, none, size, strict=True):
            tested[number] = replace(tested[number], p_no_effect=p_no_effect, p_size=p_size)
    return [_judged(row, tested[number]) if number in tested else row for number, row in enumerate(rows)]


def _judged(row: Row, tested: Answers) -> Row:
    verdict = judge(tested) if isinstance(row.claim, Claim) else judge_question(tested)
    if row.left_out:
        count = f"{row.left_out} of {row.left_out + row.effect.n} pairs left out"
        verdict = Verdict(verdict.word, f"{verdict.reason}; {count}" if verdict.reason else count)
    return replace(row, tested=tested, verdict=verdict)


def _missing(results: Results, sides: list[Side]) -> str:
    """Why a comparison has no runs; empty where it has."""
    for side in sides:
        if side.variant not in results.params.variants:
            return f"variant {side.variant} is not run at this scale"
    for side in sides:
        if side.views == "ten_crop" and side.variant not in results.params.evaluate.ten_crop:
            return f"{side.variant} is not evaluated on ten crops at this scale"
        if side.of and side.variant not in results.params.evaluate.analyses:
            return f"{side.variant} is not analyzed at this scale"
        if not results.has(side.variant):
            return f"variant {side.variant} has no results (see Missing results)"
    return ""


def _short(value: float | None) -> str:
    if value is None:
        return ""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
