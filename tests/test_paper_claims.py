import re
from pathlib import Path

import pandas as pd
import pytest

from pipeline.paper.claims import Claim, registry
from pipeline.params import variant_table

COUNTS_OF_SOMETHING_ELSE = ("aug_crop_flip", "off_centre")  # x2048 and one picture are no effects


def printed() -> pd.DataFrame:
    """What the paper prints, read from it by hand, apart from the registry: section and figures of each claim."""
    return pd.read_csv(Path(__file__).with_name("data") / "paper_claims.csv", index_col="claim", dtype=str)


def numbers(text: str) -> list[float]:
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text).replace("60M", "60000000").replace("650k", "650000")
    return [float(number) for number in re.findall(r"\d*\.?\d+", text)]


def test_every_claim_of_the_paper_is_registered_once_in_its_order() -> None:
    assert [claim.id for claim in registry().claims] == list(printed().index)


def test_sections_are_the_papers() -> None:
    for name, section in printed()["section"].items():
        assert set(numbers(section)) <= set(numbers(registry().claim(str(name)).section)), name


def test_figures_are_the_papers() -> None:
    for name, figures in printed()["figures"].items():
        claim = registry().claim(str(name))
        if claim.measure == "disagreements":  # the update rule
            assert figures == "exact"
            assert claim.figures["value"].effect == 0
            continue
        for key, given in claim.figures.items():
            if given.treatment is not None and given.control is not None:
                assert {given.treatment, given.control} <= set(numbers(figures)), (name, key)
                assert given.effect == pytest.approx(given.control - given.treatment), (name, key)
            elif given.effect is not None:
                as_printed = 1 / given.effect if claim.unit == "ratio" and given.effect < 1 else given.effect
                assert as_printed in numbers(figures), (name, key)
            else:
                assert not re.search(r"\d", figures) or name in COUNTS_OF_SOMETHING_ELSE, (name, key)


def test_kind_measure_data_and_figures_of_each_claim_are_those_typed_in() -> None:
    """tests/data/claim_figures.csv: the effect in the paper's favor, and the two arms where it prints them."""
    expected = pd.read_csv(Path(__file__).with_name("data") / "claim_figures.csv", dtype=str, keep_default_na=False)
    found = []
    for claim in registry().claims:
        what = (claim.id, claim.kind, claim.unit, claim.measure, "yes" if claim.primary else "no", claim.agreement)
        for key, given in claim.figures.items():
            figures = ("" if x is None else f"{x:.10g}" for x in (given.effect, given.treatment, given.control))
            found.append((*what, claim.net, " ".join(claim.data), key, *figures))
    assert found == list(expected.itertuples(index=False, name=None))


def test_a_claim_with_two_errors_has_the_first_pair_that_is_printed() -> None:
    for name, figures in printed()["figures"].items():
        claim = registry().claim(str(name))
        pair = re.match(r"-?([\d.]+)/-?([\d.]+)", figures)
        if pair:
            top1, top5 = claim.figures["top1"], claim.figures["top5"]
            first = (top1.treatment or top1.effect, top5.treatment or top5.effect)
            assert first == (float(pair[1]), float(pair[2])), name


def test_what_nobody_can_test_gives_a_reason() -> None:
    untestable = printed().query("testable == 'no'").index
    assert len(untestable) == 4
    assert all(registry().claim(name).cannot_run for name in untestable)


def test_an_observation_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="not_run or cannot_run"):
        Claim.model_validate(
            {
                "id": "x",
                "title": "x",
                "section": "1",
                "statement": "x",
                "kind": "observation",
                "unit": "points",
                "measure": "x",
                "figures": {"value": {}},
            }
        )


def test_every_arm_of_a_claim_or_question_is_a_variant_of_some_scale() -> None:
    known = set(variant_table())
    arms = [(claim.treatment, claim.control) for claim in registry().claims]
    arms += [(step.treatment, step.control) for claim in registry().claims for step in claim.steps]
    arms += [(question.treatment, question.control) for question in registry().questions]
    assert {side.variant for pair in arms for side in pair if side} <= known


def test_no_question_compares_an_arm_with_itself() -> None:
    assert all(question.treatment != question.control for question in registry().questions)
