import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import paths
from pipeline.data.loader import one_crop, ten_crops
from pipeline.data.store import Store
from pipeline.evaluation.evaluate import evaluate_all
from pipeline.evaluation.metrics import metrics
from pipeline.evaluation.predict import class_probabilities, load_net, prediction_table
from pipeline.runtime.checksums import damage
from pipeline.training.run import WEIGHTS
from tests.tiny import COUNTS, CROP_PX, IMAGE_SIZE, numbers, settings
from tests.tiny_params import tiny_params


def test_errors_and_loss_are_sklearns() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(10), 200).astype(np.float32)
    labels = rng.integers(0, 10, 200)
    measured = metrics(prediction_table(torch.from_numpy(probabilities), torch.from_numpy(labels)))
    for k, name in ((1, "error_top1"), (5, "error_top5")):
        accuracy = sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=range(10))
        assert measured[name] == pytest.approx(100 * (1 - accuracy))
    assert measured["loss"] == pytest.approx(
        sklearn_metrics.log_loss(labels, probabilities, labels=range(10)), rel=1e-5
    )


def test_a_net_that_cannot_tell_is_not_credited_with_a_lucky_order() -> None:
    undecided = torch.full((3, 10), 0.1)
    table = prediction_table(undecided, torch.tensor([0, 4, 9]))
    assert metrics(table)["error_top1"] == 100


def test_the_best_labels_are_listed_with_their_probabilities() -> None:
    table = prediction_table(torch.tensor([[0.1, 0.6, 0.05, 0.2, 0.03, 0.02]]), torch.tensor([3]))
    assert table.loc[0, ["top1", "top2", "top3", "top4", "top5"]].tolist() == [1, 3, 0, 2, 4]
    assert table.loc[0, ["p1", "p2"]].tolist() == pytest.approx([0.6, 0.2])
    assert table.loc[0, "rank"] == 1


def test_ten_crops_are_the_mean_of_ten_softmaxes_cut_by_hand(trained: Store) -> None:
    store, net = trained, load_net(paths.seed("smoke", "baseline", 0) / WEIGHTS, settings(), 4)
    found = class_probabilities(net, store, "test", CROP_PX, ten_crops(IMAGE_SIZE, CROP_PX), batch_images=5)
    images = torch.from_numpy(np.load(store.folder / "test/images.npy").astype(np.float32) - store.mean_image)
    images = images.permute(0, 3, 1, 2)
    end, center = IMAGE_SIZE - CROP_PX, (IMAGE_SIZE - CROP_PX) // 2
    total = torch.zeros(COUNTS["test"], 4)
    for top, left in ((0, 0), (0, end), (end, 0), (end, end), (center, center)):
        crop = images[:, :, top : top + CROP_PX, left : left + CROP_PX]
        with torch.no_grad():
            total += net(crop).softmax(1) + net(crop.flip(3)).softmax(1)
    torch.testing.assert_close(found, total / 10)


def test_every_image_of_every_split_is_predicted_and_the_metrics_are_theirs(evaluated: Store) -> None:
    out = paths.evaluation("smoke", "baseline")
    measured = json.loads((out / "seeds.json").read_text())
    predictions = pd.read_parquet(out / "predictions.parquet")
    assert predictions.groupby(["seed", "split", "views"]).size().to_dict() == {
        (seed, split, views): count
        for seed in (0, 1)
        for split, views, count in (
            ("train", "one_crop", COUNTS["train"]),
            ("val", "one_crop", COUNTS["val"]),
            ("test", "one_crop", COUNTS["test"]),
            ("test", "ten_crop", COUNTS["test"]),
        )
    }
    wrong = (predictions["top1"] != predictions["label"]).groupby(
        [predictions["seed"], predictions["split"], predictions["views"]]
    ).mean() * 100
    for (seed, split, views), error in wrong.items():
        assert measured[str(seed)][split][views]["error_top1"] == pytest.approx(error)
    shown = json.loads(paths.metrics("smoke").read_text())
    means = {
        "val_error_top1": ("val", "one_crop", "error_top1"),
        "test_error_top1": ("test", "one_crop", "error_top1"),
        "test_error_top5": ("test", "one_crop", "error_top5"),
        "ten_crop": ("test", "ten_crop", "error_top1"),
    }
    for name, (split, views, metric) in means.items():
        mean = np.mean([measured[seed][split][views][metric] for seed in ("0", "1")])
        assert shown.pop(name) == pytest.approx(mean, abs=1e-4)
    assert shown == {"test": {}}


def test_a_variants_errors_stand_among_the_metrics_and_its_files_are_protected(evaluated: Store) -> None:
    shutil.copytree(paths.seed("smoke", "baseline", 0).parent, paths.seed("smoke", "tuned", 0).parent)
    evaluate_all(tiny_params())
    shown = json.loads(paths.metrics("smoke").read_text())
    assert shown["test"] == {"tuned": shown["test_error_top1"]}
    for name in ("predictions.parquet", "seeds.json"):
        path = paths.evaluation("smoke", "tuned") / name
        assert damage(path) is None
        path.write_bytes(path.read_bytes()[:-1])
        assert damage(path) is not None


def test_the_validation_error_measured_afterwards_is_the_one_that_training_logged(evaluated: Store) -> None:
    measured = json.loads((paths.evaluation("smoke", "baseline") / "seeds.json").read_text())
    for seed in (0, 1):
        last = numbers(paths.seed("smoke", "baseline", seed)).iloc[-1]
        validation = measured[str(seed)]["val"]["one_crop"]
        assert validation["error_top1"] == pytest.approx(last["val_error_top1"], abs=1e-3)
        assert validation["loss"] == pytest.approx(last["val_loss"], abs=1e-3)


def test_one_crop_is_the_center() -> None:
    assert [(view.top, view.left, view.mirror) for view in one_crop(IMAGE_SIZE, CROP_PX)] == [(4, 4, False)]
