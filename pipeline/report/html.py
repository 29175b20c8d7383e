"""report.html: the Markdown page as one file that needs no other, no network and no script."""

import base64
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin

from pipeline.report.templates import filled

TEMPLATE = "page.html.j2"
LONG_CELL = 30  # characters; what has no more stays on one line


def html_page(markdown: str, folder: Path) -> str:
    """Return the page with its images, which are PNG files below `folder`, in it. Raw HTML comes out as text."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").use(anchors_plugin, max_level=6)
    tokens = parser.parse(markdown)
    headings = [
        (opening.tag, str(opening.attrGet("id")), _text(inline))
        for opening, inline in pairwise(tokens)
        if opening.type == "heading_open"
    ]
    for token in tokens:
        token.children = [_embedded(child, folder) for child in token.children or []]
    start = next((index for index, token in enumerate(tokens) if (token.tag, token.level) == ("h2", 0)), len(tokens))
    parts = (list(_with_readable_tables(part)) for part in (tokens[:start], tokens[start:]))
    lead, body = (parser.renderer.render(part, parser.options, {}) for part in parts)
    context = {
        "title": next((text for tag, _, text in headings if tag == "h1"), folder.name),
        "contents": [(anchor, text) for tag, anchor, text in headings if tag == "h2"],
        "lead": lead,
        "body": body,
    }
    return filled(TEMPLATE, context, escape=True)


def _embedded(token: Token, folder: Path) -> Token:
    """Return an image with its bytes in it, or a remark where there is none to embed; any other token as it is."""
    if token.type != "image":
        return token
    source = unquote(str(token.attrGet("src")))
    path = (folder / source).resolve()
    if path.suffix != ".png" or not path.is_relative_to(folder.resolve()) or not path.is_file():
        return Token("text", "", 0, content=f"[{source}: no such figure]")
    token.attrSet("src", f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}")
    return token


def _with_readable_tables(tokens: Sequence[Token]) -> Iterator[Token]:
    """Put tables into boxes that scroll sideways, named after their heading; mark cells that are numbers or long."""
    heading = ""
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = f' aria-labelledby="{token.attrGet("id")}"'
        elif token.type == "table_open":
            yield Token("html_block", "", 0, content=f'<div class="table" role="region" tabindex="0"{heading}>\n')
        elif token.type == "th_open":
            token.attrSet("scope", "col")
        elif token.type == "td_open":
            if "right" in str(token.attrGet("style")):
                token.attrJoin("class", "number")
            if len(_text(tokens[index + 1])) > LONG_CELL:
                token.attrJoin("class", "long")
        yield token
        if token.type == "table_close":
            yield Token("html_block", "", 0, content="</div>\n")


def _text(token: Token) -> str:
    """Return what a reader sees of an inline token."""
    return "".join(child.content for child in token.children or [])
