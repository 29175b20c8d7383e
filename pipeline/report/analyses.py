"""Tables of what section 6.1, and the statements about many nets, come to for the baseline's nets."""

from typing import Any

import pandas as pd

from pipeline.report.collect import Results
from pipeline.report.tables import markdown, number, with_interval
from pipeline.statistics.effects import mean_interval

VARIANT = "baseline"


def by_seed(results: Results, claim: str) -> dict[int, dict[str, Any]]:
    """What was measured for a claim, by seed; empty where it could not be."""
    seeds = results.analyses.get(VARIANT, {}).get("seeds", {})
    found = {int(seed): values.get(claim, {}) for seed, values in seeds.items()}
    return {seed: values for seed, values in found.items() if values and "reason" not in values}


def ensembles(results: Results) -> str:
    """Error of the mean prediction of n nets (Table 2)."""
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
    """Test error with the crop moved off the centre."""
    seeds = by_seed(results, "off_centre")
    if not seeds:
        return "*not measured*"
    rows: dict[float, dict[int, float]] = {}
    for seed, values in seeds.items():
        for shift in values["shifts"]:
            rows.setdefault(shift["share"], {})[seed] = shift["error_top1"]
    shown = [
        {
            "moved by, share of the crop's side": f"{share:g}",
            "top-1 error, %": with_interval(mean_interval(pd.Series(v))),
        }
        for share, v in sorted(rows.items())
    ]
    return markdown(pd.DataFrame(shown), numbers=("moved by, share of the crop's side", "top-1 error, %"))


def thinned(results: Results) -> str:
    """The halved net beside the geometric mean of K thinned ones (section 4.2)."""
    seeds = by_seed(results, "dropout_test_half")
    if not seeds:
        return "*not measured*"
    rows: dict[int, list[dict[str, float]]] = {}
    for values in seeds.values():
        for entry in values["geometric_mean"]:
            rows.setdefault(int(entry["nets"]), []).append(entry)
    shown = [
        {
            "thinned nets": str(nets),
            "same best label, %": with_interval(mean_interval(pd.Series([entry["agreement"] for entry in entries]))),
            "divergence, nats": number(sum(entry["kl"] for entry in entries) / len(entries), 3),
            "top-1 error of their mean, %": number(sum(entry["error_top1"] for entry in entries) / len(entries)),
        }
        for nets, entries in sorted(rows.items())
    ]
    return markdown(pd.DataFrame(shown), numbers=list(shown[0]))


def neighbours(results: Results) -> str:
    """Label agreement of the nearest training images (Figure 4)."""
    seeds = by_seed(results, "nn_4096")
    if not seeds:
        return "*not measured*"
    shown = [
        {
            "nearest by": space,
            "neighbours with the query's label, %": with_interval(
                mean_interval(pd.Series([values[f"{space}_agreement"] for values in seeds.values()]))
            ),
        }
        for space in ("features", "pixels")
    ]
    return markdown(pd.DataFrame(shown), numbers=("neighbours with the query's label, %",))
