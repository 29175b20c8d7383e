import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats
from statsmodels.stats.multitest import multipletests

from pipeline import paths
from pipeline.claims import table as claims_table
from pipeline.claims.measures import compare
from pipeline.claims.results import collect
from pipeline.claims.verdicts import CLAIM_WORDS, QUESTION_WORDS, Answers, Verdict
from pipeline.paper.claims import Side, registry
from pipeline.params import Net, Params, Recipe, Train
from pipeline.report import render, tables, tuning_tables
from pipeline.report.render import write_report
from pipeline.report.summary import summary
from tests.fake_runs import change_metrics, fake_params, mark_failed, write_fake_runs

CHECKS = {"update_rule": True}
COLUMNS = (
    "id,section,statement,metric,unit,treatment,control,treatment_value,control_value,"
    "paper_effect,effect,low,high,seeds,verdict,reason"
)


@pytest.fixture(scope="module")
def params() -> Params:
    return fake_params()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    """Complete runs and their report. Tests of this module only read it."""
    root = tmp_path_factory.mktemp("complete")
    write_fake_runs(root, params)
    write_report(params, root / "reports" / "fake", root, CHECKS)
    return root


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without figures, which take most of its time."""
    monkeypatch.setattr(render.all_figures, "draw_all", lambda *_: {})


@pytest.fixture
def broken(tmp_path: Path, params: Params, undrawn: None) -> Path:
    """Runs for a test to damage."""
    write_fake_runs(tmp_path, params)
    return tmp_path


def report(root: Path, params: Params) -> str:
    write_report(params, root / "reports" / "fake", root, CHECKS)
    return (root / "reports" / "fake" / "report.md").read_text()


def read(root: Path, name: str = "report.md") -> str:
    return (root / "reports" / "fake" / name).read_text()


def claims(root: Path, name: str = "claims.csv") -> pd.DataFrame:
    return pd.read_csv(root / "reports" / "fake" / name, dtype={"section": str}).set_index("id")


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def error(root: Path, variant: str, split: str = "test", views: str = "one_crop", k: int = 1) -> pd.Series:
    """Errors in % by seed, from the single predictions."""
    predictions = pd.read_parquet(root / "runs" / "fake" / "evaluation" / variant / "predictions.parquet")
    chosen = predictions[(predictions["split"] == split) & (predictions["views"] == views)]
    return chosen.groupby("seed")["rank"].apply(lambda rank: 100 * (rank >= k).mean())


def on_images(root: Path, variant: str, split: str = "test", views: str = "one_crop", k: int = 1) -> pd.DataFrame:
    """Errors in % by seed (rows) and image."""
    predictions = pd.read_parquet(root / "runs" / "fake" / "evaluation" / variant / "predictions.parquet")
    chosen = predictions[(predictions["split"] == split) & (predictions["views"] == views)]
    return 100.0 * (chosen.pivot_table("rank", "seed", "index") >= k)


def crossed_half_width(*parts: pd.DataFrame) -> float:
    """Spelled out: seeds as rows, images as columns, both random; reciprocal degrees of freedom weighted by share."""
    n = len(parts[0])
    seeds = sum(part.mean(axis=1) for part in parts).var(ddof=1) / n
    images = 0.0
    for part in parts:
        m = part.shape[1]
        image_square = n * part.mean(axis=0).var(ddof=1)
        total = ((part - part.to_numpy().mean()) ** 2).to_numpy().sum()
        between_seeds = m * ((part.mean(axis=1) - part.to_numpy().mean()) ** 2).sum()
        residual = (total - between_seeds - (m - 1) * image_square) / ((n - 1) * (m - 1))
        images += max(0.0, image_square - residual) / (n * m)
    freedom = (n - 1) * (seeds + images) / seeds
    return float(stats.t.ppf(0.975, freedom) * np.sqrt(seeds + images))


def half_width(values: pd.Series) -> float:
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def test_claims_csv_has_the_columns_agreed_and_one_row_for_each_claim_and_metric(runs: Path) -> None:
    assert read(runs, "claims.csv").splitlines()[0] == COLUMNS
    assert claims(runs).index.is_unique
    assert {"overlap_pool", "overlap_pool_top5", "update_rule", "fall2009"} <= set(claims(runs).index)


def test_effects_are_those_of_the_single_predictions(runs: Path) -> None:
    expected = {
        "overlap_pool": [on_images(runs, "non_overlapping_pooling") - on_images(runs, "baseline")],
        "lrn_imagenet": [on_images(runs, "no_response_norm") - on_images(runs, "baseline")],
        "ten_crop": [on_images(runs, "baseline") - on_images(runs, "baseline", views="ten_crop")],
        "dropout_overfit": [
            on_images(runs, "no_dropout") - on_images(runs, "baseline"),
            on_images(runs, "baseline", "train") - on_images(runs, "no_dropout", "train"),
        ],
    }
    table = claims(runs)
    for name, parts in expected.items():
        mean, half = sum(part.to_numpy().mean() for part in parts), crossed_half_width(*parts)
        assert table.loc[name, "effect"] == pytest.approx(mean, abs=1e-4), name
        assert table.loc[name, "low"] == pytest.approx(mean - half, abs=1e-4), name
        assert table.loc[name, "high"] == pytest.approx(mean + half, abs=1e-4), name
        assert table.loc[name, "seeds"] == 3


def test_the_pooling_and_dropout_sections_have_every_arm_on_every_split(runs: Path) -> None:
    for title, control in (("Pooling", "non_overlapping_pooling"), ("Dropout", "no_dropout")):
        text = re.sub(" +", " ", section(read(runs), title))
        for variant in ("baseline", control):
            for split, name in (("train", "training"), ("val", "validation"), ("test", "test")):
                values = error(runs, variant, split)
                assert f"| {variant} | {name} | {values.mean():.2f} ± {half_width(values):.2f} (3 seeds) |" in text


def test_the_pooling_and_dropout_sections_have_the_effect_on_every_split_and_the_papers_beside_its_own(
    runs: Path,
) -> None:
    for title, control, paper in (("Pooling", "non_overlapping_pooling", "0.4"), ("Dropout", "no_dropout", "–")):
        text = re.sub(" +", " ", section(read(runs), title))
        for split, name in (("train", "training"), ("val", "validation"), ("test", "test")):
            difference = on_images(runs, control, split) - on_images(runs, "baseline", split)
            mean, half = difference.to_numpy().mean(), crossed_half_width(difference)
            cells = f"{paper if split == 'test' else '–'} | {mean:+.2f} | [{mean - half:.2f}, {mean + half:.2f}] | 3 |"
            assert f"| top-1 error, {name} | {cells}" in text
    gap = claims(runs).loc["dropout_overfit"]
    interval = f"[{gap['low']:.2f}, {gap['high']:.2f}]"
    assert f"| top-1 error, test minus training | – | {gap['effect']:+.2f} | {interval} | 3 |" in text


def test_each_layers_share_of_the_parameters_stands_beside_their_number() -> None:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.layers().splitlines()]
    kernels = {"conv1": 96 * (363 + 1), "conv3": 384 * (2304 + 1), "fc6": 4096 * (9216 + 1)}  # section 3.5, with biases
    for layer, parameters in kernels.items():
        (line,) = [line for line in lines if line[0] == layer]
        assert line[2:4] == [f"{parameters:,}", f"{100 * parameters / 60_965_224:.2f}"]
    assert lines[-1][:4] == ["sum", "", "60,965,224", "100.00"]


def test_the_headline_puts_the_papers_figures_beside_ours_without_a_difference(runs: Path) -> None:
    text = re.sub(" +", " ", section(read(runs), "The errors"))
    ours = error(runs, "baseline", views="ten_crop")
    assert f"| top-1, ten crops | 37.5 | 40.7 | {ours.mean():.2f} ± {half_width(ours):.2f} (3 seeds) |" in text
    assert "| top-1, one crop | 39.0 | – |" in text


def test_top5_of_ten_classes_is_not_run_and_left_out_of_the_page(runs: Path) -> None:
    row = claims(runs).loc["overlap_pool_top5"]
    assert pd.isna(row["effect"])
    assert (row["verdict"], row["reason"]) == ("not run at this scale", "top-5 of 10 classes says nothing")
    assert "| top-5" not in read(runs)


def test_top5_of_more_classes_and_the_gap_are_those_of_the_single_predictions(
    runs: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_table, "TOP5_CLASSES", 9)
    results = collect(params, runs)
    (row,) = [row for row in claims_table.claim_rows(results, CHECKS) if row.id == "overlap_pool_top5"]
    gain = on_images(runs, "non_overlapping_pooling", k=5) - on_images(runs, "baseline", k=5)
    assert row.effect.mean == pytest.approx(gain.to_numpy().mean())
    assert row.family == "top5"
    sides = [Side(variant="baseline", split=split) for split in ("val", "test")]
    gap = compare(results, "error", *sides, "top1", limit=True).effect.interval.mean
    assert gap == pytest.approx((error(runs, "baseline") - error(runs, "baseline", "val")).mean())


def test_the_first_lines_say_what_came_out_for_each_main_ingredient(runs: Path) -> None:
    """From claims.csv alone, which other tests hold against the predictions."""
    table, lines = claims(runs), read(runs, "summary.md").splitlines()
    assert read(runs).split("\n\n")[1].splitlines() == lines
    for name, title, gain in (
        ("overlap_pool", "Overlapping pooling", "the paper gains 0.4 points; here the gain is"),
        ("dropout_overfit", "Dropout", "here the gap between test and training error grows without it by"),
        ("lrn_imagenet", "Response normalization", "the paper gains 1.4 points; here the gain is"),
    ):
        row = table.loc[name]
        ends = f"{row['effect']:+.1f} points [{row['low']:.1f}, {row['high']:.1f}] over 3 seeds: *{row['verdict']}*"
        (line,) = [line for line in lines if line.startswith(f"- **{title}**")]
        assert f"{gain} {ends}".replace("-0.0", "0.0").replace("-", "−") in line.replace("-", "−")
    for name, title in (
        ("printed_vs_coded", "Printed or coded recipe"),
        ("tuned_vs_paper", "Tuned or the paper's rate"),
    ):
        row = claims(runs, "questions.csv").loc[name]
        more, (least, greatest) = "more", (row["low"], row["high"])
        if row["effect"] < 0:
            more, (least, greatest) = "less", (-row["high"], -row["low"])
        told = f"`{row['control']}` errs {abs(row['effect']):.1f} points {more} than `{row['treatment']}`"
        assert f"- **{title}**: {told} [{least:.1f}, {greatest:.1f}] over 3 seeds: *{row['verdict']}*".replace(
            "-0.0", "0.0"
        ) in "\n".join(lines).replace("−", "-")
    main = table[~table.index.str.endswith("_top5")]
    trained, arithmetic = main[main["seeds"] > 0], main[(main["seeds"] == 0) & main["effect"].notna()]
    (counts,) = [line for line in lines if line.startswith("- Of the paper's")]
    assert f"{len(main)} claims, {len(trained)} were tested by training here" in counts
    assert f"{len(arithmetic)} were computed" in counts
    assert f"{len(main) - len(trained) - len(arithmetic)} could not be tested" in counts
    for word, count in trained["verdict"].value_counts().items():
        assert f"{count} *{word}*" in counts


def test_an_answer_that_the_adjustment_overrules_says_so(params: Params, runs: Path) -> None:
    results = collect(params, runs)
    row = next(row for row in claims_table.question_rows(results) if row.id == "printed_vs_coded")
    assert row.tested
    sure = replace(row.tested.steps[0], mean=1.0, low=0.8, high=1.2, sd=0.1, pairs=5, image_variance=0.0)
    for adjusted, word, told in (
        (0.01, "differs", "(zero is excluded)"),
        (0.25, "no difference seen", "(zero is not excluded once the number of comparisons is allowed for)"),
    ):
        judged = replace(row, tested=Answers((sure,), adjusted, adjusted), verdict=Verdict(word))
        (line,) = [line for line in summary(results, [], [judged]) if "Printed or coded" in line]
        assert line.endswith(f"*{word}* {told}.")


def test_each_family_of_claims_is_adjusted_by_itself(runs: Path, params: Params) -> None:
    """Three main claims together; another claim's p does not move theirs."""
    rows = claims_table.claim_rows(collect(params, runs), CHECKS)
    main = [
        row for row in rows if row.tested is not None and row.id in ("overlap_pool", "dropout_overfit", "lrn_imagenet")
    ]
    for question in ("p_no_effect", "p_size"):
        raw = [getattr(row.evidence[0], question) for row in main]
        adjusted = [getattr(row.tested, question) for row in main]
        assert adjusted == pytest.approx(multipletests(raw, method="holm")[1])


