"""How training went: what sections 4.2 and 5 say about its course."""

from collections.abc import Iterable

import pandas as pd

from pipeline.claims.effects import mean_interval
from pipeline.claims.measures import REACHED, epochs_to
from pipeline.claims.results import Results
from pipeline.paper.claims import Side
from pipeline.report.formatting import markdown, number, signed
from pipeline.runtime.escaping import escaped

VARIANTS = (
    *("baseline", "no_dropout", "no_weight_decay", "biases_zero", "plateau_schedule", "no_lr_drops"),
    *("no_lr_drops_no_dropout", "tanh", "short"),
)
MOST_NAMED = 8  # unsettled runs
BEFORE, FAR_POINTS = 5, 2.0  # a run ends unsettled where its last epoch is so far from the mean of those before it


def course(results: Results, variants: Iterable[str] = VARIANTS) -> str:
    """Return a row for each variant: how soon it learned, when it stopped improving, where it ended."""
    shown = []
    for variant in variants:
        if variant in results.params.variants and results.has(variant):
            drops = results.run_fact(variant, "lr_drops").dropna()
            shown.append(
                {
                    "variant": variant,
                    f"epochs to {REACHED:.0f} % training error": _soonest(results, "epochs_to_25_train_error", variant),
                    "epochs to converge": _soonest(results, "epochs_to_converge", variant),
                    "drops": number(_mean([len(epochs) for epochs in drops]), 1),
                    "epochs": number(_mean(results.run_fact(variant, "epochs").dropna()), 0),
                    **{
                        f"{name} error at the end, %": number(
                            mean_interval(
                                results.by_seed(Side.model_validate({"variant": variant, "split": split}), "error_top1")
                            ).mean
                        )
                        for split, name in (("train", "training"), ("val", "validation"))
                    },
                }
            )
    return markdown(pd.DataFrame(shown), numbers=list(shown[0])[1:] if shown else ())


def unsettled(results: Results) -> str:
    """Return which runs ended with a last validation error that is far from those of the epochs before it."""
    named = []
    for (variant, seed), history in results.histories.groupby(["variant", "seed"], sort=False):
        errors = history.sort_values("epoch")["val_error_top1"].to_numpy()
        if len(errors) > BEFORE and abs(off := errors[-1] - errors[-1 - BEFORE : -1].mean()) > FAR_POINTS:
            named.append(f"`{escaped(str(variant))}`, seed {seed} ({signed(off, 1)} points)")
    rule = f"validation error in the last epoch is more than {FAR_POINTS:g} points from the mean of the {BEFORE} before"
    if not named:
        return f"Every run ended settled: in none the {rule}."
    more = [f"and {len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    return f"Runs that ended unsettled, since the {rule}: {'; '.join([*named[:MOST_NAMED], *more])}."


def _soonest(results: Results, measure: str, variant: str) -> str:
    """Return the mean over the seeds that got there, and how many did not."""
    reached = epochs_to(results, measure, variant)[results.run_fact(variant, "epochs").notna()]
    late = int(reached.isna().sum())
    return number(_mean(reached.dropna()), 1) + (f"; {late} never" if late else "")


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None
