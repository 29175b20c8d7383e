from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.training.module import Classifier
from pipeline.training.optimizer import PaperSGD
from pipeline.training.schedule import FixedSchedule, PlateauSchedule, StopAtTrainError, Warmup, rate_schedule
from tests.tiny import settings


class Trainer(SimpleNamespace):
    """What the schedule sees of Lightning's trainer: the optimizer, the epoch, a way to stop."""

    def __init__(self, lr: float = 0.01, bias_lr: float = 0.01) -> None:
        weight, bias = (torch.zeros(1, requires_grad=True) for _ in range(2))
        groups = [{"params": [weight]}, {"params": [bias], "lr": bias_lr}]
        optimizer = PaperSGD(groups, lr=lr, momentum=0.9, weight_decay=0.0)
        super().__init__(optimizers=[optimizer], current_epoch=0, should_stop=False)


def follow(schedule: PlateauSchedule, trainer: Any, errors: list[float]) -> list[float]:
    """The weights' rate after each epoch's validation error, until the schedule stops."""
    rates, net = [], Classifier(settings(), classes=4, seed=0)
    for error in errors:
        net.validation = {"val_error_top1": error}
        schedule.on_train_epoch_end(trainer, net)
        trainer.current_epoch += 1
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        if trainer.should_stop:
            break
    return rates


def start(reading: str = "printed", patience: int = 2) -> tuple[PlateauSchedule, Any]:
    schedule = PlateauSchedule(settings(train={"patience_epochs": patience}, recipe={"bias_rule": reading}))
    trainer = Trainer(bias_lr=0.02 if reading == "coded" else 0.01)
    schedule.on_train_start(trainer, None)  # type: ignore[arg-type]
    return schedule, trainer


def test_the_rate_is_divided_by_10_three_times_and_the_fourth_plateau_ends_the_run() -> None:
    schedule, trainer = start(patience=2)
    rates = follow(schedule, trainer, [50.0] * 40)
    # the first epoch sets the mark, two without a better one are tolerated, the third ends the plateau
    assert rates == pytest.approx([0.01] * 3 + [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3 + [1e-6])
    assert schedule.drops == [4, 7, 10]
    assert schedule.stopped


def test_as_long_as_validation_error_improves_nothing_changes() -> None:
    schedule, trainer = start()
    assert set(follow(schedule, trainer, [90.0 - k for k in range(30)])) == {0.01}
    assert not schedule.stopped


def test_as_coded_the_rate_of_biases_never_drops() -> None:
    schedule, trainer = start("coded")
    follow(schedule, trainer, [50.0] * 40)
    assert trainer.optimizers[0].param_groups[1]["lr"] == 0.02


def test_a_schedule_restored_half_way_goes_on_as_the_first_would_have() -> None:
    errors = [50.0, 40.0, 41.0, 42.0, 43.0, 39.0] + [45.0] * 20
    whole, trainer = start()
    expected = follow(whole, trainer, errors)
    first, trainer = start()
    rates = follow(first, trainer, errors[:4])
    second, fresh = start()
    fresh.optimizers[0].load_state_dict(trainer.optimizers[0].state_dict())
    fresh.current_epoch = 4
    second.load_state_dict(first.state_dict())
    second.on_train_start(fresh, None)  # type: ignore[arg-type]
    assert rates + follow(second, fresh, errors[4:]) == expected
    assert second.drops == whole.drops


def test_a_run_for_a_goal_ends_after_the_first_epoch_whose_training_error_has_reached_it() -> None:
    chosen = settings(train={"stop_at_train_error": 25.0})
    goal, trainer, module = StopAtTrainError(chosen), Trainer(), Classifier(chosen, classes=4, seed=0)
    stopped = []
    for wrong in (3, 2, 1):  # of four images
        labels = torch.tensor([0] * (4 - wrong) + [1] * wrong)
        module.train_metrics.__init__()  # type: ignore[misc]
        module.train_metrics.add(torch.tensor(1.0), torch.eye(4)[0].expand(4, 4), labels)
        goal.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
        stopped.append((trainer.should_stop, goal.reached))
    assert stopped == [(False, False), (False, False), (True, True)]


def test_without_drops_the_rate_stays_and_nothing_ends_the_run() -> None:
    schedule = PlateauSchedule(settings(train={"patience_epochs": 2, "lr_drops": 0}))
    trainer = Trainer()
    schedule.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert set(follow(schedule, trainer, [50.0] * 40)) == {0.01}
    assert not schedule.stopped


@pytest.mark.parametrize(("reading", "bias_factor"), [("printed", 1), ("coded", 2)])
def test_the_rate_rises_in_equal_steps_to_its_value_and_no_plateau_counts_meanwhile(
    reading: str, bias_factor: int
) -> None:
    chosen = settings(train={"lr": 0.08, "warmup_epochs": 2, "patience_epochs": 1}, recipe={"bias_rule": reading})
    trainer: Any = Trainer(lr=0.08, bias_lr=0.08 * bias_factor)
    trainer.num_training_batches = 4
    warmup, schedule = Warmup(chosen), PlateauSchedule(chosen)
    schedule.on_train_start(trainer, None)  # type: ignore[arg-type]
    rates = []
    for _ in range(6):
        for batch in range(4):
            warmup.on_train_batch_start(trainer, None, None, batch)  # type: ignore[arg-type]
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])
        follow(schedule, trainer, [50.0])
    weights, biases = zip(*rates, strict=True)
    # the third epoch sets the mark, one without a better is tolerated, the fifth is the plateau
    assert weights == pytest.approx([0.01 * k for k in range(1, 9)] + [0.08] * 12 + [0.008] * 4)
    assert biases[:20] == pytest.approx([bias_factor * rate for rate in weights[:20]])
    assert schedule.drops == [5]


