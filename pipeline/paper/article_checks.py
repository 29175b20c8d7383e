"""The article's statements that arithmetic can settle. Each check takes the article's figures."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.paper.claims import Key, registry
from pipeline.paper.net import PRINTED, full_size, paper_net, paper_shapes, shapes
from pipeline.paper.published import Contestant, published
from pipeline.paper.recipe import DROPOUT_P
from pipeline.paper.small_nets import small_nets

IMAGE_SIZE, PRINTED_CROP_PX = 256, 224  # section 4.1
OTHER_CROP_PX = 195  # another size that the layers accept


@dataclass(frozen=True)
class Finding:
    text: str
    holds: bool  # whether the article's figures are those computed


def _contestant_2012(own: bool) -> Contestant:
    rows = [row for row in published().contestants if row.data == "ILSVRC-2012" and row.split == "test"]
    return min((row for row in rows if row.own == own), key=lambda row: row.errors.top5 or 100)


def _top5_2012() -> tuple[float, float]:
    """The winner's and the second's top-5 error on the test images."""
    winner, second = (_contestant_2012(own).errors.top5 for own in (True, False))
    assert winner is not None
    assert second is not None
    return winner, second


def margin_2012(points: float) -> Finding:
    winner, second = _top5_2012()
    margin = round(second - winner, 1)
    return Finding(
        f"{second} - {winner} = {margin} points, {100 * margin / second:.0f} % of {second}", margin == points
    )


def errors_2012(winner: float, second: float) -> Finding:
    true = _top5_2012()
    return Finding("{} and {}".format(*true), true == (winner, second))


def errors_2010(top1: float, top5: float) -> Finding:
    figures = registry().claim("ilsvrc2010").figures
    true = figures["top1"].effect, figures["top5"].effect
    return Finding("{} and {}".format(*true), true == (top1, top5))


def _rival_2010(key: Key, article: float) -> Finding:
    rows = [row for row in published().contestants if row.data == "ILSVRC-2010" and not row.own]
    values = {row.method: getattr(row.errors, key) for row in rows}
    return Finding("; ".join(f"{method} {value}" for method, value in values.items()), article in values.values())


def rival_top1_2010(top1: float) -> Finding:
    return _rival_2010("top1", top1)


def rival_top5_2010(top5: float) -> Finding:
    return _rival_2010("top5", top5)


def years(*article: float) -> Finding:
    true = {net.family: net.year for net in published().architectures}
    return Finding(", ".join(f"{family} {year}" for family, year in true.items()), tuple(true.values()) == article)


def layer_counts(conv: float, pools: float, norms: float) -> Finding:
    layers = paper_net().layers
    true = (
        sum(layer.size is not None for layer in layers),
        sum(layer.pool for layer in layers),
        len(PRINTED.norm_layers),
    )
    return Finding("{} convolutional, {} pooling, {} normalizing".format(*true), true == (conv, pools, norms))


def fully_connected_layers(article: float) -> Finding:
    table = [shape for shape in paper_shapes() if shape.layer.size is None]
    last, layers = table[-1], len(paper_shapes())
    text = f"{len(table)}; the last has {last.parameters:,} parameters; {layers} layers with weights"
    return Finding(text, len(table) == article)


def fc6_inputs() -> Finding:
    """A fully connected layer's weights fix the size of the image."""
    fixed = paper_net().crop_px
    inputs = {
        crop: next(
            shape for shape in shapes(PRINTED.model_copy(update={"crop_px": crop}), 1) if shape.layer.size is None
        )
        for crop in (fixed, OTHER_CROP_PX)
    }
    text = "; ".join(f"fc6 has {shape.fan_in:,} inputs at {crop} px" for crop, shape in inputs.items())
    return Finding(text, len({shape.fan_in for shape in inputs.values()}) == len(inputs))


def conv1_maps(article_px: float) -> Finding:
    """The article explains its crop by padding."""
    conv1 = paper_net().layers[0]
    assert conv1.size
    down = {px: (px - conv1.size) // conv1.stride + 1 for px in (PRINTED_CROP_PX, int(article_px))}
    up = -(-(PRINTED_CROP_PX - conv1.size) // conv1.stride) + 1
    rounded_down = ", ".join(f"{side} from {px} px" for px, side in down.items())
    text = f"maps' side {up} from {PRINTED_CROP_PX} px rounded up; rounded down {rounded_down}; padding {conv1.padding}"
    return Finding(text, conv1.padding > 0)


def parameters(article: float) -> Finding:
    """The article, as the paper, gives whole millions and drops the rest."""
    true = sum(shape.parameters for shape in paper_shapes())
    return Finding(f"{true:,} parameters", true // 10**6 * 10**6 == article)


def columns() -> Finding:
    """Two columns split every layer's kernels in halves; only some layers see their own half alone."""
    hidden = paper_shapes()[:-1]
    apart = [shape.layer.name for shape in hidden if shape.groups == 2]
    text = f"all {len(hidden)} hidden layers split evenly; {', '.join(apart)} see their own column only"
    return Finding(text, all(shape.maps % 2 == 0 for shape in hidden))


def pooled_maps() -> Finding:
    """Overlapping pooling against the control as printed (equal maps), and as logged."""
    plain = PRINTED.model_copy(update={"pool_px": 2})
    logged = plain.model_copy(update={"pool_shapes": "logged"})
    sides = [[shape.pooled_side for shape in full_size(net) if shape.layer.pool] for net in (PRINTED, plain, logged)]
    three, two, other = (", ".join(str(side) for side in table) for table in sides)
    return Finding(f"3 px: {three}; 2 px: {two}; the source's own control: {other}", three == two)


def figure1_net() -> Finding:
    """The article takes Figure 1's net for AlexNet."""
    small, large = len(small_nets()["four_layer"].layers), len(paper_net().layers)
    return Finding(f"Figure 1's net has {small} layers, AlexNet {large}", small == large)


def crop_factor(crop_px: float, article: float) -> Finding:
    """Places of a crop times two for its mirror image, with the last place counted or not."""
    places = {px: IMAGE_SIZE - px for px in (PRINTED_CROP_PX, int(crop_px))}
    printed = 2 * places[PRINTED_CROP_PX] ** 2
    factors = {px: 2 * (count + 1) ** 2 for px, count in places.items()}
    inclusive = "; ".join(f"{px} px: {count + 1}² · 2 = {factors[px]:,}" for px, count in places.items())
    text = f"the paper counts {places[PRINTED_CROP_PX]}² · 2 = {printed:,}; with the last place {inclusive}"
    return Finding(text, article in (2 * places[int(crop_px)] ** 2, factors[int(crop_px)]))


def dropout(p: float) -> Finding:
    return Finding(f"p = {DROPOUT_P} in {' and '.join(PRINTED.dropout_layers)}", p == DROPOUT_P)


CHECKS: dict[str, Callable[..., Finding]] = {
    check.__name__: check
    for check in (
        *(margin_2012, errors_2012, errors_2010, rival_top1_2010, rival_top5_2010, years),
        *(layer_counts, fully_connected_layers, fc6_inputs, conv1_maps, parameters, columns),
        *(pooled_maps, figure1_net, crop_factor, dropout),
    )
}
