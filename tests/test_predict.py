"""From an image file to named classes: the command, the exported file and the model that MLflow serves."""

import json
import os
import re
import shutil
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline import params, paths
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.evaluation.image_classifier import ImageClassifier, of_run, read, write
from pipeline.tools import predict as module
from pipeline.tools.export import write_onnx
from pipeline.tools.predict import answers, chosen, predict
from tests.clone import write_params
from tests.processes import python
from tests.servers import free_port, running
from tests.tiny import make_store
from tests.tiny_params import LEARNS, alone_in, evaluate_variant, tiny_params

RUN = "runs/smoke/train/baseline/seed-0"
CONFIGURED = tiny_params(**LEARNS)


@pytest.fixture(scope="module")
def evaluated_once(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the baseline that learned in part has been evaluated, too."""
    folder = Path(shutil.copytree(learned, tmp_path_factory.mktemp("evaluated"), dirs_exist_ok=True))
    with pytest.MonkeyPatch.context() as patch:
        alone_in(folder, patch)
        evaluate_variant(CONFIGURED, "baseline")
    return folder


@pytest.fixture
def configured(evaluated_once: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of it, whose params.yaml says so."""
    shutil.copytree(evaluated_once, workplace, dirs_exist_ok=True)
    monkeypatch.setattr(params, "load", lambda: CONFIGURED)
    return Store.open(workplace / "prepared/fashion_mnist")


def measured(views: str) -> pd.DataFrame:
    """What evaluation found of the test images with seed 0."""
    table = pd.read_parquet("runs/smoke/evaluation/baseline/predictions.parquet")
    return table[(table["seed"] == 0) & (table["split"] == "test") & (table["views"] == views)].sort_values("index")


def files(store: Store, form: str, **options: Any) -> list[Path]:
    """The test images as files."""
    Path("photos").mkdir()
    paths_ = []
    for number, image in enumerate(store.split("test").images[..., 0]):
        paths_.append(Path(f"photos/{number:02}.{form}"))
        Image.fromarray(image).save(paths_[-1], **options)
    return paths_


@pytest.mark.parametrize(("crops", "views"), [(1, "one_crop"), (10, "ten_crop")])
def test_of_png_files_it_says_what_evaluation_found_of_the_images(configured: Store, crops: int, views: str) -> None:
    found = answers(files(configured, "png"), of_run(Path(RUN), configured, crops))
    expected = measured(views)
    assert len(found) == len(expected) == 28
    for answer, (_, row) in zip(found, expected.iterrows(), strict=True):
        assert list(answer.labels) == [f"class {row[f'top{k}']}" for k in range(1, 5)]
        assert list(answer.labels.values()) == pytest.approx([row[f"p{k}"] for k in range(1, 5)], abs=1e-6)
    assert len(set(expected["top1"])) > 1


def test_a_jpeg_of_twice_the_size_gets_nearly_always_the_same_label(configured: Store) -> None:
    Path("photos").mkdir()
    large = []
    for number, image in enumerate(configured.split("test").images[..., 0]):
        large.append(Path(f"photos/{number:02}.jpg"))
        Image.fromarray(image).resize((152, 152), Image.Resampling.BILINEAR).save(large[-1], quality=90)
    found = answers(large, of_run(Path(RUN), configured, crops=1))
    labels = [f"class {label}" for label in measured("one_crop")["top1"]]
    same = sum(next(iter(answer.labels)) == label for answer, label in zip(found, labels, strict=True))
    assert same >= 0.9 * len(labels)


def test_an_exported_file_answers_as_its_run_wherever_it_lies(configured: Store, tmp_path: Path) -> None:
    photos = files(configured, "png")[:3]
    write(of_run(Path(RUN), configured), tmp_path / "net.safetensors")
    elsewhere = read(tmp_path / "net.safetensors")
    assert elsewhere.classes == ["class 0", "class 1", "class 2", "class 3"]
    assert answers(photos, elsewhere) == answers(photos, of_run(Path(RUN), configured))


def test_a_color_photograph_is_seen_by_a_net_for_gray_images_as_pillow_makes_it_gray(configured: Store) -> None:
    classifier = of_run(Path(RUN), configured)
    pixels = np.random.default_rng(0).integers(0, 256, (76, 76, 3), np.uint8)
    Image.fromarray(pixels).save("color.png")
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.abs(module.photograph(Path("color.png"), classifier)[..., 0].astype(int) - gray).max() <= 1


def test_the_answer_names_the_classes_that_the_net_knows(configured: Store) -> None:
    photo = str(files(configured, "png")[3])
    text = predict([photo], RUN, crops=10, as_json=False)
    assert re.match(rf"{photo}\n +\d+\.\d %  class \d\n", text)
    assert text.endswith(f"{RUN} knows 4 classes of gray images and nothing else: class 0, class 1, class 2, class 3.")
    (answer,) = json.loads(predict([photo], RUN, crops=10, as_json=True))
    assert answer["file"] == photo
    assert sum(answer["labels"].values()) == pytest.approx(1)


def test_without_a_name_it_is_the_baselines_net_of_median_validation_error(configured: Store) -> None:
    photo = str(files(configured, "png")[0])
    seeds = json.loads(Path("runs/smoke/evaluation/baseline/seeds.json").read_text())
    errors = {seed: of_seed["val"]["one_crop"]["error_top1"] for seed, of_seed in seeds.items()}
    median = min(errors, key=lambda seed: (errors[seed], seed))  # of two, the lower
    assert f"runs/smoke/train/baseline/seed-{median} knows" in predict([photo], None, crops=1, as_json=False)


def spoiled(content: bytes) -> Callable[[], list[str]]:
    def make() -> list[str]:
        Path("spoiled.png").write_bytes(content)
        return ["spoiled.png", RUN]

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (spoiled(b"no image at all"), r"spoiled.png: is none of JPEG, PNG, .*; accepted is an image file"),
        (spoiled(b""), r"spoiled.png: is none of JPEG, PNG, .*; accepted is an image file"),
        (lambda: ["absent.png", RUN], r"absent.png: cannot be read \(No such file or directory\)"),
        (lambda: ["x.png", "runs/smoke/train/baseline/seed-7"], r"seed-7: has no trained net .*`dvc repro` trains it"),
        (lambda: ["x.png", f"{RUN}/history.csv"], r"history.csv: has no trained net"),
        (lambda: ["x.png", "nowhere"], r"nowhere: has no trained net"),
        (
            lambda: ["x.png", "other.safetensors"],
            r"other.safetensors: is no file that `alexnet export` wrote \(.*header",
        ),
        (lambda: ["x.png", "gone.safetensors"], r"gone.safetensors: cannot be read"),
    ],
)
def test_what_is_no_image_or_no_net_is_one_line(configured: Store, make: Callable[[], list[str]], message: str) -> None:
    Path("other.safetensors").write_bytes(b"not tensors")
    photo, run = make()
    with pytest.raises(UserError, match=message) as refused:
        predict([photo], run, crops=1, as_json=False)
    assert "\n" not in str(refused.value)


