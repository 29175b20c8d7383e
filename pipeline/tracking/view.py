"""The page of MLflow that `make ui` leads to: what its table shows and its charts draw.

MLflow keeps a shared view as JSON in a tag of the experiment, and applies it where the address names its key.
"""

import json
from typing import Any

KEY = "alexnet"
TAG = f"mlflow.sharedViewState.{KEY}"
QUERY = f"workflowType=machine_learning&viewStateShareKey={KEY}&compareRunsMode="  # TABLE or CHART
ORDER = "alexnet.order"  # the tag by which runs are sorted
SECTION = "errors"


def _chart(uuid: str, kind: str, metric: str, title: str) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "type": kind,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "displayName": title,
        "metricSectionId": SECTION,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }


def state() -> str:
    """Return the view: trainings by variant, the baseline first, with their errors as columns and as charts."""
    columns = [("tags", "scale"), ("params", "seed"), ("metrics", "test_error_top1"), ("metrics", "val_error_top1")]
    columns += [("params", "train.lr"), ("params", "train.weight_decay")]
    return json.dumps(
        {
            "searchFilter": "tags.kind = 'training'",
            "orderByKey": f"tags.`{ORDER}`",
            "orderByAsc": True,
            "selectedColumns": [f"{kind}.`{name}`" for kind, name in columns],
            "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "variant"}]},
            "runsHiddenMode": "SHOW_ALL",
            "hideEmptyCharts": True,
            "compareRunSections": [{"uuid": SECTION, "name": "Errors, %", "display": True, "isReordered": False}],
            "compareRunCharts": [
                _chart("validation", "LINE", "val_error_top1", "top-1 error on validation images, over epochs"),
                _chart("training", "LINE", "train_error_top1", "top-1 error on training images, over epochs"),
                _chart("test", "BAR", "test_error_top1", "top-1 error on test images"),
            ],
        }
    )
