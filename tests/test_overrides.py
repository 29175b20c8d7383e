"""KEY=VALUE as people type it: every path arrives as it was written, and slips are still one message."""

import string
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import plan, submit
from pipeline.errors import UserError
from pipeline.params import Params
from tests.tiny import ODD

ROOT = Path(__file__).parents[1]
OWN = ["scale=smoke", "data.dataset=pets", "data.train_images=null", "data.test_images=null"]
SIGNS = [*string.punctuation, " ", "ü", "桜", "ع", "🐱", "\u00a0"]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Params]:
    """The configurations that the commands were asked for, instead of what they do with them."""
    asked: list[Params] = []

    def ask(configuration: Params, *_: Any) -> str:
        asked.append(configuration)
        return ""

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("pipeline.tools.plan.plan", ask)
    monkeypatch.setattr("pipeline.tools.submit.submit_to_slurm", ask)
    return asked


@pytest.mark.parametrize(
    "folder",
    [
        "/data/run=3/my pics (2024)",
        "~/pics",
        "/data/[raw], {2}",
        "/data/bob's \"best\" \\'pics\\",
        f"/data/{ODD}",
        *(f"/data/a{sign}b" for sign in SIGNS),
    ],
)
def test_a_folder_of_any_name_arrives_as_it_was_written(planned: list[Params], folder: str) -> None:
    plan([*OWN, f"data.folder={folder}"], None)
    submit([*OWN, f"data.folder={folder}"], [])
    assert [params.data.folder for params in planned] == [folder, folder]


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("data.folder='/data/my pics (2024)'", "folder", "/data/my pics (2024)"),
        ('data.folder="/data/my pics (2024)"', "folder", "/data/my pics (2024)"),
        ("data.folder=${oc.env:PETS}/all", "folder", "/srv/pets/all"),
        ("data.validation_images=7", "validation_images", 7),
    ],
)
def test_what_hydra_reads_by_itself_is_left_to_it(
    planned: list[Params], monkeypatch: pytest.MonkeyPatch, override: str, key: str, value: object
) -> None:
    monkeypatch.setenv("PETS", "/srv/pets")
    plan([*OWN, "data.folder=x", override], None)
    assert getattr(planned[0].data, key) == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scale=smoke", "seeds=[0,1"], "seeds = '[0,1': input should be a valid list"),
        (["scale=smoke", "seeds=0,1"], "seeds = '0,1': input should be a valid list"),
        (["scale=smoke", "train.epochs=10)"], "train.epochs = '10)': input should be a valid integer"),
        (["train.epochs=few"], "train.epochs = 'few': input should be a valid integer"),
        (["scale=smoke(2)"], "does not fit conf/ (In 'config': Could not find 'scale/smoke(2)'"),
        (["scale=imagenet"], "does not fit conf/ (In 'config': Could not find 'scale/imagenet'"),
        (["a.b=1"], "does not fit conf/ (Could not override 'a.b'."),
        (["train.epoch=1"], "train.epoch: unknown key; accepted: epochs, batch_images, lr, "),
        (["data.folder=/data/${pets}"], "does not fit conf/ (Interpolation key 'pets' not found)"),
    ],
)
def test_a_slip_is_one_message_that_names_it(planned: list[Params], overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        plan(overrides, None)
    text = str(refused.value)
    assert text.startswith(f"{' '.join(overrides)}: {message}")
    assert "does not fit" not in message or "accepted is scale=<one of cifar10, cifar10_alexnet, embedded" in text
    assert "\n" not in text
