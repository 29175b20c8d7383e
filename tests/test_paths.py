"""Where stores lie: the same file for everyone who asks, also from DVC's temporary folders and in oddly named ones."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from sqlalchemy import create_engine, text

from pipeline import paths, tuning
from pipeline.data import sources
from pipeline.data.store import Store
from pipeline.params import Data
from pipeline.tracking import store as tracking
from tests.image_folders import write_squares
from tests.tiny import ODD, make_store
from tests.tiny_params import TUNE, evaluate_variant, tiny_params, train_variant

ODD_NAMES = ["with space", "50%", "100%25", "a?b=c", "u:p@h", ODD]


def tables(file: Path) -> set[str]:
    """Read by SQLite itself, from the file's name instead of an address."""
    with closing(sqlite3.connect(file)) as database:
        return {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}


@pytest.fixture
def temporary(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory and environment of a stage that `dvc exp run --temp` runs. `workplace` is the root."""
    folder = workplace / "main/.dvc/tmp/exps/tmpx"
    folder.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(workplace / "main"))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_database_is_the_very_file_that_its_address_was_made_of(tmp_path: Path, name: str) -> None:
    """As MLflow and Optuna open it; both do in a repository of the oddest name, below."""
    (tmp_path / name).mkdir()
    file = tmp_path / name / "runs.db"
    with create_engine(paths.sqlite_address(file)).begin() as connection:
        connection.execute(text("create table runs (id integer)"))
    assert tables(file) == {"runs"}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert paths.sqlite_file(paths.sqlite_address(file)) == file


def test_a_repository_of_any_name_is_tracked_and_tuned(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / ODD).mkdir()
    monkeypatch.chdir(ODD)
    make_store(Path("prepared/fashion_mnist"))
    train_variant(tiny_params(seeds=[0]), "baseline")
    evaluate_variant(tiny_params(seeds=[0]), "baseline")
    tuning.tune_variant(tiny_params(tune=TUNE | {"trials": 1}), "baseline")
    assert tracking.sync() == 3  # the run, the study and its trial
    assert "runs" in tables(Path("mlflow.db"))
    assert [path.name for path in Path("mlartifacts").rglob("*.safetensors")] == ["net.safetensors"]
    assert "trials" in tables(Path(".state/optuna.db"))
    assert [path.name for path in workplace.iterdir()] == [ODD]


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("sqlite:///runs.db", "runs.db"),
        ("sqlite+pysqlite:///kept/runs.db", "kept/runs.db"),
        ("sqlite:///my%20runs.db?timeout=5", "my runs.db"),
    ],
)
@pytest.mark.usefixtures("mlflow_tables")
def test_a_relative_store_is_filled_in_the_repository_and_not_in_dvcs_temporary_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, address: str, file: str
) -> None:
    make_store(Path("prepared/fashion_mnist"))
    train_variant(tiny_params(seeds=[0]), "baseline")
    (paths.root() / file).parent.mkdir(exist_ok=True)
    (paths.root().parent / "mlflow.db").rename(paths.root() / file)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert tracking.sync() == 1
    with closing(sqlite3.connect(paths.root() / file)) as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)
    assert not list(temporary.rglob("*.db"))


@pytest.mark.parametrize("address", ["store", "./store", "file:store", "file:./store"])
def test_a_relative_folder_of_mlflows_is_one_in_the_repository(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    mlflow.MlflowClient(paths.mlflow_store()).create_experiment("x")
    assert len(list((paths.root() / "store").glob("*/meta.yaml"))) == 2  # and MLflow's own
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////srv/runs.db",
        "sqlite://",
        "sqlite:///:memory:",
        "/srv/runs",
        "file:///srv/runs",
        "http://server:5000",
        "https://me:secret@server/mlflow",
        "postgresql+psycopg://me:secret@server/mlflow",
        "databricks",
        "databricks://profile",
    ],
)
def test_absolute_stores_and_servers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert paths.mlflow_store() == address


def test_a_relative_resume_folder_lies_in_the_repository(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_STATE", "../kept")
    make_store(Path("prepared/fashion_mnist"))
    train_variant(tiny_params(seeds=[0]), "baseline")
    assert len(list((paths.root().parent / "kept/runs").glob("*/run.json"))) == 1


@pytest.mark.parametrize(
    ("storage", "file"),
    [("sqlite:///kept.db", "kept.db"), ("sqlite+pysqlite:///{a} {0}.db", "{a} {0}.db")],  # braces are a part of it
)
def test_studies_of_a_relative_storage_are_kept_in_the_repository(temporary: Path, storage: str, file: str) -> None:
    make_store(Path("prepared/fashion_mnist"))
    tuning.tune_variant(tiny_params(tune=TUNE | {"trials": 1, "storage": storage}), "baseline")
    assert "trials" in tables(paths.root() / file)
    assert not list(temporary.glob("*.db"))


def test_a_resume_folder_may_have_a_name_that_is_not_utf_8(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_STATE", os.fsdecode(b"caf\xe9 100%25"))
    tuning.tune_variant(tiny_params(tune=TUNE | {"trials": 1}), "baseline")
    assert "trials" in tables(Path(os.fsdecode(b"caf\xe9 100%25")) / "optuna.db")


@pytest.mark.parametrize("folder", ["pictures", "~/pictures", "{absolute}/pictures"])
def test_a_folder_of_images_is_found_from_dvcs_temporary_folder_and_in_the_home_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    place = paths.root()
    monkeypatch.setenv("HOME", str(place))
    write_squares(place / "pictures", 8, train={"ash": 1, "birch": 1}, test={"ash": 1, "birch": 1})
    values = {"folder": folder.format(absolute=place), "dataset": "trees", "image_size": 8, "split_seed": 0}
    values |= {"train_images": None, "validation_images": 1, "test_images": None}
    raw = sources.load(Data.model_validate(values))
    assert (raw.classes, raw.train.name(0), len(raw.test.labels)) == (["ash", "birch"], "train/ash/0.png", 2)
