"""Every mistake in params.yaml is one line: key, value, what is accepted."""

import copy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pipeline.errors import UserError
from pipeline.params import Params, read_yaml, validate, variant_table
from pipeline.tools.compose import composed

ROOT = Path(__file__).parents[1]
SCALES = sorted(path.stem for path in (ROOT / "conf/scale").glob("*.yaml"))
VARIANTS = sorted(variant_table())


def compose(*overrides: str) -> dict[str, Any]:
    return composed(ROOT / "conf", *overrides)


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    return compose()


def test_params_yaml_is_what_dvc_exp_run_writes_for_the_default_scale_byte_for_byte(default: dict[str, Any]) -> None:
    assert (ROOT / "params.yaml").read_text() == OmegaConf.to_yaml(OmegaConf.create(default))


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_composes_to_a_valid_configuration_with_a_report_of_its_name(scale: str) -> None:
    params = validate(compose(f"scale={scale}"), scale)
    assert (params.scale, params.report) == (scale, scale)
    assert params.reports == {params.data.dataset: scale}


def test_other_images_get_a_title_and_a_report_of_their_own() -> None:
    own = validate(compose("scale=smoke", "data.folder=/somewhere", "data.dataset=pets"), "own")
    assert (own.title, own.report) == ("pets, AlexNet at a sixteenth of its width", "smoke_pets")
    with pytest.raises(UserError, match="report = 'smoke': accepted is 'smoke_pets'"):
        validate(own.model_dump() | {"report": "smoke"}, "own")


@pytest.mark.parametrize(
    ("folder", "relation"),
    [
        ("prepared/trees", "lies in"),
        ("prepared", "is"),
        ("runs/embedded/images", "lies in"),
        ("reports", "is"),
        (".", "holds"),
        ("..", "holds"),
        ("originals", "is"),
        ("originals/below", "lies in"),
        ("link", "lies in"),
        ("state", "is"),
        ("~/prepared/x", "lies in"),
    ],
)
def test_images_may_not_lie_where_dvc_deletes(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, folder: str, relation: str
) -> None:
    monkeypatch.setenv("ALEXNET_STATE", str(workplace / "state"))
    monkeypatch.setenv("HOME", str(workplace))
    for name in ("prepared/trees", "originals/below", "state"):
        (workplace / name).mkdir(parents=True)
    (workplace / "prepared/linked").symlink_to(workplace / "originals")
    (workplace / "link").symlink_to("prepared/trees")
    with pytest.raises(UserError) as error:
        validate(compose(f"data.folder='{folder}'", "data.dataset=trees"), "own")
    assert f"data.folder = {folder!r}: it {relation} {workplace}" in str(error.value)
    assert "move the images" in str(error.value)


@pytest.mark.parametrize("folder", ["data/trees", "downloads/trees", "/elsewhere", "~/pictures", "prepared images"])
def test_images_may_lie_anywhere_else(workplace: Path, folder: str) -> None:
    values = compose("data.dataset=trees")
    assert validate(values | {"data": values["data"] | {"folder": folder}}, "own").data.folder == folder


def test_imagenet2012_has_the_papers_own_numbers() -> None:
    params = validate(compose("scale=imagenet2012"), "imagenet2012")
    train = params.train
    assert (params.net.crop_px, params.net.width, params.data.image_size) == (227, 1.0, 256)
    assert (train.batch_images, train.lr, train.momentum, train.weight_decay) == (128, 0.01, 0.9, 0.0005)
    assert (train.epochs, train.pca_jitter_std) == (90, 0.1)
    assert set(params.recipe.model_dump().values()) == {"printed"}
    assert "baseline" in params.evaluate.ten_crop


def test_every_variant_is_run_by_the_scale_of_its_net() -> None:
    scales = ("embedded_all", "cifar10", "lineage")
    whole, small, lineage = (set(compose(f"scale={scale}")["variants"]) for scale in scales)
    elsewhere = {"large_batch", "as_printed"}  # for epochs of many steps; for a baseline that is not as printed
    assert sorted({*whole, *small, *lineage, *elsewhere}) == VARIANTS
    assert {*small} - whole == {name for name in VARIANTS if name.startswith(("four_layer", "published"))}


