"""Error over epochs: a panel for each variant that a claim is mainly about, the baseline behind each."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.collect import Results
from pipeline.report.style import HERE, INK, PAPER, QUIET, SMALL, WIDTH, Drawn, common_legend, several
from pipeline.report.tables import number

# In order of interest: as many as fit are drawn.
VARIANTS = (
    *("baseline", "no_dropout", "no_response_norm", "no_weight_decay", "biases_zero", "tanh", "no_lr_drops"),
    *("non_overlapping_pooling", "one_column", "no_crops_no_mirror", "published_11", "as_coded", "tuned"),
)
MOST, COLUMNS = 9, 3
PANEL_INCHES, FRAME_INCHES = 2.2, 0.9
SPLITS = {  # column of history.csv: line, colour, name
    "val_error_top1": ("-", HERE, "validation"),
    "train_error_top1": ("--", PAPER, "training (mean over the epoch)"),
}


def curves(results: Results) -> Drawn:
    """Mean over the seeds and a band from the lowest to the highest."""
    recorded = set(results.histories["variant"])
    variants = [name for name in VARIANTS if name in results.params.variants and name in recorded][:MOST]
    if not variants:
        return "no run of the variants that it shows has a history"
    rows = -(-len(variants) // COLUMNS)
    figure = Figure(figsize=(WIDTH, PANEL_INCHES * rows + FRAME_INCHES), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
    baseline = {column: over_seeds(results, "baseline", column) for column in SPLITS}
    ends = {}
    for panel, variant in zip(panels, variants, strict=False):
        if variant != "baseline":
            for column, (line, *_) in SPLITS.items():
                mean = baseline[column]["mean"]
                label = "the baseline's" if column == "val_error_top1" else None
                panel.plot(mean.index, mean, line, color=QUIET, linewidth=1.6, label=label, zorder=1)
        spreads = {column: over_seeds(results, variant, column) for column in SPLITS}
        for column, (line, colour, name) in SPLITS.items():
            _band(panel, spreads[column], line, colour, name)
        _drops(panel, results.run_fact(variant, "lr_drops"))
        ends[variant] = [_last(spreads[column]) for column in SPLITS]
        seeds = results.histories.loc[results.histories["variant"] == variant, "seed"].nunique()
        whole = seeds == len(results.params.seeds)
        title = results.params.variants[variant].title
        panel.set_title(title if whole else f"{title}\n({seeds} of {several(len(results.params.seeds), 'seed')})")
        _end(panel, *ends[variant])
    _finish(figure, list(panels), len(variants))
    shown = "; ".join(f"{name} {number(val, 1)} / {number(train, 1)}" for name, (val, train) in ends.items())
    return figure, (
        f"Top-1 error over epochs, mean of {several(len(results.params.seeds), 'seed')}, shaded from the lowest to the "
        "highest; a run that stopped early keeps its last error. Training errors are running means over an epoch, with "
        "the augmentation and dropout that the variant trains with. Triangles: where a seed's learning rate dropped. "
        f"At the end, validation / training error in %: {shown}."
    )


def over_seeds(results: Results, variant: str, column: str) -> pd.DataFrame:
    """Mean, minimum and maximum over the seeds, by epoch."""
    runs = results.histories[results.histories["variant"] == variant]
    by_seed = runs.pivot_table(column, "epoch", "seed").ffill()
    return pd.DataFrame({name: getattr(by_seed, name)(axis="columns") for name in ("mean", "min", "max")})


def _band(panel: Axes, spread: pd.DataFrame, line: str, colour: str, name: str) -> None:
    panel.plot(spread.index, spread["mean"], line, color=colour, label=name, zorder=3)
    panel.fill_between(spread.index, spread["min"], spread["max"], color=colour, alpha=0.2, linewidth=0, zorder=2)


def _drops(panel: Axes, drops: Iterable[object]) -> None:
    """A triangle at the foot of the panel after each epoch in which a seed's rate fell."""
    epochs = [epoch for seed in drops if isinstance(seed, list) for epoch in seed]
    if epochs:
        foot = panel.get_xaxis_transform()
        panel.plot(
            epochs, np.full(len(epochs), 0.05), "v", color=INK, markersize=6, markeredgecolor="none", alpha=0.55,
            transform=foot, label="a seed's learning rate drops", linestyle="none", zorder=4,
        )  # fmt: skip


def _end(panel: Axes, val: float, train: float) -> None:
    for height, colour, text in (
        (0.97, HERE, f"validation {number(val, 1)} %"),
        (0.83, PAPER, f"training {number(train, 1)} %"),
    ):
        panel.text(0.98, height, text, transform=panel.transAxes, ha="right", va="top", color=colour, fontsize=SMALL)


def _last(spread: pd.DataFrame) -> float:
    known = spread["mean"].dropna()
    return float(known.iloc[-1]) if len(known) else float("nan")


def _finish(figure: Figure, panels: list[Axes], used: int) -> None:
    for panel in panels[used:]:
        panel.set_visible(False)
    for panel in panels[max(used - COLUMNS, 0) : used]:
        panel.tick_params(labelbottom=True)
    panels[0].set_ylim(0, None)
    figure.supxlabel("epoch")
    figure.supylabel("top-1 error in %")
    common_legend(figure, panels[:used], 4)
