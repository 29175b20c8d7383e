"""The nets of AlexNet's lineage, held against their papers' tables and against torchvision's."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.alexnet import Dropout
from pipeline.models.build import build
from pipeline.models.lineage import lenet5, resnet, zfnet
from pipeline.models.response_norm import ResponseNorm
from pipeline.params import LINEAGE, Net
from pipeline.training.module import Classifier
from tests.tiny import settings

CROP_PX = {"lenet5": 32} | dict.fromkeys(("zfnet", "googlenet", "vgg11", "vgg16"), 224)
SMALL = 1 / 16


def net(architecture: str, crop_px: int | None = None, width: float = 1.0, classes: int = 1000, **more: Any) -> Any:
    chosen = {"architecture": architecture, "crop_px": crop_px or CROP_PX.get(architecture, 224), "width": width}
    return build(settings(net=chosen | more), classes)


def on_meta(architecture: str, **more: Any) -> Any:
    with torch.device("meta"):
        return net(architecture, **more)


def multiply_adds(model: nn.Module, crop_px: int) -> float:
    """Of the convolutions and products of one image."""
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        model.eval()(torch.empty(1, 3, crop_px, crop_px))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("architecture", "parameters", "millions"),
    [
        # LeCun et al.: 156 + 12 + 1,516 + 32 + 48,120 + 10,164; the output's 84 x 10 + 10 in place of fixed codes
        ("lenet5", 60_000 + 850, 0.4165),
        ("zfnet", 62_357_608, 1_170),
        ("vgg11", 132_863_336, 7_610),
        ("vgg16", 138_357_544, 15_470),
        ("resnet18", 11_689_512, 1_820),
        ("resnet34", 21_797_672, 3_670),
        ("resnet50", 25_557_032, 3_860),
    ],
)
def test_parameters_and_multiply_adds_are_the_published_ones(
    architecture: str, parameters: int, millions: float
) -> None:
    model = on_meta(architecture, classes=10 if architecture == "lenet5" else 1000)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert multiply_adds(model, CROP_PX.get(architecture, 224)) == pytest.approx(1e6 * millions, rel=0.005)


def test_lenet_has_the_papers_trainable_parameters_layer_by_layer() -> None:
    model = net("lenet5", classes=10)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert [counts[name] for name in ("c1", "s2", "c3", "s4", "c5", "f6")] == [156, 12, 1516, 32, 48_120, 10_164]
    # Table I, column by column: how many maps of S2 each map of C3 sees, and which the thirteenth and the last see
    assert [len(row) for row in lenet5.TABLE] == [3] * 6 + [4] * 9 + [6]
    assert (set(lenet5.TABLE[4]), set(lenet5.TABLE[11]), set(lenet5.TABLE[12]), set(lenet5.TABLE[14])) == (
        {4, 5, 0},
        {5, 0, 1, 2},
        {0, 1, 3, 4},
        {0, 2, 3, 5},
    )


def test_a_map_of_c3_is_moved_by_the_maps_that_it_sees_alone() -> None:
    torch.manual_seed(0)
    layer = lenet5.SparseConv(6, lenet5.TABLE, 5)
    x = torch.randn(1, 6, 5, 5)
    for seen in range(6):
        other = x.clone()
        other[:, seen] += 1
        moved = (layer(other) != layer(x)).flatten().nonzero().flatten().tolist()
        assert moved == [k for k, row in enumerate(lenet5.TABLE) if seen in row]


def test_subsampling_adds_four_places_and_scales_the_sum() -> None:
    layer = lenet5.Subsampling(1)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.fill_(-1)
    assert layer(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item() == 0.5 * 10 - 1


def test_zfnets_maps_have_the_sides_of_its_figure_3() -> None:
    model, sides = on_meta("zfnet").eval(), []
    x = torch.empty(1, 3, 224, 224, device="meta")
    for module in model:
        x = module(x)
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            sides.append(x.shape[-1])
    assert sides == [110, 55, 26, 13, 13, 13, 13, 6]
    assert [type(module) for module in model].count(ResponseNorm) == 2


def test_zfnet_scales_a_filter_of_large_weights_back_to_an_rms_of_a_tenth_in_training_only() -> None:
    layer = zfnet.RenormalizedConv(3, 2, 7)
    with torch.no_grad():
        layer.weight[0].fill_(0.2)
        layer.weight[1].fill_(0.05)
    x = torch.ones(1, 3, 7, 7)
    layer.eval()(x)
    assert layer.weight[0].mean().item() == pytest.approx(0.2)
    layer.train()(x)
    assert layer.weight.mean((1, 2, 3)).tolist() == pytest.approx([0.1, 0.05])


def test_googlenets_modules_have_the_parameters_of_its_table_1() -> None:
    model = on_meta("googlenet")
    # of 1,024 each. For 4c and 5a the table has 463 and 1072, which its own maps do not come to
    thousands = {"3a": 159, "3b": 380, "4a": 364, "4b": 437, "4d": 580, "4e": 840, "5b": 1388}
    for name, expected in thousands.items():
        weights = sum(p.numel() for p in model.inception[name].parameters() if p.ndim > 1)
        assert weights / 1024 == pytest.approx(expected, rel=0.02), name
    own = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("classifiers"))
    assert own == 6_998_552  # Caffe's bvlc_googlenet
    assert multiply_adds(model, 224) == pytest.approx(1.5e9, rel=0.06)  # section 1: a budget of 1.5 billion


def test_googlenet_asks_its_auxiliary_classifiers_in_training_and_adds_three_tenths_of_their_losses() -> None:
    made = settings(net={"architecture": "googlenet", "crop_px": 67, "width": SMALL})
    module = Classifier(made, 4, seed=0)
    x, labels = torch.randn(5, 3, 67, 67), torch.tensor([0, 1, 2, 3, 0])
    assert module.net.eval()(x).shape == (5, 4)
    module.net.train()
    for part in module.net.modules():
        if isinstance(part, Dropout):
            part.p = 0.0
    own, first, second = (F.cross_entropy(answers, labels).item() for answers in module.net(x))
    assert len({round(own, 4), round(first, 4), round(second, 4)}) == 3
    module._trainer = type("Trainer", (), {"current_epoch": 0, "global_step": 0})()  # type: ignore[assignment]
    loss = module.training_step((x, labels), 0)
    assert loss.item() == pytest.approx(own + 0.3 * first + 0.3 * second, rel=1e-5)
    assert module.train_metrics.means()["loss"] == pytest.approx(own, rel=1e-5)


def test_googlenets_auxiliary_classifiers_average_over_five_by_five_places_or_over_all_that_there_are() -> None:
    seen: list[tuple[int, int]] = []
    for crop_px in range(LINEAGE["googlenet"][1], 230, 13):
        model = on_meta("googlenet", crop_px=crop_px, width=SMALL).train()
        for classifier in model.classifiers.values():
            classifier[0].register_forward_pre_hook(lambda layer, x: seen.append((layer.kernel_size, x[0].shape[-1])))
        model(torch.empty(1, 1, crop_px, crop_px, device="meta"))
    assert [window for window, _ in seen] == [min(5, side) for _, side in seen]
    assert {side for _, side in seen} > {2, 4, 5, 14}


@pytest.mark.parametrize("architecture", ["vgg11", "vgg16", "resnet18", "resnet34", "resnet50"])
def test_with_torchvisions_weights_it_gives_torchvisions_answers(architecture: str) -> None:
    models = pytest.importorskip(
        "torchvision.models",
        reason="torchvision is no dependency: beside the CPU build of torch its wheel keeps Lightning from loading",
    )
    torch.manual_seed(0)
    theirs = getattr(models, architecture)(num_classes=7).eval()
    if architecture == "resnet50":  # it has the stride of a bottleneck in the 3 x 3, the paper in the 1 x 1 before
        for block in theirs.modules():
            if hasattr(block, "conv3"):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    for name, buffer in theirs.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.5, 1.5)
    ours = net(architecture, classes=7).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    for module in ours.modules():
        if isinstance(module, Dropout):
            module.p = 0.0  # torch scales in training, AlexNet's section 4.2 at test
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("maps_out", [4, 16])
def test_a_residual_block_adds_what_it_computes_to_its_shortcut(maps_out: int) -> None:
    torch.manual_seed(0)
    block = resnet.Block(4, 4, maps_out, stride=2).double()
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    weights = iter(list(block.parameters()))

    def conv(x: Tensor, stride: int) -> Tensor:
        kernels, gain, offset = next(weights), next(weights), next(weights)
        y = F.conv2d(x, kernels, stride=stride, padding=kernels.shape[-1] // 2)
        mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), keepdim=True, correction=0)
        return (y - mean) / (variance + 1e-5).sqrt() * gain[:, None, None] + offset[:, None, None]

    y = conv(x, 2)
    for _ in range(1 if maps_out == 4 else 2):
        y = conv(y.relu(), 1)
    torch.testing.assert_close(block(x), (y + conv(x, 2)).relu())


@pytest.mark.parametrize("architecture", LINEAGE)
def test_it_takes_grey_and_color_images_of_its_least_side_and_none_smaller(architecture: str) -> None:
    least = LINEAGE[architecture][1]
    model = net(architecture, crop_px=least, width=SMALL, classes=3).eval()
    grey = torch.randn(2, 1, least, least)
    torch.testing.assert_close(model(grey), model(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    assert model(grey).shape == (2, 3)
    larger = net(architecture, crop_px=67, width=SMALL, classes=3).train()(torch.randn(2, 1, 67, 67))
    assert {tuple(part.shape) for part in (larger if isinstance(larger, tuple) else (larger,))} == {(2, 3)}
    for crop_px in range(least, least + 40, 3):  # the auxiliary classifiers' inputs have to fit whatever is left
        net(architecture, crop_px=crop_px, width=SMALL, classes=3).train()(torch.randn(2, 1, crop_px, crop_px))
    if least > 1:
        with pytest.raises(ValidationError, match=f"net.crop_px = {least - 1}: accepted for {architecture} is at"):
            net(architecture, crop_px=least - 1)


@pytest.mark.parametrize(("architecture", "std"), [("zfnet", 0.01), ("vgg11", 0.01), ("resnet18", None)])
def test_weights_start_as_its_paper_says(architecture: str, std: float | None) -> None:
    """At full width; at a sixteenth with the spread that the fan-in asks for. std None: He's sqrt(2 / fan-in)."""
    torch.manual_seed(0)
    whole, narrow = net(architecture, crop_px=67, classes=10), net(architecture, crop_px=67, width=SMALL, classes=10)
    for model in (whole, narrow):
        parts = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        for wide, part in zip([p for p in whole.modules() if isinstance(p, nn.Conv2d | nn.Linear)], parts, strict=True):
            fan_in, full = part.weight[0].numel(), wide.weight[0].numel()
            if std is not None and isinstance(part, nn.Linear) and full not in (4096,):
                continue  # the first layer behind the maps, whose full fan-in is that of 224 px
            expected = math.sqrt(2 / fan_in) if std is None else std * math.sqrt(full / fan_in)
            error = 4 / math.sqrt(2 * part.weight.numel())
            assert part.weight.std().item() == pytest.approx(expected, rel=error)
            assert part.bias is None or not part.bias.any()


