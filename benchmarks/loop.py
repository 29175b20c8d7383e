"""The embedded baseline's training loop: beside plain PyTorch's, its bound, its input and itself without Lightning."""

from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import ours
from benchmarks.harness import Contender, Row, ratio, rounds_of
from benchmarks.plain import plain_loop
from benchmarks.setups import params, store

ROUNDS, EPOCHS = 5, 15


def contender(kind: str) -> Callable[[], float | None]:
    settings = params("embedded").settings("baseline", {"train": {"epochs": EPOCHS}})
    if kind == "plain":
        return plain_loop(store("embedded"), settings, EPOCHS)
    work: Callable[[], float | None] = getattr(ours, kind)(store("embedded"), settings)
    return work


def rows() -> list[Row]:
    kinds = ("plain", "lightning_loop", "bare_loop", "repeated_batch", "input_alone")
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender("benchmarks.loop:contender", kind=kind)) for kind in kinds]
        times = rounds_of(contenders, ROUNDS)
    return [
        ratio("loop_embedded", "speedup", "plain PyTorch", [plain / loop for plain, loop, *_ in times]),
        ratio("loop_bound", "share", "no normalisation, one batch repeated", [t[3] / t[1] for t in times]),
        ratio("input_share", "share", "the loop", [t[4] / t[1] for t in times]),
        ratio("lightning_overhead", "overhead", "the same steps in a bare loop", [t[1] / t[2] for t in times]),
    ]
