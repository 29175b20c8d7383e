"""The report's templates, filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.runtime.escaping import prose


def filled(template: str, context: Mapping[str, Any], escape: bool = False) -> str:
    """Return the template with its names replaced. Raises jinja2's UndefinedError at one that `context` lacks.

    escape: for HTML, whose special characters values must not bring in. Markdown has the filter `prose` for that.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=escape,
    )
    environment.filters["prose"] = prose
    return environment.get_template(template).render(context)
