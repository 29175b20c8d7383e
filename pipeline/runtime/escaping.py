"""Text from outside, such as the names of classes or an error's words, made fit for the page that it enters."""

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
    """The text without line breaks. What is not printable stands as its code, such as \\x07."""
    signs = " ".join(text.split())
    return "".join(
        sign if sign.isprintable() or sign in JOINERS else sign.encode("unicode_escape").decode() for sign in signs
    )


def escaped(text: object) -> str:
    """Markdown that shows the text as it is, in one line. Pipes are the table's to escape (tables.markdown)."""
    return _without_markup(one_line(str(text)))


def prose(text: object) -> str:
    """The same for a sentence of somebody's configuration, in which `code` may stand."""
    parts = CODE.split(one_line(str(text)))
    return "".join(part if place % 2 else _without_markup(part) for place, part in enumerate(parts))


def code(text: str) -> str:
    """The text as code, or escaped where it has backquotes of its own."""
    return escaped(text) if "`" in text else f"`{one_line(text)}`"


def cut(text: str, width: int) -> str:
    """At most so many characters: both ends, and an ellipsis between them."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def _without_markup(line: str) -> str:
    return MARKUP.sub(lambda found: "".join(sign if sign.isdigit() else f"\\{sign}" for sign in found[0]), line)
