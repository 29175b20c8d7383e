"""The article's six architectures side by side: what each step of their history bought."""

from dataclasses import dataclass

import pandas as pd

from pipeline.claims.effects import Interval, mean_interval
from pipeline.claims.results import Results
from pipeline.paper.claims import Side
from pipeline.paper.published import published
from pipeline.report.formatting import NOTHING, markdown, number, with_interval

# published name: how its variants are called here, the baseline's and `tuned` where there is no prefix
NETS = {
    "LeNet-5": "lenet5",
    "AlexNet": "",
    "ZFNet": "zfnet",
    "VGG-16": "vgg16",
    "GoogLeNet": "googlenet",
    "ResNet-50": "resnet18",
}
MILLION = 1e6


@dataclass(frozen=True)
class Member:
    """One net as trained here, and what was published of its largest sister that a table of ten crops has."""

    title: str
    year: int
    printed: str  # variants
    tuned: str
    equal_work: str
    published_top5: float | None  # %, ten crops, ILSVRC-2012 validation
    published_multiply_adds: float


def members(results: Results) -> list[Member]:
    """Return the nets of which the scale trains a variant at its tuned rate, by year; none for other scales."""
    nets = {net.name: net for net in published().architectures}
    found = []
    for name, prefix in NETS.items():
        printed, tuned = (prefix, f"{prefix}_tuned") if prefix else ("baseline", "tuned")
        if tuned in results.params.variants:
            title = results.params.settings(tuned).net.title.partition(" at ")[0]
            top5 = nets[name].ten_crops[0].top5 if nets[name].ten_crops else None
            work = f"{prefix}_equal_work" if prefix else "tuned"
            count = nets[name].multiply_adds.value
            found.append(Member(title, nets[name].year, printed, tuned, work, top5, count))
    return found if len(found) > 1 else []


def test_error(results: Results, variant: str) -> Interval:
    """Return the mean over the seeds, in %."""
    return mean_interval(results.by_seed(Side(variant=variant), "error_top1"))


def fact(results: Results, variant: str, name: str) -> float | None:
    """Return what run.json says alike of all the variant's runs."""
    values = results.run_fact(variant, name).dropna()
    return None if values.empty else float(values.iloc[0])


def table(results: Results) -> str:
    """Return a row for each net: its size, and its errors by its paper's recipe, tuned, and at AlexNet's work."""
    rows = []
    for member in members(results):
        parameters, work = (fact(results, member.tuned, name) for name in ("parameters", "multiply_adds"))
        rate = results.run_fact(member.tuned, "settings").dropna()
        rows.append(
            {
                "net": f"{member.title} ({member.year})",
                "parameters": number(parameters, 0),
                "multiply-adds, million": number(None if work is None else work / MILLION, 1),
                "as printed, %": with_interval(test_error(results, member.printed), 1),
                "tuned, %": with_interval(test_error(results, member.tuned), 1),
                "tuned rate": NOTHING if rate.empty else f"{rate.iloc[0]['train']['lr']:.2g}",
                "at AlexNet's multiply-adds, %": with_interval(test_error(results, member.equal_work), 1),
                "published top-5, %": number(member.published_top5),
            }
        )
    return markdown(pd.DataFrame(rows), numbers=list(rows[0])[1:] if rows else ())