def test_the_tuning_section_has_the_trials_and_what_they_chose_instead_of_the_papers_values(runs: Path) -> None:
    text = re.sub(" +", " ", section(read(runs), "Tuning"))
    assert "the best with lr = 0.02 (instead of 0.01), weight_decay = 0.001 (instead of 0.0005)." in text
    assert "| 0 | COMPLETE | 0.02 | 0.001 | 21.50 | 2 |" in text
    assert "| 1 | PRUNED | 0.0013 | 2e-05 | 60.25 | 1 |" in text
    assert "FAIL" not in text


def test_the_tuned_values_beat_the_papers_or_not_by_the_sign_of_the_effect(runs: Path, params: Params) -> None:
    results = collect(params, runs)
    (row,) = [row for row in claims_table.question_rows(results) if row.id == "tuned_vs_paper"]
    gain = (on_images(runs, "baseline") - on_images(runs, "tuned")).to_numpy().mean()
    assert gain > 0
    assert row.verdict.word == "differs"
    beaten = f"On the test images the tuned values beat the paper's (+{gain:.2f} points, "
    assert tuning_tables.answer(results, [row]).startswith(beaten)
    worse = replace(row, effect=replace(row.effect, mean=-gain))
    lost = f"On the test images the tuned values did not beat the paper's (-{gain:.2f} points, "
    assert tuning_tables.answer(results, [worse]).startswith(lost)


