"""params.yaml as conf/ composes it, checked before it is written."""

import copy
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline import params, paths
from pipeline.errors import UserError


def composed(conf: Path, *overrides: str) -> dict[str, Any]:
    """Return what conf/ composes params.yaml to, for the default scale or with overrides such as `scale=smoke`."""
    register(_report)
    with initialize_config_dir(str(conf.resolve()), version_base=None):
        return dict(OmegaConf.to_container(compose("config", list(overrides)), resolve=True))  # type: ignore[arg-type]


def register(report: Callable[[Any], str]) -> None:
    """Give Hydra what conf/ uses.

    `paper` is the configuration that it starts from: the schema's defaults, so that conf/ need not repeat them. For
    `${report:}` the function `report` is called with the whole configuration.
    """
    blocks = {"net": params.Net(), "recipe": params.Recipe(), "train": params.Train(), "hardware": params.Hardware()}
    blocks |= {"more_seeds": params.MoreSeeds()}
    paper = OmegaConf.create({name: block.model_dump() for name, block in blocks.items()})
    for name in (*blocks, "data", "tune", "evaluate"):  # the schema refuses an unknown key and names those it accepts
        OmegaConf.update(paper, name, {})
        OmegaConf.set_struct(paper[name], False)
    ConfigStore.instance().store("paper", paper)
    OmegaConf.register_new_resolver("report", report, replace=True)


def checked_report(_root_: Any) -> str:
    """Return the report's folder. Where the configuration is refused, DVC ends with one message and status 2.

    DVC composes before it writes params.yaml, and before `dvc exp run` deletes all outs that it does not know. Images
    that somebody put there would be deleted too, and the check of a stage would come too late.
    """
    values = copy.deepcopy(_root_)
    values.report = _report(_root_)
    try:
        data = params.validate(OmegaConf.to_container(values, resolve=True), "conf").data
        from pipeline.data.destination import require_replaceable
        from pipeline.data.prepare import require_preparable

        require_replaceable(paths.data(data.dataset), data)
        require_preparable(data)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    return str(values.report)


def _report(_root_: Any) -> str:
    """Return the scale's own name, or a name of both scale and images where they are others than the scale's own."""
    scale, dataset = _root_["scale"], _root_["data"]["dataset"]
    return str(_root_["reports"].get(dataset, f"{scale}_{dataset}"))


def configuration(overrides: list[str]) -> params.Params:
    """Return params.yaml, or with overrides what conf/ composes, validated. Raises UserError where they do not fit."""
    if not overrides:
        return params.load()
    conf, given = Path("conf"), " ".join(overrides)
    try:
        values = composed(conf, *map(_quoted, overrides))
    except (HydraException, OmegaConfBaseException) as error:
        scales = ", ".join(sorted(path.stem for path in (conf / "scale").glob("*.yaml")))
        reason = str(error).split("\n", 1)[0]
        raise UserError(
            f"{given}: does not fit {conf}/ ({reason}); accepted is scale=<one of {scales}>, and <key>=<value> "
            "for any key of params.yaml, as in train.epochs=10"
        ) from error
    return params.validate(values, given)


def _quoted(override: str) -> str:
    """Return the override, its value in quotes if Hydra's grammar refuses it without or reads a list of choices in it.

    The grammar has no `~`, `=`, brackets or letters beyond ASCII, of which people make paths.
    """
    key, equals, value = override.partition("=")
    with suppress(HydraException):
        if not OverridesParser.create().parse_override(override).is_sweep_override():
            return override
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}" if equals else override


def differences(actual: Any, expected: Any, key: str = "") -> list[str]:
    """Return one line for each key whose value in params.yaml is not the composed one."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        below = [
            differences(actual.get(name), expected.get(name), f"{key}.{name}".strip("."))
            for name in dict.fromkeys([*actual, *expected])
        ]
        return [line for lines in below for line in lines]
    return [] if actual == expected else [f"{key} = {actual!r}; conf/ composes {expected!r}"]
