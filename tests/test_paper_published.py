import re

import pytest

from pipeline.paper.claims import registry
from pipeline.paper.net import paper_shapes
from pipeline.paper.published import Anchor, Architecture, Errors, Reproduction, published
from pipeline.report import background
from tests.fact_sheet import numbers, rows

PAIR = re.compile(r"(\d+\.?\d*)/(\d+\.?\d*)")

# The fact sheet's name of a reproduction, where it is not the registry's
PROJECTS = {
    "ZF Table 2": ["Zeiler and Fergus (2013)"],
    "Caffe bvlc_alexnet (readme, prototxt)": ["Caffe, bvlc_alexnet"],
    "CaffeNet (readme)": ["CaffeNet"],
    "CC2 1-GPU": ["cuda-convnet2, one-GPU net"],
    "torchvision V1 (docs)": ["torchvision V1"],
    "OneFlow-Benchmark; TF benchmarks as quoted there": ["OneFlow-Benchmark", "TensorFlow benchmarks"],
    "unnamed CIFAR-10 repo (code index)": ["unnamed CIFAR-10 repository"],
    "issues: MatConvNet 306; MXNet 826, 1422; Chainer PR 1650; DIGITS 1089": [
        "MatConvNet, issue 306",
        "MXNet, issues 826 and 1422",
        "Chainer, pull request 1650",
        "DIGITS, issue 1089",
    ],
}

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


def projects(cell: str) -> list[Reproduction]:
    names = PROJECTS.get(cell, [cell])
    found = [row for row in published().reproductions if row.project in names]
    assert len(found) == len(names), cell
    return found


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


def test_rivals_are_those_of_the_fact_sheet() -> None:
    by_claim = {cells[0]: cells[3] for cells in rows(1)}
    listed = [by_claim[name].split(" vs ")[1] for name in ("ilsvrc2010", "ensemble_7", "fall2009")]
    values = {value for row in published().contestants for value in (row.errors.top1, row.errors.top5)}
    assert set(numbers(" ".join(listed))) <= values


def test_every_reproduction_of_the_fact_sheet_is_listed_with_its_errors() -> None:
    named = [project for cells in rows(4) for project in projects(cells[0])]
    assert len(named) == len(published().reproductions)
    for project, _, _, result, _ in rows(4):
        results = [training for row in projects(project) for training in row.results]
        pairs = {(float(top1), float(top5)) for top1, top5 in PAIR.findall(result)}
        assert pairs <= {(training.top1, training.top5) for training in results}, project
        alone = [value for value in numbers(PAIR.sub("", result)) if value > 10]
        assert set(alone) <= {training.top1 for training in results}, project


def test_epochs_and_crops_are_those_of_the_fact_sheet() -> None:
    for project, _, protocol, *_ in rows(4):
        for row in projects(project):
            for training in row.results if protocol else ():
                assert training.epochs is None or training.epochs in numbers(protocol), project
                assert training.crops is None or training.crops in numbers(protocol), project


def test_seeds_are_those_of_the_fact_sheet() -> None:
    for project, *_, departures in rows(4):
        for row in projects(project):
            said = re.search(r"\*\*(?:(\d) of (\d) seeds learned|(\d) of (\d) runs)\*\*", departures)
            assert bool(said) == bool(row.seeds), project
            if said and row.seeds:
                learned = int(said[1]) if said[1] else int(said[4]) - int(said[3])
                assert (row.seeds.learned, row.seeds.runs) == (learned, int(said[2] or said[4])), project


def test_every_net_of_the_fact_sheet_is_listed_with_its_figures() -> None:
    for cells in rows(6):
        family = [net for net in published().architectures if cells[0].startswith(net.family)]
        assert {net.year for net in family} == {int(cells[0][-4:])}
        errors = [errors for net in family for errors in errors_of(net)]
        given = [value for error in errors for value in (error.top1, error.top5, *numbers(error.note))]
        names = r"wide conv3-5 \([\d,]+\)|T3|\(16,|\(19\)"
        assert set(numbers(re.sub(names, "", " ".join(cells[1:5])))) <= set(given), cells[0]
        assert any(error.unverified for error in errors) == ("*mem*" in " ".join(cells[1:5])), cells[0]


def test_sizes_of_nets_are_those_of_the_fact_sheet() -> None:
    for cells in rows(6):
        family = [net for net in published().architectures if cells[0].startswith(net.family)]
        counts = {"params": [count for net in family for count in net.parameters]}
        counts["MACs"] = [net.multiply_adds for net in family]
        for name, cell in (("params", cells[5]), ("MACs", cells[6])):
            values = [value for count in counts[name] for value in (count.value, *numbers(count.note))]
            units = [1.0, *({"k": 1e3, "M": 1e6, "G": 1e9}[suffix] for suffix in re.findall(r"\d([kMG])\b", cell))]
            for text in re.findall(r"\d*\.?\d+", re.sub(r"sparse C3|(?<=\d),(?=\d{3})", "", cell)):
                number, half_digit = float(text), 0.51 * 10.0 ** -len(text.partition(".")[2])
                assert any(abs(v / unit - number) < half_digit for v in values for unit in units), (cells[0], text)
            assert any(count.unverified for count in counts[name]) == ("*mem*" in cell), cells[0]
            assert any(count.calculated for count in counts[name]) == ("*calc*" in cell or family[0].name == "AlexNet")


def test_every_anchor_of_the_fact_sheet_is_listed() -> None:
    for data, model, error, source in rows(7):
        is_start = data == "ImageNet start"
        listed = [row for row in published().anchors if row.data == ("ILSVRC-2012" if is_start else data)]
        given = {value for row in listed for value in (row.error.top1, row.error.top5, row.up_to, row.log_loss)}
        told = re.findall(r"7\.16|\d+\.\d+ / \d+\.\d+ / \d+\.\d+", model) if is_start else [error]
        expected = re.sub(r"\(.*\)", "", " ".join(told)).replace("-", " ")
        assert numbers(expected)
        assert set(numbers(expected)) <= given, model
        for repository in re.findall(r"[\w-]+/[\w-]+", source):
            assert any(repository in row.source for row in listed), repository


def test_the_anchor_that_the_fact_sheet_has_from_memory_is_marked() -> None:
    values = [float(value) for cells in rows(7) for value in re.findall(r"([\d.]+) \*mem\*", cells[2])]
    assert values == [row.error.top1 for row in published().anchors if row.error.unverified]
