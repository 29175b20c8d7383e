"""The code that decides numbers, as a checksum that rewording does not change."""

import ast
import hashlib
import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@cache
def code_of(starts: tuple[str, ...], without: Collection[str]) -> dict[str, str]:
    """Return the SHA-256 of the syntax tree of each module that those of `starts` import, directly or not, by name.

    Modules in `without`, and what only they import, are left out. Comments and docstrings do not count.
    """
    found: dict[str, str] = {}
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        tree = ast.parse(_file(name).read_text())
        found[name] = hashlib.sha256(json.dumps(_plain(tree)).encode()).hexdigest()
        waiting += imported(tree)
    return found


def digest(identity: Any) -> str:
    """Return 16 hexadecimal digits that stand for anything that JSON can write."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def imported(tree: ast.AST) -> list[str]:
    """Return the modules of this package that a syntax tree imports, at its top or inside a function."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pipeline":
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name for name in below if _file(name).is_file()] or [node.module]
    return [name for name in names if name.startswith("pipeline.")]


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _plain(node: Any) -> Any:
    """Return a syntax tree without docstrings as nested lists. In contrast to `ast.dump`, no version changes them."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return [type(node).__name__, repr(node)]
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
        fields["body"] = fields["body"][1:]
    return [type(node).__name__, *([name, _plain(value)] for name, value in fields.items() if value not in (None, []))]
