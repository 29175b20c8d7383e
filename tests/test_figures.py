"""Figures drawn from made-up results, in memory."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from safetensors.numpy import save_file

from pipeline import paths
from pipeline.claims.effects import Interval
from pipeline.claims.results import collect
from pipeline.paper.claims import registry
from pipeline.report.figures import all_figures, style
from pipeline.report.figures.all_figures import draw_all
from pipeline.report.figures.curve_figures import curves
from pipeline.report.figures.effect_figures import effects, variants
from pipeline.report.figures.figure1 import figure1
from pipeline.report.figures.forest import Line, Panel, broken, limits
from pipeline.report.figures.net_figures import examples, filters
from pipeline.report.figures.style import Drawn, applied
from pipeline.report.figures.tuning_figures import can_be_sliced, landscape, slices
from pipeline.runtime.checksums import write_sums
from tests.fake_runs import fake_params, write_fake_runs
from tests.synthetic import (
    ANALYSES,
    EPOCHS,
    LONGEST,
    RATES,
    TRIALS,
    Bound,
    claim_row,
    made_up_claims,
    question_row,
    racers,
    results,
    study,
)


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with applied():
        yield


def drawing(drawn: Drawn) -> tuple[Figure, str]:
    """The figure, laid out as for painting."""
    assert not isinstance(drawn, str), drawn
    FigureCanvasAgg(drawn[0])
    drawn[0].draw_without_rendering()
    return drawn


def texts(figure: Figure) -> list[Any]:
    return figure.findobj(Text)


def words(figure: Figure) -> set[str]:
    return {text.get_text() for text in texts(figure)}


def same_color(one: Any, other: Any) -> bool:
    """Whether two colors differ in how opaque they are at most."""
    return matplotlib.colors.to_rgb(one) == pytest.approx(matplotlib.colors.to_rgb(other))


# ---- the style


def test_text_stays_readable_at_half_size() -> None:
    sizes = [
        size for name, size in style.RC.items() if name.endswith(("font.size", "fontsize", "labelsize", "titlesize"))
    ]
    assert min(*sizes, style.SMALLEST) >= 8
    assert style.WIDTH <= 9
    assert style.DPI >= 150


def test_every_figure_keeps_to_the_style(painted: dict[str, Figure]) -> None:
    for name, figure in painted.items():
        assert figure.get_figwidth() <= style.WIDTH, name
        small = [text for text in texts(figure) if text.get_text().strip() and text.get_fontsize() < style.SMALLEST]
        assert not small, (name, small)


def test_the_users_own_settings_of_matplotlib_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_figures, "DPI", 40)
    pictures = []
    for folder, size in (("first", 12.0), ("second", 30.0)):
        with matplotlib.rc_context({"font.size": size, "lines.linewidth": 9.0}):
            draw_all(results(fake_params()), [], [], tmp_path / folder, [])
        pictures.append((tmp_path / folder / "curves.png").read_bytes())
    assert pictures[0] == pictures[1]


# ---- all together


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are composed and not painted, which takes most of the time."""
    monkeypatch.setattr(FigureCanvasAgg, "print_figure", lambda *_, **__: None)


