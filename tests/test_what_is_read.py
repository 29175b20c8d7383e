"""Who reads a split, a seed, an epoch or a view reads the right one: each has numbers of its own here."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import paths, tuning
from pipeline.claims.learning import seeds_that_ended, seeds_that_guess
from pipeline.claims.results import collect
from pipeline.data.loader import WHOLE, Preprocess, train_loader
from pipeline.data.store import Store
from pipeline.evaluation.evaluate import evaluate_all
from pipeline.models.build import build
from pipeline.params import Params
from pipeline.report import analysis_tables, tables, training_tables, variant_tables
from pipeline.report.curve_file import write_curves
from pipeline.report.figures.curve_figures import curves
from pipeline.report.figures.net_figures import examples, filters
from pipeline.runtime.random_streams import seed_of
from pipeline.tracking.records import read
from pipeline.training import module
from pipeline.training.callbacks import History
from pipeline.training.module import Classifier, Images
from pipeline.training.run import train
from tests.fake_runs import change_metrics, fake_params, write_fake_runs
from tests.synthetic import results as made_up
from tests.test_measures import DIVERGENCES, SHIFTED, analyses
from tests.tiny import CLASSES, COUNTS, CROP_PX, IMAGE_SIZE, LABELS, a_run, make_store, settings, unlike_net
from tests.tiny_params import alone_in, only, tiny_params

SEEDS = (0, 1, 2)
END, CENTER = IMAGE_SIZE - CROP_PX, (IMAGE_SIZE - CROP_PX) // 2
ONE_CROP = [(CENTER, CENTER, False)]
CORNERS = [(0, 0), (0, END), (END, 0), (END, END), (CENTER, CENTER)]
TEN_CROPS = [(top, left, mirror) for top, left in CORNERS for mirror in (False, True)]
LOOKS = (("train", "one_crop"), ("val", "one_crop"), ("test", "one_crop"), ("test", "ten_crop"))


def params() -> Params:
    return only(tiny_params(seeds=list(SEEDS)), "baseline")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where nets that nobody trained are evaluated: one for each seed."""
    folder = tmp_path_factory.mktemp("unlike")
    with pytest.MonkeyPatch.context() as patch:
        alone_in(folder, patch)
        store = make_store(folder / "prepared/fashion_mnist")
        for seed in SEEDS:
            run = paths.seed("smoke", "baseline", seed)
            run.mkdir(parents=True)
            weights = {name: tensor.contiguous() for name, tensor in unlike_net(seed, store).state_dict().items()}
            save_file(weights, run / "model.safetensors")
            facts = {"fingerprint": f"net-{seed}", "status": "finished", "settings": settings().model_dump()}
            (run / "run.json").write_text(json.dumps(facts))
        evaluate_all(params())
    return folder


def by_hand(folder: Path, seed: int, split: str, views: str) -> Tensor:
    """Softmax averaged over crops that are cut here, (images, classes)."""
    data = folder / "prepared/fashion_mnist"
    images = np.load(data / split / "images.npy").astype(np.float32) - np.load(data / "mean_image.npy")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    net = build(settings(), CLASSES).eval()
    net.load_state_dict(load_file(folder / paths.seed("smoke", "baseline", seed) / "model.safetensors"))
    seen = []
    for top, left, mirror in ONE_CROP if views == "one_crop" else TEN_CROPS:
        crop = pixels[:, :, top : top + CROP_PX, left : left + CROP_PX]
        with torch.no_grad():
            seen.append(net(crop.flip(3) if mirror else crop).softmax(1))
    return torch.stack(seen).double().mean(0)


def labels_of(split: Any) -> Tensor:
    return torch.from_numpy(np.resize(LABELS[split], COUNTS[split]))


