"""The paper's net: its table's arithmetic by hand, and the module that is built from it."""

import math

import pytest
import torch
from torch import nn

from pipeline.models.alexnet import Dropout, build
from pipeline.models.build import multiply_adds as count_multiply_adds
from pipeline.paper.net import PRINTED, full_size_table, paper_shapes, shapes
from pipeline.paper.recipe import both_readings
from tests.tiny import settings

FULL = {"crop_px": 227, "width": 1.0}
CROPS = (67, 99, 131, 163, 195, 227)


def names_in_order(net: nn.Sequential, first: str, last: str) -> list[str]:
    names = [name for name, _ in net.named_children()]
    return names[names.index(first) : names.index(last)]


@pytest.fixture(scope="module")
def full_net() -> nn.Sequential:
    torch.manual_seed(0)
    return build(settings(net=FULL), classes=1000)


@pytest.mark.parametrize(
    ("towers", "parameters", "multiply_adds"),
    [
        ("two", 60_965_224, 724_406_816),
        ("joined", 62_378_344, 1_135_256_096),
        ("half", 59_798_312, None),  # the paper's control of one column
    ],
)
def test_table_and_module_have_the_parameters_and_multiply_adds_counted_by_hand(
    towers: str, parameters: int, multiply_adds: int | None
) -> None:
    assert sum(shape.parameters for shape in paper_shapes(towers)) == parameters  # type: ignore[arg-type]
    with torch.device("meta"):
        net = build(settings(net=FULL | {"towers": towers}), classes=1000)
    assert sum(p.numel() for p in net.parameters()) == parameters
    if multiply_adds is not None:
        assert sum(shape.multiply_adds for shape in paper_shapes(towers)) == multiply_adds  # type: ignore[arg-type]
        assert count_multiply_adds(settings(net=FULL | {"towers": towers}), classes=1000, channels=3) == multiply_adds


def test_its_maps_are_55_27_13_and_6_px_wide(full_net: nn.Sequential) -> None:
    conv1, conv2, conv3, conv4, conv5, *_ = paper_shapes()
    assert [conv1.side, conv1.pooled_side, conv2.side, conv2.pooled_side] == [55, 27, 27, 13]
    assert [conv3.side, conv4.side, conv5.side, conv5.pooled_side] == [13, 13, 13, 6]
    x = torch.zeros(1, 3, 227, 227)
    sides = {}
    with torch.no_grad():
        for name, module in full_net.named_children():
            x = module(x)
            if x.ndim == 4:
                sides[name] = x.shape[-1]
    assert [sides[name] for name in ("conv1", "conv1_pool", "conv2_pool", "conv5", "conv5_pool")] == [55, 27, 13, 13, 6]
    assert x.shape == (1, 1000)


def test_it_has_the_papers_650_thousand_neurons_and_figure_2_counts_conv1_wrongly() -> None:
    rows = {row["layer"]: row for row in full_size_table()}
    assert round(sum(row["neurons"] for row in rows.values()), -4) == 660_000
    wrong = [name for name, row in rows.items() if row["neurons"] != row["figure2_neurons"]]
    assert wrong == ["conv1"]
    assert rows["conv1"]["neurons"] == 55 * 55 * 96
    assert rows["conv1"]["figure2_neurons"] == 253_440


@pytest.mark.parametrize("crop_px", CROPS)
def test_at_every_accepted_crop_both_poolings_give_maps_of_equal_size(crop_px: int) -> None:
    overlapping, plain = (
        shapes(PRINTED.model_copy(update={"crop_px": crop_px, "pool_px": pool_px}), 1000) for pool_px in (3, 2)
    )
    assert [shape.pooled_side for shape in overlapping] == [shape.pooled_side for shape in plain]


@pytest.mark.parametrize("sixteenths", range(1, 17))
def test_at_every_accepted_width_each_layer_splits_into_its_groups(sixteenths: int) -> None:
    for shape in shapes(PRINTED.model_copy(update={"width": sixteenths / 16}), 1000):
        assert shape.maps == 1000 or shape.maps == shape.layer.kernels * sixteenths / 16
        assert shape.maps % 2 == 0
        assert shape.maps_in % shape.groups == 0