ROW = {"title": "x", "section": "3", "description": "x"}  # of conf/variants.yaml
MISTAKES: list[tuple[list[str], Any, str]] = [
    (["net", "widht"], 1, "net.widht: unknown key; accepted: architecture, crop_px, width, towers"),
    (["epochs"], 1, "epochs: unknown key; accepted: scale, reports, report, data, net"),
    (["variants"], ["baseline", "tahn"], "variants: 'tahn' is not in conf/variants.yaml; accepted are baseline"),
    (["net", "width"], 0.3, "net.width = 0.3: accepted is a multiple of 1/16"),
    (["net", "width"], "wide", "net.width = 'wide': input should be a valid number"),
    (["net", "crop_px"], 68, "net.crop_px = 68: accepted is one of 67, 99, 131, 163, 195, 227"),
    (["net", "crop_px"], 99, "net.crop_px = 99: accepted is at most data.image_size = 76"),
    (["net", "pool_px"], 4, "net.pool_px = 4: input should be 2 or 3"),
    (["recipe", "weight_std"], "guessed", "recipe.weight_std = 'guessed': input should be 'printed' or 'coded'"),
    (["data", "classes"], 50, "data.classes = 50: accepted is null where data.dataset = 'fashion_mnist'"),
    (["data", "classes"], 1, "data.classes = 1: accepted is null, 2 to 200, or a list of at least two different WNIDs"),
    (["data", "classes"], 201, "data.classes = 201: accepted is null, 2 to 200, or a list"),
    (["data", "classes"], True, "data.classes = True: accepted is null, 2 to 200, or a list"),
    (["data", "classes"], "n01443537", "data.classes = 'n01443537': accepted is null, 2 to 200, or a list"),
    (["data", "classes"], ["n01443537"] * 2, "data.classes: accepted is null, 2 to 200, or a list of at least two"),
    (["train", "epochs"], 1.5, "train.epochs = 1.5: input should be a valid integer"),
    (["train", "epochs"], True, "train.epochs = True: input should be a valid integer"),
    (["train", "lr"], -1, "train.lr = -1: input should be greater than 0"),
    (["seeds"], [1, 1], "seeds = [1, 1]: accepted is each seed once"),
    (["more_seeds"], {"variants": ["basline"], "seeds": [5]}, "more_seeds.variants = 'basline': accepted is one of"),
    (["more_seeds"], {"variants": ["baseline"], "seeds": [4]}, "more_seeds.seeds = [4]: accepted is each seed"),
    (["more_seeds"], {"variants": ["baseline"], "seeds": [5, 5]}, "more_seeds.seeds = [5, 5]: accepted is each seed"),
    (["tune", "lr"], [0.1, 0.01], "tune.lr = [0.1, 0.01]: accepted is [low, high] with 0 < low < high"),
    (["tune", "lr"], [0.1, 0.2], "tune.lr = [0.1, 0.2]: accepted is a range that holds train.lr = 0.01"),
    (["data", "dataset"], "mnist", "data.dataset = 'mnist': accepted is fashion_mnist, cifar10, imagenet2012"),
    (["evaluate", "ten_crop"], ["basline"], "evaluate.ten_crop = 'basline': accepted is one of baseline"),
    (
        ["variants"],
        {"baseline": ROW, "no_dropout": ROW | {"set": {"net": {"dropout": []}}}},
        "variants.no_dropout.set.net.dropout: unknown key; accepted: architecture",
    ),
    (
        ["variants"],
        {"baseline": ROW, "no_dropout": ROW | {"set": {"nett": {}}}},
        "variants.no_dropout.set.nett: unknown key; accepted: net, recipe",
    ),
    (
        ["variants"],
        {"baseline": ROW | {"set": {"net": {"pool_px": 2}}}},
        "variants.baseline: accepted is a baseline that sets nothing",
    ),
    (
        ["variants"],
        {"baseline": ROW, "tuned": ROW | {"study": "basline"}},
        "variants.*.study = 'basline': accepted is one of baseline, tuned",
    ),
    (["hardware", "devices"], 0, "hardware.devices = 0: input should be greater than or equal to 1"),
]


@pytest.mark.parametrize(
    ("key", "value", "message"), MISTAKES, ids=[message.split(":")[0] for _, _, message in MISTAKES]
)
def test_a_mistake_is_one_line_with_key_and_what_is_accepted(
    default: dict[str, Any], key: list[str], value: Any, message: str
) -> None:
    values = copy.deepcopy(default)
    block = values
    for part in key[:-1]:
        block = block[part]
    block[key[-1]] = value
    with pytest.raises(UserError) as error:
        validate(values, "params.yaml")
    assert str(error.value).startswith(f"params.yaml: {message}")
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named_and_several_mistakes_are_a_line_each(default: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: data.image_size: missing$"):
        validate(default | {"data": {k: v for k, v in default["data"].items() if k != "image_size"}}, "params.yaml")
    with pytest.raises(UserError) as error:
        validate(default | {"seeds": [], "scale": "My scale"}, "params.yaml")
    assert len(str(error.value).splitlines()) == 2


def test_a_variant_changes_what_it_says_and_nothing_else(default: dict[str, Any]) -> None:
    params: Params = validate(default, "params.yaml")
    baseline = params.settings("baseline").model_dump()
    changed = params.settings("non_overlapping_pooling").model_dump()
    assert changed["net"].pop("pool_px") == 2
    assert baseline["net"].pop("pool_px") == 3
    assert changed == baseline


def test_no_or_malformed_yaml_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: cannot be read"):
        read_yaml(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("net: [1, 2\n")
    with pytest.raises(UserError, match="is not valid YAML"):
        read_yaml(tmp_path / "params.yaml")