def test_predictions_errors_and_metrics_are_those_of_each_seeds_net_on_each_split_and_view(evaluated: Path) -> None:
    out = evaluated / paths.evaluation("smoke", "baseline")
    table, seeds = pd.read_parquet(out / "predictions.parquet"), json.loads((out / "seeds.json").read_text())
    errors: dict[tuple[str, str], list[float]] = {look: [] for look in LOOKS}
    losses = []
    for seed in SEEDS:
        for split, views in LOOKS:
            chosen = table[(table["seed"] == seed) & (table["split"] == split) & (table["views"] == views)]
            expected, labels = by_hand(evaluated, seed, split, views), labels_of(split)
            own = expected.gather(1, labels[:, None])[:, 0]
            assert chosen["index"].tolist() == list(range(COUNTS[split]))  # type: ignore[index]
            assert chosen["label"].tolist() == labels.tolist()
            np.testing.assert_allclose(chosen["p_label"], own, atol=1e-4)
            assert chosen["top1"].tolist() == expected.argmax(1).tolist()
            assert chosen["rank"].tolist() == (expected > own[:, None]).sum(1).tolist()
            found, wrong = seeds[str(seed)][split][views], 100 * float((expected.argmax(1) != labels).double().mean())
            assert found["error_top1"] == pytest.approx(wrong)
            assert found["loss"] == pytest.approx(float(-own.log().mean()), rel=1e-3)
            errors[split, views].append(wrong)
            losses.append(round(found["loss"], 2))
    assert len({np.mean(of_look) for of_look in errors.values()}) == len(LOOKS)
    assert len(set(losses)) == len(losses)  # every seed, split and view has another
    shown = json.loads((evaluated / paths.metrics("smoke")).read_text())
    looks = {
        "val_error_top1": ("val", "one_crop"),
        "test_error_top1": ("test", "one_crop"),
        "ten_crop": ("test", "ten_crop"),
    }
    for name, look in looks.items():
        assert shown[name] == pytest.approx(np.mean(errors[look]), abs=1e-4)


def test_ten_crops_averaged_as_logits_would_give_other_probabilities(evaluated: Path) -> None:
    """Which the test above would notice."""
    probabilities = by_hand(evaluated, 0, "test", "one_crop")
    assert probabilities.amax(1).mean() > 0.6
    net = unlike_net(0, Store.open(evaluated / "prepared/fashion_mnist"))
    images = np.load(evaluated / "prepared/fashion_mnist/test/images.npy").astype(np.float32)
    mean = np.load(evaluated / "prepared/fashion_mnist/mean_image.npy")
    pixels = torch.from_numpy(images - mean).permute(0, 3, 1, 2)
    crops = [pixels[:, :, top : top + CROP_PX, left : left + CROP_PX] for top, left in CORNERS]
    with torch.no_grad():
        logits = torch.stack([net(view) for crop in crops for view in (crop, crop.flip(3))]).mean(0)
    assert (logits.softmax(1) - by_hand(evaluated, 0, "test", "ten_crop")).abs().max() > 0.05


# ---- training


@pytest.fixture
def images(store: Store) -> Images:
    return Images(store, settings(train={"batch_images": 7}), seed=3)


def test_validation_sees_the_validation_images_through_their_centers_in_order(store: Store, images: Images) -> None:
    seen = [images.on_after_batch_transfer(batch, 0) for batch in images.val_dataloader()]
    pixels = np.load(store.folder / "val/images.npy").astype(np.float32) - np.load(store.folder / "mean_image.npy")
    expected = pixels[:, CENTER : CENTER + CROP_PX, CENTER : CENTER + CROP_PX].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(torch.cat([x for x, _ in seen]).numpy(), expected)
    assert torch.equal(torch.cat([labels for _, labels in seen]), labels_of("val"))


def test_training_sees_every_training_image_once_with_its_own_label(store: Store, images: Images) -> None:
    loader = images.train_dataloader()
    plans = list(loader.sampler)  # type: ignore[call-overload]
    order = np.concatenate([plan.images for plan in plans])
    assert sorted(order) == list(range(COUNTS["train"]))
    pixels, labels = (np.load(store.folder / f"train/{kind}.npy") for kind in ("images", "labels"))
    for plan, cut in zip(plans, loader, strict=True):
        assert cut.labels.tolist() == labels[plan.images].tolist()
        for place, image in enumerate(plan.images):
            top, left = plan.top[place], plan.left[place]
            window = pixels[image, top : top + CROP_PX, left : left + CROP_PX]
            window = window[:, ::-1] if plan.mirror[place] else window
            np.testing.assert_array_equal(cut.pixels[place].permute(1, 2, 0).numpy(), window)
    assert images._share == WHOLE


