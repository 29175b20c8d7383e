from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data import loader as batches
from pipeline.data.loader import (
    Batch,
    BatchSampler,
    BatchSpec,
    CropDataset,
    Preprocess,
    ResidentCrops,
    draw,
    one_crop,
    shared_crops,
    ten_crops,
    train_loader,
    view_loader,
    view_plans,
)
from pipeline.data.store import Store
from pipeline.runtime.hardware import CPU, resident
from tests.tiny import CROP_PX, IMAGE_SIZE, make_store, settings

MARGIN_PX = IMAGE_SIZE - CROP_PX
AXES = np.eye(3) * [60.0, 20.0, 5.0]


def plan(images: list[int], top: list[int], left: list[int], mirror: list[bool]) -> BatchSpec:
    return BatchSpec(np.array(images), np.array(top), np.array(left), np.array(mirror), None, 1.0)


def batch(store: Store, planned: BatchSpec) -> Batch:
    return Preprocess(store.mean_image, CROP_PX)(CropDataset(store.split("train"), CROP_PX)[planned])


def test_a_batch_is_the_crop_minus_the_mean_image_mirrored_where_asked(store: Store) -> None:
    x, labels = batch(store, plan([5, 2], [3, 0], [1, 9], [False, True]))
    images = np.load(store.folder / "train/images.npy").astype(np.float32) - store.mean_image
    expected = [images[5, 3 : 3 + CROP_PX, 1 : 1 + CROP_PX, 0], images[2, :CROP_PX, 9:, 0][:, ::-1]]
    assert x.shape == (2, 1, CROP_PX, CROP_PX)
    np.testing.assert_array_equal(x[:, 0].numpy(), expected)
    assert labels.tolist() == np.load(store.folder / "train/labels.npy")[[5, 2]].tolist()


def test_pixels_keep_the_raw_scale_of_0_to_255(store: Store) -> None:
    (all_of_it,) = view_plans(np.arange(48), 500, one_crop(IMAGE_SIZE, CROP_PX)[0])
    x, _ = batch(store, all_of_it)
    assert 30 < x.std().item() < 128


def test_color_noise_shifts_each_image_by_its_own_three_numbers_and_the_source_divides_by_its_divisor(
    workplace: object,
) -> None:
    store = make_store(workplace / "color", channels=3)  # type: ignore[operator]
    quiet = plan([1, 4], [0, 5], [2, 2], [False, False])
    shift = np.array([[10.0, -20.0, 5.0], [1.0, 2.0, 3.0]], np.float32)
    x, _ = batch(store, quiet)
    noisy, _ = batch(store, quiet._replace(color=shift, divisor=1.1))
    torch.testing.assert_close(noisy, (x + torch.from_numpy(shift)[:, :, None, None]) / 1.1)