def test_a_run_on_other_classes_is_refused(configured: Store) -> None:
    meta = json.loads(Path("prepared/fashion_mnist/meta.json").read_text())
    meta["classes"].append("class 4")
    Path("prepared/fashion_mnist/meta.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=r"is no run on the 5 classes of prepared/fashion_mnist \(.*size mismatch"):
        of_run(Path(RUN), Store.open(Path("prepared/fashion_mnist")))


def test_a_run_whose_images_were_replaced_is_neither_asked_nor_logged(configured: Store) -> None:
    from pipeline.tracking import model

    shutil.rmtree(configured.folder)
    make_store(configured.folder, train=20)
    with pytest.raises(UserError, match=r"prepared/fashion_mnist: holds other images than those that .*seed-0 was"):
        chosen(RUN, crops=1)
    assert not model.log("no run's", Path(RUN))
    shutil.rmtree(configured.folder)
    assert not model.log("no run's", Path(RUN))
    Path("runs/smoke/train/data.json").write_text("{}")
    with pytest.raises(UserError, match=r"runs/smoke/train/data.json: is damaged"):
        chosen(RUN, crops=1)


def test_the_command_answers_in_a_process_of_its_own(evaluated: Store) -> None:
    values = tiny_params().model_dump()
    write_params(Path(), values)
    photo = files(evaluated, "png")[0]
    done = python("-m", "pipeline", "predict", str(photo), "--json")
    assert len(json.loads(done.stdout)[0]["labels"]) == 4


# ---- as an ONNX file


@pytest.mark.slow
def test_onnx_runtime_and_torch_agree_on_the_test_images(configured: Store, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    classifier = of_run(Path(RUN), configured)
    assert write_onnx(classifier, tmp_path / "net.onnx") <= 1e-4
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    images = np.array(configured.split("test").images)
    (found,) = session.run(None, {"images": images.astype(np.float32)})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(found), classifier(torch.from_numpy(images)), rtol=0, atol=1e-4)
    assert session.get_modelmeta().custom_metadata_map["classes"].splitlines() == classifier.classes


# ---- as MLflow serves it


@pytest.fixture(scope="module")
def served() -> Any:
    from pipeline.tracking import served_model

    return served_model


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.random.default_rng(0).random((2, 76, 76, 3)), "no level is above .*, as if they had been divided by 255"),
        (np.random.default_rng(0).normal(0, 1, (2, 76, 76, 3)), "the levels run from -"),
        (np.full((2, 76, 76, 3), 256), "the levels run from 256 to 256"),
        (np.full((2, 76, 76, 3), 100.5), "there are fractions among the levels"),
        (np.full((2, 76, 76, 3), np.nan), "the levels run from nan to nan"),
        (np.full((76, 76), 100), r"the shape is \(76, 76\)"),
        (np.full((2, 76, 76, 4), 100), r"the shape is \(2, 76, 76, 4\)"),
        (np.full((0, 76, 76, 3), 100), r"the shape is \(0, 76, 76, 3\)"),
        (np.full((2, 76, 76, 3), "white"), "the type is <U5"),
    ],
)
def test_levels_on_another_scale_and_other_shapes_are_refused(served: Any, images: Any, found: str) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=f"{found}.*; accepted are images") as refused:
        served.checked(images)
    assert refused.value.get_http_status_code() == 400