def test_a_seed_has_its_own_initial_weights_in_every_layer_whatever_the_global_generator_holds() -> None:
    nets = []
    for seed, other in ((0, 1), (0, 2), (1, 2)):
        torch.manual_seed(other)
        nets.append(Classifier(settings(), CLASSES, seed).net.state_dict())
    for name, weight in nets[0].items():
        assert torch.equal(weight, nets[1][name]), name
        if name.endswith("weight"):
            assert not torch.equal(weight, nets[2][name]), name


def test_each_seed_epoch_and_batch_silences_units_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[tuple[int, int, int], int] = {}
    for seed, epoch, batch in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1)):
        net = Classifier(settings(), CLASSES, seed)
        monkeypatch.setattr(Classifier, "current_epoch", epoch)
        monkeypatch.setattr(module, "seed_dropout", lambda _, s, key=(seed, epoch, batch): drawn.update({key: s}))
        net.trainer = type("Trainer", (), {"global_step": 1, "barebones": False})()  # type: ignore[assignment]
        net.training_step((torch.zeros(2, 1, CROP_PX, CROP_PX), torch.tensor([0, 1])), batch)
    assert len(set(drawn.values())) == len(drawn) == 5


class Batches(pl.Callback):
    """Keeps the sum of each batch's pixels, by epoch."""

    def __init__(self) -> None:
        self.sums: dict[int, list[float]] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, _: Any, batch: Any, batch_idx: int) -> None:
        self.sums.setdefault(trainer.current_epoch, []).append(float(batch[0].double().sum()))


def test_a_run_starts_from_its_seeds_weights_and_shows_its_seeds_images_in_each_epochs_own_way(store: Store) -> None:
    shown = []
    for seed in (0, 1):
        still = {"epochs": 2, "lr": 1e-30, "weight_decay": 0.0}
        batches, run = Batches(), a_run(store, seed=seed, train=still)
        weights = load_file(train(run, [batches]) / "model.safetensors")
        torch.manual_seed(seed_of("initialization", seed))
        for name, initial in build(run.settings, CLASSES).state_dict().items():
            assert torch.equal(weights[name], initial), name
        for epoch in (0, 1):
            loader = train_loader(store, run.settings, seed)
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            finish = Preprocess(store.mean_image, CROP_PX)
            expected = [float(finish(cut)[0].double().sum()) for cut in loader]
            assert batches.sums[epoch] == pytest.approx(expected)
            shown += expected
    assert len({round(total) for total in shown}) == len(shown)


def test_an_epochs_row_has_its_training_and_validation_numbers_and_the_rate_that_it_was_trained_with(
    tmp_path: Path,
) -> None:
    net, history = Classifier(settings(), CLASSES, seed=0), History(tmp_path / "history.csv")
    labels = torch.tensor([0, 1, 2, 3, 0])
    net.train_metrics.add(torch.tensor(0.7), 9 * torch.eye(4)[[0, 1, 2, 0, 1]], labels)  # two of five wrong
    net.validation = {"val_loss": 0.5, "val_error_top1": 25.0, "val_error_top5": 5.0}
    groups = [{"lr": 0.003}, {"lr": 0.02}]
    trainer: Any = SimpleNamespace(current_epoch=6, optimizers=[SimpleNamespace(param_groups=groups)])
    history.on_train_epoch_start(trainer, net)
    history.on_train_epoch_end(trainer, net)
    (row,) = pd.read_csv(tmp_path / "history.csv").to_dict("records")
    expected = {"epoch": 7, "lr": 0.003, "train_loss": 0.7, "train_error_top1": 40.0, "val_loss": 0.5}
    expected |= {"val_error_top1": 25.0, "val_error_top5": 5.0}
    assert {name: row[name] for name in expected} == pytest.approx(expected)


# ---- tuning


HISTORY = pd.DataFrame(
    {"epoch": [1, 2, 3], "train_error_top1": [60.0, 30.0, 11.0], "val_error_top1": [50.0, 33.0, 37.0]}
)


def facts(stopped: str, status: str = "finished") -> dict[str, Any]:
    return {"status": status, "stopped": stopped, "settings": {"train": {"epochs": 9}}}


