"""The report's figures as PNG files. The same results give the same bytes."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline import paths
from pipeline.claims.results import Results
from pipeline.claims.table import Row
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import IMAGENET
from pipeline.report.figures import analysis_figures, figure1
from pipeline.report.figures.curve_figures import curves
from pipeline.report.figures.effect_figures import effects, variants
from pipeline.report.figures.lineage_figure import lineage
from pipeline.report.figures.net_figures import examples, filters
from pipeline.report.figures.style import DPI, Drawn, applied
from pipeline.report.figures.tuning_figures import can_be_sliced, landscape, slices
from pipeline.report.lineage import members
from pipeline.runtime.escaping import escaped, prose

ANALYZED = "baseline"  # whose analyses are drawn
OF_CLAIMS = {
    "shifts": ("off_centre", analysis_figures.shifted_objects),
    "sampled": ("dropout_test_half", analysis_figures.halved_net),
}


def draw_all(
    results: Results, rows: list[Row], questions: list[Row], folder: Path, missing: list[str]
) -> dict[str, str]:
    """Draw what can be drawn into `folder`, and name in `missing` what cannot. Returns captions by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    with applied():
        for name, drawn in _drawings(results, rows, questions):
            if isinstance(drawn, str):
                missing.append(f"figure {escaped(name)}: {drawn}")
                continue
            figure, caption = drawn
            FigureCanvasAgg(figure).print_figure(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
            captions[f"{name}.png"] = caption
    return captions


def _drawings(results: Results, rows: list[Row], questions: list[Row]) -> Iterator[tuple[str, Drawn]]:
    """Yield names and figures in the order of the report. What the scale does not ask for is left out."""
    yield "effects", effects(rows)
    if questions:
        titles = {name: variant.title for name, variant in results.params.variants.items()}
        yield "variants", variants(questions, titles)
    yield "curves", curves(results)
    if figure1.exists(results):
        yield "figure1", figure1.figure1(results)
    if members(results):
        yield "lineage", lineage(results)
    yield "filters", filters(results)
    shown = results.params.data.dataset not in IMAGENET  # whose photographs are for research, and not to be passed on
    if shown:
        yield "examples", examples(results)
    if found := results.analyses.get(ANALYZED):
        yield "ensembles", analysis_figures.ensemble_size(found)
        for name, (claim, draw) in OF_CLAIMS.items():
            of_seeds = [seed.get(claim, {}) for seed in found.get("seeds", {}).values()]
            if not all("reason" in of_seed for of_seed in of_seeds):  # else its net or data leave no room for it
                yield name, draw(found)
        if shown:
            yield "neighbors", _neighbors(results)
    if results.params.tune.trials:
        for study in results.trials:
            yield f"tuning-{study}", landscape(results, study)
            if can_be_sliced(results, study):
                yield f"tuning-{study}-values", slices(results, study)


def _neighbors(results: Results) -> Drawn:
    seed, data = results.median_seed(ANALYZED), paths.data(results.params.data.dataset)
    if seed is None:
        return f"{ANALYZED} has no finished run"
    try:
        store = Store.open(results.root / data)
    except UserError as error:
        return f"`{data}` cannot be shown ({prose(error)})"
    return analysis_figures.neighbors(results.analyses[ANALYZED], store, seed)
