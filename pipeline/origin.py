"""What a run came from: the revision of the code, and the DVC stage and experiment that ran it."""

import os

from pipeline.repository import revision


def origin() -> dict[str, str]:
    return {
        "revision": revision(),
        "dvc_stage": os.environ.get("DVC_STAGE", ""),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
