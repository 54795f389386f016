"""How threads wait for work: asleep. Threads that spin while they wait burn energy, which a meter would book as the model's.

GNU OpenMP lets idle threads spin for milliseconds; a small network then costs several times the CPU-seconds of its arithmetic
(``tests/benchmarks/threads.py``). ``OMP_WAIT_POLICY`` is read once, when torch or scikit-learn loads the library, so it is said when
``joulefront.search`` is imported, into the environment, where worker processes find it, too. A policy of the user's own wins.

Source: https://gcc.gnu.org/onlinedocs/libgomp/OMP_005fWAIT_005fPOLICY.html
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Container, MutableMapping

POLICY = "OMP_WAIT_POLICY"
#: Either of them loads the thread library.
LOADERS = ("torch", "sklearn")


def ask_to_sleep(environment: MutableMapping[str, str], loaded: Container[str]) -> str | None:
    """Say in the environment that waiting threads sleep, unless the user has said something else.

    Args:
        environment: Environment variables of this process.
        loaded: Modules that are loaded already.

    Returns:
        The policy that is in force; None when it came too late for this process (its children will have it).
    """
    late = POLICY not in environment and any(name in loaded for name in LOADERS)
    policy = environment.setdefault(POLICY, "PASSIVE")
    return None if late else policy


#: The policy of this process; None when torch was loaded before it could be said.
WAIT_POLICY = ask_to_sleep(os.environ, sys.modules)


def warn_of_spinning(threads: int, policy: str | None = WAIT_POLICY) -> None:
    """Warn of trainings whose threads will spin; one thread never waits.

    Args:
        threads: Threads of a training.
        policy: What ``ask_to_sleep`` has returned.
    """
    if threads > 1 and policy is None:
        warnings.warn(
            "torch was imported before joulefront.search: its idle threads spin, and small models cost up to several times their energy. "
            "Import joulefront.search first, or start Python with OMP_WAIT_POLICY=PASSIVE (or OMP_NUM_THREADS=1)",
            stacklevel=3,
        )
