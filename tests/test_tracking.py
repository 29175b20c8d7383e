"""MLflow read back through its own client."""

import json
import os
import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.cli import cli
from scipy import stats

from pipeline import paths
from pipeline.claims.results import collect
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.params import read_yaml
from pipeline.tracking import store as tracking
from pipeline.tracking import sync
from pipeline.tracking.model import downloaded
from pipeline.tracking.records import CURVES, describe
from pipeline.training.runs import announce, train_all
from pipeline.tuning import COLUMNS
from tests.clone import ROOT
from tests.mlflow_runs import assert_every_metric_is_there_once, client, stored_runs
from tests.processes import python
from tests.tiny import COUNTS, a_run, interrupt_after_an_epoch
from tests.tiny_params import evaluate_variant, tiny_params, train_variant

PERCENT_CODE = "100%41"

pytestmark = pytest.mark.usefixtures("mlflow_tables")


def test_every_run_is_there_with_its_parameters_tags_and_curves(trained: Store) -> None:
    assert tracking.sync() == 2
    first, second = stored_runs()
    assert [run.info.run_name for run in (first, second)] == ["baseline seed 0", "baseline seed 1"]
    assert first.info.status == "FINISHED"
    assert first.data.params["train.lr"] == "0.01"
    assert first.data.params["net.norm_layers"] == "['conv1', 'conv2']"
    expected = {"scale": "smoke", "variant": "baseline", "kind": "training", "alexnet.dvc_stage": ""}
    assert expected.items() <= first.data.tags.items()
    for seed, run in enumerate((first, second)):
        facts = json.loads((paths.seed("smoke", "baseline", seed) / "run.json").read_text())
        assert (run.info.start_time, run.info.end_time) == (facts["started_ms"], facts["finished_ms"])
        assert run.data.tags["mlflow.source.git.commit"] == facts["origin"].get("revision", "")
        assert run.data.tags["alexnet.stopped"] == facts["stopped"]
    history = pd.read_csv(paths.seed("smoke", "baseline", 0) / "history.csv")
    for name in CURVES:
        curve = client().get_metric_history(first.info.run_id, name)
        assert [metric.step for metric in curve] == list(history["epoch"])
        assert [metric.value for metric in curve] == pytest.approx(list(history[name]))
        assert [metric.timestamp for metric in curve] == list(history["time_ms"])


def test_sending_twice_adds_nothing(trained: Store) -> None:
    tracking.sync()
    ids = [run.info.run_id for run in stored_runs()]
    assert tracking.sync() == 0
    client().set_tag(ids[0], tracking.SENT, "forgotten")  # as if the sending had been cut off before its last step
    assert tracking.sync() == 1
    assert [run.info.run_id for run in stored_runs()] == ids
    assert len(client().get_metric_history(ids[0], "val_loss")) == 3


def test_a_changed_parameter_is_a_new_run_beside_the_old_one(trained: Store) -> None:
    tracking.sync()
    train_variant(tiny_params(train={"lr": 0.02}), "baseline")
    tracking.sync()
    assert sorted(run.data.params["train.lr"] for run in stored_runs()) == ["0.01", "0.01", "0.02", "0.02"]


