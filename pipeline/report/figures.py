"""The report's figures as PNG files. The same results give the same bytes."""

from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline import paths
from pipeline.checksums import verify
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.report.claims_table import Row
from pipeline.report.collect import Results, hole

INK, QUIET, HERE, PAPER, WRONG = "#222222", "#b5b5b5", "#1f5fa8", "#c2571a", "#b3261e"
CURVE_COLUMNS = 3
FILTER_COLUMNS = 12
EXAMPLES = 8  # as in the paper's Figure 4
DPI = 150


def draw_all(results: Results, rows: list[Row], folder: Path, holes: list[str]) -> dict[str, str]:
    """Draw what can be drawn into `folder`; file name and caption of each. What cannot is a hole."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "effects": _effects(rows),
        "curves": _curves(results),
        "filters": _filters(results),
        "examples": _examples(results),
    }
    captions = {}
    for name, drawn in drawings.items():
        if isinstance(drawn, str):
            holes.append(f"figure {name}: {drawn}")
            continue
        figure, caption = drawn
        FigureCanvasAgg(figure).print_figure(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
        captions[f"{name}.png"] = caption
    return captions


def _effects(rows: list[Row]) -> tuple[Figure, str] | str:
    """The paper's effect as a diamond beside our interval, one line for each tested claim in points."""
    tested = [row for row in rows if row.unit == "points" and row.evidence is not None]
    if not tested:
        return "no claim in points was tested"
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(tested)), layout="constrained")
    axes = figure.subplots()
    for line, row in enumerate(tested):
        if row.effect.low is not None and row.effect.high is not None:
            axes.plot([row.effect.low, row.effect.high], [line, line], color=HERE, linewidth=2.2, solid_capstyle="butt")
        if row.effect.mean is not None:
            axes.plot([row.effect.mean], [line], "o", color=HERE, markersize=6)
        if row.figures.effect is not None:
            axes.plot([row.figures.effect], [line - 0.28], "D", color=PAPER, markersize=6)
    axes.plot([], [], "o-", color=HERE, linewidth=2.2, markersize=6, label="here, 95 % interval")
    axes.plot([], [], "D", color=PAPER, markersize=6, linestyle="none", label="paper (ILSVRC, full net)")
    axes.axvline(0, color=QUIET, linewidth=1, zorder=0)
    axes.set_yticks(range(len(tested)), [f"{row.id}\n{row.metric}, {row.effect.n} pairs" for row in tested], fontsize=8)
    axes.set_ylim(len(tested) - 0.4, -0.7)
    axes.set_xlabel("effect in percentage points (positive: the paper's ingredient helps)")
    _plain(axes)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    return figure, (
        "Each tested claim: the effect measured here with its unadjusted 95 % interval over seeds, "
        "and the paper's figure where it gives one."
    )


