"""What the report cannot show and where it departs from the paper, said from the data."""

from collections.abc import Iterator
from typing import cast

from pipeline.claims.effects import LEVEL
from pipeline.claims.learning import seeds_that_guess
from pipeline.claims.results import Results
from pipeline.claims.table import TOP5_CLASSES, Row, is_beyond
from pipeline.paper.claims import Claim
from pipeline.paper.net import paper_net
from pipeline.params import FRACTIONS, TINY_IMAGENET, TINY_IMAGENET_CLASSES, Recipe, data_title, variant_table
from pipeline.report.formatting import count_of_seeds, number
from pipeline.runtime.escaping import prose

PAPER_IMAGES, PAPER_STEPS = 1_200_000, 900_000  # of training (sections 2 and 5)


def departures(results: Results) -> list[str]:
    """Return what differs from the paper: what follows from data, net and recipe, then what the scale adds."""
    params = results.params
    whole_net = params.net.architecture == "alexnet"
    lines = list(_of_data(results))
    if whole_net and params.net.width < 1:
        lines += [
            f"The net has {FRACTIONS.get(params.net.width, params.net.width)} of the paper's kernels and units and "
            f"sees crops of {params.net.crop_px} px; its layers, strides, groups and map-size ratios are the paper's.",
            "Each layer's initial standard deviation is multiplied by the square root of (fan-in of the paper's layer "
            "/ fan-in here), without which the narrow net gets too weak a signal.",
        ]
    lines += [prose(line) for line in params.departures]
    images = _train_images(results)
    if whole_net and images and images < PAPER_IMAGES / 2:
        steps = params.train.epochs * -(-images // params.train.batch_images)
        lines.append(f"A run takes at most {steps:,} steps; the paper's took about {PAPER_STEPS:,}.")
    if any(variant.study for variant in params.variants.values()) and params.tune.trials:
        lines.append(f"Tuned learning rates and weight decays were chosen on runs of {params.tune.epochs} epochs.")
    if params.net.crop_px == paper_net().crop_px:
        lines.append(
            f"Crops measure {paper_net().crop_px} px. The paper prints 224, which gives its 55 × 55 maps only where "
            "sizes are rounded up."
        )
    if params.train.pca_jitter_std:
        lines.append(
            "Color noise is scaled by the standard deviations along the principal components, as in the authors' "
            "source. The paper prints the eigenvalues (section 4.1), their squares, which on grey levels from 0 to "
            "255 would leave nothing of the image."
        )
    if whole_net and params.net.towers == "two":
        lines.append("Both columns run on one device, as groups of kernels; the paper gives each a GPU (section 3.2).")
    if params.train.schedule == "fixed":
        shares = ", ".join(f"{100 * share:g} %" for share in params.train.drop_at[: params.train.lr_drops])
        lines.append(
            f"The rate drops after fixed shares of the epochs ({shares}); the authors dropped it by hand when the "
            "validation error had stopped improving (section 5)."
        )
    else:
        lines.append(
            f"The rate drops when the validation error has not improved for {params.train.patience_epochs} epochs; "
            "the authors watched it and dropped the rate by hand (section 5)."
        )
    table = variant_table()
    for item in Recipe.model_fields:
        if getattr(params.recipe, item) == "coded":
            row = table[f"{item}_as_coded"]
            source = f"as in the authors' source and not as printed (section {row['section']})"
            lines.append(f"{row['description'].removesuffix('.')}, {source}.")
    return lines


def _train_images(results: Results) -> int | None:
    """Return the number of training images; None where it is not known."""
    counts = results.meta.get("counts")
    found = counts.get("train") if isinstance(counts, dict) else results.params.data.train_images
    return found if isinstance(found, int) else None


def _of_data(results: Results) -> Iterator[str]:
    data, count = results.params.data, _train_images(results)
    grey = results.meta.get("channels") == 1
    if data.dataset.startswith("imagenet"):
        official = "validation" if data.dataset == "imagenet2012" else "test"
        yield (
            "Images held out of the training set decide when the rate drops; the official "
            f"{official} set is measured once, at the end."
        )
    else:
        number_of = f"{count:,}" if count else "all"
        yield (
            f"The net learns from {number_of} {'grey' if grey else 'color'} images of "
            f"{prose(data_title(data.dataset))} in {len(results.classes) or 'unknown'} classes, resized bilinearly to "
            f"{data.image_size} px, not from 1.2 "
            "million color photographs in a thousand classes."
        )
    if data.dataset == TINY_IMAGENET:
        if data.classes is not None:
            how = "spread evenly over the sorted WNIDs" if isinstance(data.classes, int) else "chosen by their WNIDs"
            yield f"The classes are {len(results.classes)} of {TINY_IMAGENET_CLASSES}, {how}."
        yield (
            "Its validation images are the test images here, as the labels of its own were never published; held-out "
            "training images are the validation images. All were published at 64 px. No figure shows any of them."
        )
    if data.folder is not None and data.dataset == "cifar10":
        yield "The images were read from a folder of files, and not from the published release."
    if grey:
        yield "The three input channels are equal, so that color noise changes brightness only."


def what_it_cannot_show(results: Results, claims: list[Row]) -> list[str]:
    """Return what a reader must not conclude, with this report's own numbers."""
    rows = [row for row in claims if row.main]
    lines = [
        f"`{variant}` did not learn with seed {', '.join(map(str, seeds))}: its test error is that of guessing. A "
        "comparison with it is about whether a net starts to learn, not how well it ends."
        for variant in results.params.variants
        if (seeds := seeds_that_guess(results, variant))
    ]
    reasons = {"not run at this scale": "are not tested here", "cannot be run": "cannot be tested by anyone today"}
    for word, why in reasons.items():
        named = [row for row in rows if row.verdict.word == word and not is_beyond(results, cast("Claim", row.claim))]
        if names := [f"`{row.id}`" for row in named]:
            lines.append(f"Of the paper's {len(rows)} claims {len(names)} {why}: {', '.join(names)}.")
    if count := sum(bool(row.evidence) and not row.evidence[0].on_paper_data for row in rows):
        lines.append(
            f"Claims tested on other data or a smaller net than the paper's: {count}. A direction seen here "
            f"({prose(results.params.title)}) is evidence about this scale: an ingredient may gain nothing on small "
            "images and much on ImageNet, or the reverse."
        )
    tested = [row for row in rows if row.unit == "points" and row.effect.half_width is not None]
    if halves := sorted(row.effect.half_width or 0.0 for row in tested):
        trained = count_of_seeds(results.params.seeds, results.params.more_seeds.seeds)
        lines.append(
            f"With {trained} the {100 * LEVEL:.0f} % intervals have half-widths from "
            f"{number(halves[0])} to {number(halves[-1])} points; an effect smaller than that cannot be seen."
        )
    if sizes := sorted((row.figures.effect, row.id) for row in tested if row.figures.effect):
        size, name = sizes[0]
        lines.append(f"The smallest of the paper's effects that is tested here has {size:g} points (`{name}`).")
    counts = results.meta.get("counts")
    test = f"{counts['test']:,} " if isinstance(counts, dict) and isinstance(counts.get("test"), int) else ""
    lines.append(
        f"The intervals of effects allow for other seeds and for other images than the {test}test images; all runs "
        "share one training set, and another draw of that could move a figure by more than its interval."
    )
    if 0 < len(results.classes) <= TOP5_CLASSES:
        lines.append(f"Top-5 error says nothing with {len(results.classes)} classes, and is left out.")
    lines.append(
        "Each of the paper's figures is one run without an interval; near-identical nets of its authors differ by as "
        "much as 0.4 points."
    )
    return lines