def test_a_trial_is_worth_its_last_validation_error_or_the_epochs_to_its_goal() -> None:
    assert tuning.LEAST_ERROR.value(HISTORY, facts("budget")) == 37.0
    assert tuning.LEAST_ERROR.value(HISTORY, facts("diverged", "failed")) == 100.0
    assert tuning.SOONEST_GOAL.value(HISTORY, facts("goal")) == 3.0
    assert tuning.SOONEST_GOAL.value(HISTORY, facts("budget")) == pytest.approx(9.11)
    assert tuning.SOONEST_GOAL.value(HISTORY, facts("diverged", "failed")) == pytest.approx(10.0)


def test_a_trial_reports_each_epochs_validation_error_or_its_training_error_where_it_has_a_goal() -> None:
    for objective, column in ((tuning.LEAST_ERROR, "val_error_top1"), (tuning.SOONEST_GOAL, "train_error_top1")):
        assert objective.monitor == column


def test_a_study_is_tuned_on_the_variants_own_settings_with_the_studys_epochs() -> None:
    goal = {"set": {"train": {"stop_at_train_error": 25.0, "lr": 0.004}}, "title": "x", "section": "3"}
    variants = {"baseline": tiny_params().variants["baseline"].model_dump(), "fast": goal | {"description": "x"}}
    subject = tuning.Subject(tiny_params(variants=variants), "fast")
    chosen = subject.settings({"lr": 0.07})
    assert (chosen.train.lr, chosen.train.epochs, chosen.train.stop_at_train_error) == (0.07, 2, 25.0)
    assert subject.paper_values == {"lr": 0.004}
    assert subject.objective is tuning.SOONEST_GOAL
    assert tuning.Subject(tiny_params(variants=variants), "baseline").objective is tuning.LEAST_ERROR


# ---- MLflow


ERRORS = {0: (20.0, 31.0, 25.0), 1: (25.0, 29.0, 20.0), 2: (30.0, 30.0, 30.0)}  # train, val, test; val's middle: seed 2