def test_draws_depend_on_seed_and_epoch_and_on_nothing_else() -> None:
    order, draws = draw(3, 7, 50, MARGIN_PX, AXES, 0.1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    again_order, again = draw(3, 7, 50, MARGIN_PX, AXES, 0.1)
    assert np.array_equal(order, again_order)
    assert np.array_equal(draws.color, again.color)
    for other in (draw(4, 7, 50, MARGIN_PX, AXES, 0.1), draw(3, 8, 50, MARGIN_PX, AXES, 0.1)):
        assert not np.array_equal(order, other[0])
        assert not np.array_equal(draws.top, other[1].top)


def test_offsets_cover_the_whole_margin_half_the_images_are_mirrored_and_noise_has_the_papers_spread() -> None:
    order, draws = draw(0, 0, 20_000, MARGIN_PX, AXES, 0.1)
    assert sorted(order) == list(range(20_000))
    assert set(draws.top) == set(draws.left) == set(range(MARGIN_PX + 1))
    assert draws.mirror.mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(draws.color.std(0), [6.0, 2.0, 0.5], rtol=0.03)


def test_an_epoch_shows_every_image_once_and_the_batch_size_does_not_change_how_it_looks(store: Store) -> None:
    seen = []
    for batch_images in (16, 7):
        epochs = BatchSampler(store, settings(train={"batch_images": batch_images}), seed=0)
        epochs.set_epoch(2)
        plans = list(epochs)
        assert len(plans) == len(epochs)
        columns = [np.concatenate([getattr(p, name) for p in plans]) for name in ("images", "top", "left", "mirror")]
        seen.append(np.stack(columns))
    assert sorted(seen[0][0]) == list(range(48))
    assert np.array_equal(*seen)


def test_as_coded_32_images_share_one_crop_and_mirroring_but_not_their_color_noise(store: Store) -> None:
    (only,) = BatchSampler(store, settings(recipe={"crop_sharing": "coded"}, train={"batch_images": 48}), seed=0)
    drawn = np.stack([only.top, only.left, only.mirror])
    assert [len(np.unique(part, axis=1).T) for part in (drawn[:, :32], drawn[:, 32:])] == [1, 1]
    assert drawn[:2, 0].tolist() != drawn[:2, 32].tolist()
    assert only.color is not None
    assert len(np.unique(only.color, axis=0)) == 48
    assert shared_crops(np.array([9, 8, 7, 6, 5]), 2).tolist() == [9, 9, 7, 7, 5]


@pytest.mark.parametrize(
    ("reading", "drops", "schedule", "noisy_epochs"),
    [
        ("coded", 0, "plateau", 6),
        ("coded", 1, "plateau", 6),
        ("coded", 3, "plateau", 5),
        ("coded", 3, "fixed", 6),
        ("printed", 3, "plateau", 8),
        ("printed", 3, "fixed", 8),
    ],
)
def test_as_coded_color_noise_ends_with_the_second_plateau_or_three_quarters_of_the_epochs(
    store: Store, reading: str, drops: int, schedule: str, noisy_epochs: int
) -> None:
    train = {"epochs": 8, "lr_drops": drops, "schedule": schedule, "drop_at": [0.25, 0.6, 0.9]}
    batches = BatchSampler(store, settings(recipe={"color_noise": reading}, train=train), seed=0)
    noisy = []
    for epoch in range(8):
        batches.set_epoch(epoch)
        batches.lr_drops = sum(epoch >= drop for drop in (2, 5, 7))  # the rate is lower from these epochs on
        noisy.append(next(iter(batches)).color is not None)
    assert noisy == [True] * noisy_epochs + [False] * (8 - noisy_epochs)


def test_the_ten_crops_are_the_four_corners_and_the_center_and_their_mirror_images() -> None:
    canvas = np.arange(256 * 256).reshape(256, 256)
    cut = [canvas[v.top : v.top + 227, v.left : v.left + 227] for v in ten_crops(256, 227)]
    corners = {(int(c[0, 0]), int(c[-1, -1])) for c in cut[:4]}
    assert corners == {
        (canvas[0, 0], canvas[226, 226]),
        (canvas[0, 29], canvas[226, 255]),
        (canvas[29, 0], canvas[255, 226]),
        (canvas[29, 29], canvas[255, 255]),
    }
    assert (ten_crops(256, 227)[4].top, ten_crops(256, 227)[4].left) == (14, 14)
    assert [v.mirror for v in ten_crops(256, 227)] == [False] * 5 + [True] * 5
    assert one_crop(256, 227) == ten_crops(256, 227)[4:5]


def test_processes_that_cut_ahead_change_no_byte(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def epoch() -> list[Any]:
        loader = train_loader(store, settings(), seed=0)
        loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
        return [finish(cut) for cut in loader]

    finish = Preprocess(store.mean_image, CROP_PX)
    alone = epoch()
    monkeypatch.setattr(batches, "loader_workers", lambda _: 2)
    for (x, labels), (cut_ahead, its_labels) in zip(alone, epoch(), strict=True):
        assert torch.equal(x, cut_ahead)
        assert torch.equal(labels, its_labels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_split_in_the_devices_memory_gives_the_very_batches_of_the_memory_map(
    workplace: Any, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    store = make_store(workplace / "images", channels=channels)
    finish = Preprocess(store.mean_image, CROP_PX)
    chosen = settings(train={"batch_images": 7}, recipe={"color_noise": "coded"})
    view, index = ten_crops(IMAGE_SIZE, CROP_PX)[6], np.array([5, 2, 11])
    seen = []
    for held in (False, True):
        monkeypatch.setattr(batches, "resident", lambda *_, held=held: held)
        loaders = train_loader(store, chosen, 0), view_loader(store, "test", CROP_PX, 2, view, images=index)
        assert {isinstance(loader.dataset, ResidentCrops) for loader in loaders} == {held}
        seen.append([part for loader in loaders for cut in loader for part in (*finish(cut), cut.mirror)])
    assert len(seen[0]) == 3 * (7 + 2)
    for mapped, resident_part in zip(*seen, strict=True):
        assert torch.equal(mapped, resident_part)
        assert mapped.stride() == resident_part.stride()


def test_a_split_lies_in_a_gpus_memory_if_eight_runs_have_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, gib = torch.device("cuda"), 1 << 30
    memory = SimpleNamespace(total_memory=80 * gib)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)
    assert [resident(gpu, bytes_) for bytes_ in (2 * gib, 5 * gib, 5 * gib + 1)] == [True, True, False]
    assert not resident(CPU, 1)


def test_color_noise_has_the_covariance_of_the_pixels_along_axes_that_are_not_the_channels() -> None:
    rotated = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]  # columns: the axes
    std = np.array([60.0, 20.0, 5.0])
    _, draws = draw(0, 0, 100_000, MARGIN_PX, rotated * std, 0.1)
    expected = 0.1**2 * rotated @ np.diag(std**2) @ rotated.T
    assert np.abs(expected - np.diag(np.diag(expected))).max() > 1
    found = np.cov(draws.color.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.trace(expected))
    np.testing.assert_allclose(draws.color.mean(0), 0, atol=0.05)
    assert abs(np.corrcoef(draws.color[:, 0], draws.mirror)[0, 1]) < 0.02


def whole_epoch(store: Store, seed: int, epoch: int, **changes: Any) -> dict[str, np.ndarray]:
    """What an epoch does to each image, and the order in which it shows them."""
    epochs = BatchSampler(store, settings(train={"batch_images": 7, **changes}), seed)
    epochs.set_epoch(epoch)
    plans = list(epochs)
    joined = {name: np.concatenate([getattr(plan, name) for plan in plans]) for name in BatchSpec._fields[:-1]}
    place = np.argsort(joined["images"])
    return {"order": joined.pop("images"), **{name: values[place] for name, values in joined.items()}}


def test_epochs_seeds_images_and_batches_have_an_order_crops_mirrors_and_noise_of_their_own(workplace: Any) -> None:
    store = make_store(workplace / "color", channels=3)
    first = whole_epoch(store, seed=0, epoch=0)
    for other in (whole_epoch(store, seed=0, epoch=1), whole_epoch(store, seed=1, epoch=0)):
        for name, values in first.items():
            assert np.mean(values != other[name]) > 0.25, name
    again = whole_epoch(store, seed=0, epoch=0)
    assert all(np.array_equal(values, again[name]) for name, values in first.items())
    for name in ("top", "left"):
        assert len(set(first[name])) == MARGIN_PX + 1, name
        assert len({tuple(part) for part in np.split(first[name][:42], 6)}) == 6, name  # no batch is as another
    assert 10 < first["mirror"].sum() < 38
    assert np.mean(first["top"] != first["left"]) > 0.5
    assert len(np.unique(first["color"], axis=0)) == len(first["color"])


def test_every_image_gets_the_noise_and_the_crop_that_the_epoch_drew_for_it(workplace: Any) -> None:
    axes = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    store = make_store(workplace / "color", channels=3)
    meta = store.meta.model_copy(update={"rgb_eigenvectors": axes.tolist()})
    object.__setattr__(store, "meta", meta)
    for batch_images in (7, 48):
        found = whole_epoch(store, seed=2, epoch=5, batch_images=batch_images)
        order, draws = draw(2, 5, 48, MARGIN_PX, axes * np.array([60.0, 20.0, 5.0]), 0.1)
        assert np.array_equal(found["order"], order)
        for name in ("top", "left", "mirror", "color"):
            assert np.array_equal(found[name], getattr(draws, name)), name


@pytest.mark.parametrize(("reading", "divisor"), [("printed", 1.0), ("coded", 1.1)])
def test_noisy_images_are_divided_as_the_reading_has_it(store: Store, reading: str, divisor: float) -> None:
    epochs = BatchSampler(store, settings(recipe={"color_noise": reading}), seed=0)
    assert {plan.divisor for plan in epochs} == {divisor}


def test_a_batch_is_the_planned_crop_minus_the_mean_image_at_its_place_then_mirrored_then_noisy(workplace: Any) -> None:
    store = make_store(workplace / "color", channels=3)
    canvas = np.load(store.folder / "train/images.npy").astype(np.float64) - store.mean_image
    assert np.abs(store.mean_image[1:] - store.mean_image[:-1]).max() > 10  # another place has another mean
    epochs = BatchSampler(store, settings(train={"batch_images": 48}, recipe={"color_noise": "coded"}), seed=1)
    (planned,) = epochs
    x, _ = batch(store, planned)
    assert planned.color is not None
    for place, image in enumerate(planned.images):
        top, left = planned.top[place], planned.left[place]
        crop = canvas[image, top : top + CROP_PX, left : left + CROP_PX]
        crop = crop[:, ::-1] if planned.mirror[place] else crop
        expected = (crop + planned.color[place]) / 1.1
        np.testing.assert_allclose(x[place].permute(1, 2, 0).numpy(), expected, atol=1e-3)
