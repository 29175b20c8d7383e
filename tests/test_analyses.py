"""Each analysis against a second way to the same number."""

import io
import json
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from pipeline import paths
from pipeline.data.loader import one_crop
from pipeline.data.store import Store
from pipeline.evaluation import dropout_ensemble, off_center
from pipeline.evaluation.dropout_ensemble import LogMean, halved_against_dropout_nets
from pipeline.evaluation.ensembles import MOST_SUBSETS, ensemble_errors, subsets
from pipeline.evaluation.evaluate import analyze, rounded
from pipeline.evaluation.filter_color import color_by_column, color_score
from pipeline.evaluation.metrics import metrics
from pipeline.evaluation.nearest_neighbors import Nearest, nearest_training_images
from pipeline.evaluation.off_center import error_when_shifted
from pipeline.evaluation.predict import class_probabilities, load_net, prediction_table, sample
from pipeline.models.alexnet import Dropout
from pipeline.models.build import build
from pipeline.params import Params
from pipeline.report.figures.analysis_figures import ensemble_size, halved_net, neighbors, shifted_objects
from pipeline.runtime.files import sha256, write_json
from pipeline.runtime.random_streams import seed_of
from pipeline.training.run import WEIGHTS
from tests.tiny import CLASSES, COUNTS, CROP_PX, IMAGE_SIZE, make_store, settings, unlike_net
from tests.tiny_params import LEARNS, evaluate_variant, tiny_params

CENTRE = (IMAGE_SIZE - CROP_PX) // 2


def params_of(analyses: list[str]) -> Params:
    return tiny_params(evaluate={"ten_crop": [], "analyses": analyses, "batch_images": 7}, **LEARNS)