@pytest.fixture
def painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Every figure that the report can have, by file name."""
    found: dict[str, Figure] = {}
    monkeypatch.setattr(FigureCanvasAgg, "print_figure", lambda self, path, **_: found.update({path.name: self.figure}))
    write_fake_runs(tmp_path, fake_params())
    made = replace(collect(fake_params(), tmp_path), trials={"baseline": TRIALS}, analyses={"baseline": ANALYSES})
    draw_all(made, made_up_claims(), [question_row("baseline", "tanh", 1.0, -1.0, 3.0)], tmp_path / "figures", [])
    draw_all(racers(RACE), [], [], tmp_path / "figures", [])
    return found


def test_each_figure_has_a_caption_with_numbers_and_the_same_bytes_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_figures, "DPI", 40)
    write_fake_runs(tmp_path, fake_params())
    made = replace(collect(fake_params(), tmp_path), trials={"baseline": TRIALS, "as_coded": RATES})
    questions = [question_row("baseline", "tanh", 1.0, -1.0, 3.0)]
    missing: list[str] = []
    captions = draw_all(made, made_up_claims(), questions, tmp_path / "first", missing)
    assert list(captions) == [
        f"{name}.png"
        for name in ("effects", "variants", "curves", "filters", "examples", "tuning-baseline", "tuning-as_coded")
    ]
    assert missing == []
    assert all(any(sign.isdigit() for sign in caption) for caption in captions.values())
    draw_all(made, made_up_claims(), questions, tmp_path / "second", [])
    for name in captions:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_without_any_result_each_figure_asked_for_is_named_as_missing(tmp_path: Path) -> None:
    params, missing = fake_params(), []
    no_question = question_row("baseline", "tanh", None, None, None)
    assert draw_all(collect(params, tmp_path), [], [no_question], tmp_path / "figures", missing) == {}
    assert [line.split(":")[0] for line in missing] == [
        f"figure {name}" for name in ("effects", "variants", "curves", "filters", "examples")
    ]


@pytest.mark.usefixtures("unpainted")
def test_what_the_scale_does_not_ask_for_is_not_missed(tmp_path: Path) -> None:
    params = fake_params()
    params = params.model_copy(update={"tune": params.tune.model_copy(update={"trials": 0})})
    missing: list[str] = []
    draw_all(results(params, trials={"baseline": TRIALS[:0]}), made_up_claims(), [], tmp_path, missing)
    assert [line.split(":")[0] for line in missing] == ["figure filters", "figure examples"]


@pytest.mark.usefixtures("unpainted")
def test_analyses_that_the_net_or_the_data_rule_out_are_not_missed(tmp_path: Path) -> None:
    no_dropout = {"dropout_test_half": {"reason": "the net has no dropout"}}
    seeds = {seed: {**found, **no_dropout} for seed, found in ANALYSES["seeds"].items()}
    missing: list[str] = []
    made = results(fake_params(), analyses={"baseline": {**ANALYSES, "seeds": seeds}})
    captions = draw_all(made, made_up_claims(), [], tmp_path, missing)
    assert {"ensembles.png", "shifts.png"} <= set(captions)
    assert not [line for line in missing if "sampled" in line]


# ---- forest plots


def test_effects_have_the_papers_figure_the_verdict_and_the_pairs_beside_them() -> None:
    figure, caption = drawing(effects(made_up_claims()))
    assert {"Overlapping pooling", "ReLU against tanh, four layers", broken(LONGEST), "5"} <= words(figure)
    points, ratios = figure.axes
    assert (points.get_xscale(), ratios.get_xscale()) == ("linear", "log")
    rows = made_up_claims()
    given = [row.figures.effect for row in rows if row.figures.effect is not None]
    in_points = [row.figures.effect for row in rows if row.figures.effect is not None and row.unit == "points"]
    diamonds = [line.get_xdata()[0] for line in points.lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert diamonds == in_points
    assert caption.startswith(f"{len(rows)} tested claims")
    assert f" of the {len(given)} intervals" in caption


@pytest.mark.parametrize(("low", "high", "inside"), [(0.2, 0.6, 1), (-0.6, 0.2, 0), (0.5, 0.9, 0)])
def test_the_caption_counts_the_intervals_that_hold_the_papers_figure(low: float, high: float, inside: int) -> None:
    (row,) = [claim_row(registry().claim("overlap_pool"), (low + high) / 2, low, high)]  # the paper has 0.4 points
    _, caption = drawing(effects([row]))
    assert f"The paper's figure lies within {inside} of the 1 interval that has one." in caption


def test_claims_without_evidence_stay_out_of_the_forest() -> None:
    untested = replace(made_up_claims()[0], evidence=(), tested=None)
    assert effects([untested]) == "no claim was tested"


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 4.0), (2.0, math.inf), (0.0, math.inf), (None, None), (-math.inf, math.inf)]
)
def test_open_and_missing_ends_of_an_interval_are_drawn(low: Bound, high: Bound) -> None:
    for claim in ("relu_vs_tanh_speed", "overlap_pool"):
        figure, _ = drawing(effects([claim_row(registry().claim(claim), 3.0, low, high)]))
        left, right = figure.axes[0].get_xlim()
        assert math.isfinite(left)
        assert left < 3 < right
        arrows = [line.get_marker() for line in figure.axes[0].lines if line.get_marker() in ("<", ">")]
        assert arrows == [
            sign for sign, end in (("<", low), (">", high)) if end is not None and not left <= end <= right
        ]


def test_variants_are_sorted_by_harm_and_signed_alike() -> None:
    rows = [
        question_row("baseline", "tanh", 1.0, 0.5, 1.5),
        question_row("tuned", "baseline", 2.0, 1.0, 3.0),  # tuning gains two points
        question_row("baseline", "adam", 3.0, -1.0, 7.0, p=0.4),
        question_row("as_coded", "as_coded_no_norm", 0.5, 0.1, 0.9),
        question_row("baseline", "narrow", None, None, None),
    ]
    figure, caption = drawing(variants(rows, {"adam": "Adam"}))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["Adam", "tanh", "as_coded_as_coded_no_norm", "tuned"]
    drawn = [line for line in figure.axes[0].lines if line.get_linestyle() == "-" and len(line.get_ydata()) == 2]
    ends = {line.get_ydata()[0]: tuple(line.get_xdata()) for line in drawn}
    assert [ends[place] for place in range(4)] == [(-1.0, 7.0), (0.5, 1.5), (0.1, 0.9), (-3.0, -1.0)]
    assert "Most harmful: Adam +3.00, tanh +1.00" in caption.replace("adam", "Adam")
    assert "most helpful: tuned −2.00" in caption
    assert "3 of 4" in caption


def test_nets_that_did_not_learn_do_not_squeeze_the_others() -> None:
    rows = [question_row("baseline", f"variant_{number}", 0.1 * number, -0.5, 1.5) for number in range(9)]
    figure, caption = drawing(variants([*rows, question_row("baseline", "sigmoid", 68.2, 66.0, 70.4)], {}))
    assert figure.axes[0].get_xlim()[1] < 3
    assert "+68.20" in words(figure)
    assert "Beyond the axis: sigmoid +68.20." in caption


def test_an_axis_holds_the_papers_figures_and_no_effect() -> None:
    lines = [
        Line("a", Interval(3, 1.0, 0.9, 1.1), True, "", paper=6.0),
        Line("b", Interval(3, 1.2, 1.1, 1.3), True, ""),
    ]
    low, high = limits(Panel(lines, ""))
    assert low < 0
    assert high > 6
    low, high = limits(Panel([Line("a", Interval(3, 4.0, 2.0, math.inf), True, "", paper=0.5)], "", ratio=True))
    assert 0 < low < 0.5
    assert 4 < high < 10


# ---- curves


def test_curves_show_the_claims_main_variants_with_drops_and_last_errors() -> None:
    made = results(fake_params())
    figure, caption = drawing(curves(made))
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == ["baseline", "no dropout", "no response norm", "non overlapping pooling", "as coded", "tuned"]
    last = made.histories.query(f"variant == 'no_dropout' and epoch == {EPOCHS}")["val_error_top1"].mean()
    assert f"no_dropout {last:.1f} / " in caption
    drops = next(line for line in figure.axes[0].lines if line.get_marker() == "v")
    assert sorted(drops.get_xdata()) == [5, 5, 9, 9]


def test_a_curve_is_the_mean_over_the_seeds_in_a_band_from_the_lowest_to_the_highest() -> None:
    made = results(fake_params())
    figure, _ = drawing(curves(made))
    (panel,) = [axes for axes in figure.axes if axes.get_title() == "no dropout"]
    by_epoch = made.histories.query("variant == 'no_dropout'").groupby("epoch")
    for column, name in (("val_error_top1", "validation"), ("train_error_top1", "training (mean over the epoch)")):
        (line,) = [line for line in panel.lines if line.get_label() == name]
        np.testing.assert_allclose(line.get_ydata(), by_epoch[column].mean())
        (band,) = [band for band in panel.collections if same_color(band.get_facecolor()[0], line.get_color())]
        corners = band.get_paths()[0].vertices
        edges = [corners[corners[:, 0] == epoch, 1] for epoch in by_epoch.groups]
        np.testing.assert_allclose([edge.min() for edge in edges], by_epoch[column].min())
        np.testing.assert_allclose([edge.max() for edge in edges], by_epoch[column].max())


def test_a_run_that_stopped_early_keeps_its_last_error_and_a_missing_one_is_counted() -> None:
    made = results(fake_params())
    early = made.histories.query("not (variant == 'no_dropout' and (seed == 1 or seed == 2 and epoch > 3))")
    figure, caption = drawing(curves(replace(made, histories=early)))
    assert "no dropout\n(2 of 3 seeds)" in {axes.get_title() for axes in figure.axes}
    kept = early[early["variant"] == "no_dropout"].groupby("seed")["val_error_top1"].last().mean()
    assert f"no_dropout {kept:.1f} / " in caption


def test_curves_of_runs_that_lost_their_numbers_are_drawn() -> None:
    made = results(fake_params())
    histories = made.histories[made.histories["variant"] != "baseline"].copy()
    histories.loc[histories["variant"] == "tuned", ["train_error_top1", "val_error_top1"]] = math.nan
    _, caption = drawing(curves(replace(made, histories=histories)))
    assert "tuned – / –" in caption


# ---- the race of Figure 1

RACE = {"four_layer_relu": [4.0, 5, 6], "four_layer_tanh": [20.0, 30, 25], "four_layer_sigmoid": [math.inf] * 3}


@pytest.mark.parametrize(
    ("relu", "tanh", "title"),
    [
        ([4, 5, 6], [20, 30, 25], "tanh takes 5.0 times ReLU's epochs (medians 25 and 5)"),
        ([4, 5, 6], [20, math.inf, 25], "tanh takes 5.0 times ReLU's epochs (medians 25 and 5)"),
        ([4, 5, 6], [20, math.inf, math.inf], "tanh takes at least 8.0 times ReLU's epochs (medians 40 and 5)"),
        ([math.inf, 5, math.inf], [20, 10, 20], "tanh takes at most 0.5 times ReLU's epochs (medians 20 and 40)"),
        ([math.inf], [math.inf], "neither median run reached 25 %"),
    ],
)
def test_figure_1_is_titled_with_the_ratio_of_median_epochs(relu: list[float], tanh: list[float], title: str) -> None:
    figure, caption = drawing(figure1(racers({"four_layer_relu": relu, "four_layer_tanh": tanh})))
    assert [axes.get_title().replace("\n", " ") for axes in figure.axes] == [title]
    assert title in caption


def test_figure_1_marks_each_seed_where_it_arrived_or_ended() -> None:
    figure, caption = drawing(figure1(racers(RACE)))
    main, others = figure.axes
    assert [line.get_marker() for line in main.lines if line.get_marker() != "None"] == ["o"] * 6
    assert [line.get_marker() for line in others.lines if line.get_marker() != "None"] == ["x"] * 3
    assert "four_layer_sigmoid over 40 (3 of 3 seeds never)" in caption


def test_figure_1_draws_the_median_run_up_to_the_goal() -> None:
    figure, _ = drawing(figure1(racers({"four_layer_relu": [4.0, 5, 39], "four_layer_tanh": [20.0, 30, 25]})))
    relu, tanh = (line for line in figure.axes[0].lines if line.get_linewidth() == 3)
    np.testing.assert_allclose(relu.get_ydata(), [90 - 13 * epoch for epoch in range(1, 6)])
    np.testing.assert_allclose(tanh.get_ydata(), [90 - 65 * epoch / 25 for epoch in range(1, 26)])


def test_figure_1_needs_both_arms() -> None:
    made = racers({"four_layer_relu": [4], "four_layer_tanh": [20]})
    without = made.histories[made.histories["variant"] == "four_layer_relu"]
    assert isinstance(figure1(replace(made, histories=without)), str)


# ---- Optuna's landscapes


def test_a_landscape_shows_complete_pruned_best_and_untuned_and_leaves_out_what_was_cut_off() -> None:
    figure, caption = drawing(landscape(results(fake_params(), trials={"baseline": TRIALS}), "baseline"))
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert {"complete", "pruned", "before tuning", "best", "19.8"} <= words(figure)
    assert sum(len(points.get_offsets()) for points in axes.collections) == 4
    assert "3 complete trials" in caption
    assert "from 19.8 to 90, beside 1 pruned" in caption
    assert "19.8 at a learning rate of 0.02 and a weight decay of 0.001" in caption


def test_a_study_of_the_rate_alone_shows_the_epochs_it_takes() -> None:
    figure, caption = drawing(landscape(results(fake_params(), trials={"baseline": RATES}), "baseline"))
    axes = figure.axes[0]
    assert axes.get_ylabel() == "epochs to 25 % training error"
    assert {"complete", "ended without getting there", "pruned", "7"} <= words(figure)
    pruned = next(points for points in axes.collections if points.get_label() == "pruned")
    assert pruned.get_offsets().tolist() == [[0.05, 7]]
    assert "7 at a learning rate of 0.01;" in caption


def test_a_study_without_a_complete_trial_is_named_as_missing() -> None:
    for trials in (TRIALS[:0], TRIALS[TRIALS["state"] != "COMPLETE"]):
        assert isinstance(landscape(results(fake_params(), trials={"baseline": trials}), "baseline"), str)


def many_trials(complete: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    points = 10 ** rng.uniform((-3, -5), (-1, -2), (complete, 2))
    pruned = ("PRUNED", 0.03, 1e-4, 70.0, 4)
    return study(*(("COMPLETE", lr, decay, 20 + k, 10) for k, (lr, decay) in enumerate(points)), pruned)


def test_each_tuned_value_is_drawn_by_itself_where_there_are_enough_complete_trials(tmp_path: Path) -> None:
    few, enough = (results(fake_params(), root=tmp_path, trials={"baseline": many_trials(n)}) for n in (7, 8))
    assert not can_be_sliced(few, "baseline")
    assert not can_be_sliced(results(fake_params(), trials={"baseline": RATES}), "baseline")
    assert can_be_sliced(enough, "baseline")
    figure, caption = drawing(slices(enough, "baseline"))
    drawn = many_trials(8)[:8]
    for axes, name in zip(figure.axes, ("lr", "weight_decay"), strict=False):
        np.testing.assert_allclose(axes.collections[0].get_offsets(), drawn[[name, "value"]])
    assert {"learning rate", "weight decay"} <= words(figure)
    assert "importance" not in words(figure)
    assert "8 complete trials" in caption


def test_the_importance_that_a_study_found_stands_beside_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    made = results(fake_params(), root=tmp_path, trials={"baseline": many_trials(20)})
    folder = tmp_path / paths.tune(made.params.scale, "baseline")
    folder.mkdir(parents=True)
    (folder / "importance.csv").write_text("value,share\nlr,0.9\nweight_decay,0.1\n")
    write_sums(folder, "importance.csv")
    figure, caption = drawing(slices(made, "baseline"))
    assert "importance" in words(figure)
    assert caption.endswith("learning rate 0.90; weight decay 0.10.")
    (folder / "importance.csv").write_text("value,share\nlr,0.1\nweight_decay,0.9\n")
    figure, _ = drawing(slices(made, "baseline"))
    assert "importance" not in words(figure)
    assert "importance.csv" in made.missing[0]


def test_trials_that_all_did_alike_are_drawn() -> None:
    drawing(landscape(results(fake_params(), trials={"baseline": TRIALS.assign(value=0.0)}), "baseline"))


# ---- the net


@pytest.mark.parametrize(("kernels", "columns", "blocks"), [(24, "two", 2), (96, "separate", 2), (48, "joined", 1)])
def test_filters_lie_in_one_block_for_each_column(tmp_path: Path, kernels: int, columns: str, blocks: int) -> None:
    params = fake_params()
    params = params.model_copy(update={"net": params.net.model_copy(update={"towers": columns})})
    write_fake_runs(tmp_path, params)
    weights = np.random.default_rng(0).normal(0, 0.01, (kernels, 3, 11, 11)).astype(np.float32)
    weights[: kernels // 2] = weights[: kernels // 2].mean(1, keepdims=True)
    for seed in params.seeds:
        save_file({"conv1.weight": weights}, tmp_path / paths.seed("fake", "baseline", seed) / "model.safetensors")
    made = collect(params, tmp_path)
    figure, caption = drawing(filters(replace(made, meta={**made.meta, "channels": 3})))
    assert len(figure.axes) == blocks
    assert f"The {kernels} filters of conv1, 11 × 11 pixels" in caption
    assert ("Color holds 0 % and 6" in caption) == (blocks == 2)


def test_filters_of_nets_that_saw_grey_images_are_drawn_grey(tmp_path: Path) -> None:
    write_fake_runs(tmp_path, fake_params())
    figure, caption = drawing(filters(collect(fake_params(), tmp_path)))
    for axes in figure.axes:
        drawn = np.asarray(axes.images[0].get_array())
        assert np.allclose(drawn, drawn.mean(-1, keepdims=True))
        assert drawn.std() > 0.1
    assert "Color holds" not in caption


def test_examples_say_what_was_taken_for_what(tmp_path: Path) -> None:
    write_fake_runs(tmp_path, fake_params())
    figure, caption = drawing(examples(collect(fake_params(), tmp_path)))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [title[0] for title in titles] == ["✓"] * 4 + ["✗"] * 4
    assert caption.count(" taken for ") == 4


def test_examples_of_fewer_than_five_classes_are_drawn(tmp_path: Path) -> None:
    write_fake_runs(tmp_path, fake_params())
    path = tmp_path / paths.evaluation("fake", "baseline") / "predictions.parquet"
    pd.read_parquet(path).drop(columns=["top5", "p5"]).to_parquet(path)
    _, caption = drawing(examples(collect(fake_params(), tmp_path)))
    assert "the 4 labels" in caption
