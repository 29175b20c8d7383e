"""A report's tables follow from its predictions.parquet alone: no runs, no images, no torch."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import paths
from pipeline.__main__ import main
from pipeline.claims.predictions_file import read_predictions, write_predictions
from pipeline.claims.results import Results, collect
from pipeline.claims.table import claim_rows, frame
from pipeline.params import Net, Params
from pipeline.report import render
from pipeline.report.render import write_report
from pipeline.runtime.exit_status import exit_status
from pipeline.tools.recompute import recompute
from tests.fake_runs import change_metrics, fake_params, mark_failed, write_fake_runs
from tests.synthetic import ANALYSES, racers, results

ROOT = Path(__file__).parents[1]
CHECKS = {"update_rule": True}
RECOMPUTE_WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'")

sys.meta_path.insert(0, NoTorch())
from pipeline.__main__ import exit_status, main
sys.exit(exit_status(main))
"""
COMMITTED = sorted(path.parent for path in (ROOT / "reports").glob("*/predictions.parquet"))


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Complete runs and their report. Tests of this module only read it."""
    return made(tmp_path_factory.mktemp("complete"))


@pytest.fixture
def clone(complete: Path, tmp_path: Path) -> Path:
    """What git has of a report, and nothing else."""
    for name in ("predictions.parquet", "claims.csv", "questions.csv"):
        (tmp_path / "reports/fake").mkdir(parents=True, exist_ok=True)
        shutil.copy(complete / "reports/fake" / name, tmp_path / "reports/fake" / name)
    return tmp_path


def made(root: Path, damage: Callable[[Path, Params], Any] = lambda *_: None) -> Path:
    """Runs, damaged, and their report without figures, which take most of its time."""
    params = fake_params()
    write_fake_runs(root, params)
    damage(root, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render.all_figures, "draw_all", lambda *_: {})
        write_report(params, root / "reports/fake", root, CHECKS)
    return root


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Done]:
    """The command, called with the name of a report."""
    monkeypatch.chdir(clone)

    def call(scale: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["pipeline", "recompute", scale])
        try:
            status = exit_status(main)
        except SystemExit as end:
            status = int(end.code or 0)
        return Done(status, *capsys.readouterr())

    return call


def change(path: Path, rows: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Let `rows` edit the predictions, and leave the rest of the file as it is."""
    table = pq.read_table(path)
    changed = pa.Table.from_pandas(rows(table.to_pandas()), preserve_index=False)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


def test_the_tables_of_a_report_are_computed_again_from_one_file_without_torch(clone: Path) -> None:
    arguments = [sys.executable, "-c", RECOMPUTE_WITHOUT_TORCH, "recompute", "fake"]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, cwd=clone, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    rows = len((clone / "reports/fake/claims.csv").read_text().splitlines()) - 1
    assert line.startswith(f"reports/fake: claims.csv ({rows} rows) and questions.csv (")
    assert line.endswith("are the same when computed from predictions.parquet")


def test_the_claims_are_those_of_the_report_to_the_byte(clone: Path, complete: Path) -> None:
    rows = claim_rows(*read_predictions(clone / "reports/fake/predictions.parquet"))
    assert frame(rows).to_csv(index=False).encode() == (complete / "reports/fake/claims.csv").read_bytes()
    assert frame(rows).set_index("id").loc["overlap_pool", "seeds"] == "3"


def spoil_a_metric(root: Path, params: Params) -> None:
    def spoil(seeds: dict[str, Any]) -> None:
        seeds["0"]["test"]["one_crop"]["error_top1"] = float("nan")

    change_metrics(root, params, "non_overlapping_pooling", spoil)


def lose_predictions(root: Path, params: Params) -> None:
    (root / paths.evaluation(params.scale, "no_dropout") / "predictions.parquet").unlink()


def lose_an_image(root: Path, params: Params) -> None:
    path = root / paths.evaluation(params.scale, "no_dropout") / "predictions.parquet"
    table = pd.read_parquet(path)
    table[(table["seed"] != 2) | (table["index"] != 3)].to_parquet(path, index=False)


