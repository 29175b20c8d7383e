"""Which nets did not learn: a comparison with one of them is about whether a net starts to learn, not how it ends."""

from pipeline.claims.results import Results
from pipeline.paper.claims import Side

NEAR_GUESSING = 1.0  # points below the error of a guess: less than that is not learning


def seeds_that_guess(results: Results, variant: str) -> list[int]:
    """Return the seeds whose net is no better on test images than a guess, or whose loss was no number in the end."""
    chance = 100 * (1 - 1 / len(results.classes)) if results.classes else float("inf")  # the error of a guess, %
    errors = results.by_seed(Side(variant=variant), "error_top1")
    lost = errors.index[errors > chance - NEAR_GUESSING]
    return sorted({int(seed) for seed in [*lost, *_failed(results, variant)]})


def seeds_that_ended(results: Results, variant: str) -> int:
    """Return the number of seeds of which it is known whether they learned."""
    errors = results.by_seed(Side(variant=variant), "error_top1")
    return int(errors.notna().sum()) + len(_failed(results, variant))


def _failed(results: Results, variant: str) -> list[int]:
    runs = results.runs[(results.runs["variant"] == variant) & (results.runs["status"] == "failed")]
    return [int(seed) for seed in runs["seed"]]
