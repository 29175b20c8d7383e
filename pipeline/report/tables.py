"""The tables of the report's sections, each as Markdown made from results and judged rows."""

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from pipeline.claims.effects import Interval, mean_interval
from pipeline.claims.measures import compare
from pipeline.claims.results import Results
from pipeline.claims.table import Row
from pipeline.claims.verdicts import CLAIM_WORDS
from pipeline.paper.claims import Claim, Key, Side, Views, registry
from pipeline.paper.net import full_size_table, paper_net
from pipeline.report.formatting import NOTHING, between, either, markdown, number, signed, with_interval
from pipeline.runtime.escaping import escaped, prose

SPLITS = {"train": "training", "val": "validation", "test": "test"}
TOPS: dict[Key, str] = {"top1": "top-1", "top5": "top-5"}
CROPS: dict[Views, str] = {"one_crop": "one crop", "ten_crop": "ten crops"}


def headline(results: Results) -> str:
    """Return the paper's errors and ours, side by side and without a difference between them."""
    ten, single = registry().claim("ten_crop"), registry().claim("ilsvrc2012_1cnn")
    here = f"here ({prose(results.params.title)})"
    rows = []
    for views, crops in CROPS.items():
        for key, top in TOPS.items():
            arms = ten.figures[key]
            rows.append(
                {
                    "test error, %": f"{top}, {crops}",
                    "paper (ILSVRC-2010, full net)": f"{arms.treatment if views == 'ten_crop' else arms.control:.1f}",
                    "paper (ILSVRC-2012 validation, full net)": f"{single.figures[key].effect:.1f}"
                    if views == "ten_crop"
                    else NOTHING,
                    here: with_interval(
                        mean_interval(results.by_seed(Side(variant="baseline", views=views), f"error_{key}"))
                    ),
                }
            )
    frame = pd.DataFrame(rows)
    return markdown(frame, numbers=frame.columns[1:])


def effects(rows: Iterable[Row]) -> str:
    """Return every comparison that has a result."""
    shown = [
        {
            "claim": row.id,
            "compared": escaped(f"{row.control} against {row.treatment}"),
            "metric": row.metric,
            "paper": _plain(row.figures.effect, row.unit),
            "here": _measured(row),
            "95 % interval": between(row.effect.low, row.effect.high) + _mark(row),
            "pairs": row.effect.n,
            "verdict": row.verdict.word or NOTHING,
            "reason": prose(row.verdict.reason),
        }
        for row in rows
        if row.effect.n
    ]
    return markdown(pd.DataFrame(shown), numbers=("paper", "here", "95 % interval", "pairs"))


def arms(results: Results, claim_id: str) -> str:
    """Return the errors of both arms of a comparison on every split."""
    claim = registry().claim(claim_id)
    assert claim.treatment
    assert claim.control
    shown = []
    for variant in (claim.treatment.variant, claim.control.variant):
        for split, name in SPLITS.items():
            side = Side.model_validate({"variant": variant, "split": split})
            cells = {
                f"{top} error, %": with_interval(mean_interval(results.by_seed(side, f"error_{key}")))
                for key, top in TOPS.items()
            }
            shown.append({"arm": variant, "images": name, **cells})
    return markdown(pd.DataFrame(shown), numbers=[f"{top} error, %" for top in TOPS.values()])


def arm_effects(results: Results, claim_id: str, rows: list[Row]) -> str:
    """Return the paired effect on every split, beside the paper's where it gives one, and the claim's own row."""
    claim = registry().claim(claim_id)
    assert claim.treatment
    assert claim.control
    shown = []
    for split, name in SPLITS.items():
        for key, top in TOPS.items():
            treatment, control = (side.model_copy(update={"split": split}) for side in (claim.treatment, claim.control))
            effect = compare(results, "error", treatment, control, key).effect.interval
            figures = claim.figures.get(key) if split == "test" and claim.measure == "error" else None
            shown.append(_effect_cells(f"{top} error, {name}", effect, figures.effect if figures else None))
    if claim.measure == "overfitting":
        row = next(row for row in rows if row.id == claim_id)
        shown.append(_effect_cells("top-1 error, test minus training", row.effect, row.figures.effect))
    return markdown(
        pd.DataFrame(shown), numbers=("paper's effect, points", "effect here, points", "95 % interval", "pairs")
    )


def every_claim(rows: list[Row]) -> str:
    """Return one row for each claim of the paper, tested or not."""
    shown = []
    for claim in registry().claims:
        own = [row for row in rows if row.claim is claim]
        main = own[0]
        second = [row for row in own[1:] if row.verdict.word not in ("", main.verdict.word)]
        shown.append(
            {
                "claim": claim.id,
                "section": claim.section,
                "statement": claim.statement,
                "paper": _paper(claim),
                "here": _here(main),
                "verdict": main.verdict.word + "".join(f"; top-5: {row.verdict.word}" for row in second),
                "reason": prose(main.verdict.reason) or NOTHING,
            }
        )
    return markdown(pd.DataFrame(shown), numbers=("paper", "here"))


