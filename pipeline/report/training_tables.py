"""How training went: what sections 4.2 and 5 say about its course."""

from collections.abc import Iterable

import pandas as pd

from pipeline.claims.effects import mean_interval
from pipeline.claims.measures import REACHED, epochs_to
from pipeline.claims.results import Results
from pipeline.paper.claims import Side
from pipeline.report.formatting import markdown, number

VARIANTS = ("baseline", "no_dropout", "no_weight_decay", "biases_zero", "no_lr_drops", "tanh", "short")


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
                    "first drop after epoch": _soonest(results, "epochs_to_first_drop", variant),
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


def _soonest(results: Results, measure: str, variant: str) -> str:
    """Return the mean over the seeds that got there, and how many did not."""
    reached = epochs_to(results, measure, variant)[results.run_fact(variant, "epochs").notna()]
    late = int(reached.isna().sum())
    return number(_mean(reached.dropna()), 1) + (f"; {late} never" if late else "")


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None
