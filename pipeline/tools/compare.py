"""`alexnet compare`: reports/README.md, the reports of all scales side by side, from the files that they left."""

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from pipeline.claims.table import COLUMNS
from pipeline.claims.verdicts import ARTICLE_WORDS, CLAIM_WORDS, QUESTION_WORDS
from pipeline.errors import UserError
from pipeline.paper.claims import Claim, Question, registry
from pipeline.params import read_yaml, validate
from pipeline.report.formatting import NOTHING, between, count_of_seeds, markdown, number, signed
from pipeline.runtime.escaping import code, escaped, prose
from pipeline.runtime.files import write_text
from pipeline.tools.findings import findings

START = "start_ratios.csv"  # of benchmarks/start.py
SMOKE = "smoke"  # proves the plumbing, and says nothing about the paper
UNITS = {"points": "", "count": "", "ratio": " times", "percent": " %"}
NUMBERS = ["effect", "low", "high", "seeds"]
NOT_RUN = ("not run at this scale", "cannot be run")
SIDES = {  # of zero (for a ratio: one) on which a verdict says that the effect lies
    **dict.fromkeys(("reproduced", "reproduced in direction, not in size", "same direction"), "the paper's"),
    "opposite direction": "the other",
}
NO_DISAGREEMENT = "There is none: no claim is on the paper's side at one scale and on the other side at another."
FOUND = """\
Brackets hold 95 % intervals over other seeds and other test images. Where no images are named, they are
Fashion-MNIST's, and the net has a quarter of the paper's width."""
INTRODUCTION = """\
A scale is how large the reproduction is: which images, which net, how many seeds.
Figures of different scales are about different data and nets, and are not to be subtracted from each other.
Nor are two scales always independent: a run that both of them list is trained once, and counts in both.

A verdict is its own report's, which decides over all of its rows together and lists its departures from the paper."""
LEGEND = """\
The main metric of each claim: its effect, the 95 % interval over the pairs of runs, and the verdict.
An effect is what the paper's ingredient gains, in percentage points (positive: it helps); *times* is a ratio, \
without the ingredient / with it. Where a claim is about a count, a share or an error, the figure is that itself.
† marks an interval that excludes zero (for a ratio: one) where the adjusted test does not."""


@dataclass(frozen=True)
class Scale:
    """One folder of reports/. The tables have a row for each claim or question, by id; a damaged one has none."""

    folder: Path
    params: dict[str, Any]
    claims: pd.DataFrame
    questions: pd.DataFrame
    problem: str = ""  # of claims.csv


def write(reports: Path) -> None:
    write_text(reports / "README.md", compare(reports))


def compare(reports: Path) -> str:
    """Return the page, from every <scale>/claims.csv and params.yaml (or the params.yaml beside `reports`)."""
    scales = [_read(folder) for folder in sorted(reports.iterdir()) if _is_report(folder)]
    overview = [_described(scale) for scale in scales]
    claims = [
        {"claim": f"`{claim.id}`", "section": claim.section, "statement": claim.statement, "paper": _paper(claim)}
        | {code(scale.folder.name): _cell(claim, scale.claims) for scale in scales}
        for claim in registry().claims
    ]
    questions = [
        {"question": f"`{question.id}`", "asked": question.statement}
        | {code(scale.folder.name): _cell(question, scale.questions) for scale in scales}
        for question in registry().questions
        if any(question.id in scale.questions.index for scale in scales)
    ]
    untested = [row for claim in registry().claims if (row := _untested(claim, scales))]
    tables = {scale.folder.name: pd.concat([scale.claims, scale.questions]) for scale in scales}
    if (start := reports / START).exists():
        tables["start"] = pd.read_csv(start, index_col="id")
    found = findings(tables)
    parts = ["# The scales side by side"]
    if found:
        parts += ["## What came out", FOUND, "\n".join(f"{n}. {text}" for n, text in enumerate(found, 1))]
    parts += ["## The scales", INTRODUCTION, markdown(pd.DataFrame(overview), numbers=("seeds",))]
    parts += ["## Every claim", LEGEND, markdown(pd.DataFrame(claims), numbers=("paper",))]
    parts += ["## Where scales disagree", "\n".join(_disagreements(scales)) or NO_DISAGREEMENT]
    parts += ["## Every question of this project's own", markdown(pd.DataFrame(questions))]
    parts += ["## Claims that no scale has run", markdown(pd.DataFrame(untested))]
    return "\n\n".join(parts) + "\n"


def _is_report(folder: Path) -> bool:
    """Return whether a folder is the report of a scale of this project, and not one about a user's own images."""
    names = ("claims.csv", "report.md", "params.yaml")
    if folder.name == SMOKE or folder.name[0] == "." or not any((folder / name).is_file() for name in names):
        return False
    with suppress(UserError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        values = read_yaml(folder / "params.yaml")
        return values["report"] in values["reports"].values()
    return True


def _read(folder: Path) -> Scale:
    params: dict[str, Any] = {}
    for path in (folder.parent.parent / "params.yaml", folder / "params.yaml"):  # an older one may have other keys
        with suppress(UserError, UnicodeDecodeError):
            values = read_yaml(path)
            if isinstance(values, dict) and values.get("scale") == folder.name:
                params = values
    claims, problem = _table(folder / "claims.csv")
    return Scale(folder, params, claims, _table(folder / "questions.csv")[0], problem)


def _table(path: Path) -> tuple[pd.DataFrame, str]:
    """Return the rows of a report's table by id; none, and the reason, where it cannot be used."""
    try:
        return _rows(path), ""
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, ValueError) as error:  # ValueError: also pandas' errors, and text that is not UTF-8
        problem = f"cannot be read: {escaped(error.strerror if isinstance(error, OSError) else error)}"
    return pd.DataFrame(columns=COLUMNS).set_index("id"), f"`{path.name}` {problem}"