def test_weights_start_at_the_printed_spread_and_biases_at_the_papers_0_and_1(full_net: nn.Sequential) -> None:
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}  # section 5
    for name, module in full_net.named_children():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.02), name
            assert torch.all(module.bias == float(name in ones)), name


def test_a_narrow_net_passes_on_as_strong_a_signal_as_the_full_one() -> None:
    torch.manual_seed(0)
    narrow = build(settings(net={"width": 0.25}), classes=10)
    fan_in = {"conv2": 4800 / 4 / 4, "fc6": 64}
    full = {"conv2": 1200, "fc6": 9216}
    for name, inputs in fan_in.items():
        weight = narrow.get_submodule(name).weight
        assert weight[0].numel() == inputs
        assert weight.std().item() * math.sqrt(inputs) == pytest.approx(0.01 * math.sqrt(full[name]), rel=0.05)


def test_as_coded_conv3_to_conv5_start_three_times_wider() -> None:
    torch.manual_seed(0)
    net = build(settings(net=FULL, recipe={"weight_std": "coded"}), classes=1000)
    assert net.conv3.weight.std().item() == pytest.approx(0.03, rel=0.02)
    assert net.conv2.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_conv1_is_rectified_normalized_and_pooled_in_the_order_of_the_reading() -> None:
    assert names_in_order(build(settings(), classes=4), "conv1", "conv3") == [
        *("conv1", "conv1_act", "conv1_norm", "conv1_pool"),
        *("conv2", "conv2_act", "conv2_norm", "conv2_pool"),
    ]
    coded = dict.fromkeys(type(both_readings()).model_fields, "coded")
    net = build(settings(recipe=coded), classes=4)
    assert names_in_order(net, "conv1", "conv3") == [
        *("conv1", "conv1_norm", "conv1_pool", "conv1_act"),
        *("conv2", "conv2_act", "conv2_norm", "conv2_norm_within", "conv2_pool"),
    ]
    assert (net.conv1_norm.alpha, net.conv1_norm.columns) == (pytest.approx(1e-4 / 5), 2)


def test_variants_leave_out_what_they_say() -> None:
    bare = build(settings(net={"norm_layers": [], "dropout_layers": []}), classes=4)
    assert not [name for name, _ in bare.named_children() if "norm" in name or "drop" in name]


def test_dropout_silences_units_without_scaling_in_training_and_halves_all_at_test() -> None:
    dropout, x = Dropout(), torch.full((100, 100), 3.0)
    torch.manual_seed(0)
    assert set(dropout.train()(x).unique().tolist()) == {0.0, 3.0}
    assert dropout(x).mean().item() == pytest.approx(1.5, abs=0.1)
    assert torch.equal(dropout.eval()(x), x / 2)


def test_a_grey_image_of_one_channel_is_taken_for_one_of_three_equal_channels() -> None:
    torch.manual_seed(0)
    net = build(settings(), classes=4).eval()
    grey = 50 * torch.randn(3, 1, 67, 67)
    torch.testing.assert_close(net(grey), net(grey.expand(-1, 3, -1, -1)))
    gradients = []
    for x in (grey, grey.expand(-1, 3, -1, -1)):
        net.zero_grad()
        net(x).logsumexp(1).sum().backward()
        gradients.append(net.conv1.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_a_column_of_conv2_sees_its_own_half_of_conv1_only() -> None:
    torch.manual_seed(0)
    conv2 = build(settings(), classes=4).conv2
    x = torch.randn(1, conv2.in_channels, 9, 9)
    disturbed = x.clone()
    disturbed[:, : conv2.in_channels // 2] += 1
    changed = (conv2(x) != conv2(disturbed)).any(dim=(0, 2, 3))
    assert changed[: conv2.out_channels // 2].all()
    assert not changed[conv2.out_channels // 2 :].any()
