"""One training step of the full net at 227 px, input included: beside plain PyTorch's, and against its arithmetic."""

from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import ours
from benchmarks.harness import Contender, Row, ratio, rounds_of
from benchmarks.plain import plain_loop
from benchmarks.setups import params, store

ROUNDS = 5


def contender(kind: str) -> Callable[[], None]:
    settings = params("full").settings("baseline", {"train": {"epochs": 1}})
    if kind == "plain":
        return plain_loop(store("full"), settings, epochs=1, max_steps=1)
    if kind == "ours":
        return ours.bare_loop(store("full"), settings, steps=1)
    return ours.arithmetic(store("full"), settings)


def rows() -> list[Row]:
    with ExitStack() as stack:
        contenders = [
            stack.enter_context(Contender("benchmarks.step:contender", kind=kind))
            for kind in ("plain", "ours", "arithmetic")
        ]
        times = rounds_of(contenders, ROUNDS)
    return [
        ratio("step_full", "speedup", "plain PyTorch", [plain / step for plain, step, _ in times]),
        ratio("step_bound", "share", "its convolutions and products", [bound / step for _, step, bound in times]),
    ]