def repeat_an_image(root: Path, params: Params) -> None:
    path = root / paths.evaluation(params.scale, "no_dropout") / "predictions.parquet"
    table = pd.read_parquet(path)
    pd.concat([table, table.iloc[:1]]).to_parquet(path, index=False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda root, params: mark_failed(root, params, "no_dropout", 1),
        spoil_a_metric,
        lose_predictions,
        lose_an_image,
        repeat_an_image,
    ],
    ids=["failed run", "metric", "predictions", "image", "image twice"],
)
def test_a_report_on_incomplete_results_is_computed_again_just_the_same(
    damage: Callable[[Path, Params], Any], complete: Path, tmp_path: Path
) -> None:
    made(tmp_path, damage)
    claims = (tmp_path / "reports/fake/claims.csv").read_text()
    assert claims != (complete / "reports/fake/claims.csv").read_text()
    same, line = recompute(tmp_path / "reports/fake")
    assert same, line


def small_nets() -> Results:
    """Runs whose claims are about the epoch in which they reach 25 % training error."""
    raced = racers({"four_layer_relu": [6.0, 7.0, 6.0], "four_layer_tanh": [30.0, 36.0, np.inf]})
    return replace(raced, params=raced.params.model_copy(update={"net": Net(architecture="four_layer", crop_px=67)}))


def analyzed() -> Results:
    """Runs whose claims are about when they converge, and about what the nets were asked beside their predictions."""
    evaluate = {"ten_crop": ["baseline"], "analyses": ["baseline"], "batch_images": 100}
    variants = {name: variant.model_dump() for name, variant in fake_params().variants.items()}
    variants |= dict.fromkeys(("no_lr_drops", "no_lr_drops_no_dropout"), variants["baseline"])
    params = fake_params(evaluate=evaluate, variants=variants)
    return results(params, epochs=60, analyses={"baseline": ANALYSES})


@pytest.mark.parametrize(
    ("read", "ids"),
    [
        (small_nets, ["relu_vs_tanh_speed"]),
        (analyzed, ["dropout_doubles_iters", "dropout_test_half", "off_centre"]),
    ],
)
def test_epochs_losses_and_analyses_that_claims_read_are_in_the_file(
    read: Callable[[], Results], ids: list[str], tmp_path: Path
) -> None:
    write_predictions(read(), {}, tmp_path / "predictions.parquet")
    expected = frame(claim_rows(read(), {}))
    found = frame(claim_rows(*read_predictions(tmp_path / "predictions.parquet")))
    pd.testing.assert_frame_equal(found, expected)
    assert (found.set_index("id").loc[ids, "effect"] != "").all()


def test_one_changed_rank_is_noticed(clone: Path, command: Callable[[str], Done]) -> None:
    def one_error_more(table: pd.DataFrame) -> pd.DataFrame:
        right = (table["variant"] == "baseline") & (table["split"] == "test") & (table["views"] == "one_crop")
        table.loc[table.index[right & (table["rank"] == 0)][0], "rank"] = 1
        return table

    path = clone / "reports/fake/predictions.parquet"
    change(path, lambda table: table)
    assert command("fake").returncode == 0
    change(path, one_error_more)
    done = command("fake")
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    claims = pd.read_csv(clone / "reports/fake/claims.csv", dtype=str).set_index("id")
    old = claims.loc["overlap_pool", "treatment_value"]
    answers = pd.read_parquet(path).query("variant == 'baseline' and split == 'test' and views == 'one_crop'")
    new = f"{100 * (answers['rank'] >= 1).mean():.4f}".rstrip("0")
    assert f"claims.csv overlap_pool: treatment_value is '{new}' (in the file '{old}')" in line


def test_a_row_that_is_lost_from_claims_csv_is_named(clone: Path, command: Callable[[str], Done]) -> None:
    path = clone / "reports/fake/claims.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    done = command("fake")
    assert (done.returncode, done.stderr) == (1, "")
    assert f"claims.csv {lines[-1].split(',')[0]}: id is " in done.stdout


def cut(folder: Path, share: float) -> None:
    content = (folder / "predictions.parquet").read_bytes()
    (folder / "predictions.parquet").write_bytes(content[: int(share * len(content))])


def flip(folder: Path, place: int) -> None:
    content = bytearray((folder / "predictions.parquet").read_bytes())
    content[place] ^= 0x40
    (folder / "predictions.parquet").write_bytes(content)


