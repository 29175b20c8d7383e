"""What the baseline's median net looks like inside, and what it answers: the paper's Figures 3 and 4 (left)."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline import paths
from pipeline.claims.results import Results, missing_file
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.report.figures.style import (
    HERE_PALE,
    INK,
    MUTED,
    PAPER_PALE,
    SMALLEST,
    WIDTH,
    WRONG,
    Drawn,
    legible,
    show_image,
)
from pipeline.runtime.checksums import verify
from pipeline.runtime.escaping import cut, escaped, one_line, prose

FILTERS_IN_A_ROW = 16  # at most, as in the paper's Figure 3
GAP = 0.03  # between the columns of the net, share of the height
EXAMPLES = 8  # as in the paper's Figure 4
MOST_LABELS = 5
LONGEST_NAME = 20  # characters, of a class


def filters(results: Results) -> Drawn:
    """Draw the first layer's filters of the baseline's median seed, as in the paper's Figure 3."""
    seed = results.median_seed("baseline")
    if seed is None:
        return "the baseline has no finished run"
    path = paths.seed(results.params.scale, "baseline", seed) / "model.safetensors"
    try:
        verify(results.root / path)
        weights = load_file(results.root / path)
    except (OSError, SafetensorError, UserError):
        return missing_file(results.root / path, results.root)
    names = sorted(name for name, weight in weights.items() if name.endswith("conv1.weight") and weight.ndim == 4)
    if not names:
        return f"`{path}` has no weight conv1.weight"
    kernels = weights[names[0]].astype(np.float64).transpose(0, 2, 3, 1)  # maps, height, width, channels
    if kernels.shape[-1] != 3:
        return f"`{path}`: conv1 has {kernels.shape[-1]} input channels, drawn are 3"
    grey = results.meta.get("channels") == 1  # then all channels see the same, and their differences learn nothing
    if grey:
        kernels = np.repeat(kernels.mean(-1, keepdims=True), 3, axis=-1)
    net = results.params.net
    columns = np.array_split(kernels, 2 if net.architecture == "alexnet" and net.towers in ("two", "separate") else 1)
    return _kernels(columns), (
        f"The {len(kernels)} filters of conv1, {kernels.shape[1]} × {kernels.shape[2]} pixels each, in the baseline of "
        f"median validation error (seed {seed}){', column 1 above column 2' if len(columns) > 1 else ''}. Grey is a "
        f"weight of zero; each filter has its own contrast. "
        + (
            "The images are grey, so the mean of the three channels is drawn: what is left of color comes from "
            "initialization."
            if grey
            else f"Color holds {_color(columns)} of the weights' energy."
        )
    )


