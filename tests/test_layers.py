"""Every layer of the nets that are built against the tables of the paper and of its authors' source, typed in here."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.alexnet import ColumnLinear, Divide, Dropout, FirstConv
from pipeline.models.build import build
from pipeline.models.response_norm import BETA, ResponseNorm, WithinMapNorm
from pipeline.models.small_nets import LocalConv2d, ThreeChannels
from pipeline.paper.net import full_size_table, paper_net
from pipeline.paper.recipe import DROPOUT_P, LR_DROP_FACTOR, LR_DROPS, LRN_K, LRN_N, both_readings
from tests.tiny import settings

READINGS = ("printed", "coded")
ITEMS = ("weight_std", "bias_rule", "lrn_alpha", "lrn_columns", "first_norm", "second_norm", "color_noise")
CODED = dict.fromkeys((*ITEMS, "crop_sharing"), "coded")

# Section 3.5 and Figure 2. Maps in of one kernel, maps out, side of the kernel, stride, padding, groups, first bias
CONVOLUTIONS = {
    "conv1": (3, 96, 11, 4, 0, 1, 0),
    "conv2": (48, 256, 5, 1, 2, 2, 1),
    "conv3": (256, 384, 3, 1, 1, 1, 0),
    "conv4": (192, 384, 3, 1, 1, 2, 1),
    "conv5": (192, 256, 3, 1, 1, 2, 1),
}
FULLY_CONNECTED = {"fc6": (256 * 6 * 6, 4096, 1), "fc7": (4096, 4096, 1), "fc8": (4096, 1000, 0)}
FAN_IN = {"conv1": 363, "conv2": 1200, "conv3": 2304, "conv4": 1728, "conv5": 1728, "fc6": 9216, "fc7": 4096}
FAN_IN |= {"fc8": 4096}
STD = {reading: dict.fromkeys(FAN_IN, 0.01) for reading in READINGS}
STD["coded"] |= {"conv3": 0.03, "conv4": 0.03, "conv5": 0.03}

NORM = {"printed": "over 5 maps: k 2, alpha 1e-04, 1 columns", "coded": "over 5 maps: k 2, alpha 2e-05, 2 columns"}
SECOND_NORM = "over 5 x 5 px: k 1, alpha 4e-05"
POOL = "max 3/2"


def as_read(reading: str, **changes: Any) -> Any:
    return settings(recipe=CODED if reading == "coded" else {}, **changes)


def told(module: nn.Module) -> str:
    """A module's kind and constants."""
    match module:
        case nn.Conv2d():
            (size, _), (stride, _), (padding, _) = module.kernel_size, module.stride, module.padding
            assert module.kernel_size == (size, size)
            assert module.dilation == (1, 1)
            weight = tuple(module.weight.shape)
            assert weight == (module.out_channels, module.in_channels // module.groups, size, size)
            return f"{weight[1]} -> {weight[0]}, {size} px / {stride}, padding {padding}, {module.groups} groups"
        case nn.Linear():
            return f"{module.in_features} -> {module.out_features}"
        case ResponseNorm():
            return f"over {module.n} maps: k {module.k:g}, alpha {module.alpha:.0e}, {module.columns} columns"
        case WithinMapNorm():
            return f"over {module.n} x {module.n} px: k {module.k:g}, alpha {module.alpha:.0e}"
        case nn.MaxPool2d() | nn.AvgPool2d():
            kind = "max" if isinstance(module, nn.MaxPool2d) else "average"
            assert module.padding == 0
            return f"{kind} {module.kernel_size}/{module.stride}" + (" rounded up" if module.ceil_mode else "")
        case Dropout():
            return f"dropout {module.p:g}"
        case LocalConv2d():
            places, inputs, maps = module.weight.shape
            return f"{inputs} -> {maps} at {places} places"
        case _:
            return type(module).__name__.lower()


def layers(net: nn.Sequential) -> dict[str, str]:
    return {name: told(module) for name, module in net.named_children()}


def the_papers(reading: str, pool: str = POOL, activation: str = "relu") -> dict[str, str]:
    """What each layer of the full net is."""
    convolutions = {
        name: f"{maps_in} -> {maps}, {size} px / {stride}, padding {padding}, {groups} groups"
        for name, (maps_in, maps, size, stride, padding, groups, _) in CONVOLUTIONS.items()
    }
    first = {"conv1_act": activation, "conv1_norm": NORM[reading], "conv1_pool": pool}
    if reading == "coded":
        first = {"conv1_norm": NORM[reading], "conv1_pool": pool, "conv1_act": activation}
    second = {"conv2_act": activation, "conv2_norm": NORM[reading]}
    second |= {"conv2_norm_within": SECOND_NORM} if reading == "coded" else {}
    found = {"conv1": convolutions["conv1"], **first, "conv2": convolutions["conv2"], **second, "conv2_pool": pool}
    for name in ("conv3", "conv4", "conv5"):
        found |= {name: convolutions[name], f"{name}_act": activation}
    found |= {"conv5_pool": pool, "flatten": "flatten"}
    for name in ("fc6", "fc7"):
        found |= {name: "{} -> {}".format(*FULLY_CONNECTED[name]), f"{name}_act": activation}
        found |= {f"{name}_drop": "dropout 0.5"}
    return found | {"fc8": "4096 -> 1000"}


def full(chosen: Any) -> dict[str, str]:
    with torch.device("meta"):
        return layers(build(chosen, classes=1000))


def test_the_two_readings_are_those_of_the_paper_and_of_its_authors_source() -> None:
    found = {name: (item["printed"], item["coded"]) for name, item in both_readings().model_dump().items()}
    assert found == {
        "weight_std": (STD["printed"], STD["coded"]),
        "bias_rule": (
            {"lr_factor": 1.0, "decays": True, "drops": True},
            {"lr_factor": 2.0, "decays": False, "drops": False},
        ),
        "lrn_alpha": (1e-4, 1e-4 / 5),
        "lrn_columns": (1, 2),
        "first_norm": ("after_activation", "before_activation"),
        "second_norm": (None, {"n": 5, "k": 1.0, "alpha": 1e-3 / 25}),
        "color_noise": ({"until": 1.0, "divisor": 1.0}, {"until": 0.75, "divisor": 1.1}),
        "crop_sharing": (1, 32),
    }
    assert (LRN_N, LRN_K, DROPOUT_P, LR_DROPS, LR_DROP_FACTOR) == (5, 2.0, 0.5, 3, 10)


def test_figure_2_gives_each_layer_the_neurons_typed_in() -> None:
    figure2 = [253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert [row["figure2_neurons"] for row in full_size_table()] == figure2
    counted = [290_400, *figure2[1:]]
    assert [row["neurons"] for row in full_size_table()] == counted
    parameters = [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
    assert [row["parameters"] for row in full_size_table()] == parameters
    products = [105_415_200, 223_948_800, 149_520_384, 112_140_288, 74_760_192]
    assert [row["multiply_adds"] for row in full_size_table()][:5] == products
    assert (paper_net().crop_px, paper_net().input_maps, paper_net().classes) == (227, 3, 1000)


@pytest.mark.parametrize("reading", READINGS)
def test_every_layer_of_the_full_net_is_the_papers_in_its_order(reading: str) -> None:
    found = full(as_read(reading, net={"crop_px": 227, "width": 1.0}))
    assert list(found.items()) == list(the_papers(reading).items())


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"pool_px": 2}, the_papers("printed", pool="max 2/2")),
        ({"activation": "tanh"}, the_papers("printed", activation="tanh")),
        ({"activation": "sigmoid"}, the_papers("printed", activation="sigmoid")),
        ({"norm_layers": []}, {n: what for n, what in the_papers("printed").items() if "norm" not in n}),
        ({"norm_layers": ["conv2"]}, {n: what for n, what in the_papers("printed").items() if n != "conv1_norm"}),
        ({"norm_layers": ["conv1"]}, {n: what for n, what in the_papers("printed").items() if n != "conv2_norm"}),
        ({"dropout_layers": []}, {n: what for n, what in the_papers("printed").items() if "drop" not in n}),
        ({"dropout_layers": ["fc6"]}, {n: what for n, what in the_papers("printed").items() if n != "fc7_drop"}),
        ({"dropout_layers": ["fc7"]}, {n: what for n, what in the_papers("printed").items() if n != "fc6_drop"}),
        ({"input_divisor": 64.0}, {"input": "divide"} | the_papers("printed")),
        (
            {"removed_layer": "conv3"},
            {n: what for n, what in the_papers("printed").items() if not n.startswith("conv3")}
            | {"conv4": "128 -> 384, 3 px / 1, padding 1, 2 groups"},
        ),
        (
            {"removed_layer": "conv2"},
            {n: what for n, what in the_papers("printed").items() if not n.startswith("conv2") or n == "conv2_pool"}
            | {"conv3": "96 -> 384, 3 px / 1, padding 1, 1 groups"},
        ),
        (
            {"towers": "joined"},
            the_papers("printed")
            | {
                "conv2": "96 -> 256, 5 px / 1, padding 2, 1 groups",
                "conv4": "384 -> 384, 3 px / 1, padding 1, 1 groups",
                "conv5": "384 -> 256, 3 px / 1, padding 1, 1 groups",
            },
        ),
        (
            {"towers": "half"},  # footnote 2: conv5 and the fully connected layers keep their sizes
            the_papers("printed")
            | {
                "conv1": "3 -> 48, 11 px / 4, padding 0, 1 groups",
                "conv2": "48 -> 128, 5 px / 1, padding 2, 1 groups",
                "conv3": "128 -> 192, 3 px / 1, padding 1, 1 groups",
                "conv4": "192 -> 192, 3 px / 1, padding 1, 1 groups",
                "conv5": "192 -> 256, 3 px / 1, padding 1, 1 groups",
            },
        ),
        (
            {"pool_px": 2, "pool_shapes": "logged"},
            the_papers("printed", pool="max 2/2 rounded up")
            | {"conv2": "48 -> 256, 5 px / 1, padding 1, 2 groups", "fc6": f"{256 * 49} -> 4096"},
        ),
    ],
    ids=lambda value: " ".join(f"{name}={what}" for name, what in value.items()) if len(value) < 3 else "",
)
def test_a_change_of_the_net_changes_what_it_names_and_nothing_else(
    changes: dict[str, Any], other: dict[str, str]
) -> None:
    found = full(as_read("printed", net={"crop_px": 227, "width": 1.0, **changes}))
    assert list(found.items()) == list(other.items())