def without_facts(folder: Path) -> None:
    pq.write_table(
        pq.read_table(folder / "predictions.parquet").replace_schema_metadata(), folder / "predictions.parquet"
    )


def without_ranks(folder: Path) -> None:
    change(folder / "predictions.parquet", lambda table: table.drop(columns="rank"))


@pytest.mark.parametrize(
    ("damage", "file", "what"),
    [
        (lambda folder: cut(folder, 0.9), "predictions.parquet", "is damaged"),
        (lambda folder: cut(folder, 0.1), "predictions.parquet", "is damaged"),
        (lambda folder: cut(folder, 0), "predictions.parquet", "is damaged"),
        (lambda folder: flip(folder, 60), "predictions.parquet", "is damaged"),
        (without_facts, "predictions.parquet", "is damaged"),
        (without_ranks, "predictions.parquet", "is damaged"),
        (lambda folder: (folder / "predictions.parquet").unlink(), "predictions.parquet", "is missing"),
        (lambda folder: (folder / "claims.csv").unlink(), "claims.csv", "cannot be read (No such file or directory)"),
        (lambda folder: (folder / "claims.csv").write_bytes(b"\xff"), "claims.csv", "cannot be read (it is not UTF-8)"),
    ],
)
def test_a_missing_or_damaged_file_is_one_line(
    clone: Path, command: Callable[[str], Done], damage: Callable[[Path], Any], file: str, what: str
) -> None:
    damage(clone / "reports/fake")
    done = command("fake")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: reports/fake/{file}: {what}")


def test_a_scale_without_a_report_is_told_which_have_one(command: Callable[[str], Done]) -> None:
    done = command("fak")
    assert done.returncode == 2
    assert "reports/fak/predictions.parquet: is missing; the reports that have one: fake" in done.stderr


def test_the_same_predictions_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    write_fake_runs(tmp_path, fake_params())
    write_predictions(collect(fake_params(), tmp_path), CHECKS, tmp_path / "first.parquet")
    path = tmp_path / paths.evaluation("fake", "no_dropout") / "predictions.parquet"
    pd.read_parquet(path).sample(frac=1, random_state=0).to_parquet(path)
    write_predictions(collect(fake_params(), tmp_path), CHECKS, tmp_path / "second.parquet")
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()


def test_pandas_reads_the_file_as_a_plain_table_of_every_answer(clone: Path, complete: Path) -> None:
    table = pd.read_parquet(clone / "reports/fake/predictions.parquet")
    assert list(table) == ["variant", "seed", "split", "views", "index", "rank"]
    baseline = table[table["variant"] == "baseline"].drop(columns="variant").reset_index(drop=True)
    original = pd.read_parquet(complete / paths.evaluation("fake", "baseline") / "predictions.parquet")[list(baseline)]
    expected = original.sort_values(["seed", "split", "views", "index"], ignore_index=True)
    pd.testing.assert_frame_equal(baseline, expected, check_dtype=False)


def test_ten_thousand_images_take_less_than_four_kilobytes_for_each_run(tmp_path: Path) -> None:
    """300 runs then take one megabyte: a fifth of the answers is wrong, and every net errs on images of its own."""
    params, images = fake_params(seeds=list(range(10))), 10_000
    rng = np.random.default_rng(0)
    answers = {
        variant: pd.DataFrame(
            {
                "seed": np.repeat(params.seeds, images),
                "split": "test",
                "views": "one_crop",
                "index": np.tile(np.arange(images), len(params.seeds)),
                "rank": np.minimum(rng.geometric(0.8, len(params.seeds) * images) - 1, 9),
            }
        )
        for variant in params.variants
    }
    write_predictions(results(params, loaded=answers), {}, tmp_path / "predictions.parquet")
    size = (tmp_path / "predictions.parquet").stat().st_size
    assert size < 4000 * len(params.seeds) * len(params.variants)


@pytest.mark.parametrize("report", COMMITTED, ids=lambda folder: folder.name)
def test_the_committed_tables_follow_from_the_committed_predictions(report: Path) -> None:
    same, line = recompute(report)
    assert same, line
