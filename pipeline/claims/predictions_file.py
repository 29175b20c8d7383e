"""predictions.parquet of a report: everything that its claims are computed from, in one small file.

Each row is one answer: `rank` is the place that the net of a variant and seed gave to the true label of image `index`
of a split (0: it is the most probable one). The schema's metadata holds under `alexnet`, as JSON, what claims need
beside predictions: the params, the checks, class names, facts about runs, histories and analyses.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.claims.results import ERROR_COLUMNS, Results
from pipeline.errors import UserError
from pipeline.paper.claims import EPOCH_MEASURES, Claim, Question, registry
from pipeline.params import validate

PREDICTIONS = "predictions.parquet"
SCHEMA = pa.schema(
    [
        ("variant", pa.string()),
        ("seed", pa.int32()),
        ("split", pa.string()),
        ("views", pa.string()),
        ("index", pa.int32()),
        ("rank", pa.int16()),
    ]
)
WORDS = ["variant", "split", "views"]
METADATA = "alexnet"
ENCODING = {  # 300 runs of 10,000 images take half a megabyte; with a dictionary of the indices too it would be three
    "compression": "zstd",
    "compression_level": 19,
    "use_dictionary": ["variant", "seed", "split", "views", "rank"],
    "column_encoding": {"index": "DELTA_BINARY_PACKED"},
    "data_page_size": 1 << 24,
    "write_page_checksum": True,
    "store_schema": False,  # Arrow's own copy of the schema would hold the metadata twice
}
ROWS_AT_ONCE = 1 << 26  # of a row group, each of which has dictionaries of its own
RUN_FACTS = ["variant", "seed", "status", "epochs"]
HISTORY_FACTS = ["variant", "seed", "epoch", "train_error_top1", "val_loss"]
HISTORY_TYPES = {"train_error_top1": float, "val_loss": float}
ERROR_METRICS = ("error_top1", "error_top5")


def write_predictions(results: Results, checks: Mapping[str, bool], path: Path) -> None:
    """Write the file, of which the same results always give the same bytes. `checks`: as in `table.claim_rows`."""
    tables = []
    for variant in results.params.variants:
        rows = results.predictions(variant).sort_values(["seed", "split", "views", "index"], kind="stable")
        tables.append(pa.Table.from_pandas(rows.assign(variant=variant), SCHEMA, preserve_index=False))
    errors = results.errors[results.errors["metric"].isin(ERROR_METRICS)]
    raced = results.histories[results.histories["variant"].isin(_raced())]
    facts = {
        "params": results.params.model_dump(mode="json"),
        "checks": dict(checks),
        "meta": {name: results.meta[name] for name in ("classes", "counts") if name in results.meta},
        "analyses": results.analyses,
        "runs": _columns(results.runs, RUN_FACTS),
        "histories": _columns(raced, HISTORY_FACTS),
        "errors": _columns(errors, ERROR_COLUMNS),
    }
    with pq.ParquetWriter(path, SCHEMA, **ENCODING) as writer:
        writer.write_table(pa.concat_tables(tables), row_group_size=ROWS_AT_ONCE)
        writer.add_key_value_metadata({METADATA: json.dumps(facts, separators=(",", ":"))})


def read_predictions(path: Path) -> tuple[Results, dict[str, bool]]:
    """Return the results and checks that the file holds. Raises UserError where it is missing or damaged."""
    try:
        table = pq.ParquetFile(path, read_dictionary=WORDS, page_checksum_verification=True).read()
        predictions = table.to_pandas()[SCHEMA.names]
        facts = json.loads(table.schema.metadata[METADATA.encode()])
        params = validate(facts["params"], f"{path}, params")
        results = Results(
            params=params,
            root=path.parent,
            errors=pd.DataFrame(facts["errors"], columns=ERROR_COLUMNS),
            histories=pd.DataFrame(facts["histories"], columns=HISTORY_FACTS).astype(HISTORY_TYPES),
            runs=pd.DataFrame(facts["runs"], columns=RUN_FACTS),
            trials={},
            chosen={},
            analyses=facts["analyses"],
            meta=facts["meta"],
            missing=[],
            loaded={variant: predictions[predictions["variant"] == variant] for variant in params.variants},
        )
        return results, facts["checks"]
    except FileNotFoundError as error:
        there = ", ".join(sorted(found.parent.name for found in path.parent.parent.glob(f"*/{PREDICTIONS}"))) or "none"
        raise UserError(f"{path}: is missing; the reports that have one: {there}; `dvc repro` makes it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: is damaged ({reason:.100}); `git checkout {path}` restores it, `dvc repro` makes it again"
        ) from error


def _raced() -> set[str]:
    """Return the variants of which a claim or a question reads each epoch."""
    items: list[Claim | Question] = [*registry().claims, *registry().questions]
    races = [item for item in items if item.measure in EPOCH_MEASURES]
    steps = [step for race in races if isinstance(race, Claim) for step in race.steps]
    return {side.variant for race in (*races, *steps) for side in (race.treatment, race.control) if side}


def _columns(table: pd.DataFrame, names: list[str]) -> dict[str, list[Any]]:
    """Return the columns as JSON holds them: None for NaN and for a column that is not there."""
    values = table.reindex(columns=names).astype(object)
    return {name: values[name].where(values[name].notna(), None).to_list() for name in names}
