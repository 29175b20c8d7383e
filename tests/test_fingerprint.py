"""What makes two runs the same run."""

import ast
from pathlib import Path

import pytest

from pipeline.data.store import Store
from pipeline.models import MODULES
from pipeline.paper.net import paper_net
from pipeline.paper.small_nets import small_nets
from pipeline.params import Net, Recipe, Settings, Train
from pipeline.runtime import source_code
from pipeline.training import fingerprint as module
from pipeline.training.fingerprint import DECIDE_NOTHING, code, fingerprint
from pipeline.training.run import Run
from tests.processes import python
from tests.tiny import CPU, a_run, make_store, settings


def test_settings_seed_data_and_the_order_of_sums_tell_runs_apart_and_names_do_not(store: Store) -> None:
    same = [a_run(store), Run("embedded", "renamed", "4", 0, settings(), store, CPU)]
    same += [a_run(store, hardware=CPU.model_copy(update={"workers": 5}))]
    same += [a_run(make_store(Path("more"), test=36))]  # test images are none of a run's
    assert len({run.fingerprint for run in same}) == 1
    others = [
        a_run(store, seed=1),
        a_run(store, net={"pool_px": 2}),
        a_run(store, recipe={"lrn_alpha": "coded"}),
        a_run(make_store(Path("other training images"), train=52)),
        a_run(make_store(Path("other validation images"), val=24)),
        *(
            a_run(store, hardware=CPU.model_copy(update=more))
            for more in ({"threads": 2}, {"devices": 2}, {"nodes": 3})
        ),
        a_run(store, hardware=CPU.model_copy(update={"compile": True})),
    ]
    assert len({run.fingerprint for run in [*same, *others]}) == 1 + len(others)


def test_a_gpus_runs_are_others_than_a_cpus(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = a_run(store).fingerprint
    monkeypatch.setattr(module, "kind_of_device", lambda _: "gpu")
    assert a_run(store).fingerprint != before


def test_a_setting_at_its_default_is_as_one_that_there_was_not_yet(store: Store) -> None:
    class LaterNet(Net):
        squeeze: bool = False

    class Later(Settings):
        net: LaterNet

    chosen = settings()
    later = Later(net=LaterNet(**chosen.net.model_dump()), recipe=chosen.recipe, train=chosen.train)
    assert fingerprint(later, 0, store, CPU) == fingerprint(chosen, 0, store, CPU)
    changed = later.model_copy(update={"net": later.net.model_copy(update={"squeeze": True})})
    assert fingerprint(changed, 0, store, CPU) != fingerprint(chosen, 0, store, CPU)


def test_the_defaults_are_the_papers_and_who_changes_one_raises_the_fingerprints_version() -> None:
    assert module.VERSION == 2
    assert Net().model_dump() == {
        "architecture": "alexnet", "crop_px": 227, "width": 1.0, "towers": "two", "removed_layer": None,
        "match_params": False, "activation": "relu", "norm_layers": ["conv1", "conv2"], "pool_px": 3,
        "pool_shapes": "equal", "dropout_layers": ["fc6", "fc7"], "initialization": "paper", "hidden_bias": 1.0,
        "input_divisor": 1.0,
    }  # fmt: skip
    assert Train().model_dump() == {
        "epochs": 90, "batch_images": 128, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005, "optimizer": "paper",
        "warmup_epochs": 0, "schedule": "plateau", "lr_drops": 3, "patience_epochs": 5, "drop_at": [],
        "stop_at_train_error": None, "random_crop": True, "hflip": True, "pca_jitter_std": 0.1, "precision": "32-true",
    }  # fmt: skip
    assert set(Recipe().model_dump().values()) == {"printed"}


def test_every_module_that_training_loads_is_covered_but_those_that_decide_no_number() -> None:
    command = "import sys, pipeline.training.run, pipeline.models.alexnet; print(*sys.modules)"
    modules = {name for name in python("-c", command).stdout.split() if name.startswith("pipeline.")}
    packages = {f"pipeline.{name}" for name in ("data", "paper", "runtime", "training")}
    assert modules - packages - set(DECIDE_NOTHING) == set(code("alexnet"))
    assert {"pipeline.models.alexnet", "pipeline.training.optimizer", "pipeline.data.loader"} <= set(code("alexnet"))


@pytest.mark.parametrize("architecture", ["alexnet", "conv_local_13"])
def test_a_layer_table_decides_the_runs_of_its_own_net_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    crop = {"alexnet": 67, "conv_local_13": 24}
    runs = {
        name: a_run(store, net={"architecture": name, "crop_px": px, "dropout_layers": []}) for name, px in crop.items()
    }
    before = {name: run.fingerprint for name, run in runs.items()}
    if architecture == "alexnet":
        net = paper_net()
        changed = net.model_copy(update={"layers": net.layers[::-1]})
        monkeypatch.setattr(module, "paper_net", lambda: changed)
    else:
        nets = small_nets()
        changed_nets = nets | {architecture: nets[architecture].model_copy(update={"layers": []})}
        monkeypatch.setattr(module, "small_nets", lambda: changed_nets)
    again = {name: fingerprint(run.settings, 0, store, run.hardware) for name, run in runs.items()}
    assert {name for name in crop if again[name] != before[name]} == {architecture}


def test_another_architecture_changes_no_run_of_the_papers_net(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pipeline.models.small_nets" not in code("alexnet")
    assert "pipeline.models.small_nets" in code("four_layer")
    before = code("alexnet")
    monkeypatch.setitem(MODULES, "resnet", "pipeline.models.resnet")
    assert code("alexnet") == before


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one module, which the checksum is taken of."""
    (tmp_path / "pipeline").mkdir()
    monkeypatch.setattr(source_code, "ROOT", tmp_path)
    return tmp_path / "pipeline/net.py"


CODE = '"""A net."""\nK = 2.0  # section 3.3\n\n\ndef norm(x):\n    """Normalize."""\n    return x / (K + x)\n'


def checksum(path: Path, text: str) -> dict[str, str]:
    path.write_text(text)
    source_code.code_of.cache_clear()
    return source_code.code_of(("pipeline.net",), frozenset())


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A net.", "The net of the paper.", True),
        ("  # section 3.3", "  # k (section 3.3)", True),
        ('    """Normalize."""\n', "", True),
        ("x / (K + x)", "(x\n            / (K + x))", True),
        ("2.0", "2", False),
        ("x / (K + x)", "x / (K - x)", False),
        ("2.0", "'2.0'", False),
    ],
)
def test_rewording_changes_nothing_and_a_number_does(edited: Path, old: str, new: str, same: bool) -> None:
    before = checksum(edited, CODE)
    assert CODE.count(old) == 1
    assert (checksum(edited, CODE.replace(old, new)) == before) == same


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse("import os\nfrom pipeline import paths\ndef f():\n    from pipeline.paper.net import shapes\n")
    assert sorted(source_code.imported(tree)) == ["pipeline.paper.net", "pipeline.paths"]
