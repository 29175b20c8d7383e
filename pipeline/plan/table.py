"""A plan as text: one table of the time, one of what is needed, and what both rest on."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import psutil
import torch
from tabulate import tabulate

from pipeline import hardware
from pipeline.plan import needs
from pipeline.plan.work import Machine, NetCost, Row, Work, cost_key, rows, run_seconds

# Section 5: 90 cycles through 1.2 million images
PAPER_DAYS, PAPER_MACHINE = (5, 6), "two GTX 580"
UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"))
SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))


@dataclass(frozen=True)
class Here:
    """The machine that the plan is for."""

    device: str
    free_disk: int  # bytes
    memory: int
    used_memory: int  # by the measurement, at most


def here(work: Work, used_memory: int) -> Here:
    device = hardware.device(work.params.hardware)
    threads = torch.get_num_threads()
    cpu = f"a CPU, {threads} thread{'s' if threads > 1 else ''}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return Here(name, shutil.disk_usage(Path()).free, psutil.virtual_memory().total, used_memory)


def text(
    work: Work, machine: Machine, costs: Mapping[str, NetCost], where: Here, took_s: float, price: float | None
) -> str:
    """Markdown. price: of an hour on this machine."""
    planned = rows(work, machine, costs)
    parts = [
        f"# `{work.params.scale}` on {where.device}: at most {duration(_total(planned))}",
        f"{work.params.title}. Measured for {took_s:.0f} s on made-up images; `from` says what, and the rest of the "
        "time is that times what there is to do.",
        _times(planned),
        _costs(work, costs, planned, price),
        _needs(work, costs, where),
        _assumptions(work, machine, costs),
    ]
    return "\n\n".join(parts)


def duration(seconds: float) -> str:
    """In the largest unit of which there is one."""
    for length, unit in UNITS:
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def size(count: float) -> str:
    for step, unit in SIZES:
        if count >= step:
            return f"{count / step:,.1f} {unit}"
    return f"{count / 1e6:.1f} MB"


def _total(planned: list[Row]) -> float:
    return sum(row.seconds for row in planned)


def _times(planned: list[Row]) -> str:
    table: list[list[str]] = []
    for stage, group in groupby(planned, lambda row: row.stage):
        lines = list(group)
        table += [
            [stage, row.name, str(row.runs), str(row.epochs or ""), duration(row.seconds), row.basis] for row in lines
        ]
        if len(lines) > 1:
            runs = sum(row.runs for row in lines)
            table.append([f"**{stage}**", "together", str(runs), "", f"**{duration(_total(lines))}**", ""])
    table.append(["**all**", "", "", "", f"**{duration(_total(planned))}**", ""])
    head = ["stage", "variant", "runs", "epochs each, at most", "time", "from"]
    text: str = tabulate(
        table, head, "pipe", colalign=["left", "left", "right", "right", "right", "left"], disable_numparse=True
    )
    return text


def _costs(work: Work, costs: Mapping[str, NetCost], planned: list[Row], price: float | None) -> str:
    settings = work.params.settings("baseline")
    one = run_seconds(costs[cost_key(settings)], work.counts, settings.train.epochs)
    lines = [f"- One run of the baseline: {duration(one)}" + _priced(one, price)]
    if work.params.data.dataset.startswith("imagenet") and settings.net.width == 1:
        low, high = PAPER_DAYS
        ratio = (low + high) / 2 * 86_400 / one
        times = f"{ratio:,.1f} times as fast" if ratio >= 1 else f"{1 / ratio:,.1f} times slower"
        lines.append(f"- The paper's: {low} to {high} days on {PAPER_MACHINE} (its section 5); this is {times}.")
    total = _total(planned)
    return "\n".join([*lines, f"- All stages: {duration(total)}" + _priced(total, price)])


def _priced(seconds: float, price: float | None) -> str:
    return "." if price is None else f", {seconds / 3600 * price:,.2f} at {price:g} an hour."


def _needs(work: Work, costs: Mapping[str, NetCost], where: Here) -> str:
    disk = needs.disk(work, costs)
    table = [["disk", what, size(count)] for what, count in disk.items()]
    table += [
        ["**disk**", "all of it, at most", f"**{size(sum(disk.values()))}**"],
        ["disk", "free here", size(where.free_disk)],
        ["memory", "used by this measurement, at most", size(where.used_memory)],
        ["memory", "evaluation: probabilities of the largest split", size(needs.evaluation_memory(work))],
        ["memory", "of this machine", size(where.memory)],
    ]
    text: str = tabulate(
        table, ["needed", "for", "bytes"], "pipe", colalign=["left", "left", "right"], disable_numparse=True
    )
    return text


def _assumptions(work: Work, machine: Machine, costs: Mapping[str, NetCost]) -> str:
    fastest = max(1 / cost.image_s for cost in costs.values())
    lines = [
        "an upper bound: every run takes all its epochs. Plateaus end some earlier, a training error that is to be "
        "reached ends others, and tuning prunes trials",
        "one run after another on one device, which nothing else uses more than during the measurement",
        f"a disk that gives images as fast as training takes them, {size(fastest * work.image_bytes)}/s, and for "
        f"checksums {size(1 / machine.hash_byte_s)}/s",
        f"`prepare` as many times faster as it has processes ({machine.workers})",
        "nothing finished yet: runs that the resume folder or DVC's cache holds take no time",
        "without what is downloaded, DVC's own time between stages, and what is sent to MLflow",
    ]
    return "It assumes\n" + "\n".join(f"- {line};" for line in lines[:-1]) + f"\n- {lines[-1]}."
