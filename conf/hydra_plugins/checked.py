"""Loaded by DVC before it composes params.yaml (hydra.plugins_path in .dvc/config)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # this clone's own code, wherever another is installed

from pipeline.tools.compose import checked_report, register

register(checked_report)
