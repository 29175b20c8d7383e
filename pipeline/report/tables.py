"""The tables of the report's sections, each as Markdown made from results and judged rows."""

from collections.abc import Collection, Iterable

import pandas as pd

from pipeline.claims.effects import Interval, mean_interval
from pipeline.claims.measures import compare
from pipeline.claims.results import Results
from pipeline.claims.table import TOP5_CLASSES, Row
from pipeline.paper.claims import Claim, Key, Question, Side, Views, registry
from pipeline.paper.net import full_size_table, paper_net
from pipeline.paper.published import published
from pipeline.params import DATASETS, data_title
from pipeline.report.formatting import NOTHING, Notes, between, either, markdown, number, signed, with_interval
from pipeline.runtime.escaping import escaped, prose

SPLITS = {"train": "training", "val": "validation", "test": "test"}
TOPS: dict[Key, str] = {"top1": "top-1", "top5": "top-5"}
_UNITS = {"points": "points", "percent": "%", "ratio": "times", "count": ""}
CROPS: dict[Views, str] = {"one_crop": "one crop", "ten_crop": "ten crops"}


def tops(results: Results) -> dict[Key, str]:
    """Return the errors that are shown: with few classes top-5 says nothing."""
    return TOPS if len(results.classes) > TOP5_CLASSES else {"top1": TOPS["top1"]}


def headline(results: Results) -> str:
    """Return the paper's errors and ours, side by side and without a difference between them.

    Beside errors on somebody's own images the paper's would mean nothing.
    """
    ten, single = registry().claim("ten_crop"), registry().claim("ilsvrc2012_1cnn")
    here = f"here ({prose(results.params.title)})"
    rows = []
    for views, crops in CROPS.items():
        for key, top in tops(results).items():
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
    if results.params.data.dataset not in DATASETS:
        frame = frame[["test error, %", here]]
    return markdown(frame, numbers=frame.columns[1:])


def others(results: Results) -> str:
    """Return what others measured on the same data, below our own error; nothing where no such result is known."""
    title = data_title(results.params.data.dataset)
    known = [anchor for anchor in published().anchors if anchor.differs and anchor.data == title]
    if not known:
        return ""
    ours = [
        with_interval(mean_interval(results.by_seed(Side(variant="baseline"), f"error_{key}"))) for key in tops(results)
    ]
    here = f"here ({prose(results.params.title)}, {len(results.classes)} classes)"
    errors = " / ".join(tops(results).values()) + " error, %"
    rows = [{"net": f"**{here}**", errors: " / ".join(ours), "how it differs": NOTHING, "source": "this report"}]
    for anchor in known:
        differs = "; ".join([*anchor.error.remarks, anchor.differs])
        error = either(anchor.error.top1, anchor.error.top5)
        rows.append({"net": anchor.model, errors: error, "how it differs": differs, "source": anchor.source})
    return markdown(pd.DataFrame(rows), numbers=(errors,))


def tested(rows: Iterable[Row]) -> str:
    """Return every comparison that was trained for and judged; of a claim with several, the weakest."""
    notes = Notes()
    shown = [
        {
            "claim": row.claim.title + (", top-5" if row.key == "top5" else ""),
            "verdict": row.verdict.word + notes.mark(prose(row.verdict.reason)),
            "paper": _paper_effect(row),
            "here": f"{_measured(row)} {between(row.effect.low, row.effect.high)}{_mark(row)}",
            "unit": _UNITS[row.unit],
            "pairs": row.effect.n,
        }
        for row in rows
        if row.tested is not None
    ]
    return notes.under(markdown(pd.DataFrame(shown), numbers=("paper", "here", "pairs")))


def computed(rows: Iterable[Row]) -> str:
    """Return the statements that are arithmetic on the full-size net, or on the code."""
    notes = Notes()
    shown = [
        {
            "claim": row.claim.title,
            "verdict": row.verdict.word + notes.mark(prose(row.verdict.reason)),
            "paper": _plain(row.figures.effect, row.unit),
            "computed": _plain(round(row.effect.mean, 2), row.unit),
            "unit": _UNITS[row.unit] or row.metric.replace("_", " "),
        }
        for row in rows
        if row.computed and row.effect.mean is not None
    ]
    return notes.under(markdown(pd.DataFrame(shown), numbers=("paper", "computed")))


def untested(rows: Iterable[Row], beyond: Collection[Claim | Question] = ()) -> str:
    """Return the claims without a result, each with the reason, but for those that are beyond any run here."""
    shown = [
        {"claim": row.claim.title, "verdict": row.verdict.word, "reason": prose(row.verdict.reason)}
        for row in rows
        if row.main and row.tested is None and not row.computed and row.claim not in beyond
    ]
    return markdown(pd.DataFrame(shown))


def statements(beyond: Collection[Claim | Question] = ()) -> str:
    """Return what each claim says, with its section and its id in claims.csv, but for those beyond any run here."""
    shown = [
        {"claim": claim.title, "section": claim.section, "the paper says": claim.statement, "id": f"`{claim.id}`"}
        for claim in registry().claims
        if claim not in beyond
    ]
    return markdown(pd.DataFrame(shown))


def _paper_effect(row: Row) -> str:
    return "no figure" if row.figures.effect is None else _plain(row.figures.effect, row.unit)


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
                for key, top in tops(results).items()
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
        for key, top in tops(results).items():
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


def questions(rows: Iterable[Row]) -> str:
    """Return the rows, which have no claim of the paper behind them."""
    notes = Notes()
    shown = [
        {
            "question": row.claim.title,
            "answer": (row.verdict.word or NOTHING) + notes.mark(prose(row.verdict.reason)),
            "compared": escaped(row.compared),
            "effect here": f"{_measured(row)} {between(row.effect.low, row.effect.high)}{_mark(row)}",
            "pairs": row.effect.n,
        }
        for row in rows
    ]
    return notes.under(markdown(pd.DataFrame(shown), numbers=("effect here", "pairs")))


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


def _effect_cells(name: str, effect: Interval, paper: float | None) -> dict[str, object]:
    return {
        "error": name,
        "paper's effect, points": _plain(paper, "points"),
        "effect here, points": signed(effect.mean),
        "95 % interval": between(effect.low, effect.high),
        "pairs": effect.n,
    }


def _measured(row: Row) -> str:
    return number(row.effect.mean) if row.unit == "ratio" else signed(row.effect.mean)


def _plain(value: float | None, unit: str) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if unit == "count" else f"{value:g}"


def _mark(row: Row) -> str:
    return " †" if row.tested is not None and row.tested.marked else ""
