"""Makes text from outside, such as the names of classes or an error's words, fit for the page that shows it."""

import re

JOINERS = "\u200c\u200d"  # of letters and of emoji: not to be seen, and a part of the name
MARKUP = re.compile(
    r"[\\`*\[\]<$~#]"
    r"|&(?=#?\w+;)"  # of an entity
    r"|(?<!\w)_+|_+(?!\w)"  # not within a word, where it means nothing
    r"|^[-+=>]|^\d+[.)](?!\S)"  # of lists, rules and quotations, at the start of a line
)
CODE = re.compile(r"(`[^`]+`)")


def one_line(text: str) -> str:
    """Return the text without line breaks. What cannot be printed stands as its code, such as \\x07."""
    signs = " ".join(text.split())
    return "".join(
        sign if sign.isprintable() or sign in JOINERS else sign.encode("unicode_escape").decode() for sign in signs
    )


def escaped(text: object) -> str:
    """Return Markdown that shows the text as it is, in one line. Tables escape their pipes (formatting.markdown)."""
    return _without_markup(one_line(str(text)))


def prose(text: object) -> str:
    """Return Markdown that shows a sentence of somebody's configuration, in which `code` may stand."""
    parts = CODE.split(one_line(str(text)))
    return "".join(part if place % 2 else _without_markup(part) for place, part in enumerate(parts))


def code(text: str) -> str:
    """Return the text as code, or escaped where it has backquotes of its own."""
    return escaped(text) if "`" in text else f"`{one_line(text)}`"


def cut(text: str, width: int) -> str:
    """Return at most `width` characters: both ends of the text, and an ellipsis between them."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def _without_markup(line: str) -> str:
    return MARKUP.sub(lambda found: "".join(sign if sign.isdigit() else f"\\{sign}" for sign in found[0]), line)
