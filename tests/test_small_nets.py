import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.models.build import build
from pipeline.models.small_nets import LocalConv2d
from pipeline.training.optimizer import optimizer
from tests.tiny import settings


def small(architecture: str, crop_px: int, **net: object) -> nn.Sequential:
    torch.manual_seed(0)
    return build(settings(net={"architecture": architecture, "crop_px": crop_px, **net}), classes=10)


def test_kernels_of_their_own_at_each_place_move_it_alone_and_are_a_convolution_where_all_are_equal() -> None:
    torch.manual_seed(1)
    conv, local = nn.Conv2d(3, 4, 3, padding=1), LocalConv2d(3, 4, 3, padding=1, side=5)
    with torch.no_grad():
        local.weight.copy_(conv.weight.flatten(1).T.expand_as(local.weight))
        local.bias.copy_(conv.bias.expand_as(local.bias))
    x = torch.randn(2, 3, 5, 5)
    before = local(x)
    torch.testing.assert_close(before, conv(x))
    with torch.no_grad():
        local.weight[7] += 1  # row 1, column 2
    assert (local(x) != before).any(1).all(0).nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("architecture", "crop_px", "parameters"),
    [
        # by hand: maps × (maps in × size²) + maps; local layers so often as they have places, 36 on 24 px crops
        ("four_layer", 32, (32 * 75 + 32) + (32 * 800 + 32) + (64 * 800 + 64) + (10 * 64 * 4 * 4 + 10)),
        (
            "conv_local_13",
            24,
            (64 * 75 + 64) + (64 * 1600 + 64) + 36 * 32 * (64 * 9 + 1) + 36 * 32 * (32 * 9 + 1) + (10 * 36 * 32 + 10),
        ),
        (
            "conv_local_11",
            24,
            (64 * 75 + 64) + (64 * 1600 + 64) + 36 * 64 * (64 * 9 + 1) + 36 * 32 * (64 * 9 + 1) + (10 * 36 * 32 + 10),
        ),
    ],
)
def test_the_authors_small_nets_have_the_sizes_of_their_layer_files(
    architecture: str, crop_px: int, parameters: int
) -> None:
    net = small(architecture, crop_px)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net(torch.zeros(2, 3, crop_px, crop_px)).shape == (2, 10)


def test_the_11_percent_net_normalizes_once_before_and_once_after_its_pooling() -> None:
    names = [name for name, _ in small("conv_local_11", 24).named_children()]
    assert names.index("conv1_pool") + 1 == names.index("conv1_norm")
    assert names.index("conv2_norm") + 1 == names.index("conv2_pool")
    norm = small("conv_local_11", 24).conv1_norm
    x = torch.rand(1, 64, 2, 2)
    torch.testing.assert_close(norm(x), F.local_response_norm(x, 9, alpha=1e-3, beta=0.75, k=1.0))  # α over n
    plain = small("conv_local_13", 24, norm_layers=[])
    assert not [name for name, _ in plain.named_children() if "norm" in name]


def test_weights_start_at_the_spread_of_the_layer_file_and_biases_at_0() -> None:
    net = small("four_layer", 32)
    assert [net.get_submodule(name).weight.std().item() for name in ("conv1", "conv2", "fc4")] == pytest.approx(
        [1e-4, 0.01, 0.01], rel=0.1
    )
    assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))


def test_a_local_layer_starts_where_torch_lets_a_convolution_of_its_fan_in_start() -> None:
    torch.manual_seed(0)
    local, conv = LocalConv2d(16, 32, 5, padding=2, side=6), nn.Conv2d(16, 512, 5)
    for weight in (local.weight, conv.weight):
        assert weight.abs().max().item() == pytest.approx(1 / math.sqrt(16 * 5 * 5), rel=1e-3)
    assert not local.bias.any()


def test_each_layer_has_the_decay_of_its_layer_file() -> None:
    chosen = settings(
        net={"architecture": "conv_local_11", "crop_px": 24},
        train={"weight_decay": 0.004},
        recipe={"bias_rule": "coded"},
    )
    net = build(chosen, classes=10)
    names = {id(p): name for name, p in net.named_parameters()}
    decays = {
        names[id(p)]: group["weight_decay"] for group in optimizer(net, chosen).param_groups for p in group["params"]
    }
    assert decays["conv1.weight"] == decays["conv2.weight"] == 0
    assert decays["local3.weight"] == decays["local4.weight"] == 0.004
    assert decays["fc5.weight"] == pytest.approx(0.01)
    assert decays["fc5.bias"] == 0


def test_a_grey_image_is_taken_for_three_equal_channels() -> None:
    net = small("four_layer", 32).eval()
    grey = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(net(grey), net(grey.expand(-1, 3, -1, -1)))