@pytest.mark.parametrize("architecture", ["lenet5", "googlenet", "vgg16"])
def test_uniform_weights_start_within_the_bounds_of_its_paper(architecture: str) -> None:
    """LeNet-5: 2.4 / fan-in (its appendix A). The others, Glorot and Bengio's: sqrt(6 / (fan-in + fan-out))."""
    torch.manual_seed(0)
    model = net(architecture, crop_px=67, width=1 / 4, classes=10)
    drawn = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert len(drawn) == {"lenet5": 4, "googlenet": 1 + 2 + 9 * 6 + 2 * 3 + 1, "vgg16": 16}[architecture]
    for part in drawn:
        fan_in, places = part.weight[0].numel(), part.weight[0, 0].numel()
        bound = 2.4 / fan_in if architecture == "lenet5" else math.sqrt(6 / (fan_in + len(part.weight) * places))
        assert_uniform(part.weight, bound)
        assert part.bias is not None
        assert not part.bias.any()


def test_lenets_own_layers_start_within_2_4_over_the_inputs_that_each_map_sees() -> None:
    torch.manual_seed(0)
    sparse = lenet5.SparseConv(6, lenet5.TABLE * 20, 5)
    rows = iter(sparse.weight.flatten(1))
    maps = [torch.cat([next(rows) for _ in seen]) for seen in lenet5.TABLE * 20]
    for count in (3, 4, 6):  # maps of S2
        assert_uniform(torch.cat([row for row in maps if len(row) == 25 * count]), 2.4 / (25 * count))
    assert_uniform(lenet5.Subsampling(500).weight, 2.4 / 4)
    assert not any(part.bias.any() for part in (sparse, lenet5.Subsampling(500)))


