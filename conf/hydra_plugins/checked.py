"""Loaded by DVC before it composes params.yaml (hydra.plugins_path in .dvc/config)."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # this clone's own code, wherever another is installed

from pipeline.tools.compose import checked_report, register

register(checked_report)

# Another scale's outs are not in dvc.lock, and before the stages make them DVC warns of each that it cannot check it
# out. DVC has no setting for that; this logger says nothing else.
logging.getLogger("dvc_data.index.checkout").setLevel(logging.ERROR)
