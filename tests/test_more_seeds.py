"""Some variants may have more seeds than the others: all of them are trained, and claims compare those in common."""

import re
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.claims.measures import compare
from pipeline.claims.predictions_file import read_predictions, write_predictions
from pipeline.claims.results import Results, collect
from pipeline.claims.table import claim_rows, frame
from pipeline.paper.claims import Side
from pipeline.params import validate
from pipeline.tools.compose import composed
from pipeline.tools.plan import Cost, cost_key, lines_of
from pipeline.training.runs import variant_runs
from tests.fake_runs import fake_params, mark_failed, write_fake_runs
from tests.tiny import make_store
from tests.tiny_params import tiny_params

ROOT = Path(__file__).parents[1]
MORE = {"variants": ["baseline", "non_overlapping_pooling"], "seeds": [3, 4]}  # besides 0, 1 and 2
BASELINE, POOLING, DROPOUT = (Side(variant=name) for name in ("baseline", "non_overlapping_pooling", "no_dropout"))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("uneven")
    params = fake_params(more_seeds=MORE)
    write_fake_runs(root, params)
    mark_failed(root, params, "non_overlapping_pooling", 3)
    return collect(params, root)


def test_a_claim_has_the_pairs_that_both_sides_have(uneven: Results) -> None:
    table = frame(claim_rows(uneven, {})).set_index("id")
    assert table.loc["overlap_pool", "seeds"] == "4"  # of 0 to 4 one failed
    assert table.loc["lrn_imagenet", "seeds"] == "3"
    assert not [line for line in uneven.missing if "no_dropout" in line]  # which has no seed 3 and 4 to miss


def test_a_pair_that_failed_is_counted_and_one_that_was_not_asked_for_is_not(uneven: Results) -> None:
    both = compare(uneven, "error", BASELINE, POOLING, "top1").effect
    assert (both.interval.n, both.left_out) == (4, 1)
    one = compare(uneven, "error", DROPOUT, BASELINE, "top1").effect
    assert (one.interval.n, one.left_out) == (3, 0)


def test_an_effect_is_that_of_the_common_seeds_alone(uneven: Results) -> None:
    effect = compare(uneven, "error", BASELINE, DROPOUT, "top1").effect
    errors = uneven.errors.query("split == 'test' and views == 'one_crop' and metric == 'error_top1' and seed < 3")
    means = errors.groupby("variant")["value"].mean()
    assert effect.interval.mean == pytest.approx(means["no_dropout"] - means["baseline"])
    assert uneven.by_seed(BASELINE, "error_top1").index.tolist() == [0, 1, 2, 3, 4]


def test_the_evidence_in_one_file_has_them_too(uneven: Results, tmp_path: Path) -> None:
    write_predictions(uneven, {}, tmp_path / "predictions.parquet")
    again = claim_rows(*read_predictions(tmp_path / "predictions.parquet"))
    assert frame(again).to_csv() == frame(claim_rows(uneven, {})).to_csv()


def test_every_variant_that_a_claim_or_a_question_names_has_more_seeds_in_the_verdict_table() -> None:
    params = validate(composed(ROOT / "conf", "scale=embedded_all"), "embedded_all")
    text = (ROOT / "pipeline/paper/claims.yaml").read_text()
    named = set(re.findall(r"variant: (\w+)", text))
    assert "no_conv2" in named
    assert {name for name in params.variants if len(params.seeds_of(name)) == 8} == named & set(params.variants)


def test_they_are_trained_and_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = tiny_params(more_seeds={"variants": ["baseline"], "seeds": [7]})
    make_store(paths.data("fashion_mnist"))
    assert [run.seed for run in variant_runs(params, "baseline")] == [0, 1, 7]
    costs = {cost_key(params.settings(name)): Cost(1.0, 0.0, 0) for name in params.variants}
    planned = {line.what: line.runs for line in lines_of(params, {"train": 1, "val": 1, "test": 1}, costs)}
    assert (planned["baseline"], planned["tuned"]) == (3, 2)
