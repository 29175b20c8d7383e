"""ImageNet in miniature, in the very form of its archives and of what others made of them."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pipeline.data.sources import imagenet
from tests.downloads import tar

# In the kit's order, which is not that of the WNIDs; two of them are cranes.
WNIDS = ["n02119789", "n01440764", "n03126707", "n02012849", "n04254680"]
WORDS = ["kit fox, Vulpes macrotis", "tench, Tinca tinca", "crane", "crane", "soccer ball"]
NAMES = ["kit fox", "tench", "crane (n03126707)", "crane (n02012849)", "soccer ball"]
TRAIN = [7, 5, 6, 8, 9]
NUMBERS = (10026, 3, 211, 40, 5001, 77, 9, 600, 12)  # as in the real names: neither padded nor in a row
PER_CLASS = {"val": 4, "test": 6}
SETS = {"imagenet2012": ("val",), "imagenet2010": ("val", "test")}


@dataclass
class Tiny:
    """A contest's images: their bytes by name, for training by WNID too; and the kit's IDs of the others."""

    dataset: str
    train: dict[str, dict[str, bytes]]
    flat: dict[str, dict[str, bytes]]
    ids: dict[str, list[int]]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.dataset.replace("imagenet", "ILSVRC")


def tiny(dataset: str) -> Tiny:
    train = {
        wnid: {f"{wnid}_{number}.JPEG": picture(label, row) for row, number in enumerate(NUMBERS[: TRAIN[label]])}
        for label, wnid in enumerate(WNIDS)
    }
    ids, flat = {}, {}
    for split in SETS[dataset]:
        order = np.random.default_rng(1).permutation(np.repeat(np.arange(len(WNIDS)), PER_CLASS[split]))
        ids[split] = [int(label) + 1 for label in order]
        name = f"{dataset.replace('imagenet', 'ILSVRC')}_{split}_{{:08d}}.JPEG"
        flat[split] = {name.format(row + 1): picture(int(label), row) for row, label in enumerate(order)}
    return Tiny(dataset, train, flat, ids)


def picture(label: int, number: int) -> bytes:
    """Of one color, which tells label and number."""
    file = io.BytesIO()
    Image.new("RGB", (20 + number % 30, 50 - number % 30), (40 * label, 5 * number, 100)).save(file, "JPEG", quality=92)
    return file.getvalue()


def publish(patch: pytest.MonkeyPatch, dataset: str, folder: Path) -> None:
    """The numbers of the tiny contest take the place of the real ones'."""
    images = {"train": sum(TRAIN), **{split: len(WNIDS) * PER_CLASS[split] for split in SETS[dataset]}}
    table = folder / "classes.txt"
    lines = (f"{wnid} {count} {words}\n" for wnid, count, words in zip(WNIDS, TRAIN, WORDS, strict=True))
    table.write_text("".join(lines))
    contest = imagenet.CONTESTS[dataset]
    changed = replace(contest, images=images, table=contest.table and table)
    patch.setitem(imagenet.CONTESTS, dataset, changed)


def write_tar(path: Path, contents: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar(contents))
    return path


def write_files(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def meta_mat(name: str) -> bytes:
    """As the kit's: synsets in order of their IDs, those without children first."""
    fields = [f"{name}_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
    none, entity = np.empty((1, 0), np.uint8), np.array([[1, 2, 3, 4, 5]], np.uint8)
    rows: list[tuple[Any, ...]] = [
        (label + 1, wnid, words, "what it is", 0, none, 0, count)
        for label, (wnid, words, count) in enumerate(zip(WNIDS, WORDS, TRAIN, strict=True))
    ]
    rows.append((len(rows) + 1, "n00001740", "entity", "all there is", 5, entity, 19, 0))
    synsets = np.array(rows, [(field, object) for field in fields]).reshape(-1, 1)
    file = io.BytesIO()
    savemat(file, {"synsets": synsets} | ({"cost_matrix": np.ones((5, 5))} if name == "ILSVRC2010" else {}))
    return file.getvalue()


def kit(data: Tiny) -> dict[str, bytes]:
    truth = {
        f"{data.name}_{'validation' if split == 'val' else split}_ground_truth.txt": "".join(f"{id_}\n" for id_ in ids)
        for split, ids in data.ids.items()
    }
    return {"meta.mat": meta_mat(data.name)} | {name: content.encode() for name, content in truth.items()}


def write_kit(folder: Path, data: Tiny) -> None:
    archive, unpacked = imagenet.CONTESTS[data.dataset].kit
    files = {f"{unpacked}/data/{name}": content for name, content in kit(data).items() if "test" not in name}
    (folder / archive).write_bytes(tar({f"{unpacked}/readme.txt": b"about"} | files, compression="gz"))
    for name, content in kit(data).items():
        if "test" in name:  # was published later, by itself
            (folder / name).write_bytes(content)


def archives(folder: Path, data: Tiny) -> None:
    folder.mkdir()
    write_kit(folder, data)
    name = imagenet.CONTESTS[data.dataset].archive
    classes = {f"{wnid}.tar": tar(images) for wnid, images in sorted(data.train.items(), reverse=True)}
    write_tar(folder / name.format("train"), classes)
    for split, images in data.flat.items():
        within = "" if split == "val" and data.name == "ILSVRC2012" else f"{split}/"
        write_tar(folder / name.format(split), {within + file: images[file] for file in sorted(images, reverse=True)})


def archives_and_unpacked_kit(folder: Path, data: Tiny) -> None:
    archives(folder, data)
    archive, unpacked = imagenet.CONTESTS[data.dataset].kit
    (folder / archive).unlink()
    write_files(folder / unpacked / "data", kit(data))


def class_folders(folder: Path, data: Tiny) -> None:
    for wnid, images in data.train.items():
        write_files(folder / "train" / wnid, images)
    for split, images in data.flat.items():
        for (name, content), id_ in zip(images.items(), data.ids[split], strict=True):
            write_files(folder / split / WNIDS[id_ - 1], {name: content})
    if data.name == "ILSVRC2010":
        write_kit(folder, data)


def unpacked_archives(folder: Path, data: Tiny) -> None:
    """Training images in class folders, the others as they came."""
    for wnid, images in data.train.items():
        write_files(folder / "train" / wnid, images)
    for split, images in data.flat.items():
        write_files(folder / split, images)
    write_kit(folder, data)


def kaggle(folder: Path, data: Tiny) -> None:
    root = folder / "ILSVRC/Data/CLS-LOC"
    for wnid, images in data.train.items():
        write_files(root / "train" / wnid, images)
    write_files(root / "val", data.flat["val"])
    write_files(root / "test", {"ILSVRC2012_test_00000001.JPEG": picture(0, 0)})  # whose labels nobody knows
    lines = [
        f"{Path(name).stem},{WNIDS[id_ - 1]} 1 2 30 40 {WNIDS[id_ - 1]} 5 6 7 8 "
        for name, id_ in zip(data.flat["val"], data.ids["val"], strict=True)
    ]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(lines)]) + "\n")


LAYOUTS: dict[str, list[Callable[[Path, Tiny], None]]] = {
    "imagenet2012": [archives, archives_and_unpacked_kit, unpacked_archives, kaggle, class_folders],
    "imagenet2010": [archives, archives_and_unpacked_kit, unpacked_archives, class_folders],
}