def test_exact_statements_are_computed_at_every_scale(runs: Path) -> None:
    table = claims(runs)
    assert table.loc["size_params", ["effect", "verdict", "seeds"]].tolist() == [60_965_224, "reproduced", 0]
    assert table.loc["size_neurons", ["effect", "verdict"]].tolist() == [659_272, "reproduced"]
    assert table.loc["fig2_conv1_neurons", ["effect", "verdict"]].tolist() == [290_400, "contradicted"]
    assert table.loc["conv_layer_share", "effect"] == pytest.approx(100 * 885_120 / 60_965_224, abs=1e-4)
    assert table.loc["update_rule", "verdict"] == "reproduced"


def test_a_failed_check_contradicts_and_a_missing_one_is_not_run(broken: Path, params: Params) -> None:
    for checks, verdict in (({"update_rule": False}, "contradicted"), ({}, "not run at this scale")):
        write_report(params, broken / "reports" / "fake", broken, checks)
        assert claims(broken).loc["update_rule", "verdict"] == verdict


def test_no_verdict_stands_outside_the_words_agreed(runs: Path) -> None:
    assert set(claims(runs)["verdict"].dropna()) <= set(CLAIM_WORDS)
    lines = section(read(runs), "Our own questions").splitlines()
    answers = [re.sub(r" \(\d+\)", "", line.split("|")[2]).strip() for line in lines if " − " in line]
    assert len(answers) == 2
    assert set(answers) <= set(QUESTION_WORDS)


