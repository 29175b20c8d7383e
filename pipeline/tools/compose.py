"""params.yaml as conf/ composes it, checked before it is written."""

import copy
import sys
from pathlib import Path
from typing import Any

from pipeline import params, paths
from pipeline.errors import UserError


def composed(conf: Path, *overrides: str) -> dict[str, Any]:
    """What conf/ composes params.yaml to, for the default scale or with overrides such as `scale=smoke`."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    register(_report)
    with initialize_config_dir(str(conf.resolve()), version_base=None):
        return dict(OmegaConf.to_container(compose("config", list(overrides)), resolve=True))  # type: ignore[arg-type]


def register(report: Any) -> None:
    """Give Hydra what conf/ uses.

    `paper` is the configuration that it starts from: the schema's defaults, so that conf/ need not repeat them. For
    `${report:}` the function `report` is called with the whole configuration.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    blocks = {"net": params.Net(), "recipe": params.Recipe(), "train": params.Train(), "hardware": params.Hardware()}
    ConfigStore.instance().store("paper", {name: block.model_dump() for name, block in blocks.items()})
    OmegaConf.register_new_resolver("report", report, replace=True)


def checked_report(_root_: Any) -> str:
    """The report's folder. Where the configuration is refused, DVC ends with one message and status 2.

    DVC composes before it writes params.yaml, and before it deletes, in `dvc exp run`, all outs that it does not know:
    images that somebody put there too, which the check of a stage would come too late for.
    """
    from omegaconf import OmegaConf

    values = copy.deepcopy(_root_)
    values.report = _report(_root_)
    try:
        data = params.validate(OmegaConf.to_container(values, resolve=True), "conf").data
        from pipeline.data.destination import require_replaceable

        require_replaceable(paths.data(data.dataset), data)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    return str(values.report)


def _report(_root_: Any) -> str:
    """The scale's own name, or where the images are others than its own, one that names both."""
    scale, dataset = _root_["scale"], _root_["data"]["dataset"]
    return str(_root_["reports"].get(dataset, f"{scale}_{dataset}"))
