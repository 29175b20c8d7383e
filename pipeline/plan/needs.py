"""What a configuration needs beside time: disk and memory, by arithmetic."""

from collections.abc import Mapping

from pipeline.plan.work import NetCost, Work, cost_key

PREDICTION_BYTES = 42  # of a row of predictions.parquet, before compression


def disk(work: Work, costs: Mapping[str, NetCost]) -> dict[str, int]:
    """Bytes by what they are for, at most: resume folder, outs and DVC's cache are counted as copies."""
    seeds = len(work.params.seeds)
    nets = {variant: costs[cost_key(work.params.settings(variant))] for variant in work.params.variants}
    trials = [costs[cost_key(work.params.settings(study))].parameters for study in work.params.tune.studies]
    weights = [4 * cost.parameters * seeds for cost in nets.values()]
    rows = sum(seeds * _prediction_rows(work, variant) for variant in nets)
    largest = max(cost.parameters for cost in nets.values())
    return {
        "image store": work.store_bytes,
        "its copy in DVC's cache": work.store_bytes,
        "weights: resume folder, outs, DVC's cache": 3 * sum(weights),
        "weights of tuning's trials": 4 * sum(trials) * work.params.tune.trials,
        "predictions: outs, DVC's cache": 2 * rows * PREDICTION_BYTES,
        "checkpoint, and the next one": 2 * 12 * largest,  # weights and at most two moments
    }


def _prediction_rows(work: Work, variant: str) -> int:
    return work.images + (work.counts["test"] if variant in work.params.evaluate.ten_crop else 0)


def evaluation_memory(work: Work) -> int:
    """Bytes: the probabilities of a whole split, their mean over views and what is compared with them."""
    largest = max(work.counts.values())
    return largest * work.classes * (4 + 4 + 1)
