"""reports/README.md: the reports of all scales side by side, from the files that they left."""

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from pipeline.claims.table import COLUMNS
from pipeline.claims.verdicts import CLAIM_WORDS, NO_WORD
from pipeline.errors import UserError
from pipeline.paper.claims import Claim, registry
from pipeline.params import data_title, net_title, read_yaml
from pipeline.report.formatting import NOTHING, between, markdown, number, signed
from pipeline.runtime.escaping import code, escaped, prose
from pipeline.runtime.files import write_text

SMOKE = "smoke"  # proves the plumbing, and says nothing about the paper
UNITS = {"points": "", "count": "", "ratio": " times", "percent": " %"}
NUMBERS = ["effect", "low", "high", "seeds"]
NOT_RUN = ("not run at this scale", "cannot be run")
INTRODUCTION = """\
# The scales side by side

A scale is how large the reproduction is: which images, which net, how many seeds.
Figures of different scales are about different data and nets, and are not to be subtracted from each other.
Nor are two scales always independent: a run that both of them list is trained once, and counts in both.

A verdict is its own report's, which decides over all of its rows together and lists its departures from the paper."""
LEGEND = """\
The main metric of each claim: its effect, the 95 % interval over the pairs of runs, and the verdict.
An effect is what the paper's ingredient gains, in percentage points (positive: it helps); *times* is a ratio, \
without the ingredient / with it. Where a claim is about a count, a share or an error, the figure is that itself.
† marks an interval that excludes no effect where the adjusted test does not."""


@dataclass(frozen=True)
class Scale:
    """One folder of reports/. `claims` has a row for each claim, by id; none, and the reason, where it is damaged."""

    folder: Path
    params: dict[str, Any]
    claims: pd.DataFrame
    problem: str = ""


def write(reports: Path) -> None:
    write_text(reports / "README.md", compare(reports))


def compare(reports: Path) -> str:
    """The page, from every <scale>/claims.csv and params.yaml (or the params.yaml beside `reports` that made it)."""
    scales = [_read(folder) for folder in sorted(reports.iterdir()) if _is_report(folder)]
    parts = [INTRODUCTION, _overview(scales), "## Every claim", LEGEND, _every_claim(scales)]
    missing = [row for claim in registry().claims if (row := _untested(claim, scales))]
    parts += ["## Claims that no scale has run", markdown(pd.DataFrame(missing))]
    return "\n\n".join(parts) + "\n"


def _is_report(folder: Path) -> bool:
    names = ("claims.csv", "report.md", "params.yaml")
    there = folder.name != SMOKE and folder.name[0] != "." and any((folder / name).is_file() for name in names)
    return there and not _is_of_other_images(folder)


