"""Error over epochs: a panel for each variant that a claim is mainly about, the baseline behind each."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.claims.results import Results
from pipeline.report.figures.style import HERE, INK, PAPER, QUIET, SMALL, WIDTH, Drawn, common_legend, legible
from pipeline.report.formatting import count_of_seeds, number, several

# In order of interest: as many as fit are drawn.
VARIANTS = (
    *("baseline", "no_dropout", "no_response_norm", "no_weight_decay", "biases_zero", "tanh", "no_lr_drops"),
    *("non_overlapping_pooling", "one_column", "no_crops_no_mirror", "published_11", "as_coded", "tuned"),
)
MOST, COLUMNS = 9, 3
HIGH = 60.0  # % of error, at which a curve ends in the upper part of its panel
LONGEST_TITLE = 34  # characters
PANEL_INCHES, FRAME_INCHES = 2.2, 0.9
SPLITS = {  # column of history.csv: line, color, name
    "val_error_top1": ("-", HERE, "validation"),
    "train_error_top1": ("--", PAPER, "training (mean over the epoch)"),
}


def curves(results: Results) -> Drawn:
    """Draw the mean over the seeds, and a band from the lowest to the highest."""
    recorded = set(results.histories["variant"])
    variants = [name for name in VARIANTS if name in results.params.variants and name in recorded][:MOST]
    if not variants:
        return "no run of the variants that it shows has a history"
    rows = -(-len(variants) // COLUMNS)
    figure = Figure(figsize=(WIDTH, PANEL_INCHES * rows + FRAME_INCHES), layout="constrained")
    panels = list(figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flatten())
    ends = [_panel(panel, results, variant) for panel, variant in zip(panels, variants, strict=False)]
    for panel in panels[len(variants) :]:
        panel.set_visible(False)
    for panel in panels[max(len(variants) - COLUMNS, 0) : len(variants)]:
        panel.tick_params(labelbottom=True)
    panels[0].set_ylim(0, None)
    figure.supxlabel("epoch")
    figure.supylabel("top-1 error in %")
    common_legend(figure, panels[: len(variants)], 4)
    count = count_of_seeds(results.params.seeds, results.params.more_seeds.seeds)
    return figure, (
        f"Top-1 error over epochs, mean of {count}, shaded from the lowest to the "
        "highest; a run that stopped early keeps its last error. Training errors are running means over an epoch, with "
        "the augmentation and dropout that the variant trains with. Triangles: where a seed's learning rate dropped. "
        f"At the end, validation / training error in %: {'; '.join(ends)}."
    )


def _panel(panel: Axes, results: Results, variant: str) -> str:
    """Draw one variant in front of the baseline, and return its errors at the end."""
    if variant != "baseline":
        for column, (line, *_) in SPLITS.items():
            mean = _over_seeds(results, "baseline", column)["mean"]
            label = "the baseline's" if column == "val_error_top1" else None
            panel.plot(mean.index, mean, line, color=QUIET, linewidth=1.6, label=label, zorder=1)
    ends = []
    spreads = {column: _over_seeds(results, variant, column) for column in SPLITS}
    last = [spread["mean"].dropna().iloc[-1:].mean() for spread in spreads.values()]
    top = 0.97 if not last[0] > HIGH else 0.6 if min(last) > HIGH else 0.38  # of the text, clear of the curves
    for (column, (line, color, name)), end, height in zip(SPLITS.items(), last, (top, top - 0.14), strict=True):
        spread = spreads[column]
        panel.plot(spread.index, spread["mean"], line, color=color, label=name, zorder=3)
        panel.fill_between(spread.index, spread["min"], spread["max"], color=color, alpha=0.2, linewidth=0, zorder=2)
        ends.append(number(end, 1))
        text = f"{name.partition(' (')[0]} {ends[-1]} %"
        panel.text(0.98, height, text, transform=panel.transAxes, ha="right", va="top", color=color, fontsize=SMALL)
    drops = results.run_fact(variant, "lr_drops")
    epochs = [epoch for of_seed in drops if isinstance(of_seed, list) for epoch in of_seed]
    if epochs:  # a triangle at the foot of the panel for each
        panel.plot(
            epochs, np.full(len(epochs), 0.05), "v", color=INK, markersize=6, markeredgecolor="none", alpha=0.55,
            transform=panel.get_xaxis_transform(), label="a seed's learning rate drops", linestyle="none", zorder=4,
        )  # fmt: skip
    seeds = results.histories.loc[results.histories["variant"] == variant, "seed"].nunique()
    wanted = len(results.params.seeds_of(variant))
    count = "" if seeds == wanted else f"\n({seeds} of {several(wanted, 'seed')})"
    panel.set_title(legible(results.params.variants[variant].title, LONGEST_TITLE, variant) + count, parse_math=False)
    return f"{variant} {' / '.join(ends)}"


def _over_seeds(results: Results, variant: str, column: str) -> pd.DataFrame:
    """Return mean, minimum and maximum over the seeds, by epoch."""
    runs = results.histories[results.histories["variant"] == variant]
    by_seed = runs.pivot_table(column, "epoch", "seed").ffill()
    return pd.DataFrame({name: getattr(by_seed, name)(axis="columns") for name in ("mean", "min", "max")})