@pytest.mark.parametrize("reading", READINGS)
def test_weights_of_every_layer_start_with_the_readings_spread_and_biases_at_0_or_1(reading: str) -> None:
    """At a quarter of the width, times the root of how many fewer inputs a kernel has than at full size."""
    torch.manual_seed(0)
    net = build(as_read(reading, net={"width": 0.25}), classes=10)
    for name, fan_in in FAN_IN.items():
        layer = net.get_submodule(name)
        here = layer.weight[0].numel()
        expected = STD[reading][name] * math.sqrt(fan_in / here)
        tolerance = 4 / math.sqrt(2 * layer.weight.numel())  # four standard deviations
        assert layer.weight.std().item() == pytest.approx(expected, rel=tolerance), name
        assert layer.weight.mean().item() == pytest.approx(0, abs=tolerance * 1.5 * expected), name
        bias = {**{n: row[-1] for n, row in CONVOLUTIONS.items()}, **{n: row[-1] for n, row in FULLY_CONNECTED.items()}}
        assert set(layer.bias.tolist()) == {float(bias[name])}, name


def normalized(x: Tensor, alpha: float, columns: int) -> Tensor:
    """By torch's own layer, which divides alpha by n, column by column."""
    parts = [F.local_response_norm(part, 5, alpha=5 * alpha, beta=0.75, k=2.0) for part in x.chunk(columns, dim=1)]
    return torch.cat(parts, dim=1)


