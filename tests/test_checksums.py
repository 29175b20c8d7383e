"""What passes between stages, cut short or with a flipped bit: found before use, named, made again or refused."""

import subprocess
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import Params, read_yaml, validate
from pipeline.report.render import write_report
from pipeline.runtime.checksums import SUMS, damage, write_sums
from pipeline.tools.compose import composed, differences
from pipeline.training.run import HISTORY, RUN, WEIGHTS, Run, train
from pipeline.tuning import tune_variant
from tests.fake_runs import fake_params, write_fake_runs
from tests.tiny import CPU, settings
from tests.tiny_params import evaluate_variant, tiny_params, train_variant

pytestmark = pytest.mark.fault

ROOT = Path(__file__).parents[1]
DAMAGES = ["cut short", "flipped"]


def harm(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut short":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_coreutils_reads_the_checksums_of_every_stage(store: Store) -> None:
    params = tiny_params()
    tune_variant(params, "baseline")
    train_variant(params, "baseline")
    evaluate_variant(params, "baseline")
    folders = [path.parent for path in Path("runs").rglob(SUMS)]
    assert len(folders) == 4  # tune, two seeds, evaluation
    for folder in folders:
        listed = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, capture_output=True, text=True)
        assert listed.returncode == 0
        assert len(listed.stdout.splitlines()) == len(list(folder.iterdir())) - 1


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", [RUN, HISTORY, WEIGHTS, SUMS])
def test_a_finished_run_that_is_damaged_is_named_and_trained_again_to_the_same_weights(
    store: Store, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    run = Run("smoke", "baseline", "3", 0, settings(), store, CPU)
    expected = (train(run) / WEIGHTS).read_bytes()
    harm(run.folder / name, how)
    capsys.readouterr()
    assert (train(run) / WEIGHTS).read_bytes() == expected
    (message,) = capsys.readouterr().out.splitlines()
    assert message.startswith(str(run.folder))
    assert "is damaged (SHA-256 is" in message
    assert message.endswith("is trained again")
    assert [damage(run.folder / file) for file in (RUN, HISTORY, WEIGHTS)] == [None] * 3


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", [RUN, WEIGHTS])
def test_a_damaged_run_is_not_evaluated(store: Store, name: str, how: str) -> None:
    params = tiny_params()
    train_variant(params, "baseline")
    path = paths.seed("smoke", "baseline", 1) / name
    harm(path, how)
    with pytest.raises(UserError, match=rf"^{path}: is damaged \(SHA-256 is \w+, accepted in SHA256SUMS is \w+\); "):
        evaluate_variant(params, "baseline")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_recipe_is_not_trained_with(store: Store, how: str) -> None:
    params = tiny_params()
    tune_variant(params, "baseline")
    path = paths.tune("smoke", "baseline") / "best.yaml"
    harm(path, how)
    with pytest.raises(UserError, match=rf"^{path}: is damaged"):
        train_variant(params, "tuned")


@pytest.mark.parametrize("how", DAMAGES)
def test_the_report_does_not_use_damaged_files_and_names_them(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = fake_params(seeds=[0])
    write_fake_runs(tmp_path, params)
    names = [
        "runs/fake/tune/baseline/trials.csv",
        "runs/fake/tune/baseline/best.yaml",
        "runs/fake/train/tuned/seed-0/run.json",
        "runs/fake/train/tuned/seed-0/history.csv",
        "runs/fake/evaluation/tuned/seeds.json",
        "runs/fake/train/baseline/seed-0/model.safetensors",
        "runs/fake/evaluation/baseline/predictions.parquet",
    ]
    for folder in {(tmp_path / name).parent for name in names}:
        write_sums(folder, *(path.name for path in folder.iterdir()))
    for name in names:
        harm(tmp_path / name, how)
    missing = holes_of_report(tmp_path, params, monkeypatch)
    assert [name for name in names if f"`{name}` is damaged (SHA-256 is " not in missing] == []


@pytest.mark.parametrize("how", DAMAGES)
def test_the_report_shows_no_image_of_a_damaged_store(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = fake_params(seeds=[0])
    write_fake_runs(tmp_path, params)
    harm(tmp_path / "prepared/fashion_mnist/test/images.npy", how)
    assert "`prepared/fashion_mnist/test/images.npy` cannot be shown (" in holes_of_report(
        tmp_path, params, monkeypatch
    )


def holes_of_report(root: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(FigureCanvasAgg, "print_figure", lambda *_, **__: None)  # which takes most of the time
    write_report(params, root / "report", root, {})
    return (root / "report/report.md").read_text().split("## Missing results")[1]


def test_a_damaged_params_file_is_refused_or_the_keys_are_named_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    whole = (ROOT / "params.yaml").read_bytes()
    expected = composed(ROOT / "conf")
    places = [(at, bit) for at in range(0, len(whole), 41) for bit in (1, 128)]
    flipped = [whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at, bit in places]
    for content in [whole, *flipped, *(whole[:end] for end in range(0, len(whole), 199))]:
        path.write_bytes(content)
        try:
            values = read_yaml(path)
            validate(values, "params.yaml")
        except UserError:
            continue
        assert differences(values, expected) or values == expected
