"""Results that no net ever had, for figures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.claims.effects import Interval
from pipeline.claims.results import ERROR_COLUMNS, Results
from pipeline.claims.table import Row
from pipeline.claims.verdicts import CLAIM_WORDS, Answers, Evidence, Verdict
from pipeline.paper.claims import Claim, Figures, Question, Side, registry
from pipeline.params import Params
from tests.fake_runs import fake_params

EPOCHS = 12
LONGEST = max(CLAIM_WORDS, key=len)
Bound = float | None


def claim_row(claim: Claim, mean: float, low: Bound, high: Bound, p: float = 0.01, word: str = "same direction") -> Row:
    key = next(iter(claim.figures))
    evidence = evidence_of(mean, low, high, "ratio" if claim.unit == "ratio" else "points", claim.figures[key].effect)
    return Row(
        id=claim.id,
        claim=claim,
        key=key,
        metric=claim.metric(key),
        unit=claim.unit,
        figures=claim.figures[key],
        effect=Interval(5, mean, low, high, 1.0),
        evidence=(evidence,),
        tested=Answers((evidence,), p, 1.0),
        verdict=Verdict(word),
    )


def question_row(treatment: str, control: str, mean: Bound, low: Bound, high: Bound, p: float = 0.01) -> Row:
    name = f"{treatment}_{control}"
    question = Question(
        id=name, title=name, statement="", treatment=Side(variant=treatment), control=Side(variant=control)
    )
    evidence = () if mean is None else (evidence_of(mean, low, high),)
    return Row(
        id=question.id,
        claim=question,
        key="top1",
        metric="test_error_top1",
        unit="points",
        figures=Figures(),
        effect=Interval(0 if mean is None else 5, mean, low, high, 1.0),
        evidence=evidence,
        tested=Answers(evidence, p, 1.0) if evidence else None,
        verdict=Verdict("differs" if p < 0.05 else "no difference seen"),
    )


def evidence_of(mean: float, low: Bound, high: Bound, unit: Any = "points", paper: Bound = None) -> Evidence:
    return Evidence("effect", False, unit, paper, mean, low, high, 1.0, 5)


def made_up_claims() -> list[Row]:
    """Every claim that is an effect, of all sizes; the last has no interval."""
    rng = np.random.default_rng(0)
    rows = []
    for claim in registry().claims:
        if claim.kind == "effect":
            mean, half = (2 ** rng.normal(), 1.5) if claim.unit == "ratio" else (rng.normal(1, 2), rng.uniform(0.3, 2))
            low, high = (mean / half, mean * half) if claim.unit == "ratio" else (mean - half, mean + half)
            rows.append(claim_row(claim, mean, low, high, p=rng.choice([0.01, 0.5]), word=LONGEST))
    return [*rows[:-1], claim_row(registry().claim("larger_longer"), 1.2, None, None, p=1.0)]


def results(params: Params, epochs: int = EPOCHS, **parts: Any) -> Results:
    """Histories and run facts of each variant of the params; no file behind them."""
    histories, runs, errors = [], [], []
    for number, variant in enumerate(params.variants):
        for seed in params.seeds:
            history = made_up_history(np.random.default_rng([number, seed]), epochs)
            history.insert(0, "variant", variant)
            history.insert(1, "seed", seed)
            histories.append(history)
            facts = {"variant": variant, "seed": seed, "status": "finished", "epochs": epochs}
            runs.append({**facts, "lr_drops": [5, 9] if seed else []})
            val = float(history["val_error_top1"].iloc[-1])
            errors.append(dict(zip(ERROR_COLUMNS, (variant, seed, "val", "one_crop", "error_top1", val), strict=True)))
    made = {"errors": pd.DataFrame(errors), "histories": pd.concat(histories, ignore_index=True)}
    made |= {"runs": pd.DataFrame(runs), "trials": {}, "chosen": {}, "analyses": {}, "meta": {}, "missing": []}
    return Results(params=params, **{"root": Path("nowhere"), **made, **parts})


def made_up_history(rng: np.random.Generator, epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    val = 10 + 80 * np.exp(-epoch / 4) + rng.normal(0, 1, epochs)
    errors = {
        "train_error_top1": val + 3 - 10 * epoch / epochs,
        "val_loss": val / 40,
        "val_error_top1": val,
        "val_error_top5": val / 5,
    }
    return pd.DataFrame({"epoch": epoch, **errors})


def racers(arrivals: dict[str, list[float]], epochs: int = 40) -> Results:
    """Runs of four-layer nets that get to 25 % in the epochs given; infinite: they end without."""
    names = ["baseline", *arrivals]
    params = fake_params(
        variants={name: {**fake_params().variants["baseline"].model_dump(), "title": name} for name in names}
    )
    rows = [
        {"variant": name, "seed": seed, "epoch": epoch, "train_error_top1": 90 - 65 * epoch / min(arrival, 2 * epochs)}
        for name, of_seeds in arrivals.items()
        for seed, arrival in enumerate(of_seeds)
        for epoch in range(1, int(min(arrival, epochs)) + 1)
    ]
    return results(params, histories=pd.DataFrame(rows))


def study(*trials: tuple[str, float, float, float, int], objective: str = "val_error_top1") -> pd.DataFrame:
    columns = ["state", "lr", "weight_decay", "value", "epochs"]
    table = pd.DataFrame(list(trials), columns=columns)
    return table.assign(number=range(len(table)), objective=objective)


TRIALS = study(
    ("COMPLETE", 0.01, 5e-4, 21.3, 10),
    ("COMPLETE", 0.02, 1e-3, 19.8, 10),
    ("PRUNED", 0.002, 2e-5, 60.2, 4),
    ("FAIL", 0.09, 7e-3, math.nan, 1),
    ("COMPLETE", 0.05, 1e-4, 90.0, 10),
)
RATES = study(
    ("COMPLETE", 0.01, math.nan, 7, 7),
    ("COMPLETE", 0.001, math.nan, 60.31, 60),
    ("PRUNED", 0.05, math.nan, 88.0, 7),
    ("FAIL", 0.09, math.nan, math.nan, 0),
    objective="epochs_to_goal",
)

ANALYSES: dict[str, Any] = {
    "ensembles": {
        str(size): {"ensembles": 1, **{f"error_top{k}": {"mean": 20 - size, "min": 19, "max": 21} for k in (1, 5)}}
        for size in (1, 2, 3)
    },
    "seeds": {
        str(seed): {
            "off_centre": {
                "images": 100,
                "chance": 90.0,
                "shifts": [{"share": share, "error_top1": 20 + 100 * share} for share in (0, 0.125, 0.25)],
            },
            "dropout_test_half": {
                "images": 100,
                "halved_error_top1": 20.0,
                "geometric_mean": [
                    {"nets": nets, "agreement": 80.0, "kl": 1 / nets, "error_top1": 21.0} for nets in (1, 10, 100)
                ],
                "factors": [{"factor": factor, "kl": 0.01 + abs(factor - 0.5)} for factor in (0.4, 0.5, 0.6)],
            },
        }
        for seed in (0, 1, 2)
    },
}