def answers(x: Tensor, state: dict[str, Tensor], reading: str) -> Tensor:
    """The net spelled out with torch's functions, in evaluation mode."""

    def conv(x: Tensor, name: str) -> Tensor:
        stride, padding, groups = CONVOLUTIONS[name][3:6]
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding, 1, groups)

    alpha, columns = (1e-4, 1) if reading == "printed" else (1e-4 / 5, 2)
    x = conv(x, "conv1")
    if reading == "printed":
        x = F.max_pool2d(normalized(F.relu(x), alpha, columns), 3, 2)
    else:
        x = F.relu(F.max_pool2d(normalized(x, alpha, columns), 3, 2))
    x = normalized(F.relu(conv(x, "conv2")), alpha, columns)
    if reading == "coded":
        squares = 25 * F.avg_pool2d(x * x, 5, 1, 2, count_include_pad=True)
        x = x / (1 + 1e-3 / 25 * squares) ** 0.75
    x = F.max_pool2d(x, 3, 2)
    x = F.relu(conv(F.relu(conv(F.relu(conv(x, "conv3")), "conv4")), "conv5"))
    x = F.max_pool2d(x, 3, 2).flatten(1)
    for name in ("fc6", "fc7"):
        x = 0.5 * F.relu(F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"]))
    return F.linear(x, state["fc8.weight"], state["fc8.bias"])


@pytest.mark.parametrize("reading", READINGS)
def test_the_net_answers_as_torchs_functions_spelled_out_in_float64(reading: str) -> None:
    generator = torch.Generator().manual_seed(1)
    net = build(as_read(reading), classes=10).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():  # maps far from equal, so that each constant shows in the answer
            spread = 3 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.5
            parameter.normal_(0, spread, generator=generator)
        net.conv1.weight.mul_(0.5)
        x = 60 * torch.randn(3, 3, 67, 67, generator=generator, dtype=torch.float64)
        expected = answers(x, net.state_dict(), reading)
        assert expected.std(0).min() > 0.1
        torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)