def in_words(rows: Iterable[Row]) -> dict[str, str]:
    """Return by claim id what was found here, in a phrase; only claims that have a result and a verdict."""
    return {
        row.id: f"{_here(row)}: {row.verdict.word}"
        for row in rows
        if row.main and row.verdict.word and row.effect.mean is not None
    }


def questions(rows: Iterable[Row]) -> str:
    """Return the rows, which have no claim of the paper behind them."""
    shown = [
        {
            "question": escaped(row.id),
            "compared": escaped(f"{row.control} against {row.treatment}"),
            "metric": row.metric,
            "effect here": _measured(row),
            "95 % interval": between(row.effect.low, row.effect.high) + _mark(row),
            "pairs": row.effect.n,
            "answer": row.verdict.word or NOTHING,
            "reason": prose(row.verdict.reason) or NOTHING,
        }
        for row in rows
    ]
    return markdown(pd.DataFrame(shown), numbers=("effect here", "95 % interval", "pairs"))


def layers() -> str:
    """Return the full-size net by layer, with sums."""
    table = pd.DataFrame(full_size_table())
    counts = [column for column in table.columns if column not in ("layer", "maps")]
    total = table[counts].sum()
    share = 100 * table["parameters"] / total["parameters"]
    table = pd.concat([table, pd.DataFrame([{"layer": "sum", "maps": "", **total.to_dict()}])], ignore_index=True)
    shown = pd.DataFrame({"layer": table["layer"], "maps": table["maps"]})
    names = {
        "parameters": "parameters",
        "parameters_ungrouped": "without columns",
        "neurons": "neurons",
        "figure2_neurons": "neurons in Figure 2",
        "multiply_adds": "multiply-adds",
        "multiply_adds_ungrouped": "multiply-adds without columns",
    }
    for key, name in names.items():
        shown[name] = [number(value, 0) for value in table[key]]
    shown.insert(3, "share, %", [*(number(value) for value in share), number(100.0)])
    return markdown(shown, numbers=shown.columns[1:])


def misprint() -> dict[str, str]:
    """Return the factors of Figure 2's count for conv1, and the true ones."""
    conv1, kernels = full_size_table()[0], paper_net().layers[0].kernels
    printed = int(conv1["figure2_neurons"])
    return {
        "printed": number(printed, 0),
        "kernels": str(kernels),
        "per_map": number(printed / kernels, 0),
        "maps": str(conv1["maps"]),
        "true": number(int(conv1["neurons"]), 0),
    }


def verdict_counts(rows: list[Row]) -> str:
    """Return how many claims earned each word, by their main metric."""
    counts = Counter(row.verdict.word for row in rows if row.main)
    return ", ".join(f"{counts[word]} {word}" for word in CLAIM_WORDS if counts[word])


def _effect_cells(name: str, effect: Interval, paper: float | None) -> dict[str, object]:
    return {
        "error": name,
        "paper's effect, points": _plain(paper, "points"),
        "effect here, points": signed(effect.mean),
        "95 % interval": between(effect.low, effect.high),
        "pairs": effect.n,
    }


def _paper(claim: Claim) -> str:
    top1, top5 = (claim.figures[key].effect if key in claim.figures else None for key in TOPS)
    value = claim.figures["value"].effect if "value" in claim.figures else None
    if top1 is None and top5 is None and value is None:
        return "no figure"
    figures = (
        _plain(value, claim.unit) if "value" in claim.figures else f"{top1:g}" if top5 is None else either(top1, top5)
    )
    return f"{figures} {'point' if figures == '1' and claim.unit == 'points' else _unit(claim)}".strip()


def _here(row: Row) -> str:
    if row.effect.mean is None:
        return NOTHING
    claim = row.claim
    assert isinstance(claim, Claim)
    if claim.kind == "exact":
        return f"{_plain(round(row.effect.mean, 2), row.unit)} {_unit(claim)}".strip()
    pairs = "1 pair" if row.effect.n == 1 else f"{row.effect.n} pairs"
    return f"{_measured(row)} {between(row.effect.low, row.effect.high)}{_mark(row)} ({pairs})"


def _unit(claim: Claim) -> str:
    return {"points": "points", "percent": "%", "ratio": "times", "count": ""}[claim.unit]


def _measured(row: Row) -> str:
    return number(row.effect.mean) if row.unit == "ratio" else signed(row.effect.mean)


def _plain(value: float | None, unit: str) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if unit == "count" else f"{value:g}"


def _mark(row: Row) -> str:
    return " †" if row.evidence is not None and row.evidence.marked else ""