def write_run(seed: int, train: float, val: float, test: float) -> dict[str, Any]:
    """A run's files, and its part of seeds.json."""
    run = paths.seed("smoke", "baseline", seed)
    run.mkdir(parents=True)
    columns = ("lr", "train_loss", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5")
    rows = [
        {"epoch": epoch, "time_ms": 1000 * seed + epoch}
        | {name: 100 * seed + 10 * place + epoch for place, name in enumerate(columns)}
        for epoch in (1, 2)
    ]
    pd.DataFrame(rows).to_csv(run / "history.csv", index=False)
    save_file({"weight": torch.tensor([float(seed)])}, run / "model.safetensors")
    told = {"fingerprint": f"net-{seed}", "scale": "smoke", "variant": "baseline", "section": "3", "seed": seed}
    told |= {"status": "finished", "stopped": "budget", "epochs": 2, "started_ms": 5, "finished_ms": 7 + seed}
    settings = {"net": {"architecture": "alexnet", "width": 0.25}, "train": {"lr": 0.01}}
    (run / "run.json").write_text(json.dumps(told | {"settings": settings, "origin": {}}))
    found: dict[str, Any] = {"status": "finished"}
    for split, error in (("train", train), ("val", val), ("test", test)):
        found[split] = {"one_crop": {"error_top1": error, "error_top5": error / 2, "loss": error / 7}}
    found["test"]["ten_crop"] = {"error_top1": test - 2, "error_top5": test / 4, "loss": test / 9}
    return found


def test_every_run_shows_its_own_seeds_curves_and_errors_and_the_middle_validation_error_its_model(
    workplace: Path,
) -> None:
    measured = {seed: write_run(seed, *errors) for seed, errors in ERRORS.items()}
    out = paths.evaluation("smoke", "baseline")
    out.mkdir(parents=True)
    (out / "seeds.json").write_text(json.dumps(measured))
    records, problems = read(Path("runs"))
    assert problems == []
    assert [record.fingerprint for record in records] == ["net-0", "net-1", "net-2"]
    for seed, record in enumerate(records):
        assert (record.name, record.params["seed"]) == (f"baseline seed {seed}", seed)
        assert (record.facts["section"], record.end_ms) == ("3", 7 + seed)
        points = {(point.key, point.epoch): point.value for point in record.points}
        assert len(points) == len(record.points)
        history = pd.read_csv(paths.seed("smoke", "baseline", seed) / "history.csv").set_index("epoch")
        for epoch in (1, 2):
            for name in ("lr", "train_loss", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5"):
                assert points[name, epoch] == history.loc[epoch, name]
        for (split, views), suffix in zip(LOOKS, ("_one_crop", "_one_crop", "", "_ten_crop"), strict=True):
            top1, loss = (measured[seed][split][views][name] for name in ("error_top1", "loss"))
            assert points[f"{split}_error_top1{suffix}", 2] == pytest.approx(top1)
            assert points[f"{split}_loss{suffix}", 2] == pytest.approx(loss, abs=1e-6)
        assert record.model_of == (paths.seed("smoke", "baseline", 2) if seed == 2 else None)
    (out / "analyses.json").write_text('{"seeds": {"0": {}}}')
    evaluate = params().evaluate.model_copy(update={"analyses": ["baseline"]})
    results = collect(params().model_copy(update={"evaluate": evaluate}), Path())
    assert results.median_seed("baseline") == 2
    assert results.histories.groupby("seed")["lr"].first().to_dict() == {seed: 100 * seed + 1 for seed in ERRORS}
    assert results.runs.set_index("seed")["finished_ms"].to_dict() == {seed: 7 + seed for seed in ERRORS}
    assert results.analyses == {"baseline": {"seeds": {"0": {}}}}
    del measured[1]
    (out / "seeds.json").write_text(json.dumps(measured))
    assert f"baseline, seed 1: not in `{out / 'seeds.json'}`" in collect(params(), Path()).missing


def test_a_net_that_ends_at_guessing_or_failed_has_not_learned() -> None:
    params = fake_params()
    table = errors_frame(["baseline", "no_dropout"], params.seeds)
    ended = (table["split"] == "test") & (table["views"] == "one_crop") & (table["metric"] == "error_top1")
    for seed, error in ((0, 94.5), (1, 93.5)):  # of 95 % by a guess; a point less is no learning
        table.loc[ended & (table["variant"] == "baseline") & (table["seed"] == seed), "value"] = error
    table = table[~((table["variant"] == "baseline") & (table["seed"] == 2))]
    status = [("baseline", 0, "finished"), ("baseline", 1, "finished"), ("baseline", 2, "failed")]
    runs = pd.DataFrame([*status, ("no_dropout", 1, "failed")], columns=["variant", "seed", "status"])
    results = replace(made_up(params), errors=table, runs=runs, meta={"classes": [str(k) for k in range(20)]})
    assert (seeds_that_guess(results, "baseline"), seeds_that_ended(results, "baseline")) == ([0, 2], 3)


@pytest.mark.parametrize(
    ("objective", "curve_of"), [("val_error_top1", "val_error_top1"), ("epochs_to_goal", "train_error_top1")]
)
def test_every_trial_shows_its_own_values_curve_and_state(workplace: Path, objective: str, curve_of: str) -> None:
    out = paths.tune("smoke", "baseline")
    out.mkdir(parents=True)
    rows = [
        ("COMPLETE", 0.02, 0.001, "40.0 21.5", 100, 190, "a"),
        ("FAIL", 0.09, 0.007, "", 200, 250, "b"),
        ("PRUNED", 0.003, 0.0002, "60.25", 150, 300, "c"),
    ]
    columns = ("state", "lr", "weight_decay", "curve", "start_ms", "end_ms", "fingerprint")
    table = pd.DataFrame(rows, columns=columns).assign(number=range(3), objective=objective, study="s", value=1.0)
    table.to_csv(out / "trials.csv", index=False)
    (study, first, second), problems = read(Path("runs"))
    assert problems == []
    assert (study.fingerprint, study.start_ms, study.end_ms) == ("s", 100, 300)
    assert [(one.fingerprint, one.status, one.tags["state"], one.parent) for one in (first, second)] == [
        ("a", "FINISHED", "complete", "s"),
        ("c", "FINISHED", "pruned", "s"),
    ]
    assert (first.params, second.params) == (
        {"train.lr": 0.02, "train.weight_decay": 0.001},
        {"train.lr": 0.003, "train.weight_decay": 0.0002},
    )
    assert [(point.key, point.value, point.epoch) for point in first.points] == [
        (curve_of, 40.0, 1),
        (curve_of, 21.5, 2),
    ]
    assert [(point.key, point.value, point.epoch) for point in second.points] == [(curve_of, 60.25, 1)]
    assert (second.start_ms, second.end_ms) == (150, 300)


# ---- the report


def errors_frame(variants: list[str], seeds: list[int]) -> pd.DataFrame:
    """Every look of every variant and seed has an error of its own."""
    rows, value = [], 10.0
    for variant in variants:
        for split, views in LOOKS:
            for top in (1, 5):
                for seed in seeds:
                    value += 0.37 + 0.11 * (seed % 2)
                    rows.append((variant, seed, split, views, f"error_top{top}", round(value, 4)))
    return pd.DataFrame(rows, columns=["variant", "seed", "split", "views", "metric", "value"])


def test_tables_have_each_splits_and_views_own_errors() -> None:
    params = fake_params()
    table = errors_frame(list(params.variants), params.seeds)
    results = replace(made_up(params), errors=table, meta={"classes": [str(k) for k in range(20)]})
    means = table.groupby(["variant", "split", "views", "metric"])["value"].mean()

    def cells(text: str, *first: str) -> list[str]:
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
        (found,) = [line for line in lines if tuple(line[: len(first)]) == first]
        return found

    for views, crops in (("one_crop", "one crop"), ("ten_crop", "ten crops")):
        for top, printed in (
            (1, {"one_crop": "39.0", "ten_crop": "37.5"}),
            (5, {"one_crop": "18.3", "ten_crop": "17.0"}),
        ):
            line = cells(tables.headline(results), f"top-{top}, {crops}")
            assert line[1] == printed[views]
            assert line[2] == ({1: "40.7", 5: "18.2"}[top] if views == "ten_crop" else "–")
            assert line[3].startswith(f"{means['baseline', 'test', views, f'error_top{top}']:.2f} ±")
    for variant in ("baseline", "no_dropout"):
        for split, name in (("train", "training"), ("val", "validation"), ("test", "test")):
            line = cells(tables.arms(results, "dropout_overfit"), variant, name)
            assert [cell.split(" ±")[0] for cell in line[2:]] == [
                f"{means[variant, split, 'one_crop', f'error_top{top}']:.2f}" for top in (1, 5)
            ]
        test, train = (means[variant, split, "one_crop", "error_top1"] for split in ("test", "train"))
        line = cells(variant_tables.every_variant(results), variant)
        assert (line[3].split(" ±")[0], line[4]) == (f"{test:.2f}", f"{test - train:.2f}")
        line = cells(training_tables.course(results, [variant]), variant)
        assert line[-2:] == [f"{means[variant, split, 'one_crop', 'error_top1']:.2f}" for split in ("train", "val")]


def test_curves_end_with_the_last_epochs_validation_and_training_error() -> None:
    results = made_up(fake_params())
    drawn = curves(results)
    assert not isinstance(drawn, str)
    last = results.histories[results.histories["epoch"] == results.histories["epoch"].max()]
    for variant in ("baseline", "no_dropout"):
        of_variant = last[last["variant"] == variant][["val_error_top1", "train_error_top1"]].mean()
        assert f"{variant} {of_variant.iloc[0]:.1f} / {of_variant.iloc[1]:.1f}" in drawn[1]


def test_the_curves_file_has_means_over_seeds_to_which_a_run_that_stopped_early_adds_its_last_errors(
    tmp_path: Path,
) -> None:
    rows = [(0, 1, 50.0, 60.0), (0, 2, 40.0, 52.0), (0, 3, 30.0, 41.0), (1, 1, 54.0, 66.0), (1, 2, 20.0, 33.0)]
    history = pd.DataFrame(rows, columns=["seed", "epoch", "train_error_top1", "val_error_top1"])
    write_curves(replace(made_up(fake_params()), histories=history.assign(variant="baseline")), tmp_path / "curves.csv")
    table = pd.read_csv(tmp_path / "curves.csv").set_index("epoch")
    assert set(table["variant"]) == {"baseline"}
    assert table["train_error_top1"].to_dict() == {1: 52.0, 2: 30.0, 3: 25.0}
    assert table["val_error_top1"].to_dict() == {1: 63.0, 2: 42.5, 3: 37.0}


def test_filters_and_examples_are_those_of_the_seed_with_the_middle_validation_error(tmp_path: Path) -> None:
    params = fake_params()
    write_fake_runs(tmp_path, params)
    val, test = {"0": 31.0, "1": 29.0, "2": 30.0}, {"0": 25.0, "1": 20.0, "2": 30.0}

    def change(seeds: dict[str, Any]) -> None:
        for seed in seeds:
            seeds[seed]["val"]["one_crop"]["error_top1"] = val[seed]
            seeds[seed]["test"]["one_crop"]["error_top1"] = test[seed]

    change_metrics(tmp_path, params, "baseline", change)
    results = collect(params, tmp_path)
    drawn = [filters(results), examples(results)]
    assert not isinstance(drawn[0], str)
    assert not isinstance(drawn[1], str)
    assert all("median validation error (seed 2)" in caption for _, caption in drawn)  # type: ignore[misc]
    weights = load_file(tmp_path / paths.seed("fake", "baseline", 2) / "model.safetensors")["conv1.weight"].double()
    kernel = weights[0].mean(0).numpy()  # the images are grey
    block = np.asarray(drawn[0][0].axes[0].images[0].get_array())
    np.testing.assert_allclose(block[:11, :11, 0], 0.5 + kernel / (2 * np.abs(kernel).max()), atol=1e-6)
    table = pd.read_parquet(tmp_path / paths.evaluation("fake", "baseline") / "predictions.parquet")
    own = table.query("seed == 2 and split == 'test' and views == 'one_crop'")[["p1", "p2", "p3", "p4", "p5"]]
    known = {tuple(sorted(row)) for row in own.astype(float).round(5).itertuples(index=False, name=None)}
    widths = [tuple(sorted(round(bar.get_width(), 5) for bar in axes.patches)) for axes in drawn[1][0].axes]
    shown = [bars for bars in widths if bars]
    assert len(shown) == 8
    assert set(shown) <= known


def test_tables_of_analyses_have_the_mean_over_the_baselines_seeds() -> None:
    results = replace(made_up(fake_params()), analyses={"baseline": analyses("baseline")})
    middle, off = ([error + number for number in range(4)] for error in SHIFTED["baseline"])
    table = analysis_tables.shifts(results)
    assert f"| {np.mean(middle):.2f} ±" in re.sub(" +", " ", table)
    assert re.search(rf"\| +0\.125 \| +{np.mean(off):.2f} ±", table)
    for factor, kl in DIVERGENCES.items():
        mean = np.mean([kl * (1 + factor * number) for number in range(4)])
        assert re.search(rf"\| +{factor} \| +{mean:.4f} ±", analysis_tables.factors(results)), factor


def test_tables_of_dropout_nets_neighbors_and_ensembles_have_each_number_in_its_own_column() -> None:
    def nets(count: int, size: float) -> dict[str, float]:
        return {"nets": count, "agreement": 90 - size, "kl": 0.01 * size**2, "error_top1": 20 + size}

    seeds = {
        str(seed): {
            "dropout_test_half": {"geometric_mean": [nets(10, size), nets(100, 2 * size)], "factors": []},
            "nn_4096": {"features_agreement": 80 + size, "pixels_agreement": 60 - size},
        }
        for seed, size in enumerate((1.0, 2.0, 6.0))
    }
    found = {"ensembles": 3, "error_top1": {"mean": 21.5, "min": 20.25, "max": 23.0}}
    analyzed = {"baseline": {"seeds": seeds, "ensembles": {"2": found}}}
    results = replace(made_up(fake_params()), analyses=analyzed)

    def lines(table: str) -> list[list[str]]:
        return [[cell.split(" ±")[0].strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]

    assert lines(analysis_tables.sampled(results)) == [
        ["10", "87.00", "0.137", "23.00"],
        ["100", "84.00", "0.547", "26.00"],
    ]
    assert lines(analysis_tables.neighbors(results)) == [["features", "83.00"], ["pixels", "57.00"]]
    assert lines(analysis_tables.ensembles(results)) == [["2", "3", "21.50", "20.25", "23.00"]]
