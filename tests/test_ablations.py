"""Every ingredient that a variant changes changes what it says, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.loader import Preprocess, train_loader
from pipeline.models.build import build
from pipeline.paper.net import PRINTED, full_size, shapes
from pipeline.params import Params, validate
from pipeline.tools.compose import composed
from pipeline.training.optimizer import optimizer
from tests.tiny import make_store, settings

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture(scope="module")
def every() -> Params:
    return validate(composed(CONF, "scale=embedded_all"), "embedded_all")


def net(**changes: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return build(settings(net=changes), classes=4).eval()


def test_every_variant_of_the_verdict_table_gives_logits_and_gradients(every: Params) -> None:
    for name in every.variants:
        chosen = every.settings(name)
        narrow = chosen.net.model_copy(update={"width": 1 / 16})
        model = build(chosen.model_copy(update={"net": narrow}), classes=10)
        model(torch.randn(2, 1, 67, 67) * 60).square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters()), name


def test_no_two_variants_have_the_same_settings(every: Params) -> None:
    seen: dict[str, str] = {}
    for name in every.variants:
        if every.variants[name].study is None:
            assert seen.setdefault(every.settings(name).model_dump_json(), name) == name


def test_separate_columns_meet_in_the_last_layer_alone() -> None:
    torch.manual_seed(0)
    chosen = settings(net={"towers": "separate"}, recipe={"lrn_columns": "coded"})
    model = build(chosen, classes=4).eval()
    x = torch.randn(1, 3, 67, 67)
    maps = model.conv1(x)
    other = maps.clone()
    half = maps.shape[1] // 2
    other[:, half:] += 1
    rest = nn.Sequential(*list(model.children())[1:])
    before_last = rest[:-1]
    assert torch.equal(before_last(maps)[:, : 4096 // 32], before_last(other)[:, : 4096 // 32])
    assert not torch.equal(before_last(maps)[:, 4096 // 32 :], before_last(other)[:, 4096 // 32 :])
    assert not torch.equal(rest(maps), rest(other))


@pytest.mark.parametrize("layer", ["conv2", "conv3", "conv4", "conv5"])
def test_a_removed_layer_is_gone_its_pooling_stays_and_the_net_may_hold_its_parameters(layer: Any) -> None:
    names = [name for name, _ in net(removed_layer=layer).named_children()]
    assert layer not in names
    assert f"{layer}_act" not in names
    assert (f"{layer}_pool" in names) == (layer in ("conv2", "conv5"))
    for width, crop_px in ((1.0, 227), (0.25, 67)):
        whole = PRINTED.model_copy(update={"width": width, "crop_px": crop_px})
        shorter = shapes(whole.model_copy(update={"removed_layer": layer}), 1000)
        assert {shape.layer.name: shape.pooled_side for shape in shorter}["conv5"] == {227: 6, 67: 1}[crop_px]
        held = shapes(whole.model_copy(update={"removed_layer": layer, "match_params": True}), 1000)
        count = [sum(shape.parameters for shape in of_net) for of_net in (shapes(whole, 1000), held)]
        assert count[1] == pytest.approx(count[0], rel=0.005)


def test_pooling_as_the_sources_control_has_it_hands_fc6_7_by_7_maps() -> None:
    control = full_size(PRINTED.model_copy(update={"pool_px": 2, "pool_shapes": "logged"}))
    assert [shape.pooled_side for shape in control if shape.layer.pool] == [28, 13, 7]
    assert control[5].maps_in == 12_544


def test_inputs_divided_by_64_give_what_weights_divided_by_64_would() -> None:
    plain, divided = net(), net(input_divisor=64.0)
    x = torch.randn(2, 3, 67, 67) * 60
    with torch.no_grad():
        plain.conv1.weight /= 64
    torch.testing.assert_close(plain(x), divided(x))


def test_the_frameworks_initialization_is_left_as_torch_draws_it() -> None:
    model = net(initialization="framework")
    bound = 1 / np.sqrt(model.conv1.weight[0].numel())
    assert model.conv1.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert model.conv1.weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.05)  # uniform


def test_biases_start_where_the_setting_says() -> None:
    biases = {name: p for name, p in net(hidden_bias=0.1).named_parameters() if name.endswith("bias")}
    raised = {name.removesuffix(".bias") for name, bias in biases.items() if bias.eq(0.1).all()}
    assert raised == {"conv2", "conv4", "conv5", "fc6", "fc7"}


def test_without_crops_every_image_is_seen_in_its_middle_and_without_mirroring_never_reversed(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    still = {"random_crop": False, "hflip": False, "pca_jitter_std": 0.0, "batch_images": 48}
    batches = train_loader(store, settings(train=still), seed=0)
    batches.sampler.set_epoch(3)
    (cut,) = batches
    x, _ = Preprocess(store.mean_image, 67)(cut)
    margin = (76 - 67) // 2
    middle = store.split("train").images[:, margin : margin + 67, margin : margin + 67].astype(np.float32)
    expected = middle - store.mean_image[margin : margin + 67, margin : margin + 67]
    images = torch.from_numpy(expected).permute(0, 3, 1, 2)
    distances = torch.cdist(x.flatten(1), images.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").min(1).values
    assert distances.max().item() == 0


def test_adam_is_torchs_with_the_runs_rate_and_decay() -> None:
    chosen = settings(train={"optimizer": "adam", "lr": 1e-4})
    found = optimizer(build(chosen, classes=4), chosen)
    assert isinstance(found, torch.optim.Adam)
    assert {group["lr"] for group in found.param_groups} == {1e-4}
    assert found.param_groups[0]["weight_decay"] == chosen.train.weight_decay