def test_what_evaluation_found_is_added_to_the_run_and_its_median_net_answers_as_the_trained_one(
    trained: Store,
) -> None:
    tracking.sync()
    evaluate_variant(tiny_params(), "baseline")
    tracking.sync()
    measured = json.loads((paths.evaluation("smoke", "baseline") / "seeds.json").read_text())
    first, second = stored_runs()
    for seed, of_seed in (("0", first), ("1", second)):
        shown = of_seed.data.metrics
        test, ten = measured[seed]["test"]["one_crop"], measured[seed]["test"]["ten_crop"]
        assert shown["test_error_top1"] == pytest.approx(test["error_top1"])
        assert shown["test_loss"] == pytest.approx(test["loss"])
        assert shown["test_error_top1_ten_crop"] == pytest.approx(ten["error_top1"])
        for split in ("train", "val"):  # whose curves have the shorter name
            whole = measured[seed][split]["one_crop"]["error_top1"]
            assert shown[f"{split}_error_top1_one_crop"] == pytest.approx(whole)
    assert measured["0"]["test"] != measured["1"]["test"]
    (model,) = mlflow.search_logged_models([first.info.experiment_id], output_format="list")
    run = client().get_run(model.source_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == str(collect(tiny_params(), Path()).median_seed("baseline"))
    seed = int(run.data.params["seed"])
    assert run.data.tags[tracking.MODEL] == str(paths.seed("smoke", "baseline", seed))
    answers = mlflow.pyfunc.load_model(model.model_uri).predict(np.array(trained.split("test").images[..., 0]))
    labels = [int(max(answer, key=answer.get).removeprefix("class ")) for answer in answers]
    error = 100 * float((np.array(labels) != trained.split("test").labels).mean())
    assert error == pytest.approx(measured[str(seed)]["test"]["ten_crop"]["error_top1"])


def test_a_run_that_scales_and_variants_share_is_one_run_that_names_them(trained: Store) -> None:
    same = tiny_params(scale="embedded").variants["baseline"]
    train_all(tiny_params(scale="embedded", variants={"baseline": same, "again": same}))
    tracking.sync()
    shared = [(run.info.run_name, run.data.tags["scale"], run.data.tags["variant"]) for run in stored_runs()]
    assert shared == [(f"baseline seed {seed}", "embedded, smoke", "baseline, again") for seed in (0, 1)]


def test_a_trial_on_its_way_has_the_name_that_its_study_gave_it(store: Store) -> None:
    run = replace(a_run(store), variant="baseline trial 3")
    announce(run, "trial")
    interrupt_after_an_epoch(run)
    run.lock.write_text(str(os.getpid()))
    tracking.Follower().look()
    (shown,) = stored_runs()
    assert (shown.info.run_name, shown.data.tags["kind"]) == ("baseline trial 3", "trial")


# ---- what MLflow's pages show of a run beside its numbers


def test_a_run_says_which_images_it_was_trained_and_tested_on(trained: Store) -> None:
    tracking.sync()
    run = stored_runs()[0]
    assert {name: value for name, value in run.data.params.items() if name.startswith("data.")} == {
        "data.dataset": "fashion_mnist",
        "data.image_size": "76",
        "data.channels": "1",
        **{f"data.{split}_images": str(count) for split, count in COUNTS.items()},
    }
    inputs = {item.tags[0].value: item.dataset for item in run.inputs.dataset_inputs}
    assert {context: data.name for context, data in inputs.items()} == {
        "training": "fashion_mnist train",
        "validation": "fashion_mnist val",
        "test": "fashion_mnist test",
    }
    assert all(0 < len(data.digest) <= 36 for data in inputs.values())
    assert len({data.digest for data in inputs.values()}) == 3


def test_the_report_is_a_run_of_its_own_to_which_the_others_link(trained: Store) -> None:
    figures = paths.report("smoke") / "figures"
    figures.mkdir(parents=True)
    (figures / "effects.png").write_bytes(b"a figure")
    (figures.parent / "report.html").write_text("<p>the report")
    tracking.sync()
    report = next(run for run in stored_runs() if run.data.tags["kind"] == "report")
    run_id, tags = report.info.run_id, report.data.tags
    assert (report.info.run_name, tags["scale"], tags["variant"]) == ("report smoke", "smoke", "all")
    written = max(path.stat().st_mtime for path in (figures / "effects.png", figures.parent / "report.html"))
    assert report.info.end_time == pytest.approx(1000 * written, abs=1)
    assert [file.path for file in client().list_artifacts(run_id)] == ["figures", "report.html"]
    assert [file.path for file in client().list_artifacts(run_id, "figures")] == ["figures/effects.png"]
    first = stored_runs()[0]
    assert f"/runs/{run_id}/artifacts/report.html)" in first.data.tags["mlflow.note.content"]
    assert client().list_artifacts(first.info.run_id) == []


def test_the_report_on_other_images_than_the_scales_own_is_the_one_that_params_yaml_names(trained: Store) -> None:
    for name, figure in (("smoke", "effects"), ("smoke_trees", "curves")):
        (paths.report(name) / "figures").mkdir(parents=True)
        (paths.report(name) / f"figures/{figure}.png").write_bytes(b"a figure")
    paths.PARAMS.write_text("{scale: smoke, report: smoke_trees}\n")
    tracking.sync()
    (report,) = (run for run in stored_runs() if run.data.tags["kind"] == "report")
    assert report.info.run_name == "report smoke_trees"
    assert [file.path for file in client().list_artifacts(report.info.run_id, "figures")] == ["figures/curves.png"]
    paths.PARAMS.write_text("{scale: embedded, report: embedded}\n")
    tracking.sync()
    assert "report smoke" in [run.info.run_name for run in stored_runs()]


def test_each_scale_has_its_report_among_the_runs(workplace: Path) -> None:
    for scale in ("embedded", "smoke"):
        (Path("runs") / scale / "train").mkdir(parents=True)
        paths.report(scale).mkdir(parents=True)
        (paths.report(scale) / "report.md").write_text(scale)
    tracking.sync()
    assert [run.info.run_name for run in stored_runs()] == ["report embedded", "report smoke"]


def test_a_description_is_the_variants_sentence_and_section(trained: Store) -> None:
    paths.VARIANTS.parent.mkdir()
    shutil.copy(ROOT / paths.VARIANTS, paths.VARIANTS)
    row = read_yaml(paths.VARIANTS)["no_dropout"]
    assert describe("no_dropout") == f"{row['description']}\n\nSection {row['section']} of the paper."


def test_the_model_is_named_registered_and_linked_to_its_errors(evaluated: Store) -> None:
    tracking.sync()
    version = client().get_model_version_by_alias("alexnet-smoke", "baseline")
    (model,) = mlflow.search_logged_models([stored_runs()[0].info.experiment_id], output_format="list")
    run = client().get_run(version.run_id)
    assert (model.name, version.source) == ("baseline", f"models:/{model.model_id}")
    linked = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    assert linked["test_error_top1"] == (run.data.metrics["test_error_top1"], "fashion_mnist test")
    measured = json.loads((paths.evaluation("smoke", "baseline") / "seeds.json").read_text())
    title, text = version.description.split("\n\n", 1)
    *_, trained_on, heading, errors, warning = text.split("\n\n")
    seed = run.data.params["seed"]
    assert title.startswith("AlexNet at a sixteenth of its width, variant `baseline` of the scale `smoke`, seed")
    assert text.startswith(f"{describe('baseline')}\n\n{trained_on}")
    assert trained_on == "It was trained on 48 images of Fashion-MNIST."
    assert heading.startswith("Top-1 error on the test images")
    lines = []
    for views in ("one_crop", "ten_crop"):
        both = [measured[seed]["test"][views]["error_top1"] for seed in ("0", "1")]
        half = stats.t.ppf(0.975, df=1) * np.std(both, ddof=1) / np.sqrt(2)
        own = measured[seed]["test"][views]["error_top1"]
        lines.append(f"- {views.replace('_', ' ')}: {own:.2f} %; {np.mean(both):.2f} ± {half:.2f} % over 2 seeds")
    assert errors.splitlines() == lines
    assert "decide nothing about people" in warning
    assert mlflow.pyfunc.load_model("models:/alexnet-smoke@baseline")
    client().set_tag(run.info.run_id, tracking.SENT, "forgotten")
    assert tracking.sync() == 1
    assert len(client().search_model_versions("name = 'alexnet-smoke'")) == 1


def test_a_study_shows_its_best_trial_and_a_pruned_trial_is_no_failure(workplace: Path) -> None:
    folder = paths.tune("smoke", "baseline")
    folder.mkdir(parents=True)
    rows = ["0,COMPLETE,0.01,0.0005,val_error_top1,30.5,2,1,40 31,1000,2000,a,me:1,s"]
    rows += ["1,PRUNED,0.09,0.001,val_error_top1,80,1,1,80,1000,2000,b,me:1,s"]
    rows += ["2,COMPLETE,0.02,0.003,val_error_top1,25.5,2,1,39 26,2000,3000,c,me:1,s"]
    rows += ["3,FAIL,,,val_error_top1,,0,,,1,2,d,,s"]
    rows += ["4,COMPLETE,0.02,0.003,val_error_top1,25.5,2,1,39 26,3000,4000,c,me:1,s"]  # trial 2, asked once more
    (folder / "trials.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    figures = paths.report("smoke") / "figures"
    figures.mkdir(parents=True)
    for name in ("tuning-baseline.png", "tuning-baseline-values.png", "tuning-baseline_of_another.png"):
        (figures / name).write_bytes(b"a figure")
    tracking.sync()
    runs = {run.info.run_name: run for run in stored_runs()}
    study = runs["tune smoke baseline"]
    assert study.data.metrics == {
        "best_val_error_top1": 25.5,
        "best_lr": 0.02,
        "best_weight_decay": 0.003,
        "trials": 3,
        "trials_pruned": 1,
    }
    shown = client().list_artifacts(study.info.run_id, "figures")
    assert {file.path for file in shown} == {"figures/tuning-baseline.png", "figures/tuning-baseline-values.png"}
    trials = {name: run for name, run in runs.items() if run is not study}
    assert sorted(trials) == ["baseline trial 0", "baseline trial 1 (pruned)", "baseline trial 4"]
    assert {(run.data.tags["scale"], run.data.tags["variant"]) for run in runs.values()} == {("smoke", "tune baseline")}
    curve = client().get_metric_history(trials["baseline trial 4"].info.run_id, "val_error_top1")
    assert sorted((point.step, point.value, point.timestamp) for point in curve) == [(1, 39, 4000), (2, 26, 4000)]
    assert {run.info.status for run in trials.values()} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in trials.values()} == {study.info.run_id}


# ---- a project folder that moves


@pytest.mark.parametrize("name", ["moved to another place", "50% #1? x=y&z;", PERCENT_CODE])
def test_in_a_folder_that_moved_figures_open_and_models_load(
    name: str, evaluated: Store, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = paths.report("smoke") / "figures"
    figures.mkdir(parents=True)
    (figures / "effects.png").write_bytes(b"a figure")
    sync.run(background=False)
    moved = workplace.with_name(name)
    workplace.rename(moved)
    monkeypatch.chdir(moved)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # in which MLflow, within a process, keeps the address
    capsys.readouterr()
    sync.run(background=False)
    assert "the project folder has moved" in capsys.readouterr().err
    mlflow.set_tracking_uri(paths.mlflow_store())
    (report,) = (run for run in stored_runs() if run.data.tags["kind"] == "report")
    figure = mlflow.artifacts.download_artifacts(run_id=report.info.run_id, artifact_path="figures/effects.png")
    assert Path(figure).read_bytes() == b"a figure"
    (model,) = mlflow.search_logged_models([report.info.experiment_id], output_format="list")
    for uri in ("models:/alexnet-smoke@baseline", model.model_uri):
        assert downloaded(uri).read_bytes()
        if name == PERCENT_CODE:  # MLflow's own loader decodes the path once more, whether or not the folder moved
            continue
        (answer,) = mlflow.pyfunc.load_model(uri).predict(np.full((1, 76, 76), 200, np.uint8))
        assert sum(answer.values()) == pytest.approx(1)
    sync.run(background=False)
    assert capsys.readouterr().err == ""


# ---- what somebody deleted in MLflow


def delete_experiment() -> None:
    client().delete_experiment(client().get_experiment_by_name(tracking.EXPERIMENT).experiment_id)


def assert_one_run_a_seed_with_its_curve_and_one_model() -> None:
    assert_every_metric_is_there_once()
    runs = stored_runs()
    models = mlflow.search_logged_models([runs[0].info.experiment_id], output_format="list")
    ids = [run.info.run_id for run in runs if tracking.MODEL in run.data.tags]
    assert [model.source_run_id for model in models] == ids


@pytest.fixture
def sent(evaluated: Store) -> None:
    tracking.sync()


def test_a_deleted_experiment_is_restored_with_its_runs_and_one_line_says_so(
    sent: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [run.info.run_id for run in stored_runs()]
    delete_experiment()
    train_variant(tiny_params(seeds=[2]), "baseline")
    capsys.readouterr()
    assert tracking.sync() == 1
    assert capsys.readouterr().err == "MLflow: the experiment alexnet had been deleted; it is restored with its runs\n"
    assert set(before) < {run.info.run_id for run in stored_runs()}
    assert tracking.sync() == 0


def test_a_deleted_run_is_made_again_and_stays_one_when_a_restored_experiment_brings_the_old_one_back(
    sent: None,
) -> None:
    (median,) = (run for run in stored_runs() if tracking.MODEL in run.data.tags)
    client().delete_run(median.info.run_id)
    assert tracking.sync() == 1
    assert median.info.run_id not in {run.info.run_id for run in stored_runs()}
    delete_experiment()
    tracking.sync()
    assert_one_run_a_seed_with_its_curve_and_one_model()


def test_an_experiment_that_was_deleted_for_good_is_made_anew(sent: None) -> None:
    delete_experiment()
    uri = paths.mlflow_store()
    assert CliRunner().invoke(cli, ["gc", "--backend-store-uri", uri], env={"MLFLOW_TRACKING_URI": uri}).exit_code == 0
    assert client().get_experiment_by_name(tracking.EXPERIMENT) is None
    assert tracking.sync() == 2
    assert_one_run_a_seed_with_its_curve_and_one_model()


def test_of_two_senders_that_restore_the_experiment_at_once_both_go_on(
    sent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_experiment()
    restore = mlflow.MlflowClient.restore_experiment

    def second(self: mlflow.MlflowClient, experiment: str) -> None:
        restore(self, experiment)  # the other sender's
        restore(self, experiment)

    monkeypatch.setattr(mlflow.MlflowClient, "restore_experiment", second)
    assert tracking.sync() == 0
    assert_one_run_a_seed_with_its_curve_and_one_model()


def test_where_restoring_is_not_allowed_the_message_has_the_command(
    sent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = stored_runs()[0].info.experiment_id
    delete_experiment()

    def refuse(*_: object) -> None:
        raise mlflow.MlflowException("Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "restore_experiment", refuse)
        with pytest.raises(UserError, match=r"this user cannot restore it \(Permission denied\)") as refused:
            tracking.sync()
    (command,) = re.findall(r"`(.+ mlflow .+?)`", str(refused.value))
    setting, program, *arguments = shlex.split(command)
    assert program == "mlflow"
    assert CliRunner().invoke(cli, arguments, env=dict([setting.split("=", 1)])).exit_code == 0
    assert stored_runs()[0].info.experiment_id == experiment


# ---- what messages say


def test_a_database_of_another_mlflow_is_one_line_that_keeps_mlflows_own_remedy(sent: None) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("update alembic_version set version_num = '451aebb31d03'")
    done = python("-m", "pipeline", "sync")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: sqlite:///")
    assert "run 'mlflow db upgrade <database_uri>'" in line
    assert "consult your database's documentation for more detail" in line  # the last that MLflow says of it
    assert line.endswith("`alexnet sync` fills it from the files once it is back")


def test_a_folder_as_the_store_is_refused_with_mlflows_own_remedy(
    trained: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(UserError, match=r"set `MLFLOW_ALLOW_FILE_STORE=true` to opt out of this exception\.\); "):
        tracking.sync()


def test_no_message_has_an_addresss_password(
    trained: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    sync.run(background=True)
    warning = capsys.readouterr().err.splitlines()[-1]
    assert warning.startswith("warning: http://me:***@127.0.0.1:9: the MLflow store cannot be used")
    assert "secret" not in warning
