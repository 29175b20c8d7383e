"""Tables that have a row for each variant: how wrong it ends, whether it learned at all, what its change does."""

from collections.abc import Iterable

import pandas as pd

from pipeline.paper.claims import Side
from pipeline.report.claims_table import Row
from pipeline.report.collect import Results
from pipeline.report.tables import NOTHING, markdown, number, with_interval
from pipeline.statistics.effects import mean_interval

NEAR_GUESSING = 1.0  # points below the error of a guess: less than that is not learning


def guessing(results: Results) -> float | None:
    """The error of a guess, %."""
    return 100 * (1 - 1 / len(results.classes)) if results.classes else None


def seeds_that_guess(results: Results, variant: str) -> list[int]:
    """Seeds whose net is no better on test images than a guess, or whose loss was no number in the end."""
    chance = guessing(results)
    errors = results.by_seed(Side(variant=variant), "error_top1")
    lost = [] if chance is None else errors.index[errors > chance - NEAR_GUESSING].tolist()
    failed = results.runs[(results.runs["variant"] == variant) & (results.runs["status"] == "failed")]
    return sorted({int(seed) for seed in [*lost, *failed["seed"]]})


def every_variant(results: Results) -> str:
    """Errors by variant, mean over seeds with the half-width of its interval."""
    shown = []
    for name, variant in results.params.variants.items():
        errors = {
            split: results.by_seed(Side.model_validate({"variant": name, "split": split}), "error_top1")
            for split in ("train", "test")
        }
        shown.append(
            {
                "variant": name,
                "section": variant.section,
                "what is changed": variant.sentence,
                "test error, %": with_interval(mean_interval(errors["test"])),
                "test − training, points": number(mean_interval(errors["test"] - errors["train"]).mean),
                "learned": _learned(results, name),
            }
        )
    return markdown(pd.DataFrame(shown), numbers=("test error, %", "test − training, points", "learned"))


def what_keeps_from_learning(results: Results) -> str:
    """The variants of which at least one seed did not learn; a sentence where all did."""
    shown = []
    for name, variant in results.params.variants.items():
        lost = seeds_that_guess(results, name)
        if lost:
            shown.append(
                {
                    "variant": name,
                    "what is changed": variant.sentence,
                    "did not learn": f"{len(lost)} of {_known(results, name)} seeds",
                    "seeds": ", ".join(map(str, lost)),
                }
            )
    if not shown:
        return "Every variant learned with every seed."
    return markdown(pd.DataFrame(shown), numbers=("did not learn",))


def readings(results: Results, questions: Iterable[Row]) -> list[Row]:
    """The rows that compare the printed with the coded reading, whole or in one item."""
    coded = [name for name, variant in results.params.variants.items() if set(variant.set) == {"recipe"}]
    return [row for row in questions if row.control in coded and row.treatment == "baseline" and row.main]


def _learned(results: Results, variant: str) -> str:
    known = _known(results, variant)
    return f"{known - len(seeds_that_guess(results, variant))} of {known}" if known else NOTHING


def _known(results: Results, variant: str) -> int:
    errors = results.by_seed(Side(variant=variant), "error_top1")
    failed = ((results.runs["variant"] == variant) & (results.runs["status"] == "failed")).sum()
    return int(errors.notna().sum() + failed)
