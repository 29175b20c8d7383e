"""The report's figures as PNG files. The same results give the same bytes."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.report import analyses_figures, figure1
from pipeline.report.claims_table import Row
from pipeline.report.collect import Results
from pipeline.report.curves_figures import curves
from pipeline.report.effects_figures import effects, variants
from pipeline.report.net_figures import examples, filters
from pipeline.report.style import DPI, Drawn, applied
from pipeline.report.tuning_figures import landscape

ANALYSED = "baseline"  # whose analyses are drawn
OF_CLAIMS = {
    "shifts": ("off_centre", analyses_figures.shifted_objects),
    "thinned": ("dropout_test_half", analyses_figures.halved_net),
}


def draw_all(results: Results, rows: list[Row], questions: list[Row], folder: Path, holes: list[str]) -> dict[str, str]:
    """Draw what can be drawn into `folder`; file name and caption of each. What cannot is a hole."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    with applied():
        for name, drawn in _drawings(results, rows, questions):
            if isinstance(drawn, str):
                holes.append(f"figure {name}: {drawn}")
                continue
            figure, caption = drawn
            FigureCanvasAgg(figure).print_figure(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
            captions[f"{name}.png"] = caption
    return captions


def _drawings(results: Results, rows: list[Row], questions: list[Row]) -> Iterator[tuple[str, Drawn]]:
    """In the order of the report. What the scale does not ask for is no hole, and left out."""
    yield "effects", effects(rows)
    if questions:
        yield "variants", variants(questions)
    yield "curves", curves(results)
    if figure1.exists(results):
        yield "figure1", figure1.figure1(results)
    yield "filters", filters(results)
    yield "examples", examples(results)
    yield from _analyses(results)
    if results.params.tune.trials:
        yield from ((f"tuning-{study}", landscape(results, study)) for study in results.trials)


def _analyses(results: Results) -> Iterator[tuple[str, Drawn]]:
    """Figures of the baseline's analyses, without those that its net or data leave no room for."""
    found = results.analyses.get(ANALYSED)
    if not found:
        return
    yield "ensembles", analyses_figures.ensemble_size(found)
    for name, (claim, draw) in OF_CLAIMS.items():
        of_seeds = [seed.get(claim, {}) for seed in found.get("seeds", {}).values()]
        if not all("reason" in of_seed for of_seed in of_seeds):
            yield name, draw(found)
    yield "neighbours", _neighbours(results)


def _neighbours(results: Results) -> Drawn:
    seed, data = results.median_seed(ANALYSED), paths.data(results.params.data.dataset)
    if seed is None:
        return f"{ANALYSED} has no finished run"
    try:
        store = Store.open(results.root / data)
    except UserError as error:
        return f"`{data}` cannot be shown ({error})"
    return analyses_figures.neighbours(results.analyses[ANALYSED], store, seed)
