"""Tables of what section 6.1, and the statements about many nets, come to for the baseline's nets."""

from typing import Any

import pandas as pd

from pipeline.claims.effects import mean_interval
from pipeline.claims.results import Results
from pipeline.report.formatting import markdown, number, with_interval

VARIANT = "baseline"


def ensembles(results: Results) -> str:
    """Return the error of the mean prediction of n nets (Table 2)."""
    found = results.analyses.get(VARIANT, {}).get("ensembles", {})
    shown = [
        {
            "nets": size,
            "ensembles": str(entry["ensembles"]),
            "top-1 error, %: mean": number(entry["error_top1"]["mean"]),
            "least": number(entry["error_top1"]["min"]),
            "greatest": number(entry["error_top1"]["max"]),
        }
        for size, entry in found.items()
    ]
    return markdown(pd.DataFrame(shown), numbers=list(shown[0]) if shown else ())


def shifts(results: Results) -> str:
    """Return the test error with the crop moved off the center."""
    measured = _by_seed(results, "off_centre")
    if not measured:
        return "*not measured*"
    points = pd.DataFrame([point for found in measured.values() for point in found["shifts"]])
    shown = [
        {
            "moved by, share of the crop's side": f"{share:g}",
            "top-1 error, %": with_interval(mean_interval(of_seeds["error_top1"])),
        }
        for share, of_seeds in points.groupby("share")
    ]
    return markdown(pd.DataFrame(shown), numbers=list(shown[0]))


def sampled(results: Results) -> str:
    """Return the halved net beside the geometric mean of K sampled ones (section 4.2)."""
    measured = _by_seed(results, "dropout_test_half")
    if not measured:
        return "*not measured*"
    means = pd.DataFrame([mean for found in measured.values() for mean in found["geometric_mean"]])
    shown = [
        {
            "dropout nets": str(nets),
            "same best label, %": with_interval(mean_interval(of_seeds["agreement"])),
            "divergence, nats": number(of_seeds["kl"].mean(), 3),
            "top-1 error of their mean, %": number(of_seeds["error_top1"].mean()),
        }
        for nets, of_seeds in means.groupby("nets")
    ]
    return markdown(pd.DataFrame(shown), numbers=list(shown[0]))


def factors(results: Results) -> str:
    """Return how far the net is from the mean of the dropout nets where its outputs are scaled by other factors."""
    measured = _by_seed(results, "dropout_test_half")
    if not measured:
        return ""
    points = pd.DataFrame([point for found in measured.values() for point in found["factors"]])
    shown = [
        {"factor": f"{factor:g}", "divergence, nats": with_interval(mean_interval(of_seeds["kl"]), 4)}
        for factor, of_seeds in points.groupby("factor")
    ]
    return markdown(pd.DataFrame(shown), numbers=list(shown[0]))


def neighbors(results: Results) -> str:
    """Return how often the nearest training images have the label of the query (Figure 4)."""
    seeds = _by_seed(results, "nn_4096")
    if not seeds:
        return "*not measured*"
    shown = [
        {
            "nearest by": space,
            "neighbors with the query's label, %": with_interval(
                mean_interval(pd.Series([values[f"{space}_agreement"] for values in seeds.values()]))
            ),
        }
        for space in ("features", "pixels")
    ]
    return markdown(pd.DataFrame(shown), numbers=("neighbors with the query's label, %",))


def _by_seed(results: Results, claim: str) -> dict[int, dict[str, Any]]:
    """Return what was measured for a claim, by seed; nothing where it could not be measured."""
    seeds = results.analyses.get(VARIANT, {}).get("seeds", {})
    found = {int(seed): values.get(claim, {}) for seed, values in seeds.items()}
    return {seed: values for seed, values in found.items() if values and "reason" not in values}
