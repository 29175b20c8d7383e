import csv
from pathlib import Path

import pytest

from pipeline.paper.claims import registry
from pipeline.paper.net import paper_shapes
from pipeline.paper.published import Anchor, Architecture, Errors, published
from pipeline.report import background

# Layers as (maps in, maps out, kernel's side, side of the output)
FC_AFTER_5 = [(512 * 7 * 7, 4096, 1, 1), (4096, 4096, 1, 1), (4096, 1000, 1, 1)]
BLOCKS = ((64, 224), (128, 112), (256, 56), (512, 28), (512, 14))


def vgg(convolutions: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    layers, maps = [], 3
    for count, (kernels, side) in zip(convolutions, BLOCKS, strict=True):
        for _ in range(count):
            layers.append((maps, kernels, 3, side))
            maps = kernels
    return layers + FC_AFTER_5


LAYERS = {
    "LeNet-5": [(1, 6, 5, 28), (6, 16, 5, 10), (16 * 25, 120, 1, 1), (120, 84, 1, 1), (84, 10, 1, 1)],
    "ZFNet": [
        *((3, 96, 7, 110), (96, 256, 5, 26), (256, 384, 3, 13), (384, 384, 3, 13), (384, 256, 3, 13)),
        *((256 * 36, 4096, 1, 1), (4096, 4096, 1, 1), (4096, 1000, 1, 1)),
    ],
    "VGG-16": vgg((2, 2, 3, 3, 3)),
    "VGG-19": vgg((2, 2, 4, 4, 4)),
}


def net(name: str) -> Architecture:
    return next(net for net in published().architectures if net.name == name)


def errors_of(net: Architecture) -> list[Errors]:
    return [*net.one_crop, *net.ten_crops, *net.best_single, *net.ensemble]


def test_every_row_has_a_source() -> None:
    registry = published()
    for row in (*registry.contestants, *registry.reproductions, *registry.anchors, *registry.architectures):
        assert row.source.strip(), row


def test_a_row_without_a_source_or_a_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="source"):
        Anchor.model_validate({"data": "x", "model": "x", "error": {"top1": 1}})
    with pytest.raises(ValueError, match="a top-1 error or a log loss"):
        Anchor.model_validate({"data": "x", "model": "x", "error": {}, "source": "x"})


def test_the_papers_own_results_are_those_of_its_claims() -> None:
    for row in published().contestants:
        assert row.own == (row.claim is not None), row
        if row.claim and (row.data, row.split) != ("ILSVRC-2012", "test"):
            figures = registry().claim(row.claim).figures
            assert (row.errors.top1, row.errors.top5) == (figures["top1"].effect, figures["top5"].effect), row


@pytest.mark.parametrize("name", LAYERS)
def test_calculated_counts_follow_from_the_layers(name: str) -> None:
    weights = [(size**2 * maps_in * maps, maps, side) for maps_in, maps, size, side in LAYERS[name]]
    assert sum(count + biases for count, biases, _ in weights) == net(name).parameters[0].value
    multiply_adds = sum(count * side**2 for count, _, side in weights)
    assert multiply_adds == pytest.approx(net(name).multiply_adds.value, rel=0.01)
    assert net(name).parameters[0].calculated
    assert net(name).multiply_adds.calculated


def test_alexnets_counts_are_those_of_the_layer_table() -> None:
    assert net("AlexNet").parameters[0].value == sum(shape.parameters for shape in paper_shapes())
    assert net("AlexNet").multiply_adds.value == sum(shape.multiply_adds for shape in paper_shapes())


def test_tables_have_a_line_for_each_row_and_mark_what_is_not_published() -> None:
    tables = {
        background.rivals_table(): published().contestants,
        background.reproductions_table(): published().reproductions,
        background.anchors_table(): published().anchors,
        background.architectures_table(): published().architectures,
    }
    for table, lines in tables.items():
        assert len(table.splitlines()) == len(lines) + 2
    assert "25.6 million (unverified)" in background.architectures_table()
    assert "60,965,224 (calculated)" in background.architectures_table()
    assert "16.6 (unverified)" in background.anchors_table()
    assert "90 (unverified)" in background.reproductions_table()
    assert "| 40.5 / 18.1 " in background.reproductions_table()


def typed_in(name: str) -> list[list[str]]:
    """A table of tests/data/, which was typed in from the sources and not from the registry."""
    with (Path(__file__).with_name("data") / name).open(newline="") as file:
        return list(csv.reader(file))[1:]


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"


def line(table: str, name: str, where: str, errors: Errors, *more: float | None) -> list[str]:
    return [table, name, where, shown(errors.top1), shown(errors.top5), *map(shown, (*more, *[None] * (4 - len(more))))]


def test_every_published_error_with_its_epochs_and_crops_is_the_one_in_its_source() -> None:
    registry = published()
    found = [line("contestants", row.method, f"{row.data} {row.split}", row.errors) for row in registry.contestants]
    for row in registry.reproductions:
        found += [line("reproductions", row.project, row.data, it, it.epochs, it.crops) for it in row.results]
    for anchor in registry.anchors:
        more = (None, None, anchor.up_to, anchor.log_loss)
        found.append(line("anchors", anchor.model, anchor.data, anchor.error, *more))
    for one in registry.architectures:
        for kind in ("one_crop", "ten_crops", "best_single", "ensemble"):
            found += [line("architectures", one.name, kind, errors) for errors in getattr(one, kind)]
    assert found == typed_in("published_errors.csv")


def test_years_and_sizes_of_nets_are_those_in_their_sources() -> None:
    found = []
    for one in published().architectures:
        counts = [("parameters", count) for count in one.parameters] + [("multiply-adds", one.multiply_adds)]
        found += [[one.name, str(one.year), figure, shown(count.value)] for figure, count in counts]
    assert found == typed_in("published_sizes.csv")


def test_seeds_that_learned_are_those_in_their_sources() -> None:
    seeds = {row.project: (row.seeds.learned, row.seeds.runs) for row in published().reproductions if row.seeds}
    assert seeds == {"CaffeNet": (5, 8), "gchaperon/alexnet": (1, 3)}


def test_what_is_from_memory_is_marked() -> None:
    registry = published()
    assert [row.error.top1 for row in registry.anchors if row.error.unverified] == [16.6, 55]
    of_nets = [(one.name, error.top1) for one in registry.architectures for error in errors_of(one) if error.unverified]
    assert of_nets == [("LeNet-5", 0.8)]
    counts = [(one.name, count.value) for one in registry.architectures for count in one.parameters if count.unverified]
    resnets = [("ResNet-50", 25_600_000), ("ResNet-101", 44_500_000), ("ResNet-152", 60_200_000)]
    assert counts == [("LeNet-5", 60_000), *resnets]
