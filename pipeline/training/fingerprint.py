"""What a run is: settings, seed, data, the code that decides its numbers, and what the order of sums hangs on."""

from typing import Any

from pipeline.data.store import Store
from pipeline.models import MODULES
from pipeline.paper.net import paper_net
from pipeline.paper.recipe import both_readings
from pipeline.paper.small_nets import small_nets
from pipeline.params import LINEAGE, Hardware, Settings
from pipeline.runtime.hardware import kind_of_device
from pipeline.runtime.source_code import code_of, digest

VERSION = 2  # raised by who changes a default of the settings, since only what differs from the defaults is hashed
START = "pipeline.training.run"
# Modules that a run imports and that decide none of its numbers. A change of any other module makes other runs.
DECIDE_NOTHING = {
    "pipeline.params": "the settings themselves are hashed",
    "pipeline.models": "a table of architectures",
    "pipeline.training.callbacks": "keeps and shows what a run does",
    "pipeline.data.store": "the checksums of the arrays are hashed",
    **dict.fromkeys(("pipeline.training.fingerprint", "pipeline.runtime.source_code"), "name runs"),
    **dict.fromkeys(("pipeline.paths", "pipeline.runtime.checksums", "pipeline.runtime.files"), "where things lie"),
    **dict.fromkeys(("pipeline.runtime.cores", "pipeline.runtime.launcher"), "threads and processes are hashed"),
    **dict.fromkeys(("pipeline.errors", "pipeline.runtime.locks", "pipeline.runtime.signals"), "how a run ends"),
    "pipeline.runtime.git": "recorded beside the numbers",
}
TRAINED_ON = ("train/", "val/", "mean_image")


def fingerprint(settings: Settings, seed: int, store: Store, hardware: Hardware) -> str:
    """16 hexadecimal digits: equal for equal numbers to come.

    Rewording, another architecture, another source of images and a new setting at its default change none.
    """
    identity = {
        "version": VERSION,
        "settings": settings.model_dump(exclude_defaults=True),
        "seed": seed,
        "data": {name: digest for name, digest in store.meta.sha256.items() if name.startswith(TRAINED_ON)},
        "threads": hardware.thread_count,
        "processes": hardware.processes,
        "device": kind_of_device(hardware.accelerator),
        "compiled": hardware.compile,
        "code": code(settings.net.architecture),
        "paper": _paper(settings.net.architecture),
    }
    return digest(identity)


def code(architecture: str) -> dict[str, str]:
    """The checksum of each module that decides the numbers of an architecture's runs, by name."""
    return code_of((START, MODULES[architecture]), frozenset(DECIDE_NOTHING))


def _paper(architecture: str) -> dict[str, Any]:
    """The figures of the paper and its source that the net is built and trained with."""
    recipe = both_readings().model_dump()
    if architecture in LINEAGE:  # whose layer tables are code
        return {"recipe": recipe}
    net = paper_net() if architecture == "alexnet" else small_nets()[architecture]
    return {"recipe": recipe, "net": net.model_dump(exclude={"section"})}
