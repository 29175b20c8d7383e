"""What each variant changes, typed in here from the paper, against conf/variants.yaml and what is trained."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.params import Params, validate, variant_table
from pipeline.tools.compose import composed

CONF = Path(__file__).parents[1] / "conf"
ITEMS = (
    *("weight_std", "bias_rule", "lrn_alpha", "lrn_columns", "first_norm", "second_norm", "color_noise"),
    "crop_sharing",
)
CODED = {f"recipe.{item}": "coded" for item in ITEMS}
PRINTED = {f"recipe.{item}": "printed" for item in ITEMS}
FOUR_LAYERS = {
    "net.architecture": "four_layer",
    "net.crop_px": 24,
    "net.norm_layers": [],
    "net.activation": "relu",
    "train.epochs": 160,
    "train.weight_decay": 0.0,
    "train.random_crop": False,
    "train.hflip": False,
    "train.lr_drops": 0,
    "train.stop_at_train_error": 25.0,
}
TANH = {"net.activation": "tanh"}
LINEAGE: dict[str, dict[str, Any]] = {  # from each net's own paper, as far as it prints them
    "lenet5": {
        "net.architecture": "lenet5",
        "net.width": 1.0,
        "net.input_divisor": 64.0,
        "train.weight_decay": 0.00001,  # it has none; the least that its study tries
    },
    "zfnet": {"net.architecture": "zfnet", "train.weight_decay": 0.0005},
    "vgg16": {"net.architecture": "vgg16", "net.width": 0.125, "train.batch_images": 256},
    "googlenet": {"net.architecture": "googlenet"},
    "resnet18": {
        "net.architecture": "resnet18",
        "train.lr": 0.1,
        "train.weight_decay": 0.0001,
        "train.batch_images": 256,
    },
}
EQUAL_WORK = {"lenet5": 33, "zfnet": 42, "vgg16": 11, "googlenet": 27, "resnet18": 16}  # epochs

CHANGES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "tuned": {},
    "non_overlapping_pooling": {"net.pool_px": 2},
    "no_response_norm": {"net.norm_layers": []},
    "no_dropout": {"net.dropout_layers": []},
    **{f"no_conv{k}": {"net.removed_layer": f"conv{k}"} for k in (2, 3, 4, 5)},
    **{f"no_conv{k}_held": {"net.removed_layer": f"conv{k}", "net.match_params": True} for k in (2, 3, 4, 5)},
    "one_column": {"net.towers": "half"},
    "separate_columns": {"net.towers": "separate", "recipe.lrn_columns": "coded"},
    "no_grouping": {"net.towers": "joined"},
    "no_crops_no_mirror": {"train.random_crop": False, "train.hflip": False},
    "no_crops": {"train.random_crop": False},
    "no_mirror": {"train.hflip": False},
    "no_color_noise": {"train.pca_jitter_std": 0.0},
    "no_weight_decay": {"train.weight_decay": 0.0},
    "no_momentum": {"train.momentum": 0.0},
    "biases_zero": {"net.hidden_bias": 0.0},
    "tanh": TANH,
    "sigmoid": {"net.activation": "sigmoid"},
    "narrow": {"net.width": "halved"},
    "short": {"train.epochs": "halved"},
    "as_coded": CODED,
    "as_printed": PRINTED,
    "as_coded_no_norm": CODED | {"net.norm_layers": []},
    "no_norm_conv1": {"net.norm_layers": ["conv2"]},
    "no_norm_conv2": {"net.norm_layers": ["conv1"]},
    "pooling_as_logged": {"net.pool_px": 2, "net.pool_shapes": "logged"},
    "dropout_fc6_only": {"net.dropout_layers": ["fc6"]},
    "dropout_fc7_only": {"net.dropout_layers": ["fc7"]},
    "no_lr_drops": {"train.lr_drops": 0},
    "no_lr_drops_no_dropout": {"train.lr_drops": 0, "net.dropout_layers": []},
    "plateau_schedule": {"train.schedule": "plateau"},
    **{f"{item}_as_coded": {f"recipe.{item}": "coded"} for item in ITEMS},
    "unit_variance_inputs": {"net.input_divisor": 64.0},
    "adam": {"train.optimizer": "adam", "train.lr": 1e-4},
    "framework_initialization": {"net.initialization": "framework"},
    "published_11": {"net.architecture": "conv_local_11"},
    "four_layer_relu": FOUR_LAYERS,
    "four_layer_tanh": FOUR_LAYERS | TANH,
    "four_layer_sigmoid": FOUR_LAYERS | {"net.activation": "sigmoid"},
    "four_layer_tanh_relu_rate": FOUR_LAYERS | TANH,
    "four_layer_relu_framework": FOUR_LAYERS | {"net.initialization": "framework"},
    "four_layer_tanh_framework": FOUR_LAYERS | TANH | {"net.initialization": "framework"},
    "four_layer_relu_unit_inputs": FOUR_LAYERS | {"net.input_divisor": 64.0},
    "four_layer_tanh_unit_inputs": FOUR_LAYERS | TANH | {"net.input_divisor": 64.0},
    **LINEAGE,
    **{f"{name}_tuned": changes for name, changes in LINEAGE.items()},
    **{f"{name}_equal_work": changes | {"train.epochs": EQUAL_WORK[name]} for name, changes in LINEAGE.items()},
    "large_batch": {"train.batch_images": 1024, "train.lr": 0.08, "train.warmup_epochs": 5},
}
STUDIES = {
    "tuned": "baseline",
    **{f"{name}_{end}": name for name in LINEAGE for end in ("tuned", "equal_work")},
    **{name: name for name in ("tanh", "sigmoid", "four_layer_relu", "four_layer_tanh", "four_layer_sigmoid")},
    "four_layer_tanh_relu_rate": "four_layer_relu",
    **{
        name: name
        for name in (
            *("four_layer_relu_framework", "four_layer_tanh_framework"),
            *("four_layer_relu_unit_inputs", "four_layer_tanh_unit_inputs"),
        )
    },
}


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    return {f"{block}.{name}": value for block, values in tree.items() for name, value in values.items()}


def test_each_variant_changes_what_it_says_and_nothing_else() -> None:
    found = variant_table()
    assert set(found) == set(CHANGES)
    for name, variant in found.items():
        assert flat(variant.get("set", {})) == CHANGES[name], name
        assert variant.get("study") == STUDIES.get(name), name


@pytest.fixture(scope="module", params=["embedded_all", "cifar10", "lineage", "tiny_imagenet", "tiny_imagenet_200"])
def scale(request: pytest.FixtureRequest) -> Params:
    return validate(composed(CONF, f"scale={request.param}"), request.param)


def test_what_is_trained_differs_from_the_baseline_by_its_changes_alone(scale: Params) -> None:
    baseline = flat(scale.settings("baseline").model_dump())
    for name in scale.variants:
        trained = flat(scale.settings(name).model_dump())
        differing = {key: value for key, value in trained.items() if value != baseline[key]}
        wanted = {key: baseline[key] / 2 if value == "halved" else value for key, value in CHANGES[name].items()}
        assert differing == {key: value for key, value in wanted.items() if value != baseline[key]}, name
        assert differing or name in ("baseline", *STUDIES), name


def test_half_of_what_is_no_number_is_refused() -> None:
    values = composed(CONF, "scale=smoke")
    row = {"title": "x", "section": "3", "description": "x"}
    values["variants"] = {"baseline": row, "less": row | {"set": {"net": {"activation": "halved"}}}}
    with pytest.raises(UserError, match=r"variants\.less\.set\.net\.activation = 'halved': input should be 'relu'"):
        validate(values, "params.yaml")


def test_half_of_the_embedded_scales_width_and_epochs_are_those_that_were_fixed_numbers_before() -> None:
    """An eighth and 45: what a run is has not changed with the way in which the table says it."""
    params = validate(composed(CONF, "scale=embedded_all"), "embedded_all")
    assert params.settings("narrow").net.width == 0.125
    assert params.settings("short").train.epochs == 45