def fixed_rates(
    reading: str = "printed", first_epoch: int = 0, **changes: Any
) -> tuple[list[list[float]], FixedSchedule]:
    """The rates of weights and biases in each epoch of ten, from `first_epoch` on, as in a resumed run."""
    train = {"schedule": "fixed", "epochs": 10, "drop_at": [0.6, 0.78, 0.93], **changes}  # 6, 7.8 and 9.3 epochs
    schedule = rate_schedule(settings(train=train, recipe={"bias_rule": reading}))
    assert isinstance(schedule, FixedSchedule)
    trainer: Any = Trainer(bias_lr=0.02 if reading == "coded" else 0.01)
    rates = []
    for trainer.current_epoch in range(first_epoch, 10):
        schedule.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
        rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])
    return rates, schedule


def test_the_fixed_schedule_divides_the_rate_by_10_after_its_shares_of_the_epochs() -> None:
    rates, schedule = fixed_rates()
    expected = [0.01] * 6 + [1e-3] * 2 + [1e-4] + [1e-5]
    assert [weights for weights, _ in rates] == pytest.approx(expected)
    assert [biases for _, biases in rates] == pytest.approx(expected)
    assert schedule.drops == [6, 8, 9]
    assert not schedule.stopped


def test_as_coded_the_rate_of_biases_stays_in_the_fixed_schedule_too() -> None:
    rates, _ = fixed_rates("coded")
    assert {biases for _, biases in rates} == {0.02}
    assert rates[-1][0] == pytest.approx(1e-5)


def test_a_resumed_run_has_the_rates_of_an_undisturbed_one() -> None:
    rates, schedule = fixed_rates(first_epoch=7)
    assert rates == fixed_rates()[0][7:]
    assert schedule.drops == [6, 8, 9]


def test_fewer_drops_than_shares_take_the_first_of_them() -> None:
    rates, schedule = fixed_rates(lr_drops=1)
    assert (rates[-1][0], schedule.drops) == (pytest.approx(1e-3), [6])
    assert {weights for weights, _ in fixed_rates(lr_drops=0)[0]} == {0.01}


@pytest.mark.parametrize("shares", [[0.5, 0.8], [0.8, 0.6, 0.9], [0.6, 0.6, 0.9], [0.5, 0.8, 1.0], [0.0, 0.5, 0.8]])
def test_shares_that_are_too_few_or_do_not_rise_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="drop_at"):
        settings(train={"schedule": "fixed", "drop_at": shares})