def _curves(results: Results) -> tuple[Figure, str] | str:
    """Error over epochs: one panel for each variant, the baseline's validation error behind each."""
    variants = [name for name in results.params.variants if (results.histories["variant"] == name).any()]
    if not variants:
        return "no run has a history"
    lines = -(-len(variants) // CURVE_COLUMNS)
    columns = min(CURVE_COLUMNS, len(variants))
    figure = Figure(figsize=(3.4 * columns, 2.7 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    baseline = _over_seeds(results, "baseline", "val_error_top1")
    for panel, variant in zip(panels, variants, strict=False):
        if variant != "baseline" and not baseline.empty:
            panel.plot(baseline.index, baseline["mean"], color=QUIET, linewidth=1.5, label="validation, baseline")
        for column, style, colour, label in (
            ("train_error_top1", "--", PAPER, "training (augmented, with dropout)"),
            ("val_error_top1", "-", HERE, "validation"),
        ):
            spread = _over_seeds(results, variant, column)
            panel.plot(spread.index, spread["mean"], style, color=colour, linewidth=1.4, label=label)
            panel.fill_between(spread.index, spread["min"], spread["max"], color=colour, alpha=0.2, linewidth=0)
        seeds = results.histories.loc[results.histories["variant"] == variant, "seed"].nunique()
        panel.set_title(f"{results.params.variants[variant].title} ({_seeds(seeds)})", fontsize=9)
        _plain(panel)
    for panel in panels[len(variants) :]:
        panel.set_visible(False)
    panels[0].set_ylim(0, None)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("top-1 error in %", fontsize=9)
    labels = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(labels.values()), list(labels), loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure, (
        "Top-1 error over epochs: mean of the seeds, shaded from the lowest seed to the highest. "
        "Training errors are running means with augmentation and dropout on."
    )


def _filters(results: Results) -> tuple[Figure, str] | str:
    """The first layer's filters of the baseline's median seed, as in the paper's Figure 3."""
    seed = results.median_seed("baseline")
    if seed is None:
        return "the baseline has no finished run"
    path = paths.seed(results.params.scale, "baseline", seed) / "model.safetensors"
    try:
        verify(results.root / path)
        weights = load_file(results.root / path)
    except (OSError, SafetensorError, UserError):
        return hole(results.root / path, results.root)
    names = sorted(name for name, weight in weights.items() if name.endswith("conv1.weight") and weight.ndim == 4)
    if not names:
        return f"`{path}` has no weight conv1.weight"
    filters = weights[names[0]].astype(np.float64).transpose(0, 2, 3, 1)  # maps, height, width, channels
    if filters.shape[-1] != 3:
        return f"`{path}`: conv1 has {filters.shape[-1]} input channels, drawn are 3"
    rows = -(-len(filters) // FILTER_COLUMNS)
    figure = Figure(figsize=(0.62 * FILTER_COLUMNS, 0.62 * rows), layout="constrained")
    panels = figure.subplots(rows, FILTER_COLUMNS, squeeze=False).flatten()
    for panel in panels:
        panel.axis("off")
    for panel, kernel in zip(panels, filters, strict=False):
        panel.imshow(0.5 + kernel / (2 * np.abs(kernel).max() or 1.0), interpolation="nearest")
    return figure, (
        f"The {len(filters)} filters of conv1 in the baseline of median validation error (seed {seed}), column 1 "
        "before column 2. Grey is a weight of zero; each filter has its own contrast."
    )


def _examples(results: Results) -> tuple[Figure, str] | str:
    """Eight test images and the five labels found most probable, as in the paper's Figure 4 (left)."""
    seed = results.median_seed("baseline")
    predictions_path = paths.evaluation(results.params.scale, "baseline") / "predictions.parquet"
    data = paths.data(results.params.data.dataset)
    if seed is None:
        return "the baseline has no finished run"
    try:
        verify(results.root / predictions_path)
        predictions = pd.read_parquet(results.root / predictions_path)
    except (OSError, ValueError, UserError):
        return hole(results.root / predictions_path, results.root)
    try:
        images = Store.open(results.root / data).split("test").images
    except UserError as error:
        return f"`{data}/test/images.npy` cannot be shown ({error})"
    test = predictions.query("seed == @seed and split == 'test' and views == 'one_crop'").sort_values("index")
    chosen = _chosen_examples(test)
    if chosen.empty or not results.classes:
        return "no predictions of the test images, or no names of classes"
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    cells = figure.subfigures(2, EXAMPLES // 2, squeeze=False).flatten()
    for cell, (_, example) in zip(cells, chosen.iterrows(), strict=False):
        picture, bars = cell.subplots(2, 1, height_ratios=[1.25, 1])
        _picture(picture, np.asarray(images[int(example["index"])]))
        _bars(bars, example, results.classes, picture)
    wrong = int((chosen["rank"] > 0).sum())
    return figure, (
        f"{len(chosen)} test images and the five labels that the baseline of median validation error (seed {seed}) "
        "finds most probable, the true one in orange: the first images of different classes that it gets right "
        f"({len(chosen) - wrong}) and wrong ({wrong})."
    )


def _chosen_examples(test: pd.DataFrame) -> pd.DataFrame:
    """The first right and the first wrong images, each of another class; half and half where there are enough."""
    right, wrong = (test[mask].drop_duplicates("label") for mask in (test["rank"] == 0, test["rank"] > 0))
    wrong = wrong.head(EXAMPLES // 2)
    return pd.concat([right.head(EXAMPLES - len(wrong)), wrong])


def _picture(axes: Axes, image: NDArray[np.uint8]) -> None:
    if image.shape[-1] == 1:
        axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(image)
    axes.axis("off")


def _bars(axes: Axes, example: pd.Series, classes: list[str], picture: Axes) -> None:
    label = int(example["label"])
    picture.set_title(classes[label], fontsize=9, color=INK if example["rank"] == 0 else WRONG)
    for line in range(5):
        guess, probability = int(example[f"top{line + 1}"]), float(example[f"p{line + 1}"])
        axes.barh(line, probability, color="#f0b48a" if guess == label else "#c3d5ea", height=0.85)
        name = shorten(classes[guess], 22, placeholder="…")
        axes.text(0.02, line, f"{name}  {probability:.2f}", va="center", fontsize=7.5, color=INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(4.6, -0.6)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _over_seeds(results: Results, variant: str, column: str) -> pd.DataFrame:
    """Mean, minimum and maximum over the seeds, by epoch."""
    histories = results.histories
    return histories[histories["variant"] == variant].groupby("epoch")[column].agg(["mean", "min", "max"])


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