def _is_of_other_images(folder: Path) -> bool:
    """Whether it is about a user's own images, and no scale of this project."""
    with suppress(UserError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        values = read_yaml(folder / "params.yaml")
        return values["report"] not in values["reports"].values()
    return False


def _read(folder: Path) -> Scale:
    params = _params(folder)
    try:
        return Scale(folder, params, _claims(folder / "claims.csv"))
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        problem = f"cannot be read: {escaped(error.strerror)}"
    except ValueError as error:  # also what pandas raises, and text that is not UTF-8
        problem = f"cannot be read: {escaped(error)}"
    return Scale(folder, params, pd.DataFrame(columns=COLUMNS).set_index("id"), f"`claims.csv` {problem}")


def _claims(path: Path) -> pd.DataFrame:
    """The rows by id. Raises ValueError where they are not what a report writes."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(f"it has no column {', '.join(missing)}")
    if (short := (table["seeds"] == "") | (table["verdict"] + table["reason"] == "")).any():
        raise ValueError(f"the row of {table['id'][short].iloc[0]} is cut off")
    if unknown := sorted({*table["verdict"]} - {*CLAIM_WORDS, NO_WORD}):
        raise ValueError(f"{unknown[0]!r} is no verdict")
    if table["id"].duplicated().any():
        raise ValueError(f"{table['id'][table['id'].duplicated()].iloc[0]} stands in it twice")
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name].replace("", None))
    return table.set_index("id")


def _params(folder: Path) -> dict[str, Any]:
    """What the scale was run with, as far as it is known; an older report's may have other keys than today's."""
    for path in (folder / "params.yaml", folder.parent.parent / "params.yaml"):
        try:
            values = read_yaml(path)
        except (UserError, UnicodeDecodeError):
            continue
        if isinstance(values, dict) and values.get("scale") == folder.name:
            return values
    return {}


def _overview(scales: list[Scale]) -> str:
    shown = []
    for scale in scales:
        data, net, seeds = (scale.params.get(key) for key in ("data", "net", "seeds"))
        shown.append(
            {
                "scale": code(scale.folder.name),
                "title": prose(_title(scale.params)),
                "data": _data(data) if isinstance(data, dict) else NOTHING,
                "net": _net(net) if isinstance(net, dict) else NOTHING,
                "seeds": str(len(seeds)) if isinstance(seeds, list) else NOTHING,
                "claims": scale.problem or _words(scale.claims),
                "report": _link(scale.folder),
            }
        )
    return markdown(pd.DataFrame(shown), numbers=("seeds",))


def _title(params: dict[str, Any]) -> str:
    """Earlier reports have it in their params.yaml; today it follows from data and net."""
    with suppress(KeyError, TypeError):
        return str(
            params.get("title")
            or f"{data_title(params['data']['dataset'])}, "
            f"{net_title(params['net']['architecture'], params['net']['width'])}"
        )
    return NOTHING


def _data(data: dict[str, Any]) -> str:
    count = data.get("train_images")
    return f"{escaped(data.get('dataset'))}, {f'{count:,}' if isinstance(count, int) else 'all'} training images"


def _net(net: dict[str, Any]) -> str:
    share = "" if net.get("width") == 1 else f", {net.get('width')} of its kernels"
    return escaped(f"{net.get('architecture')}{share}, {net.get('crop_px')} px crops")


def _words(claims: pd.DataFrame) -> str:
    """How many claims earned each word, by their main metric."""
    known = [claim.row_id(key) for claim in registry().claims for key in claim.figures]
    main = claims.index.intersection([_id(claim) for claim in registry().claims])
    counts = Counter(claims.loc[main, "verdict"])
    told = [f"{counts[word]} {word}" for word in CLAIM_WORDS if counts[word]]
    if others := claims.index.difference(known).tolist():
        told.append(f"not counted, as the claims no longer list them: {escaped(', '.join(others))}")
    return ", ".join(told) or NOTHING


def _link(folder: Path) -> str:
    there = (folder / "report.md").is_file()
    return f"[report.md]({quote(os.fsencode(folder.name))}/report.md)" if there else NOTHING


def _every_claim(scales: list[Scale]) -> str:
    shown = [
        {"claim": f"`{claim.id}`", "section": claim.section, "statement": claim.statement, "paper": _paper(claim)}
        | {code(scale.folder.name): _cell(claim, scale.claims) for scale in scales}
        for claim in registry().claims
    ]
    return markdown(pd.DataFrame(shown), numbers=("paper",))


def _paper(claim: Claim) -> str:
    value = next(iter(claim.figures.values())).effect
    if value is None:
        return "no figure"
    return (number(value, 0) if claim.unit == "count" else f"{value:g}") + UNITS[claim.unit]


def _cell(claim: Claim, claims: pd.DataFrame) -> str:
    """Effect, interval, pairs and verdict; the verdict alone where there is no effect."""
    if _id(claim) not in claims.index:
        return NOTHING
    row = claims.loc[_id(claim)]
    if pd.isna(row["effect"]):
        return str(row["verdict"] or NOTHING)
    unsigned = claim.kind in ("exact", "absolute") or claim.unit == "ratio"
    effect = number(row["effect"], 0 if claim.unit == "count" else 2) if unsigned else signed(row["effect"])
    return f"{effect}{UNITS[claim.unit]} {_certainty(row)}**{row['verdict'] or 'no verdict'}**"


def _certainty(row: "pd.Series[Any]") -> str:
    """Interval and number of pairs; nothing where no run is behind the figure."""
    if not row["seeds"] > 0:
        return ""
    pairs = "1 pair" if row["seeds"] == 1 else f"{row['seeds']:g} pairs"
    if pd.isna(row["low"]):
        return f"({pairs}, no interval) "
    return f"{between(row['low'], row['high'])}{' †' if '†' in row['reason'] else ''} ({pairs}) "


def _untested(claim: Claim, scales: list[Scale]) -> dict[str, str] | None:
    """The claim with the scales' reasons, if none of them has run it."""
    rows = {scale.folder.name: scale.claims.loc[_id(claim)] for scale in scales if _id(claim) in scale.claims.index}
    if any(row["verdict"] not in NOT_RUN for row in rows.values()):
        return None
    reasons: dict[str, list[str]] = {}
    for name, row in rows.items():
        reasons.setdefault(prose(row["reason"]), []).append(escaped(name))
    told = (f"{', '.join(names)}: {reason}" if len(reasons) > 1 else reason for reason, names in reasons.items())
    return {"claim": f"`{claim.id}`", "reason": "; ".join(told) or claim.cannot_run or claim.not_run or "no report"}


def _id(claim: Claim) -> str:
    return claim.row_id(next(iter(claim.figures)))
