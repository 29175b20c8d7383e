"""The image store that `prepare` writes: arrays that are read through memory maps, and what is known about them."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from pipeline import paths
from pipeline.errors import UserError
from pipeline.params import Strict
from pipeline.runtime.files import sha256, write_json

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
ARRAYS = (*(f"{split}/{kind}.npy" for split in SPLITS for kind in ("images", "labels")), "mean_image.npy")
TRAINED_ON = "data.json"  # beside the folders of the variants: what their runs were trained on
PART_BYTES = 1 << 30  # above it, an array's checksum is that of its parts' checksums

Three = Field(min_length=3, max_length=3)


class Skipped(Strict):
    """A file that could not be used."""

    file: str
    reason: str


class Meta(Strict):
    """The content of meta.json. It has no times and no paths, so that it is byte-identical on every machine."""

    dataset: str
    image_size: int = Field(ge=1)
    channels: Literal[1, 3]
    classes: list[str]
    counts: dict[SplitName, Annotated[int, Field(ge=1)]] = Three
    sources: dict[str, str]  # SHA-256 of each source file, or of the list of a folder's files
    rgb_eigenvectors: list[Annotated[list[float], Three]] = Three  # columns, by falling eigenvalue
    rgb_std: list[float] = Three  # square roots of the eigenvalues, in gray levels
    skipped: list[Skipped]
    sha256: dict[str, str]  # `checksum` of each array file

    def layout(self, array: str) -> tuple[type[np.generic], tuple[int, ...]]:
        """Return the element type and the shape of one of ARRAYS."""
        image = (self.image_size, self.image_size, self.channels)
        if array == "mean_image.npy":
            return np.float32, image
        split, kind = array.split("/")
        count = next(count for name, count in self.counts.items() if name == split)
        return (np.uint8, (count, *image)) if kind == "images.npy" else (np.int64, (count,))


@dataclass(frozen=True)
class Split:
    """One split's arrays."""

    images: NDArray[np.uint8]  # N x H x W x C, memory-mapped
    labels: NDArray[np.int64]  # N


