"""The embedded baseline's training loop: beside plain PyTorch's, its bound, its input and itself without Lightning."""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle

from benchmarks import ours
from benchmarks.harness import Contender, Row, ratio, rounds_of, seconds_of
from benchmarks.plain import plain_loop
from benchmarks.setups import params, store

ROUNDS, PAIRS, EPOCHS = 5, 9, 15


def contender(kind: str) -> Callable[[], float | None]:
    settings = params("embedded").settings("baseline", {"train": {"epochs": EPOCHS}})
    if kind == "in_turn":
        return _in_turn(ours.lightning_loop(store("embedded"), settings), ours.bare_loop(store("embedded"), settings))
    if kind == "plain":
        return plain_loop(store("embedded"), settings, EPOCHS)
    work: Callable[[], float | None] = getattr(ours, kind)(store("embedded"), settings)
    return work


def _in_turn(lightning: Callable[[], float], bare: Callable[[], None]) -> Callable[[], float]:
    """One of them at each call: two processes that do the same differ by more than Lightning costs."""
    turn = cycle([lightning, lambda: seconds_of(bare)])
    return lambda: next(turn)()


def rows() -> list[Row]:
    kinds = ("plain", "lightning_loop", "repeated_batch", "input_alone")
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender("benchmarks.loop:contender", kind=kind)) for kind in kinds]
        times = rounds_of(contenders, ROUNDS)
    with Contender("benchmarks.loop:contender", kind="in_turn") as pair:
        pair.seconds()  # warms the bare loop up too
        pairs = [(pair.seconds(), pair.seconds()) for _ in range(PAIRS)]
    return [
        ratio("loop_embedded", "speedup", "plain PyTorch", [plain / loop for plain, loop, *_ in times]),
        ratio("loop_bound", "share", "no normalization, one batch repeated", [t[2] / t[1] for t in times]),
        ratio("input_share", "share", "the loop", [t[3] / t[1] for t in times]),
        ratio(
            "lightning_overhead",
            "overhead",
            "the same steps in a bare loop",
            [lightning / bare for lightning, bare in pairs],
        ),
    ]
