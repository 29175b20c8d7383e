"""The first lines of reports/README.md: what came out, in sentences that stand only while their verdicts do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter

from pipeline.params import Strict, read_yaml
from pipeline.report.formatting import number

FINDINGS = Path(__file__).with_suffix(".yaml")
TURNED = "turned"  # in a placeholder: the other side's gain, {embedded_all[lrn_imagenet]:turned}
UNITS = {"points": " points", "ratio": " times", "percent": " %", "count": ""}


class Finding(Strict):
    """A sentence, and the verdicts that have to stand in the reports' tables, by scale and id, for it to be true.

    `{scale[id]}` in the sentence is replaced by the effect of that row with its interval. `differs (+)` and
    `differs (−)` tell on which side of zero (for a ratio: of one) a question's answer lies.
    """

    says: str
    needs: dict[str, dict[str, str]]


def findings(tables: Mapping[str, pd.DataFrame], path: Path = FINDINGS) -> list[str]:
    """Return the sentences that are true of these tables: by scale, the rows of its claims and questions by id."""
    figures = {scale: {name: Figure(row) for name, row in rows.iterrows()} for scale, rows in tables.items()}
    words = {scale: {name: _word(row) for name, row in rows.iterrows()} for scale, rows in tables.items()}
    return [
        finding.says.format_map(figures)
        for finding in TypeAdapter(list[Finding]).validate_python(read_yaml(path))
        if all(needed.items() <= words.get(scale, {}).items() for scale, needed in finding.needs.items())
    ]


def _word(row: pd.Series) -> str:
    word, neutral = str(row["verdict"]), 1 if row["unit"] == "ratio" else 0
    return f"{word} ({'+' if row['effect'] > neutral else '−'})" if word == "differs" else word


@dataclass(frozen=True)
class Figure:
    """The effect of a row with its interval, as a sentence shows it."""

    row: pd.Series

    def __format__(self, spec: str) -> str:
        ends = [self.row[name] for name in ("effect", "low", "high")]
        effect, low, high = [-ends[0], -ends[2], -ends[1]] if spec == TURNED else ends
        digits = 2 if self.row["unit"] == "ratio" else 1
        shown, least, greatest = (number(value, digits).replace("-", "−") for value in (effect, low, high))
        return f"{shown}{UNITS[self.row['unit']]} [{least}, {greatest}]"