@dataclass(frozen=True)
class Store:
    """A store that exists. Each array's checksum is compared before it is used."""

    folder: Path
    meta: Meta
    mean_image: NDArray[np.float32]  # H x W x C: mean of the train split at each pixel
    _whole: set[str] = field(default_factory=set, init=False, repr=False, compare=False)  # arrays whose sum is right

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a store without reading an image.

        Raises UserError unless every array is there, of full length, and as meta.json says.
        """
        meta = _read_meta(folder / "meta.json")
        arrays = {array: _map(folder / array, *meta.layout(array)) for array in ARRAYS}
        store = cls(folder, meta, np.array(arrays["mean_image.npy"]))
        store._verify("mean_image.npy")
        return store

    @classmethod
    def of_run(cls, folder: Path) -> Self:
        """Open the store that a run was trained on. `folder`: runs/<scale>/train/<variant>/seed-<k>.

        Raises UserError where it is not there, or where its images are others by now.
        """
        about = folder.absolute().parent.parent / TRAINED_ON
        try:
            facts = json.loads(about.read_text())
            dataset, expected = facts["dataset"], facts["sha256"]["mean_image.npy"]
        except OSError as error:
            raise UserError(
                f"{folder}: has no trained net ({about}: {error.strerror}); `dvc repro` trains it, and `dvc pull` "
                "fetches it from a remote"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{about}: is damaged ({error}); `dvc repro train` writes it again") from error
        store = cls.open(paths.data(dataset))
        if store.meta.sha256["mean_image.npy"] != expected:
            raise UserError(
                f"{store.folder}: holds other images than those that {folder} was trained on; prepare these again, or "
                "train on the new ones by `dvc repro`"
            )
        return store

    def split(self, name: SplitName) -> Split:
        """Return a split. The first time, its checksums are compared: that reads all images once, as an epoch does.

        Raises UserError where they differ.
        """
        images, labels = (f"{name}/{kind}.npy" for kind in ("images", "labels"))
        self._verify(images)
        self._verify(labels)
        return Split(
            _map(self.folder / images, *self.meta.layout(images)),
            np.array(_map(self.folder / labels, *self.meta.layout(labels))),
        )

    def _verify(self, array: str) -> None:
        if array not in self._whole:
            found = checksum(self.folder / array)
            if found != self.meta.sha256[array]:
                raise _damaged(self.folder / array, f"SHA-256 is {found}, accepted is {self.meta.sha256[array]}")
            self._whole.add(array)


def store_bytes(images: int, image_size: int, channels: int) -> int:
    """Return the size of all arrays: pixels and labels of so many images, and the mean image."""
    values = image_size**2 * channels
    return images * (values + 8) + 4 * values


def checksum(path: Path) -> str:
    """Return the SHA-256 of an array file. Above 1 GiB it is that of what `split -b 1G --filter=sha256sum` prints.

    All cores take part in the latter.
    """
    bytes_in_all = path.stat().st_size
    if bytes_in_all <= PART_BYTES:
        return sha256(path)
    content: Any = np.memmap(path, np.uint8, "r")  # a view of the file, which is not read as a whole
    with ThreadPoolExecutor() as pool:
        starts = range(0, bytes_in_all, PART_BYTES)
        parts = pool.map(lambda start: hashlib.sha256(content[start : start + PART_BYTES]).hexdigest(), starts)
        return hashlib.sha256("".join(f"{part}  -\n" for part in parts).encode()).hexdigest()


def _read_meta(path: Path) -> Meta:
    try:
        meta = Meta.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run `dvc repro prepare`") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"{key}: {first['msg']}" if key else first["msg"]) from error
    if set(meta.sha256) != set(ARRAYS):
        raise _damaged(path, f"sha256 names {sorted(meta.sha256)}, accepted is {sorted(ARRAYS)}")
    return meta


def _map(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the array of a .npy file without reading it. Nothing is unpickled: open_memmap refuses object arrays."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        surplus = path.stat().st_size - array.offset - array.nbytes
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; run `dvc repro prepare`") from error
    except Exception as error:  # a damaged or hostile header makes numpy raise of every kind
        problem = str(error).replace("\n", " ")[:100] or type(error).__name__
        raise _damaged(path, f"is truncated or no array file ({problem})") from error
    if array.dtype != dtype or array.shape != shape:
        found, accepted = f"{array.dtype} {array.shape}", f"{np.dtype(dtype)} {shape}"
        raise _damaged(path, f"holds {found}, accepted is the {accepted} of meta.json")
    if surplus:
        raise _damaged(path, f"has {surplus} bytes after its array, accepted is none")
    return array


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(f"{path}: {problem}; run `dvc repro -f prepare` to write it again")


def write_noise(folder: Path, counts: Mapping[SplitName, int], image_size: int, channels: int, classes: int) -> Store:
    """Write and open a store of noise, for timing. The labels of each split take turns. channels: 1 or 3."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        images = rng.integers(0, 256, (count, image_size, image_size, channels), np.uint8)
        np.save(folder / split / "images.npy", images)
        np.save(folder / split / "labels.npy", np.arange(count) % classes)
    np.save(folder / "mean_image.npy", np.full((image_size, image_size, channels), 127.5, np.float32))
    meta = Meta(
        dataset="synthetic",
        image_size=image_size,
        channels=1 if channels == 1 else 3,
        classes=[str(label) for label in range(classes)],
        counts=dict(counts),
        sources={},
        rgb_eigenvectors=np.eye(3).tolist(),
        rgb_std=[60.0, 20.0, 5.0],
        skipped=[],
        sha256={array: checksum(folder / array) for array in ARRAYS},
    )
    write_json(folder / "meta.json", meta.model_dump())
    return Store.open(folder)
