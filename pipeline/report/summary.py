"""What came out, in a few plain sentences: the first lines of a report, and all that a hurried reader sees of it."""

from collections import Counter

from pipeline.claims.results import Results
from pipeline.claims.table import Row
from pipeline.claims.verdicts import CLAIM_WORDS, size_beside_papers
from pipeline.paper.claims import Claim
from pipeline.report.formatting import number, several, signed
from pipeline.runtime.escaping import prose

INGREDIENTS = (  # as far as they are tested, in this order
    *("overlap_pool", "dropout_overfit", "lrn_imagenet", "lrn_cifar", "relu_vs_tanh_speed", "depth_needed"),
    *("two_gpu_vs_half", "aug_crop_flip", "pca_colour", "ten_crop"),
)
QUESTIONS = (
    *("printed_vs_coded", "as_printed_vs_coded", "items_from_the_source", "tuned_vs_paper", "lenet5_to_alexnet"),
    *("alexnet_to_zfnet", "zfnet_to_vgg16", "vgg16_to_googlenet", "googlenet_to_resnet18"),
)
MOST = 6  # ingredients


def summary(results: Results, claims: list[Row], questions: list[Row]) -> list[str]:
    """Return the sentences: one for each main ingredient, one for each question that matters most, and the counts."""
    tested = {row.id: row for row in claims if row.tested is not None}
    asked = {row.id: row for row in questions if row.tested is not None}
    lines = [_of_claim(tested[name]) for name in INGREDIENTS if name in tested][:MOST]
    lines += [_of_question(asked[name]) for name in QUESTIONS if name in asked]
    return [*lines, _counts(claims), _scope(results)]


def meaning(row: Row) -> str:
    """Return what a claim's word says of its interval, in words of the interval."""
    assert row.tested is not None
    first = row.tested.steps[0]
    paper = f"an effect of the paper's size ({first.size_text})"
    looked_for = paper if first.paper is not None else f"an effect of {first.size_text}"
    match row.verdict.word:
        case "not seen here" | "contradicted" if not row.tested.excludes_no_effect:
            return f"{looked_for} or more is excluded, {first.nothing} is not{_adjusted(row)}"
        case "too noisy to say":
            if first.low is None:
                return "one seed gives no interval"
            return f"neither {first.nothing} nor {looked_for} is excluded{_adjusted(row)}"
        case "opposite direction" | "contradicted":
            return f"{first.nothing} is excluded, on the side opposite to the paper's"
        case _:
            beside = size_beside_papers(row.tested)
            compared = f"; the effect is {beside} than the paper's" if beside else ""
            return f"{first.nothing} is excluded, on the paper's side{compared}"


def _adjusted(row: Row) -> str:
    """Return why an interval that leaves zero out counts as one that holds it."""
    assert row.tested is not None
    return " once the number of comparisons is allowed for" if row.tested.marked else ""


def _of_claim(row: Row) -> str:
    claim = row.claim
    assert isinstance(claim, Claim)
    match claim.measure, row.unit:
        case "overfitting", _:
            here = "the gap between test and training error grows without it by"
        case _, "ratio":
            here = "the factor is"
        case _:
            here = "the gain is"
    shown = f"{here} {_value(row)}" + (" where it is least" if len(row.evidence) > 1 else "")
    return f"**{claim.title}**: {claim.says}; here {shown}: *{row.verdict.word}* ({meaning(row)})."


def _of_question(row: Row) -> str:
    answer = "zero is excluded" if row.verdict.word == "differs" else f"zero is not excluded{_adjusted(row)}"
    mean, low, high = row.effect.mean, row.effect.low, row.effect.high
    assert mean is not None
    more = "more"
    if mean < 0:
        mean, more = -mean, "less"
        low, high = (None if end is None else -end for end in (high, low))
    return (
        f"**{row.claim.title}**: `{row.control}` errs {number(mean, 1)} points {more} than `{row.treatment}`"
        f"{_ends(low, high, 1)} over {several(row.effect.n, 'seed')}: *{row.verdict.word}* ({answer})."
    )


def _value(row: Row) -> str:
    """Return the effect with its interval and number of seeds."""
    ratio = row.unit == "ratio"
    mean = number(row.effect.mean) if ratio else f"{signed(row.effect.mean, 1)} points"
    ends = _ends(row.effect.low, row.effect.high, 2 if ratio else 1)
    return f"{mean}{ends} over {several(row.effect.n, 'seed')}".replace("-", "−")


def _ends(low: float | None, high: float | None, digits: int) -> str:
    return "" if low is None else f" [{number(low, digits)}, {number(high, digits)}]".replace("-", "−")


def _counts(claims: list[Row]) -> str:
    """Return how many claims were trained for, computed, and left untested: only the first are evidence of runs."""
    rows = [row for row in claims if row.main]
    computed = [row for row in rows if row.computed]
    trained = [row for row in rows if row.tested is not None]
    left = len(rows) - len(computed) - len(trained)
    parts = [
        f"{len(trained)} were tested by training here ({_words(trained)})" if trained else "none was tested here",
        f"{len(computed)} were computed from the layer table or the code, without training ({_words(computed)})",
        f"{left} could not be tested at this scale, or by anyone",
    ]
    return f"Of the paper's {len(rows)} claims, {'; '.join(parts)}."


def _words(rows: list[Row]) -> str:
    counts = Counter(row.verdict.word for row in rows)
    return ", ".join(f"{counts[word]} *{word}*" for word in CLAIM_WORDS if counts[word])


def _scope(results: Results) -> str:
    return (
        f"Brackets hold 95 % intervals. The runs are about {prose(results.params.title)}: they tell what shows at this "
        "scale, and the paper's ImageNet results may differ."
    )
