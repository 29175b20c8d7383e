"""What a killed `dvc` may leave cut off, so that the next one refuses to start."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def mend() -> None:
    """Remove what cannot be read, and say so. The locks were the killed process's; DVC's run cache knows the stages."""
    for path, read in ((Path(".dvc/tmp/rwlock"), json.loads), (Path("dvc.lock"), _finished_stages)):
        if path.exists() and not _readable(path, read):
            path.unlink()
            print(f"{path}: was cut off, probably when dvc was killed; removed, dvc makes it anew")


def _readable(path: Path, read: Callable[[str], Any]) -> bool:
    try:
        read(path.read_text())
    except Exception:  # two parsers and a schema have many names for half a file
        return False
    return True


def _finished_stages(text: str) -> Any:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML

    return COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text))
