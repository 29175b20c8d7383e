"""The registry's claims and questions, each with what was measured and the word that earns."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import pandas as pd

from pipeline.claims.effects import Interval, holm
from pipeline.claims.measures import Measured, Unequal, absolute, compare, unmeasured
from pipeline.claims.results import Results
from pipeline.claims.verdicts import NO_WORD, Evidence, Verdict, judge, judge_exact, judge_question
from pipeline.paper.claims import EPOCH_MEASURES, RUN_MEASURES, Claim, Figures, Key, Question, Side, Step, registry
from pipeline.paper.net import full_size_table
from pipeline.paper.small_nets import SMALL_NETS_EPOCHS
from pipeline.params import Net, Recipe, Train

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
    evidence: Evidence | None = None
    verdict: Verdict = NOT_RUN

    @property
    def main(self) -> bool:
        return self.key != "top5"


def claim_rows(results: Results, checks: Mapping[str, bool]) -> list[Row]:
    """The rows of the paper's claims. Holm's adjustment spans those that have a verdict."""
    rows = [_claim_row(results, claim, key, checks) for claim in registry().claims for key in claim.figures]
    return _all_judged(rows)


def question_rows(results: Results) -> list[Row]:
    """The rows of our own questions, and of each variant that nothing else compares. Holm's adjustment spans these."""
    variants = results.params.variants
    asked = [q for q in registry().questions if {q.treatment.variant, q.control.variant} <= set(variants)]
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


def _other_variants(results: Results) -> list[Question]:
    """A question for each variant that no claim and no question of the registry compares with the baseline."""
    compared = [(claim.treatment, claim.control) for claim in registry().claims if _applies(results, claim)]
    compared += [(step.treatment, step.control) for claim in registry().claims for step in claim.steps]
    compared += [(question.treatment, question.control) for question in registry().questions]
    names = {side.variant for sides in compared for side in sides if side} | {"baseline"}
    return [
        Question(
            id=name,
            statement=f"{variant.description} Does that change the error?",
            treatment=Side(variant="baseline"),
            control=Side(variant=name),
        )
        for name, variant in results.params.variants.items()
        if name not in names
    ]


def _all_judged(rows: list[Row]) -> list[Row]:
    adjusted = holm([row.evidence.p if row.evidence else None for row in rows])
    return [_judged(row, p) for row, p in zip(rows, adjusted, strict=True)]


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
    limit = (row.figures.effect or 0.0) if claim.kind == "limit" else None
    return _weakest([_compared(results, row, claim.measure, step, limit, own) for step in steps])


def _weakest(rows: list[Row]) -> Row:
    """What holds only if all steps do is as sure as the least sure of them (an intersection-union test)."""

    def strength(row: Row) -> float:
        mean, half = row.effect.mean, row.effect.half_width
        if mean is None or half is None:
            return float("-inf")
        return mean / half if half else mean * float("inf")

    return min(rows, key=strength)


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
    step = Step(treatment=question.treatment, control=question.control)
    return _compared(results, row, question.measure, step, None, False)


def _compared(results: Results, row: Row, measure: str, step: Step, limit: float | None, own: bool) -> Row:
    row = replace(row, treatment=str(step.treatment), control=str(step.control))
    try:
        measured = compare(results, measure, step.treatment, step.control, row.key, limit)
    except Unequal as problem:
        results.missing.append(f"{row.id}: {problem}")
        return replace(row, verdict=Verdict("inconclusive" if isinstance(row.claim, Claim) else NO_WORD, str(problem)))
    return _measured(results, row, measured, own)


def _measured(results: Results, row: Row, measured: Measured, own: bool) -> Row:
    """The row with its numbers and, where it may have a verdict, the evidence for it."""
    effect = measured.effect
    row = replace(
        row,
        treatment_value=measured.arms[0],
        control_value=measured.arms[1] if len(measured.arms) > 1 else None,
        effect=effect.interval,
        left_out=effect.left_out,
    )
    claim = row.claim
    if effect.interval.mean is None:
        word = "inconclusive" if isinstance(claim, Claim) else "no difference seen"
        return replace(row, verdict=Verdict(word, f"no pair is complete, {effect.left_out} left out"))
    if row.key == "top5" and len(results.classes) <= TOP5_CLASSES:
        reason = f"top-5 of {len(results.classes) or 'unknown'} classes carries no verdict"
        return replace(row, verdict=Verdict(NO_WORD, reason))
    kind = claim.kind if isinstance(claim, Claim) else "effect"
    return replace(
        row,
        evidence=Evidence(
            kind=cast("Literal['effect', 'absolute', 'limit']", kind),
            on_paper_data=own,
            unit=cast("Literal['points', 'ratio', 'percent']", row.unit),
            paper=row.figures.effect,
            mean=effect.interval.mean,
            low=effect.interval.low,
            high=effect.interval.high,
            sd=effect.sd,
            p=None if kind == "absolute" else effect.p,
            p_adjusted=None,
            pairs=effect.interval.n,
            image_variance=effect.image_variance,
            images=measured.images,
            censored=effect.censored,
        ),
    )


def _judged(row: Row, p_adjusted: float | None) -> Row:
    if row.evidence is None:
        return row
    evidence = replace(row.evidence, p_adjusted=p_adjusted)
    verdict = judge(evidence) if isinstance(row.claim, Claim) else judge_question(evidence)
    if row.left_out:
        count = f"{row.left_out} of {row.left_out + row.effect.n} pairs left out"
        verdict = Verdict(verdict.word, f"{verdict.reason}; {count}" if verdict.reason else count)
    return replace(row, evidence=evidence, verdict=verdict)


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
