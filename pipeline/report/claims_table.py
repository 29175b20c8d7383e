"""The registry's claims and questions, each with what was measured and the word that earns."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import pandas as pd

from pipeline.paper.claims import Claim, Figures, Key, Question, Side, registry
from pipeline.paper.net import full_size_table, paper_net
from pipeline.report.collect import Results
from pipeline.statistics.effects import Effect, Interval, holm, mean_interval, paired_effect
from pipeline.statistics.verdicts import Evidence, Verdict, judge, judge_exact, judge_question

COLUMNS = [
    "id",
    "section",
    "statement",
    "metric",
    "unit",
    "treatment",
    "control",
    "treatment_value",
    "control_value",
    "paper_effect",
    "effect",
    "low",
    "high",
    "seeds",
    "verdict",
    "reason",
]
TOP5_CLASSES = 10  # with no more classes than these top-5 says nothing
NOTHING = Interval(0)
NOT_RUN = Verdict("not run at this scale")
REACHED = 25.0  # % training error (Figure 1)


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
    def is_tested(self) -> bool:
        """Takes part in Holm's adjustment."""
        return self.evidence is not None and self.evidence.p is not None

    @property
    def main(self) -> bool:
        return self.key != "top5"


def claim_rows(results: Results, checks: Mapping[str, bool]) -> tuple[list[Row], list[Row]]:
    """The rows of the claims and those of the questions, judged together: Holm's adjustment spans both."""
    claims = [_claim_row(results, claim, key, checks) for claim in registry().claims for key in claim.figures]
    questions = [_question_row(results, question, key) for question in registry().questions for key in ("top1", "top5")]
    rows = [*claims, *questions]
    adjusted = holm([row.evidence.p if row.evidence else None for row in rows])
    judged = [_judged(row, p) for row, p in zip(rows, adjusted, strict=True)]
    return judged[: len(claims)], judged[len(claims) :]


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
    """Whether runs of this scale are the claim's own: its data, all of them, and the full net."""
    data, net = results.params.data, results.params.net
    whole = data.train_images is None and data.test_images is None
    full = claim.net == "alexnet" and net.width == 1 and net.crop_px == paper_net().crop_px
    return data.dataset in claim.data and whole and full


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
    return _run_row(results, row, claim)


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
    assert claim.treatment is not None
    own = is_paper_experiment(results, claim)
    if claim.kind == "absolute" and not own:
        needs = " or ".join(claim.data)
        return replace(row, verdict=Verdict(NOT_RUN.word, f"an error by itself needs {needs} and the full net"))
    sides = [claim.treatment] if claim.control is None else [claim.treatment, claim.control]
    if missing := _missing(results, sides):
        return replace(row, verdict=Verdict(NOT_RUN.word, missing))
    values = [_values(results, claim.measure, side, row.key) for side in sides]
    if claim.kind == "absolute":
        interval = mean_interval(values[0])
        effect = Effect(interval, interval.sd, None, int(values[0].isna().sum()))
    else:
        limit = (row.figures.effect or 0.0) if claim.kind == "limit" else 0.0
        effect = paired_effect(*values, ratio=claim.unit == "ratio", limit=limit)
    return _measured(results, row, values, effect, own)


def _question_row(results: Results, question: Question, key: Key) -> Row:
    row = Row(
        id=f"{question.id}_top5" if key == "top5" else question.id,
        claim=question,
        key=key,
        metric=f"test_error_{key}",
        unit="points",
        figures=Figures(),
        treatment=str(question.treatment),
        control=str(question.control),
    )
    sides = [question.treatment, question.control]
    if missing := _missing(results, sides):
        return replace(row, verdict=Verdict(NOT_RUN.word, missing))
    values = [_values(results, "error", side, key) for side in sides]
    return _measured(results, row, values, paired_effect(*values), False)


def _measured(results: Results, row: Row, values: list[pd.Series], effect: Effect, own: bool) -> Row:
    """The row with its numbers and, where it may have a verdict, the evidence for it."""
    paired = pd.concat(values, axis=1).dropna()
    arms = [None if paired.empty else float(paired.iloc[:, column].mean()) for column in range(len(values))]
    row = replace(
        row,
        treatment_value=arms[0],
        control_value=arms[1] if len(arms) > 1 else None,
        effect=effect.interval,
        left_out=effect.left_out,
    )
    if effect.interval.mean is None:
        return replace(row, verdict=Verdict("inconclusive", f"no pair is complete, {effect.left_out} left out"))
    if row.key == "top5" and len(results.classes) <= TOP5_CLASSES:
        return replace(
            row, verdict=Verdict("", f"top-5 of {len(results.classes) or 'unknown'} classes carries no verdict")
        )
    claim = row.claim
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
            p=effect.p,
            p_adjusted=None,
            pairs=effect.interval.n,
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
        if not results.has(side.variant):
            return f"variant {side.variant} has no results (see Holes)"
    return ""


def _values(results: Results, measure: str, side: Side, key: Key) -> pd.Series:
    """One arm's values of a measure, by seed."""
    if measure == "error":
        return results.by_seed(side, f"error_{key}")
    if measure == "overfitting":
        test, train = (
            results.by_seed(side.model_copy(update={"split": split}), f"error_{key}") for split in ("test", "train")
        )
        return test - train
    return _epochs_to(results, side.variant)


def _epochs_to(results: Results, variant: str) -> pd.Series:
    """The first epoch whose training error is no more than REACHED; NaN where none is."""
    histories = results.histories
    reached = histories[(histories["variant"] == variant) & (histories["train_error_top1"] <= REACHED)]
    return reached.groupby("seed")["epoch"].min().astype(float).reindex(results.params.seeds)


def _short(value: float | None) -> str:
    if value is None:
        return ""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
