"""Tables that have a row for each variant: how wrong it ends, whether it learned at all, what its change does."""

from collections.abc import Iterable

import pandas as pd

from pipeline.claims.effects import mean_interval
from pipeline.claims.learning import seeds_that_ended, seeds_that_guess
from pipeline.claims.results import Results
from pipeline.claims.table import Row
from pipeline.paper.claims import Side
from pipeline.report.formatting import NOTHING, markdown, number, with_interval
from pipeline.runtime.escaping import escaped, prose


def every_variant(results: Results) -> str:
    """Return the errors by variant, means over seeds with the half-width of their interval."""
    shown = []
    for name, variant in results.params.variants.items():
        errors = {
            split: results.by_seed(Side.model_validate({"variant": name, "split": split}), "error_top1")
            for split in ("train", "test")
        }
        ended = seeds_that_ended(results, name)
        learned = f"{ended - len(seeds_that_guess(results, name))} of {ended}" if ended else NOTHING
        shown.append(
            {
                "variant": escaped(name),
                "section": escaped(variant.section),
                "what is changed": prose(variant.description),
                "test error, %": with_interval(mean_interval(errors["test"])),
                "test − training, points": number(mean_interval(errors["test"] - errors["train"]).mean),
                "learned": learned,
            }
        )
    return markdown(pd.DataFrame(shown), numbers=("test error, %", "test − training, points", "learned"))


def what_keeps_from_learning(results: Results) -> str:
    """Return the variants of which at least one seed did not learn; a sentence where all did."""
    shown = []
    for name, variant in results.params.variants.items():
        lost = seeds_that_guess(results, name)
        if lost:
            shown.append(
                {
                    "variant": escaped(name),
                    "what is changed": prose(variant.description),
                    "did not learn": f"{len(lost)} of {seeds_that_ended(results, name)} seeds",
                    "seeds": ", ".join(map(str, lost)),
                }
            )
    if not shown:
        return "Every variant learned with every seed."
    return markdown(pd.DataFrame(shown), numbers=("did not learn",))


def readings(results: Results, questions: Iterable[Row]) -> list[Row]:
    """Return the rows that compare the printed with the coded reading, whole or in one item."""
    compared = {name for name, variant in results.params.variants.items() if set(variant.set) == {"recipe"}}
    compared.add("baseline")
    return [row for row in questions if {row.treatment, row.control} <= compared and row.main]