def test_what_is_not_run_has_a_reason_and_no_effect(runs: Path) -> None:
    table = claims(runs)
    idle = table[table["verdict"].isin(["not run at this scale", "cannot be run"])]
    assert idle["reason"].notna().all()
    assert idle["effect"].isna().all()
    assert idle.loc["pca_colour", "reason"] == "variant no_color_noise is not run at this scale"


def test_every_claim_stands_once_among_tested_computed_and_untested_ones(runs: Path) -> None:
    text = section(read(runs), "Every claim of the paper").split("### What the paper says")[0]
    named = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert sorted(name for name in named if name != "claim") == sorted(claim.title for claim in registry().claims)


def test_the_same_files_give_the_same_bytes(runs: Path, params: Params, tmp_path: Path) -> None:
    write_report(params, tmp_path / "again", runs, CHECKS)
    first = runs / "reports" / "fake"
    names = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert {str(name) for name in names} >= {
        "figures/curves.png",
        "figures/effects.png",
        "figures/examples.png",
        "figures/filters.png",
    }
    for name in names:
        assert (first / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_seconds_and_machines_stand_in_the_provenance_only(runs: Path) -> None:
    for name in ("report.md", "claims.csv"):
        assert "x86_64" not in read(runs, name)
        assert "seconds" not in read(runs, name)
    assert "x86_64" in read(runs, "provenance.md")
    assert "2,500" in read(runs, "provenance.md")


def test_a_report_takes_the_place_of_an_older_one_and_leaves_what_others_put_there(
    broken: Path, params: Params
) -> None:
    folder = broken / "reports" / "fake"
    folder.mkdir(parents=True)
    (folder / "figures").mkdir()
    for name in ("report.md", "figures/of_an_older_report.png", "my notes.md", "slides/1.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("old")
    report(broken, params)
    assert (folder / "report.md").read_text() != "old"
    assert not (folder / "figures/of_an_older_report.png").exists()
    assert [(folder / name).read_text() for name in ("my notes.md", "slides/1.md")] == ["old", "old"]
    assert [path.name for path in folder.parent.iterdir()] == ["fake"]


def test_a_failed_run_is_named_and_its_pair_is_left_out(broken: Path, params: Params) -> None:
    mark_failed(broken, params, "no_dropout", 1)
    missing = section(report(broken, params), "Missing results")
    assert "no_dropout, seed 1: the run failed at step 57 (learning rate 0.01, gradient norm 1000000000.0)" in missing
    row = claims(broken).loc["dropout_overfit"]
    assert row["seeds"] == 2
    assert "1 of 3 pairs left out" in row["reason"]


def test_a_missing_seed_is_named_as_missing(broken: Path, params: Params) -> None:
    change_metrics(broken, params, "baseline", lambda seeds: seeds.pop("2"))
    assert "baseline, seed 2: not in `runs/fake/evaluation/baseline/seeds.json`" in section(
        report(broken, params), "Missing results"
    )
    assert claims(broken).loc["overlap_pool", "seeds"] == 2


def test_a_value_that_is_not_a_number_is_named_as_missing(broken: Path, params: Params) -> None:
    def spoil(seeds: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
        seeds["0"]["test"]["one_crop"]["error_top1"] = float("nan")

    change_metrics(broken, params, "non_overlapping_pooling", spoil)
    assert "non_overlapping_pooling, seed 0: test one_crop error_top1 is not a number" in section(
        report(broken, params), "Missing results"
    )
    assert claims(broken).loc["overlap_pool", "seeds"] == 2


def change_predictions(root: Path, variant: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = root / "runs" / "fake" / "evaluation" / variant / "predictions.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def test_a_prediction_that_is_not_a_number_is_named_and_its_pair_is_left_out(broken: Path, params: Params) -> None:
    def spoil(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[(table["seed"] == 1) & (table["index"] == 7), "p_label"] = np.nan
        return table

    change_predictions(broken, "non_overlapping_pooling", spoil)
    path = "runs/fake/evaluation/non_overlapping_pooling/predictions.parquet"
    assert f"`{path}`, seed 1: a prediction is not a number" in section(report(broken, params), "Missing results")
    assert claims(broken).loc["overlap_pool", "seeds"] == 2


def test_unequal_test_sets_are_named_and_the_rest_comes_out(broken: Path, params: Params) -> None:
    change_predictions(broken, "non_overlapping_pooling", lambda table: table[table["index"] != 3])
    missing = section(report(broken, params), "Missing results")
    assert re.search(r"overlap_pool: baseline was asked about (\d+) images, non_overlapping_pooling about \d+", missing)
    row = claims(broken).loc["overlap_pool"]
    assert (row["verdict"], row["seeds"]) == ("too noisy to say", 0)
    assert claims(broken).loc["lrn_imagenet", "seeds"] == 3


def test_a_seed_that_lacks_some_images_is_named_as_missing(broken: Path, params: Params) -> None:
    lacking = lambda table: table[(table["seed"] != 2) | (table["index"] != 3)]  # noqa: E731
    change_predictions(broken, "non_overlapping_pooling", lacking)
    missing = section(report(broken, params), "Missing results")
    assert "non_overlapping_pooling, seed 2: predictions of some images are missing" in missing
    assert claims(broken).loc["overlap_pool", "seeds"] == 2


def test_a_claim_with_an_unknown_measure_is_named_as_missing(
    broken: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = registry()
    odd = [
        claim.model_copy(update={"measure": "luck"}) if claim.id == "overlap_pool" else claim for claim in known.claims
    ]
    for module in (claims_table, render, tables):
        monkeypatch.setattr(module, "registry", lambda: known.model_copy(update={"claims": odd}))
    missing = section(report(broken, params), "Missing results")
    assert "overlap_pool: measure = 'luck'; accepted is one of error, overfitting" in missing
    assert claims(broken).loc["lrn_imagenet", "seeds"] == 3


def test_a_run_that_only_guesses_is_named(broken: Path, params: Params) -> None:
    def guess(seeds: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
        seeds["1"]["test"]["one_crop"]["error_top1"] = 90.0

    change_metrics(broken, params, "baseline", guess)
    text = report(broken, params)
    limits = section(text, "What a scale of this size cannot show")
    assert "`baseline` did not learn with seed 1" in limits
    assert limits.count("did not learn") == 1
    lines = [re.sub(" +", " ", line) for line in text.splitlines()]
    for variant, learned in (("baseline", "2 of 3"), ("no_dropout", "3 of 3")):
        assert any(line.startswith(f"| {variant} |") and line.endswith(f"| {learned} |") for line in lines), variant


def test_a_variant_whose_runs_all_failed_is_too_noisy_to_say(broken: Path, params: Params) -> None:
    for seed in params.seeds:
        mark_failed(broken, params, "non_overlapping_pooling", seed)
    report(broken, params)
    row = claims(broken).loc["overlap_pool"]
    assert (row["verdict"], row["reason"]) == ("too noisy to say", "no pair is complete, 3 left out")


@pytest.mark.parametrize(
    "damaged",
    [
        [
            "runs/fake/evaluation/as_coded/seeds.json",
            "runs/fake/evaluation/baseline/predictions.parquet",
            "runs/fake/train/baseline/seed-0/history.csv",
            "runs/fake/train/no_dropout/seed-0/run.json",
            "runs/fake/tune/baseline/trials.csv",
        ],
        [
            "runs/fake/tune/baseline/best.yaml",
            "prepared/fashion_mnist/meta.json",
            "prepared/fashion_mnist/test/images.npy",
        ],
        ["runs/fake/evaluation/baseline/seeds.json"],
    ],
)
@pytest.mark.parametrize("damage", ["missing", "garbled"])
def test_missing_and_garbled_files_are_named_and_the_rest_comes_out(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch, damaged: list[str], damage: str
) -> None:
    monkeypatch.setattr(FigureCanvasAgg, "print_figure", lambda *_, **__: None)  # composed, and not painted
    write_fake_runs(tmp_path, params)
    for path in damaged:
        if damage == "missing":
            (tmp_path / path).unlink()
        else:
            (tmp_path / path).write_bytes(b"\x00[not, what: it should be")
    missing = section(report(tmp_path, params), "Missing results")
    assert [path for path in damaged if path not in missing] == []
    assert claims(tmp_path).loc["size_params", "verdict"] == "reproduced"


@pytest.mark.usefixtures("undrawn")
def test_no_runs_at_all_still_give_a_report(tmp_path: Path, params: Params) -> None:
    text = report(tmp_path, params)
    assert "no_dropout" in section(text, "Missing results")
    assert claims(tmp_path).loc["overlap_pool", "reason"] == "variant baseline has no results (see Missing results)"


@pytest.mark.usefixtures("undrawn")
def test_a_variant_that_the_scale_leaves_out_is_named(tmp_path: Path) -> None:
    params = fake_params()
    params = fake_params(variants={name: params.variants[name].model_dump() for name in ("baseline", "no_dropout")})
    write_fake_runs(tmp_path, params)
    text = report(tmp_path, params)
    assert "Not run at this scale: variant non_overlapping_pooling is not run at this scale" in section(text, "Pooling")
    assert section(text, "Missing results").strip().startswith("None")


@pytest.mark.usefixtures("undrawn")
def test_one_seed_gives_figures_without_intervals(tmp_path: Path) -> None:
    params = fake_params(seeds=[7])
    write_fake_runs(tmp_path, params)
    text = report(tmp_path, params)
    assert "(1 seed, no interval)" in text
    row = claims(tmp_path).loc["overlap_pool"]
    assert (row["verdict"], row["reason"]) == ("too noisy to say", "1 seed: no interval")
    assert pd.isna(row["low"])


def test_runs_on_unlike_machines_are_named_in_the_provenance(broken: Path, params: Params) -> None:
    path = broken / paths.seed("fake", "tuned", 0) / "run.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "where": {**facts["where"], "device": "a GPU"}}))
    report(broken, params)
    text = read(broken, "provenance.md")
    assert "unlike machines" in text
    assert "device a GPU, machine x86_64, python 3.11, threads 2, torch 2.0: tuned seed 0" in text


@pytest.mark.usefixtures("undrawn")
def test_the_smoke_scale_says_that_it_proves_the_plumbing_only(tmp_path: Path) -> None:
    params = fake_params(scale="smoke")
    write_report(params, tmp_path / "smoke", tmp_path)
    assert "proves the plumbing only" in (tmp_path / "smoke" / "report.md").read_text().splitlines()[0]


def own_experiment(**changes: Any) -> Params:
    """The paper's data, net, recipe and budget, but for `changes` to blocks."""
    own = fake_params()
    whole = {"dataset": "imagenet2010", "image_size": 256, "train_images": None, "test_images": None}
    blocks = {"data": own.data.model_dump() | whole, "net": Net().model_dump(), "train": Train().model_dump()}
    blocks |= {name: blocks.get(name, Recipe().model_dump()) | change for name, change in changes.items()}
    return fake_params(reports={"imagenet2010": "fake"}, **blocks)


def test_on_the_papers_own_data_net_recipe_and_budget_the_stronger_words_are_earned(
    tmp_path: Path, undrawn: None
) -> None:
    params = own_experiment()
    write_fake_runs(tmp_path, params)
    report(tmp_path, params)
    table = claims(tmp_path)
    assert table.loc["ilsvrc2010", "verdict"] == "contradicted"  # made-up errors near 10 %, not 37.5
    assert table.loc["ilsvrc2012_1cnn", "verdict"] == "not run at this scale"
    assert not {"same direction", "opposite direction"} & set(table["verdict"])


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"epochs": 1}},
        {"train": {"lr": 0.02}},
        {"train": {"precision": "bf16-mixed"}},
        {"recipe": {"bias_rule": "coded"}},
        {"net": {"hidden_bias": 0.1}},
        {"data": {"train_images": 1000}},
    ],
)
def test_another_budget_or_recipe_is_not_the_papers_experiment_and_cannot_contradict_it(
    tmp_path: Path, undrawn: None, change: dict[str, Any]
) -> None:
    params = own_experiment(**change)
    write_fake_runs(tmp_path, params)
    report(tmp_path, params)
    trained = claims(tmp_path).query("seeds > 0 or id == 'ilsvrc2010'")
    assert trained.loc["ilsvrc2010", "verdict"] == "not run at this scale"
    assert not {"reproduced", "reproduced in direction, not in size", "contradicted"} & set(trained["verdict"])


def test_a_report_on_images_of_ones_own_leaves_out_what_these_cannot_test(tmp_path: Path, undrawn: None) -> None:
    data = fake_params().data.model_dump() | {"dataset": "pets", "folder": "/pets"}
    params = fake_params(data=data, report="fake_pets")
    write_fake_runs(tmp_path, params)
    out = tmp_path / "reports/fake_pets"
    write_report(params, out, tmp_path, CHECKS)
    page = (out / "report.md").read_text()
    meaningless = ["ilsvrc2010", "ilsvrc2012_1cnn", "ilsvrc2012_5cnn", "pretrain_1cnn", "ensemble_7", "fall2009"]
    meaningless += ["relu_vs_tanh_speed", "lrn_cifar", "two_gpu_time", "lr_three_drops", "nn_4096"]
    every = section(page, "Every claim of the paper")
    (told,) = re.findall(r"^Left out are (\d+) claims .*: (`.*`)\. They stand in `claims\.csv`\.$", every, re.MULTILINE)
    assert (int(told[0]), sorted(re.findall(r"`(\w+)`", told[1]))) == (len(meaningless), sorted(meaningless))
    for claim in registry().claims:
        assert page.count(f"`{claim.id}`") == 1 if claim.id in meaningless else f"`{claim.id}`" in every
        assert (f"| {claim.title} " in every) == (claim.id not in meaningless)
    assert "ILSVRC-2010" not in section(page, "The errors")
    assert {claim.id for claim in registry().claims} <= set(pd.read_csv(out / "claims.csv")["id"])


def test_a_report_on_other_images_names_these_and_never_the_scales_own(tmp_path: Path, undrawn: None) -> None:
    own = fake_params()
    params = fake_params(data=own.data.model_dump() | {"dataset": "pets", "folder": "/pets"}, report="fake_pets")
    write_fake_runs(tmp_path, params)
    write_report(params, tmp_path / "reports/fake_pets", root=tmp_path)
    files = [path for path in (tmp_path / "reports/fake_pets").rglob("*") if path.suffix in (".md", ".csv", ".html")]
    texts = {path.name: path.read_text() for path in files}
    page = texts["report.md"]
    assert "# AlexNet (2012), measured again: pets, AlexNet at a quarter of its width" in page
    assert "images of pets in 10 classes" in texts["report.md"]
    assert "Fashion" not in page + texts["claims.csv"] + texts["provenance.md"]


def test_a_gap_that_validation_images_blur_is_not_blamed_on_test_images(tmp_path: Path, undrawn: None) -> None:
    params = fake_params()
    write_fake_runs(tmp_path, params)
    report(tmp_path, params)
    reason = str(claims(tmp_path).loc["val_test_gap", "reason"])
    assert "as many test images" not in reason
    assert "validation" in reason


def test_the_report_needs_no_torch() -> None:
    code = "import sys, pipeline.report.render; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
