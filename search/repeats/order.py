"""In which order finalists are trained again, so that a machine that warms up or slows down favours none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

ORDERS = ("random", "abba", "given")


@dataclass(frozen=True)
class Slot:
    """One training of a plan.

    Attributes:
        round: Number of the round; every round holds each trial once.
        position: Place in the whole plan, from 0.
        trial: Number of the trial that is trained again.
    """

    round: int
    position: int
    trial: int


def slots(trials: Sequence[int], times: int, order: str, seed: int, *, first_round: int = 0) -> tuple[Slot, ...]:
    """Return the trainings of a plan in their order: randomised complete blocks, there and back, or as given.

    Args:
        trials: Numbers of the trials, each once.
        times: Number of rounds.
        order: ``random`` draws a new order in every round; ``abba`` goes there and back, so that over an even number of rounds each trial
            has the same mean position and a linear drift cancels; ``given`` keeps the order, for machines that are known to be steady.
        seed: Seeds ``random``; equal seeds give equal plans.
        first_round: Number of the first round.

    Raises:
        ValueError: If ``times`` or ``order`` break their rule, or a trial is named twice or not at all.

    Source:
        Randomised complete blocks: Montgomery, "Design and Analysis of Experiments", chapter 4.
    """
    if times < 1:
        raise ValueError(f"--times must be >= 1, got {times}; an interval needs 2 or more, 5 is usual")
    if order not in ORDERS:
        raise ValueError(f"--order must be one of {', '.join(ORDERS)}, got {order!r}")
    if not trials or len(set(trials)) != len(trials):
        raise ValueError(f"a plan needs each trial once and at least one, got {list(trials)}")
    plan: list[Slot] = []
    for number in range(first_round, first_round + times):
        block = list(trials)
        if order == "random":
            Random(f"{seed}:{number}").shuffle(block)
        elif order == "abba" and (number - first_round) % 2:
            block.reverse()
        plan += [Slot(number, len(plan) + place, trial) for place, trial in enumerate(block)]
    return tuple(plan)
