"""Figures of what evaluation found out about trained nets: each from one variant's parsed analyses.json.

Each function returns the figure and its caption, or why there is none. The same results give the same bytes.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipeline.data.store import Store
from pipeline.report.figures.style import HERE, PAPER, WIDTH, Drawn, show_image
from pipeline.runtime.escaping import escaped

Analyses = dict[str, Any]


def ensemble_size(analyses: Analyses) -> Drawn:
    """Draw top-1 and top-5 error of the mean prediction of 1, 2, … seeds (Table 2)."""
    ensembles = analyses.get("ensembles", {})
    if len(ensembles) < 2:
        return "fewer than two seeds are finished, of which no ensemble can be made"
    sizes = [int(size) for size in ensembles]
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    for axes, k in zip(figure.subplots(1, 2), (1, 5), strict=True):
        spreads = [found[f"error_top{k}"] for found in ensembles.values()]
        mean, low, high = ([spread[name] for spread in spreads] for name in ("mean", "min", "max"))
        _band(axes, sizes, mean, low, high)
        axes.set_xticks(sizes)
        axes.set_xlabel("nets in the ensemble")
        axes.set_ylabel(f"top-{k} test error in %")
    one, *_, all_of_them = (found["error_top1"]["mean"] for found in ensembles.values())
    counts = ", ".join(str(found["ensembles"]) for found in ensembles.values())
    return figure, (
        "Test error of the mean prediction of several nets that differ in their seed alone: mean over the ensembles "
        f"of each size ({counts}), shaded from the best to the worst. Top-1 error goes from {one:.1f} % of one net to "
        f"{all_of_them:.1f} % of {sizes[-1]}."
    )


def shifted_objects(analyses: Analyses) -> Drawn:
    """Draw top-1 error against the distance of the crop from the center (section 6.1)."""
    found = _measured(analyses, "off_centre")
    if isinstance(found, str):
        return found
    shares = [100 * point["share"] for point in found[0]["shifts"]]
    errors = np.array([[point["error_top1"] for point in seed["shifts"]] for seed in found])
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    _band(axes, shares, errors.mean(0), errors.min(0), errors.max(0))
    chance = found[0]["chance"]
    axes.axhline(chance, color=PAPER, linewidth=1.8, linestyle="--")
    axes.annotate("guessing", (0, chance), (4, -4), textcoords="offset points", va="top", color=PAPER)
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.set_ylim(0, 100)
    axes.set_xlabel("shift in % of the crop's side")
    axes.set_ylabel("top-1 test error in %")
    center, *_, farthest = errors.mean(0)
    return figure, (
        f"Error on {found[0]['images']:,} test images whose crop is moved from the center, mean of the four "
        "directions; what lies beyond the image is filled with the mean image. It goes from "
        f"{center:.1f} % at the center to {farthest:.1f} % at a shift of {shares[-1]:g} %. {_seeds(len(found))}"
    )


def halved_net(analyses: Analyses) -> Drawn:
    """Draw the net with halved outputs against the geometric mean over more and more dropout nets (section 4.2)."""
    found = _measured(analyses, "dropout_test_half")
    if isinstance(found, str):
        return found
    nets = [point["nets"] for point in found[0]["geometric_mean"]]
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    for axes, key, label in zip(
        figure.subplots(1, 2),
        ("agreement", "kl"),
        ("same best label, % of images", "divergence from the mean in nats"),
        strict=True,
    ):
        values = np.array([[point[key] for point in seed["geometric_mean"]] for seed in found])
        _band(axes, nets, values.mean(0), values.min(0), values.max(0))
        axes.set_xscale("log")
        axes.set_xticks(nets, [str(count) for count in nets])
        axes.minorticks_off()
        axes.set_xlabel("dropout nets in the geometric mean")
        axes.set_ylabel(label)
        if key == "kl":
            axes.set_ylim(0, None)
    halved = np.mean([seed["halved_error_top1"] for seed in found])
    mean = np.mean([seed["geometric_mean"][-1]["error_top1"] for seed in found])
    return figure, (
        "How close the net with halved outputs is to the geometric mean of the predictions of dropout nets, on "
        f"{found[0]['images']:,} test images; top-1 error {halved:.1f} % (halved) and {mean:.1f} % (mean of {nets[-1]} "
        f"dropout nets). {_seeds(len(found))}"
    )


def neighbors(analyses: Analyses, store: Store, seed: int) -> Drawn:
    """Draw test images with their nearest training images by the last hidden layer and by pixels (Figure 4, right)."""
    found = analyses.get("seeds", {}).get(str(seed), {}).get("nn_4096")
    if found is None:
        return f"neighbors were not looked for in the net of seed {seed}"
    examples, count = found["examples"], found["neighbors"]
    test, train = store.split("test"), store.split("train")
    widths = [1, 0.3, *[1] * count, 0.3, *[1] * count]
    figure = Figure(figsize=(0.66 * sum(widths), 0.7 * len(examples) + 0.6))
    cells = figure.subplots(len(examples), len(widths), squeeze=False, width_ratios=widths)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=1 - 0.55 / figure.get_figheight(), wspace=0.12)
    for axes in cells.flatten():
        axes.axis("off")
    for row, example in zip(cells, examples, strict=True):
        query = example["query"]
        show_image(row[0], np.asarray(test.images[query]))
        for first, space in ((2, "features"), (3 + count, "pixels")):
            for axes, index in zip(row[first:], example[space], strict=False):
                show_image(axes, np.asarray(train.images[index]))
                _mark(axes, bool(train.labels[index] == test.labels[query]))
    cells[0, 0].set_title("test\nimage")
    for first, space, name in ((2, "features", "last hidden layer"), (3 + count, "pixels", "pixels")):
        title = f"nearest by {name}:\n{found[f'{space}_agreement']:.1f} % have its label"
        box = cells[0, first].get_position()
        figure.text(box.x0, 1 - 0.08 / figure.get_figheight(), title, va="top")
    classes = [escaped(store.meta.classes[test.labels[example["query"]]]) for example in examples]
    return figure, (
        f"Test images and the {count} training images at the least Euclidean distance, nearest first: by activities "
        f"of the last hidden layer (seed {seed}) and by grey levels. Blue frame: the same label; orange cross: "
        f"another. Shown are the first images of different classes ({', '.join(classes)}); the shares are over "
        f"{found['queries']} test images."
    )


def _measured(analyses: Analyses, claim: str) -> list[dict[str, Any]] | str:
    """Return one claim's results, one for each seed, or why there are none."""
    found = [seed[claim] for seed in analyses.get("seeds", {}).values() if claim in seed]
    if not found:
        return f"{claim} was not measured"
    reason: str | None = found[0].get("reason")
    return reason or found


def _band(axes: Axes, x: Any, mean: Any, low: Any, high: Any) -> None:
    axes.plot(x, mean, "o-", color=HERE)
    axes.fill_between(x, low, high, color=HERE, alpha=0.25, linewidth=0)
    axes.grid(axis="y")


def _mark(axes: Axes, same_label: bool) -> None:
    """Draw a frame for the same label, a cross for another."""
    if same_label:
        axes.add_patch(
            Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=HERE, linewidth=3, clip_on=False)
        )
        return
    for color, width in (("white", 5), (PAPER, 3)):
        for heights in ([0.7, 0.95], [0.95, 0.7]):
            axes.plot([0.7, 0.95], heights, color=color, linewidth=width, transform=axes.transAxes)


def _seeds(count: int) -> str:
    return "One seed." if count == 1 else f"Mean of {count} seeds, shaded from the lowest to the highest."
