"""The report's templates, filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def filled(template: str, context: Mapping[str, Any], escape: bool = False) -> str:
    """The template of this folder with its names replaced; one that `context` lacks raises jinja2's UndefinedError.

    escape: for HTML, whose special characters values must not bring in.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=escape,
    )
    return environment.get_template(template).render(context)