def test_the_power_of_the_normalization_and_the_halves_of_a_column_are_the_papers() -> None:
    assert BETA == 0.75
    torch.manual_seed(0)
    halves, x = ColumnLinear(6, 4, columns=2), torch.randn(5, 6)
    weight = halves.weight[:, :, 0]
    parts = [F.linear(x[:, :3], weight[:2], halves.bias[:2]), F.linear(x[:, 3:], weight[2:], halves.bias[2:])]
    torch.testing.assert_close(halves(x), torch.cat(parts, dim=1))
    assert torch.equal(Divide(64.0)(x), x / 64)


def test_conv1_takes_the_three_channels_apart() -> None:
    torch.manual_seed(0)
    conv, x = FirstConv(3, 4, 11, stride=4), torch.randn(2, 3, 67, 67)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, stride=4))
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(
        conv(grey), F.conv2d(grey.expand(-1, 3, -1, -1), conv.weight, conv.bias, stride=4), rtol=1e-4, atol=1e-4
    )


# The layer files of the authors' source: layers-18pct, layers-conv-local-13pct and -11pct (a scale of 5e-5 over 3 x 3
# places, of 1e-3 over 9 maps). By name: what it is, first spread, factor of the decay of 0.004
CONV_5 = "{} -> {}, 5 px / 1, padding 2, 1 groups"
OVER_9 = "over 9 maps: k 1, alpha 1e-04, 1 columns"
SMALL: dict[str, dict[str, tuple[str, float, float]]] = {
    "four_layer": {
        "conv1": (CONV_5.format(3, 32), 1e-4, 1),
        "conv1_pool": ("max 3/2 rounded up", 0, 0),
        "conv1_norm": ("over 3 x 3 px: k 1, alpha 6e-06", 0, 0),
        "conv2": (CONV_5.format(32, 32), 0.01, 1),
        "conv2_pool": ("average 3/2 rounded up", 0, 0),
        "conv2_norm": ("over 3 x 3 px: k 1, alpha 6e-06", 0, 0),
        "conv3": (CONV_5.format(32, 64), 0.01, 1),
        "conv3_pool": ("average 3/2 rounded up", 0, 0),
        "fc4": (f"{64 * 3 * 3} -> 10", 0.01, 1),
    },
    "conv_local_13": {
        "conv1": (CONV_5.format(3, 64), 1e-4, 0),
        "conv1_pool": ("max 3/2 rounded up", 0, 0),
        "conv1_norm": (OVER_9, 0, 0),
        "conv2": (CONV_5.format(64, 64), 0.01, 0),
        "conv2_norm": (OVER_9, 0, 0),
        "conv2_pool": ("max 3/2 rounded up", 0, 0),
        "local3": ("576 -> 32 at 36 places", 0.04, 1),
        "local4": ("288 -> 32 at 36 places", 0.04, 1),
        "fc5": (f"{32 * 36} -> 10", 0.01, 1),
    },
}
SMALL["conv_local_11"] = SMALL["conv_local_13"] | {
    "local3": ("576 -> 64 at 36 places", 0.04, 1),
    "local4": ("576 -> 32 at 36 places", 0.04, 1),
    "fc5": (f"{32 * 36} -> 10", 0.01, 2.5),  # 0.01
}


@pytest.mark.parametrize("architecture", SMALL)
def test_every_layer_of_the_authors_small_nets_is_that_of_their_layer_file(architecture: str) -> None:
    torch.manual_seed(0)
    net = build(settings(net={"architecture": architecture, "crop_px": 24}), classes=10)
    left_out = ("channels", "flatten")
    found = {n: what for n, what in layers(net).items() if n not in left_out and not n.endswith("_act")}
    assert list(found.items()) == [(name, what) for name, (what, *_) in SMALL[architecture].items()]
    weighted = [name for name, (_, std, _) in SMALL[architecture].items() if std]
    names = list(layers(net))
    assert [names[names.index(name) + 1] for name in weighted[:-1]] == [f"{name}_act" for name in weighted[:-1]]
    for name, (_, std, _) in SMALL[architecture].items():
        if std:
            weight, bias = (getattr(net.get_submodule(name), kind) for kind in ("weight", "bias"))
            assert weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * weight.numel())), name
            assert not bias.any(), name
    norm = net.conv1_norm
    assert norm.alpha == pytest.approx(5e-5 / 9 if architecture == "four_layer" else 1e-3 / 9, rel=1e-4)
    assert torch.equal(ThreeChannels()(torch.ones(1, 1, 2, 2)), torch.ones(1, 3, 2, 2))