def assert_uniform(weight: Tensor, bound: float) -> None:
    """Whether so many values come from a uniform distribution between -bound and bound."""
    slack = 20 / weight.numel() + 1e-3  # by chance one draw in 20,000 leaves so much of the range out
    assert weight.max().item() == pytest.approx(bound, rel=slack)
    assert weight.min().item() == pytest.approx(-bound, rel=slack)
    assert weight.abs().max().item() <= bound


@pytest.mark.parametrize("architecture", LINEAGE)
def test_the_frameworks_weights_are_others_than_the_papers(architecture: str) -> None:
    """The paper's depend on nothing that torch chooses: a first layer that torch has drawn is drawn once more."""
    firsts = []
    for initialization in ("paper", "framework"):
        torch.manual_seed(0)
        model = net(architecture, crop_px=67, width=SMALL, classes=3, initialization=initialization)
        firsts.append(next(part.weight for part in model.modules() if isinstance(part, nn.Conv2d)))
    torch.manual_seed(0)
    plain = nn.Conv2d(*firsts[1].shape[1::-1], firsts[1].shape[-1])
    assert not torch.equal(*firsts)
    if architecture != "lenet5":  # whose first convolution is not the first that draws
        torch.testing.assert_close(firsts[1], plain.weight)


def test_a_setting_that_the_net_has_not_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"net.pool_px = 2: accepted for resnet18 is 3; of net, it knows arch"):
        Net(architecture="resnet18", pool_px=2)