def _kernels(columns: list[NDArray[np.float64]]) -> Figure:
    """Draw the columns, (maps, height, width, 3) each, as blocks one above the other."""
    blocks = [_block(kernels) for kernels in columns]
    heights = [block.shape[0] for block in blocks]
    figure = Figure(figsize=(WIDTH, 0.96 * WIDTH * sum(heights) / blocks[0].shape[1] + 0.15))
    figure.set_layout_engine("constrained", hspace=GAP)
    panels = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=heights).flatten()
    for number, (axes, block) in enumerate(zip(panels, blocks, strict=True), start=1):
        axes.imshow(block, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        if len(blocks) > 1:
            axes.set_ylabel(f"column {number}", rotation=0, ha="right", va="center")
    return figure


def _block(kernels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows of kernels with white between them, each from 0 to 1 around a grey zero: (height, width, 3)."""
    _, height, width, _ = kernels.shape
    across = min(FILTERS_IN_A_ROW, len(kernels))
    block = np.ones((-(-len(kernels) // across) * (height + 1) - 1, across * (width + 1) - 1, 3))
    for place, kernel in enumerate(kernels):
        top, left = (height + 1) * (place // across), (width + 1) * (place % across)
        block[top : top + height, left : left + width] = 0.5 + kernel / (2 * np.abs(kernel).max() or 1.0)
    return block


def _color(columns: list[NDArray[np.float64]]) -> str:
    """Return the share of the weights' energy off the grey axis, by column."""
    shares = []
    for kernels in columns:
        energy, grey = (kernels**2).sum(), 3 * (kernels.mean(-1) ** 2).sum()
        shares.append(f"{100 * (1 - grey / energy) if energy else 0:.0f} %")
    return " and ".join(shares)


def examples(results: Results) -> Drawn:
    """Draw eight test images and the labels found most probable, as in the paper's Figure 4 (left)."""
    seed = results.median_seed("baseline")
    predictions_path = paths.evaluation(results.params.scale, "baseline") / "predictions.parquet"
    data = paths.data(results.params.data.dataset)
    if seed is None:
        return "the baseline has no finished run"
    try:
        verify(results.root / predictions_path)
        predictions = pd.read_parquet(results.root / predictions_path)
    except (OSError, ValueError, UserError):
        return missing_file(results.root / predictions_path, results.root)
    try:
        images = Store.open(results.root / data).split("test").images
    except UserError as error:
        return f"`{data}/test/images.npy` cannot be shown ({prose(error)})"
    test = predictions.query("seed == @seed and split == 'test' and views == 'one_crop'").sort_values("index")
    chosen = chosen_examples(test)
    if chosen.empty or not results.classes:
        return "no predictions of the test images, or no names of classes"
    names = class_names(results.classes)
    labels = sum(f"top{place + 1}" in chosen for place in range(MOST_LABELS))
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    cells = figure.subfigures(2, EXAMPLES // 2, squeeze=False).flatten()
    for cell, (_, example) in zip(cells, chosen.iterrows(), strict=False):
        picture, bars = cell.subplots(2, 1, height_ratios=[1.25, 1])
        show_image(picture, np.asarray(images[int(example["index"])]))
        mark, color = ("✓", INK) if example["rank"] == 0 else ("✗", WRONG)
        picture.set_title(f"{mark} {names[int(example['label'])]}", color=color, parse_math=False)
        _bars(bars, example, names, labels)
    shown = {int(label) for name in ("label", *(f"top{k + 1}" for k in range(labels))) for label in chosen[name]}
    wrong = chosen[chosen["rank"] > 0]
    mistakes = [f"{_name(results, row.label)} taken for {_name(results, row.top1)}" for row in wrong.itertuples()]
    return figure, (
        f"{len(chosen)} test images and the {labels} labels that the baseline of median validation error (seed {seed}) "
        "finds most probable, with a bar as long as the probability, in orange for the true one. Shown are the first "
        f"images of different classes: {len(chosen) - len(wrong)} that it gets right (✓) and {len(wrong)} wrong (✗"
        f"{': ' if mistakes else ''}{', '.join(mistakes)}).{_explained(results.classes, names, shown)}"
    )


def chosen_examples(test: pd.DataFrame) -> pd.DataFrame:
    """Return the first right and the first wrong images, each of another class; half of each where there are enough."""
    right, wrong = (test[mask].drop_duplicates("label") for mask in (test["rank"] == 0, test["rank"] > 0))
    wrong = wrong.head(EXAMPLES // 2)
    return pd.concat([right.head(EXAMPLES - len(wrong)), wrong])


def class_names(classes: Sequence[str]) -> list[str]:
    """Return the classes' names as figures show them: by both ends if they are long, and each unlike the others.

    Names of letters that the font lacks are `class <label>`; those that would look alike end in their labels.
    """
    names = [legible(name, LONGEST_NAME, f"class {label}") for label, name in enumerate(classes)]
    count = Counter(names)
    marks = [f" ({label})" if count[name] > 1 else "" for label, name in enumerate(names)]
    return [cut(name, LONGEST_NAME - len(mark)) + mark for name, mark in zip(names, marks, strict=True)]


def _explained(classes: Sequence[str], names: Sequence[str], labels: Collection[int]) -> str:
    """Return what a caption adds for names that are cut or stand as a label: these names in full."""
    by_label = [label for label in sorted(labels) if names[label] != cut(one_line(classes[label]), LONGEST_NAME)]
    told = "; ".join(f"{escaped(names[label])} is {escaped(classes[label])}" for label in by_label)
    return f" In full: {told}." if told else ""


def _name(results: Results, label: object) -> str:
    return escaped(results.classes[int(str(label))])


def _bars(axes: Axes, example: pd.Series, names: Sequence[str], labels: int) -> None:
    for line in range(labels):
        guess, probability = int(example[f"top{line + 1}"]), float(example[f"p{line + 1}"])
        axes.barh(line, probability, color=PAPER_PALE if guess == int(example["label"]) else HERE_PALE, height=0.85)
        name = axes.text(0.02, line, names[guess], va="center", fontsize=SMALLEST, parse_math=False)
        name.set_in_layout(False)  # of wide letters it would make the panel narrow
        axes.text(1, line, f"{probability:.2f}", va="center", ha="right", fontsize=SMALLEST, color=MUTED)
    axes.set_xlim(0, 1)
    axes.set_ylim(MOST_LABELS - 0.4, -0.6)
    axes.axis("off")
