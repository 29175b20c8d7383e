"""Where the time of a training step goes, on CPUs."""

import pandas as pd
from torch.profiler import profile, record_function

from benchmarks import ours
from benchmarks.setups import params, store

PARTS = {  # each name of torch's profiler stands for all that it calls
    "convolutions": ("aten::convolution", "ConvolutionBackward0"),
    "fully connected layers": ("aten::linear", "AddmmBackward0"),
    "normalization": ("_Normalize", "_NormalizeBackward"),
    "pooling": ("aten::max_pool2d", "MaxPool2DWithIndicesBackward0"),
    "ReLU": ("aten::relu_", "ReluBackward0"),
    "dropout": ("aten::rand_like", "MulBackward0"),
    "update": ("Optimizer.step#PaperSGD.step",),
    "input": ("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", ours.FINISHING),
}
WHOLE = "whole step"
STEPS = {"full": 1, "embedded": 8}
COLUMNS = [f"{size} net, {unit}" for size in STEPS for unit in ("ms", "%")]


def table() -> pd.DataFrame:
    """Milliseconds a step and share, for both sizes."""
    columns = {}
    for size, steps in STEPS.items():
        milliseconds = _milliseconds(size, steps)
        columns[f"{size} net, ms"] = milliseconds.round(1)
        columns[f"{size} net, %"] = (100 * milliseconds / milliseconds[WHOLE]).round(1)
    return pd.DataFrame(columns)


def _milliseconds(size: str, steps: int) -> "pd.Series[float]":
    settings = params(size).settings("baseline", {"train": {"epochs": 1}})
    work = ours.bare_loop(store(size), settings, steps=steps)
    work()
    with profile() as profiler, record_function(WHOLE):
        work()
    events = {event.key: event.cpu_time_total / 1000 / steps for event in profiler.key_averages()}
    parts = {part: sum(events.get(name, 0.0) for name in names) for part, names in PARTS.items()}
    rest = events[WHOLE] - sum(parts.values())
    return pd.Series({**parts, "everything else": rest, WHOLE: events[WHOLE]})
