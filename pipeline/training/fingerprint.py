"""What a run is: settings, seed, data and the code that trains. Where it ran is recorded elsewhere."""

import hashlib
import json
from pathlib import Path

from pipeline.data.store import Store
from pipeline.files import sha256
from pipeline.params import Settings

PACKAGE = Path(__file__).parents[1]
# What decides a run's numbers. Left out: how data was fetched and stored (the checksums of the arrays tell that),
# the paper's claims, and what only reports or repeats (a test keeps the list complete).
TRAINED_BY = (
    *("paper/net.*", "paper/small_nets.*", "paper/recipe.*", "models/*.py", "input/*.py"),
    *("training/module.py", "training/optimiser.py", "training/run.py", "training/schedule.py", "training/world.py"),
)
TRAINED_ON = ("train/", "val/", "mean_image")


def fingerprint(settings: Settings, seed: int, store: Store) -> str:
    """16 hexadecimal digits. Equal for equal numbers to come, wherever they are computed."""
    sources = sorted(path for pattern in TRAINED_BY for path in PACKAGE.glob(pattern))
    identity = {
        "settings": settings.model_dump(),
        "seed": seed,
        "data": {name: digest for name, digest in store.meta.sha256.items() if name.startswith(TRAINED_ON)},
        "code": {str(path.relative_to(PACKAGE)): sha256(path) for path in sources},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