def test_bytes_and_whole_floats_are_taken_in_gray_and_in_color(served: Any) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3), np.uint8)
    for images in (levels, levels.astype(np.int64), levels.astype(np.float32), levels.tolist()):
        np.testing.assert_array_equal(served.checked(images), levels)
    assert served.checked(levels[..., 0]).shape == (2, 8, 9, 1)


def test_a_photograph_of_another_size_is_cut_and_resized_as_its_file_would_be(served: Any, tmp_path: Path) -> None:
    classifier = ImageClassifier(torch.nn.Identity(), torch.zeros(76, 76, 3), tiny_params().settings("baseline"), [], 1)
    pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    expected = module.photograph(tmp_path / "wide.png", classifier)
    np.testing.assert_array_equal(served.square(pixels, 76), expected)


@pytest.mark.slow
def test_served_by_mlflow_it_gives_the_ten_crop_test_error_of_its_run(configured: Store, mlflow_tables: None) -> None:
    import mlflow

    from pipeline.tracking import store as tracking

    tracking.sync()
    (model,) = mlflow.search_logged_models(
        [mlflow.get_experiment_by_name("alexnet").experiment_id], output_format="list"
    )
    port = free_port()
    command = ["models", "serve", "-m", model.model_uri, "-p", str(port), "--env-manager", "local", "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    environment = {"MLFLOW_TRACKING_URI": paths.mlflow_store(), "PATH": path}
    with running([sys.executable, "-m", "mlflow", *command], f"http://127.0.0.1:{port}/health", environment):
        split = configured.split("test")
        run = mlflow.MlflowClient().get_run(model.source_run_id)
        seeds = json.loads(Path("runs/smoke/evaluation/baseline/seeds.json").read_text())
        expected = seeds[run.data.params["seed"]]["test"]["ten_crop"]["error_top1"]
        color = np.broadcast_to(split.images, (*split.images.shape[:3], 3))
        for body in ({"inputs": split.images[..., 0].tolist()}, {"instances": color.astype(float).tolist()}):
            answers_ = asked(port, body)
            labels = [int(max(answer, key=answer.get).removeprefix("class ")) for answer in answers_]
            assert 100 * np.mean(np.array(labels) != split.labels) == pytest.approx(expected)
        with pytest.raises(HTTPError) as refused:
            asked(port, {"inputs": (split.images[..., 0] / 255).tolist()})
        assert refused.value.code == 400
        assert "as if they had been divided by 255" in refused.value.read().decode()


def asked(port: int, body: dict[str, Any]) -> list[dict[str, float]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    answer: list[dict[str, float]] = json.loads(urllib.request.urlopen(request).read())["predictions"]
    return answer


def test_a_run_whose_files_a_stage_replaces_is_left_for_the_next_sending(configured: Store) -> None:
    from pipeline.tracking import model

    shutil.rmtree(RUN)
    with pytest.raises(FileNotFoundError):
        model.log("no run's", Path(RUN))