@pytest.fixture(scope="module")
def trained(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the baseline's two seeds trained."""
    return Path(shutil.copytree(learned, tmp_path_factory.mktemp("analyses"), dirs_exist_ok=True))


@pytest.fixture
def store(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(trained)
    return Store.open(trained / "prepared/fashion_mnist")


@pytest.fixture
def net(store: Store) -> nn.Sequential:
    return load_net(paths.seed("smoke", "baseline", 0) / WEIGHTS, settings(**LEARNS), CLASSES)


def crops(store: Store, split: str) -> np.ndarray:
    """Center crops minus the mean image, N x H x W x C, cut by hand."""
    images = np.load(store.folder / split / "images.npy").astype(np.float32) - store.mean_image
    return images[:, CENTRE : CENTRE + CROP_PX, CENTRE : CENTRE + CROP_PX]


def with_random_train_labels(store: Store, folder: Path) -> Store:
    shutil.copytree(store.folder, folder)
    labels = folder / "train/labels.npy"
    np.save(labels, np.random.default_rng(0).integers(0, CLASSES, store.meta.counts["train"]))
    sums = store.meta.sha256 | {"train/labels.npy": sha256(labels)}
    write_json(folder / "meta.json", store.meta.model_copy(update={"sha256": sums}).model_dump())
    return Store.open(folder)


def to_net(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


# ---- neighbors


def test_nearest_are_sklearns_whatever_the_batches() -> None:
    rng = np.random.default_rng(0)
    queries, points = rng.normal(50, 30, (20, 40)), rng.normal(50, 30, (300, 40))
    search = Nearest(torch.from_numpy(queries))
    for batch in np.split(points, [3, 50, 51, 200]):
        search.show(torch.from_numpy(batch))
    expected = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(points).kneighbors(queries, return_distance=False)
    assert search.indices.tolist() == expected.tolist()


def test_of_equally_near_points_the_first_is_nearer() -> None:
    search = Nearest(torch.zeros(1, 2))
    for _ in range(4):
        search.show(torch.tensor([[1.0, 0], [0, 1], [0, 2]]))
    assert search.indices.tolist() == [[0, 1, 3, 4, 6, 7]]


def test_neighbors_in_the_last_hidden_layer_and_in_pixels_are_sklearns(
    store: Store, net: nn.Sequential, tmp_path: Path
) -> None:
    store = with_random_train_labels(store, tmp_path / "data")
    found = nearest_training_images(net, store, CROP_PX, batch_images=7)
    with torch.no_grad():
        spaces = {
            "features": [net[:-1](to_net(crops(store, split))).numpy() for split in ("train", "test")],
            "pixels": [crops(store, split).reshape(-1, CROP_PX**2) for split in ("train", "test")],
        }
    labels = {split: store.split(split).labels for split in ("train", "test")}
    assert isinstance(net[-1], nn.Linear)
    assert found["queries"] == COUNTS["test"]
    for space, (train, test) in spaces.items():
        nearest = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(train.astype(float))
        expected = nearest.kneighbors(test.astype(float), return_distance=False)
        assert [example[space] for example in found["examples"]] == expected[:CLASSES].tolist()
        share = np.mean(labels["train"][expected] == labels["test"][:, None])
        assert 0 < share < 1
        assert found[f"{space}_agreement"] == pytest.approx(100 * share)
    assert [example["query"] for example in found["examples"]] == [0, 1, 2, 3]  # one of each class


def test_a_sample_shows_every_class_of_a_split_that_is_sorted_by_class() -> None:
    labels = np.repeat(np.arange(10), 100)
    assert np.bincount(labels[sample(1000, 50)]).tolist() == [5] * 10
    assert sample(3, 50).tolist() == [0, 1, 2]


# ---- shifts


def test_the_unshifted_error_is_the_one_crop_error(store: Store, net: nn.Sequential) -> None:
    found = error_when_shifted(net, store, CROP_PX, batch_images=5)
    probabilities = class_probabilities(net, store, "test", CROP_PX, one_crop(IMAGE_SIZE, CROP_PX), 7)
    expected = metrics(prediction_table(probabilities, torch.from_numpy(store.split("test").labels)))
    assert found["shifts"][0] == {"share": 0, "px": 0, "error_top1": expected["error_top1"]}
    assert (found["images"], found["chance"]) == (COUNTS["test"], 75)


def test_shifted_crops_are_those_cut_by_hand_from_a_padded_canvas(store: Store) -> None:
    net = unlike_net(0, store)
    found = error_when_shifted(net, store, CROP_PX, batch_images=5)
    images = np.load(store.folder / "test/images.npy").astype(np.float32) - store.mean_image
    labels = torch.from_numpy(store.split("test").labels)
    assert len({point["error_top1"] for point in found["shifts"]}) > 1
    by_direction = []
    for point, px in zip(found["shifts"][1:], (8, 17, 25), strict=True):
        errors = []
        for top, left in ((CENTRE - px, CENTRE), (CENTRE + px, CENTRE), (CENTRE, CENTRE - px), (CENTRE, CENTRE + px)):
            crop = np.zeros((COUNTS["test"], CROP_PX, CROP_PX, 1), np.float32)
            for y, x in product(range(CROP_PX), range(CROP_PX)):
                if 0 <= top + y < IMAGE_SIZE and 0 <= left + x < IMAGE_SIZE:
                    crop[:, y, x] = images[:, top + y, left + x]
            with torch.no_grad():
                errors.append(float((net(to_net(crop)).argmax(1) != labels).double().mean()))
        assert point["px"] == px
        assert point["error_top1"] == pytest.approx(100 * np.mean(errors))
        by_direction.append(errors)
    assert len(set(zip(*by_direction, strict=True))) == 4  # no direction could stand for another


def test_only_some_images_of_a_large_split_are_shifted(
    store: Store, net: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(off_center, "IMAGES", 5)
    assert error_when_shifted(net, store, CROP_PX, batch_images=2)["images"] == 5


# ---- dropout nets


def tail(hidden_dropouts: int) -> tuple[nn.Sequential, Tensor]:
    """The end of a net with five units that may be silenced, and four more where there are two such layers."""
    generator = torch.Generator().manual_seed(3)
    layers: list[nn.Module] = [Dropout()]
    if hidden_dropouts == 2:
        layers += [nn.Linear(5, 4), nn.ReLU(inplace=True), Dropout()]
    layers.append(nn.Linear(4 if hidden_dropouts == 2 else 5, 3))
    rest = nn.Sequential(*layers)
    for parameter in rest.parameters():
        nn.init.normal_(parameter, generator=generator)
    return rest.eval(), torch.randn(6, 5, generator=generator)


def all_masks(widths: list[int]) -> Iterator[list[Tensor]]:
    for bits in product((False, True), repeat=sum(widths)):
        yield list(torch.tensor(bits).split(widths))


@torch.no_grad()
def mean_over_all_dropout_nets(rest: nn.Sequential, units: Tensor) -> Tensor:
    log_mean = LogMean(rest, units)
    for masks in all_masks([5, 4][: sum(isinstance(layer, Dropout) for layer in rest)]):
        remaining = iter(masks)
        log_mean.add(lambda layer, width, remaining=remaining: next(remaining))
    return log_mean.normalized()


def test_the_geometric_mean_over_all_dropout_nets_is_the_one_computed_by_hand() -> None:
    rest, units = tail(2)
    weight1, bias1, weight2, bias2 = (parameter.detach().double().numpy() for parameter in rest.parameters())
    product_of_all = np.ones((6, 3))
    for kept1, kept2 in all_masks([5, 4]):
        hidden = np.maximum(units.double().numpy() * kept1.numpy() @ weight1.T + bias1, 0)
        scores = np.exp(hidden * kept2.numpy() @ weight2.T + bias2)
        product_of_all *= (scores / scores.sum(1, keepdims=True)) ** (1 / 2**9)
    expected = product_of_all / product_of_all.sum(1, keepdims=True)
    np.testing.assert_allclose(mean_over_all_dropout_nets(rest, units).exp().numpy(), expected, rtol=1e-5)


def test_with_one_layer_of_dropout_the_halved_net_is_the_geometric_mean_exactly() -> None:
    rest, units = tail(1)
    with torch.no_grad():
        halved = rest(units).softmax(1).double()
    torch.testing.assert_close(mean_over_all_dropout_nets(rest, units).exp(), halved, rtol=1e-5, atol=0)


def test_the_net_is_the_same_after_it_was_thinned() -> None:
    rest, units = tail(2)
    with torch.no_grad():
        before = rest(units)
        mean_over_all_dropout_nets(rest, units)
        assert torch.equal(rest(units), before)


def test_halved_net_and_thinned_nets_are_compared_as_defined(
    store: Store, net: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropout_ensemble, "NETS", (1, 3))
    found = halved_against_dropout_nets(net, store, CROP_PX, seed=4, batch_images=7)
    x, labels = to_net(crops(store, "test")), torch.from_numpy(store.split("test").labels)
    names = [name for name, module in net.named_children() if isinstance(module, Dropout)]
    logs = []
    with torch.no_grad():
        halved = net(x).double().log_softmax(1)
        for k in (1, 2, 3):
            generator = torch.Generator().manual_seed(seed_of("sampled dropout nets", 4, k))
            y = x
            for name, module in net.named_children():
                y = y * (torch.rand(y.shape[1], generator=generator) >= 0.5) if name in names else module(y)
            logs.append(y.double().log_softmax(1))
    for point, count in zip(found["geometric_mean"], (1, 3), strict=True):
        mean = torch.stack(logs[:count]).mean(0).log_softmax(1)
        kl = nn.functional.kl_div(halved, mean, reduction="batchmean", log_target=True)
        assert point["nets"] == count
        assert point["kl"] == pytest.approx(float(kl), rel=1e-3, abs=1e-7)
        assert point["agreement"] == 100 * float((mean.argmax(1) == halved.argmax(1)).double().mean())
        assert point["error_top1"] == 100 * float((mean.argmax(1) != labels).double().mean())
    assert found["halved_error_top1"] == 100 * float((halved.argmax(1) != labels).double().mean())


# ---- ensembles


def opinions(seeds: int) -> tuple[dict[int, Tensor], Tensor]:
    rng = np.random.default_rng(1)
    tables = {seed: torch.from_numpy(rng.dirichlet(np.ones(8), 60).astype(np.float32)) for seed in range(seeds)}
    return tables, torch.from_numpy(rng.integers(0, 8, 60))


def test_an_ensemble_of_one_has_the_seeds_own_error_and_that_of_all_the_error_of_their_mean() -> None:
    probabilities, labels = opinions(3)
    found = ensemble_errors(probabilities, labels)
    own = [metrics(prediction_table(one, labels)) for one in probabilities.values()]
    mean = sum(one.double().numpy() for one in probabilities.values()) / 3
    order = np.argsort(-mean, axis=1)
    for k in (1, 5):
        errors = [measured[f"error_top{k}"] for measured in own]
        assert found["1"][f"error_top{k}"] == pytest.approx(
            {"mean": np.mean(errors), "min": min(errors), "max": max(errors)}
        )
        expected = 100 * np.mean([label not in best[:k] for label, best in zip(labels.tolist(), order, strict=True)])
        assert found["3"][f"error_top{k}"] == pytest.approx({"mean": expected, "min": expected, "max": expected})
    assert {size: of_size["ensembles"] for size, of_size in found.items()} == {"1": 3, "2": 3, "3": 1}


def test_every_seed_is_equally_often_in_the_ensembles_of_a_size() -> None:
    for seeds in (5, 7, 12):
        for size in range(1, seeds + 1):
            chosen = subsets(range(seeds), size)
            assert len(chosen) <= MOST_SUBSETS
            assert len({frozenset(subset) for subset in chosen}) == len(chosen)
            members = [seed for subset in chosen for seed in subset]
            assert len({members.count(seed) for seed in range(seeds)}) == 1


# ---- color


def test_a_grey_kernel_has_no_color_and_red_minus_green_is_all_color() -> None:
    shape = torch.rand(11, 11, generator=torch.Generator().manual_seed(0))
    grey = shape.expand(3, 11, 11)
    red_minus_green = torch.stack([shape, -shape, torch.zeros(11, 11)])
    red = torch.stack([shape, torch.zeros(11, 11), torch.zeros(11, 11)])
    scores = color_score(torch.stack([grey, red_minus_green, red, torch.zeros(3, 11, 11)]))
    assert scores.tolist() == pytest.approx([0, 1, 2 / 3, 0], abs=1e-12)


def test_a_column_that_alone_sees_color_differs_more_than_by_chance(tmp_path: Path) -> None:
    store = make_store(tmp_path / "color", channels=3)
    torch.manual_seed(0)
    net = build(settings(net={"width": 0.25}), CLASSES)
    conv1 = next(module for module in net if isinstance(module, nn.Conv2d))
    half = conv1.out_channels // 2
    with torch.no_grad():
        conv1.weight[:half] = conv1.weight[:half].mean(1, keepdim=True)
    found = color_by_column(net, store, seed=0)
    assert found["column_1"] == pytest.approx(0, abs=1e-6)
    assert found["column_2"] == pytest.approx(2 / 3, abs=0.05)  # independent weights: two of three dimensions
    assert found["difference"] == found["column_2"] - found["column_1"]
    assert 0 < found["by_chance"]["mean"] < found["by_chance"]["quantile_95"] < found["difference"]
    scores, rng = color_score(conv1.weight.detach()).numpy(), np.random.default_rng(1)
    orders = [rng.permutation(scores) for _ in range(4000)]
    differences = [abs(order[:half].mean() - order[half:].mean()) for order in orders]
    assert found["by_chance"]["mean"] == pytest.approx(np.mean(differences), rel=0.05)
    assert found["by_chance"]["quantile_95"] == pytest.approx(np.quantile(differences, 0.95), rel=0.05)
    analyzed = [analyze(net, store, CROP_PX, seed, batch_images=7)["gpu_specialisation"] for seed in (0, 0, 1)]
    assert analyzed[0] == analyzed[1] == found
    assert analyzed[2]["by_chance"] != found["by_chance"]
    assert analyzed[2]["difference"] == found["difference"]


# ---- together


@pytest.mark.parametrize(
    ("architecture", "crop_px", "why"),
    [
        *((name, 24, "the net has no dropout") for name in ("four_layer", "conv_local_13", "lenet5", "resnet18")),
        ("googlenet", CROP_PX, "the net's layers are no chain, of which dropout begins a part"),
    ],
)
def test_what_a_net_or_its_images_lack_is_a_reason(store: Store, architecture: str, crop_px: int, why: str) -> None:
    net = build(settings(net={"architecture": architecture, "crop_px": crop_px}), CLASSES).eval()
    found = analyze(net, store, crop_px, seed=0, batch_images=7)
    assert found["dropout_test_half"] == {"reason": why}
    assert found["gpu_specialisation"] == {"reason": "the images are grey"}
    assert found["nn_4096"]["queries"] == found["off_centre"]["images"] == COUNTS["test"]


def test_analyses_have_the_same_bytes_each_time_whatever_the_global_generator_holds(store: Store) -> None:
    path = paths.evaluation("smoke", "baseline") / "analyses.json"
    contents = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        evaluate_variant(params_of(["baseline"]), "baseline")
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    found = json.loads(contents[0])
    assert list(found) == ["seeds", "ensembles"]
    assert list(found["seeds"]) == ["0", "1"]
    assert list(found["ensembles"]) == ["1", "2"]
    assert path.name in path.with_name("SHA256SUMS").read_text()
    for seed in (0, 1):  # each from its own net and stream
        own = load_net(paths.seed("smoke", "baseline", seed) / WEIGHTS, settings(**LEARNS), CLASSES)
        thinned = rounded(halved_against_dropout_nets(own, store, CROP_PX, seed, batch_images=7))
        assert found["seeds"][str(seed)]["dropout_test_half"] == thinned
    seeds = json.loads(path.with_name("seeds.json").read_text())
    errors = [seeds[seed]["test"]["one_crop"]["error_top1"] for seed in ("0", "1")]
    assert found["ensembles"]["1"]["error_top1"]["mean"] == pytest.approx(np.mean(errors), abs=1e-4)
    assert found["seeds"]["0"]["off_centre"]["shifts"][0]["error_top1"] == pytest.approx(errors[0], abs=1e-4)


def test_each_figure_is_drawn_from_what_was_measured_or_says_why_not(store: Store) -> None:
    path = paths.evaluation("smoke", "baseline") / "analyses.json"
    evaluate_variant(params_of([]), "baseline")  # a variant that is not listed
    assert json.loads(path.read_text()) == {}
    evaluate_variant(params_of(["baseline"]), "baseline")
    found = json.loads(path.read_text())
    figures = [ensemble_size, shifted_objects, halved_net, partial(neighbors, store=store, seed=1)]
    for draw in figures:
        drawn = draw(found)
        assert not isinstance(drawn, str)
        FigureCanvasAgg(drawn[0]).print_figure(io.BytesIO(), dpi=30)
    assert neighbors(found, store, 1)[1].count("class ") == CLASSES
    for draw in figures:
        assert isinstance(draw({}), str)
    no_dropout = {"seeds": {"0": {"dropout_test_half": {"reason": "the net has no dropout"}}}}
    assert halved_net(no_dropout) == "the net has no dropout"


def test_numbers_are_rounded_to_four_decimals_at_any_depth() -> None:
    assert rounded({"a": [0.123456, {"b": 1 / 3}], "c": 7, "d": "e"}) == {
        "a": [0.1235, {"b": 0.3333}],
        "c": 7,
        "d": "e",
    }
