"""What passes between stages, cut short or with a flipped bit: found before use, named, made again or refused."""

import subprocess
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import read_yaml, validate
from pipeline.report.render import write_report
from pipeline.runtime import checksums
from pipeline.runtime.checksums import SUMS, write_sums
from pipeline.tools.compose import composed, differences
from pipeline.training.run import HISTORY, RUN, WEIGHTS, train
from pipeline.tuning import tune_variant
from tests.fake_runs import fake_params, write_fake_runs
from tests.tiny import a_run, damage
from tests.tiny_params import evaluate_variant, tiny_params, train_variant

pytestmark = pytest.mark.fault

ROOT = Path(__file__).parents[1]
DAMAGES = ["truncated", "flipped"]


def test_coreutils_reads_the_checksums_of_every_stage(evaluated: Store) -> None:
    tune_variant(tiny_params(), "baseline")
    folders = [path.parent for path in Path("runs").rglob(SUMS)]
    assert len(folders) == 4  # tune, two seeds, evaluation
    for folder in folders:
        listed = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, capture_output=True, text=True)
        assert listed.returncode == 0
        assert len(listed.stdout.splitlines()) == len(list(folder.iterdir())) - 1


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", [RUN, HISTORY, WEIGHTS, SUMS])
def test_a_finished_run_that_is_damaged_is_named_and_trained_again_to_the_same_weights(
    trained: Store, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    run = a_run(trained)
    expected = (run.folder / WEIGHTS).read_bytes()
    damage(run.folder / name, how)
    assert (train(run) / WEIGHTS).read_bytes() == expected
    (message,) = capsys.readouterr().out.splitlines()
    assert message.startswith(str(run.folder))
    assert "is damaged (SHA-256 is" in message
    assert message.endswith("is trained again")
    assert [checksums.damage(run.folder / file) for file in (RUN, HISTORY, WEIGHTS)] == [None] * 3


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", [RUN, WEIGHTS, "best.yaml"])
def test_a_damaged_run_is_not_evaluated_and_a_damaged_recipe_not_trained_with(
    trained: Store, name: str, how: str
) -> None:
    folder, next_stage = paths.seed("smoke", "baseline", 1), evaluate_variant
    if name == "best.yaml":
        folder, next_stage = paths.tune("smoke", "baseline"), train_variant
        tune_variant(tiny_params(), "baseline")
    damage(folder / name, how)
    message = rf"^{folder / name}: is damaged \(SHA-256 is \w+, accepted in SHA256SUMS is \w+\); "
    with pytest.raises(UserError, match=message):
        next_stage(tiny_params(), "tuned" if name == "best.yaml" else "baseline")


@pytest.mark.parametrize("how", DAMAGES)
def test_the_report_uses_no_damaged_file_shows_no_damaged_image_and_names_them(
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
    for path in (tmp_path / "intact", tmp_path):  # the predictions choose the images that are shown
        damage(tmp_path / "prepared/fashion_mnist/test/images.npy", how)
        monkeypatch.setattr(FigureCanvasAgg, "print_figure", lambda *_, **__: None)  # which takes most of the time
        write_report(params, path / "report", tmp_path, {})
        missing = (path / "report/report.md").read_text().split("## Missing results")[1]
        if path == tmp_path:
            assert [name for name in names if f"`{name}` is damaged (SHA-256 is " not in missing] == []
        else:
            assert "`prepared/fashion_mnist/test/images.npy` cannot be shown (" in missing
            for name in names:
                damage(tmp_path / name, how)


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
