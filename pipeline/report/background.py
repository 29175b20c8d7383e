"""reports/background.md, which `python -m pipeline.report.background` writes: what others said and measured.

The article's statements, the paper's rivals, public reproductions, small images, six architectures.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pipeline.paper.article import WORDS, article
from pipeline.paper.published import Count, Errors, Number, Training, published
from pipeline.report.formatting import NOTHING, markdown
from pipeline.report.templates import filled
from pipeline.runtime.files import write_text

SPLITS = {"val": "validation", "test": "test"}
BETWEEN = "; "  # values of one cell


def background() -> str:
    """Return the whole page."""
    counts = Counter(statement.verdict for statement in article().statements)
    context = {
        "article_words": ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word]),
        "article": article_table(),
        "rivals": rivals_table(),
        "reproductions": reproductions_table(),
        "anchors": anchors_table(),
        "architectures": architectures_table(),
    }
    return filled("background.md.j2", context)


def article_table() -> str:
    """Return every statement of the article with its verdict."""
    rows = [
        {
            "the article says": statement.says,
            "verdict": statement.verdict,
            "because": statement.because + (" *(unverified)*" if statement.unverified else ""),
            "computed": statement.finding.text if statement.finding else NOTHING,
            "claims": BETWEEN.join(f"`{claim}`" for claim in statement.claims) or NOTHING,
            "source": statement.source,
        }
        for statement in article().statements
    ]
    return markdown(pd.DataFrame(rows))


def rivals_table() -> str:
    """Return the paper's nets (in bold) beside those that it was compared with."""
    rows = [
        {
            "data": row.data,
            "images": SPLITS[row.split],
            "method": f"**{row.method}**" if row.own else row.method,
            "top-1 / top-5 error, %": _pair(row.errors),
            "claim": f"`{row.claim}`" if row.claim else NOTHING,
            "source": row.source,
        }
        for row in published().contestants
    ]
    return markdown(pd.DataFrame(rows), numbers=("top-1 / top-5 error, %",))


def reproductions_table() -> str:
    """Return the public attempts to train this net."""
    rows = [
        {
            "project": row.project,
            "framework": row.framework,
            "data": row.data,
            "epochs": _distinct(_epochs(result) for result in row.results),
            "crops": _distinct(_text(result.crops) for result in row.results),
            "top-1 / top-5 error, %": BETWEEN.join(_errors(result) for result in row.results),
            "seeds that learned": f"{row.seeds.learned} of {row.seeds.runs}" if row.seeds else NOTHING,
            "departures": row.departures,
            "what went wrong": row.went_wrong or NOTHING,
            "source": row.source,
        }
        for row in published().reproductions
    ]
    return markdown(pd.DataFrame(rows))


def anchors_table() -> str:
    """Return published results on small images."""
    rows = [
        {
            "data": row.data,
            "model": row.model,
            "error, %": _errors(row.error, row.up_to),
            "log loss": _text(row.log_loss),
            "source": row.source,
        }
        for row in published().anchors
    ]
    return markdown(pd.DataFrame(rows), numbers=("log loss",))


def architectures_table() -> str:
    """Return the six nets that the article names, some in several sizes."""
    rows = [
        {
            "net": f"{net.name} ({net.year})",
            "one crop": _all_errors(net.one_crop),
            "ten crops": _all_errors(net.ten_crops),
            "best single": _all_errors(net.best_single),
            "ensemble": _all_errors(net.ensemble),
            "parameters": BETWEEN.join(_count(count) for count in net.parameters),
            "multiply-adds": _count(net.multiply_adds),
            "key change": net.key_change,
            "source": f"{net.source}; layers: {net.layers_in}",
        }
        for net in published().architectures
    ]
    return markdown(pd.DataFrame(rows))


def _pair(errors: Errors, up_to: Number | None = None) -> str:
    """Return `top-1 / top-5` with the digits that were published; top-1 alone where only that was."""
    top1 = _text(errors.top1)
    top1 += "" if up_to is None else f" to {up_to}"
    return top1 if errors.top5 is None else f"{top1} / {errors.top5}"


def _errors(errors: Errors, up_to: Number | None = None) -> str:
    return _marked(_pair(errors, up_to), errors.remarks)


def _all_errors(values: list[Errors]) -> str:
    return BETWEEN.join(_errors(errors) for errors in values) or NOTHING


def _epochs(result: Training) -> str:
    return _marked(_text(result.epochs), ["unverified"] if result.epochs_unverified else [])


def _distinct(texts: Iterable[str]) -> str:
    return BETWEEN.join(dict.fromkeys(texts))


def _text(value: Number | None) -> str:
    return NOTHING if value is None else str(value)


def _count(count: Count) -> str:
    """Return a rounded count in millions or billions, an exact one in full."""
    for unit, name, step in ((10**9, "billion", 10**7), (10**6, "million", 10**5)):
        if count.value >= unit and count.value % step == 0:
            return _marked(f"{count.value / unit:g} {name}", count.remarks)
    return _marked(f"{count.value:,}", count.remarks)


def _marked(text: str, remarks: list[str]) -> str:
    return f"{text} ({', '.join(remarks)})" if remarks else text


if __name__ == "__main__":
    write_text(Path("reports/background.md"), background())
