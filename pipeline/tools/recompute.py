"""`alexnet recompute`: whether a report's tables follow from its predictions, without runs and without training."""

import csv
import io
from itertools import zip_longest
from pathlib import Path

from pipeline.claims.predictions_file import PREDICTIONS, read_predictions
from pipeline.claims.table import COLUMNS, claim_rows, frame, question_rows
from pipeline.errors import UserError

SHOWN_ROWS = 3


def recompute(folder: Path) -> tuple[bool, str]:
    """Compute the tables of a report from its predictions.parquet alone, and compare them with those in the folder.

    Returns whether they are the same, and one line that says so or shows the first rows that differ. Raises UserError
    where a file is missing or damaged.
    """
    results, checks = read_predictions(folder / PREDICTIONS)
    tables = {"claims.csv": frame(claim_rows(results, checks)), "questions.csv": frame(question_rows(results))}
    differing = []
    for name, table in tables.items():
        path = folder / name
        try:
            committed = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UserError(f"{path}: cannot be read ({reason}); `git checkout {path}` restores it") from error
        rows = (csv.reader(io.StringIO(text)) for text in (committed, table.to_csv(index=False)))
        for old, new in zip_longest(*rows, fillvalue=[]):
            if old != new:
                cells = zip_longest(COLUMNS, old, new, fillvalue="")
                changed = (f"{column} is {b!r} (in the file {a!r})" for column, a, b in cells if a != b)
                differing.append(f"{name} {(new or old)[0]}: {', '.join(changed)}")
    if not differing:
        counts = " and ".join(f"{name} ({len(table)} rows)" for name, table in tables.items())
        return True, f"{folder}: {counts} are the same when computed from {PREDICTIONS}"
    more = f"; and {len(differing) - SHOWN_ROWS} more" if len(differing) > SHOWN_ROWS else ""
    return False, f"{folder}: computed from {PREDICTIONS}, {'; '.join(differing[:SHOWN_ROWS])}{more}"