def _rows(path: Path) -> pd.DataFrame:
    """Return the rows by id. Raises ValueError where they are not what a report writes."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(f"it has no column {', '.join(missing)}")
    if (short := (table["seeds"] == "") | (table["verdict"] + table["reason"] == "")).any():
        raise ValueError(f"the row of {table['id'][short].iloc[0]} is cut off")
    if unknown := sorted({*table["verdict"]} - {*CLAIM_WORDS, *QUESTION_WORDS, *ARTICLE_WORDS}):
        raise ValueError(f"{unknown[0]!r} is no verdict")
    if (twice := table["id"].duplicated()).any():
        raise ValueError(f"{table['id'][twice].iloc[0]} stands in it twice")
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name].replace("", None))
    return table.set_index("id")


def _described(scale: Scale) -> dict[str, str]:
    """Return a scale's row of the overview."""
    params, claims = scale.params, scale.claims
    data, net, seeds = (params.get(key) for key in ("data", "net", "seeds"))
    more = (params.get("more_seeds") or {}).get("seeds")
    title = NOTHING
    with suppress(UserError):  # an older report has other keys, and its title in its params.yaml
        title = str(params.get("title") or validate(params, scale.folder.name).title)
    images = crops = NOTHING
    if isinstance(data, dict):
        count = data.get("train_images")
        counted = f"{count:,}" if isinstance(count, int) else "all"
        images = f"{escaped(data.get('dataset'))}, {counted} training images"
    if isinstance(net, dict):
        share = "" if net.get("width") == 1 else f", {net.get('width')} of its kernels"
        crops = escaped(f"{net.get('architecture')}{share}, {net.get('crop_px')} px crops")
    main = claims.index.intersection([_id(claim) for claim in registry().claims])
    counts = Counter(claims.loc[main, "verdict"])
    words = [f"{counts[word]} {word}" for word in CLAIM_WORDS if counts[word]]
    known = [claim.row_id(key) for claim in registry().claims for key in claim.figures]
    if others := claims.index.difference(known).tolist():
        words.append(f"not counted, as the claims no longer list them: {escaped(', '.join(others))}")
    page = f"[report.md]({quote(os.fsencode(scale.folder.name))}/report.md)"
    return {
        "scale": code(scale.folder.name),
        "title": prose(title),
        "data": images,
        "net": crops,
        "seeds": count_of_seeds(seeds, more or []).partition(" seed")[0] if isinstance(seeds, list) else NOTHING,
        "claims": scale.problem or ", ".join(words) or NOTHING,
        "report": page if (scale.folder / "report.md").is_file() else NOTHING,
    }


def _paper(claim: Claim) -> str:
    value = next(iter(claim.figures.values())).effect
    if value is None:
        return "no figure"
    return (number(value, 0) if claim.unit == "count" else f"{value:g}") + UNITS[claim.unit]


def _disagreements(scales: list[Scale]) -> list[str]:
    """Return a line for each claim that is on different sides at two scales."""
    lines = []
    for claim in registry().claims:
        sides: dict[str, list[str]] = {}
        for scale in scales:
            word = scale.claims["verdict"].get(_id(claim), "")
            if claim.kind == "effect" and word in SIDES:
                sides.setdefault(SIDES[word], []).append(f"{code(scale.folder.name)} {_cell(claim, scale.claims)}")
        if len(sides) > 1:
            told = "; ".join(f"on {side} side {', '.join(cells)}" for side, cells in sides.items())
            lines.append(f"- `{claim.id}`: {told}.")
    return lines


def _cell(claim: Claim | Question, claims: pd.DataFrame) -> str:
    """Return effect, interval, pairs and verdict; the verdict alone where there is no effect."""
    if _id(claim) not in claims.index:
        return NOTHING
    row = claims.loc[_id(claim)]
    if pd.isna(row["effect"]):
        return str(row["verdict"])
    unsigned = (isinstance(claim, Claim) and claim.kind in ("exact", "absolute")) or claim.unit == "ratio"
    effect = number(row["effect"], 0 if claim.unit == "count" else 2) if unsigned else signed(row["effect"])
    certainty = ""
    if row["seeds"] > 0:  # else no run is behind the figure
        pairs = "1 pair" if row["seeds"] == 1 else f"{row['seeds']:g} pairs"
        interval = f"{between(row['low'], row['high'])}{' †' if '†' in row['reason'] else ''} ({pairs})"
        certainty = f"({pairs}, no interval) " if pd.isna(row["low"]) else f"{interval} "
    return f"{effect}{UNITS[claim.unit]} {certainty}**{row['verdict']}**"


def _untested(claim: Claim, scales: list[Scale]) -> dict[str, str] | None:
    """Return the claim with the scales' reasons, if none of them has run it."""
    rows = {scale.folder.name: scale.claims.loc[_id(claim)] for scale in scales if _id(claim) in scale.claims.index}
    if any(row["verdict"] not in NOT_RUN for row in rows.values()):
        return None
    reasons: dict[str, list[str]] = {}
    for name, row in rows.items():
        reasons.setdefault(prose(row["reason"]), []).append(escaped(name))
    told = (f"{', '.join(names)}: {reason}" if len(reasons) > 1 else reason for reason, names in reasons.items())
    return {"claim": f"`{claim.id}`", "reason": "; ".join(told) or claim.cannot_run or claim.not_run or "no report"}


def _id(claim: Claim | Question) -> str:
    return claim.row_id(next(iter(claim.figures))) if isinstance(claim, Claim) else claim.id
