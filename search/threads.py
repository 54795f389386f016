"""Threads sleep while they wait for work: spinning costs energy that a meter would attribute to the model.

GNU OpenMP lets idle threads spin for milliseconds; a small network then costs several times the CPU-seconds of its arithmetic
(``tests/benchmarks/threads.py``). The threads of OpenBLAS, one set each for numpy and scipy, keep spinning long after every product or
factorisation (``tests/search/test_threads.py``): a training that begins when the sampler has just decided pays for them. The
environment makes both sleep. It is read once, when torch, scikit-learn or numpy loads the library; so it is set when
``joulefront.search`` is imported, and worker processes inherit it. A policy of the user's own wins.

Source: https://gcc.gnu.org/onlinedocs/libgomp/OMP_005fWAIT_005fPOLICY.html; OpenBLAS, driver/others/blas_server.c (a thread sleeps after
2 to the power of ``OPENBLAS_THREAD_TIMEOUT`` ticks of the processor's clock; 4 to 30 are taken).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Container, MutableMapping

POLICY = "OMP_WAIT_POLICY"
BLAS_TIMEOUT, SOON = "OPENBLAS_THREAD_TIMEOUT", "4"
#: Either of them loads the thread library.
LOADERS = ("torch", "sklearn")


def ask_to_sleep(environment: MutableMapping[str, str], loaded: Container[str]) -> str | None:
    """Make waiting threads sleep by the environment, unless the user has set a policy; ``loaded`` are the modules that are loaded already.

    Return the policy that is in force; None when it came too late for this process (its children will have it).
    """
    late = POLICY not in environment and any(name in loaded for name in LOADERS)
    policy = environment.setdefault(POLICY, "PASSIVE")
    environment.setdefault(BLAS_TIMEOUT, SOON)
    return None if late else policy


#: What the environment gets here and did not have: a command of the user's own does not inherit it.
ADDED = frozenset({POLICY, BLAS_TIMEOUT} - os.environ.keys())
#: The policy of this process; None when torch was loaded before it could be set.
WAIT_POLICY = ask_to_sleep(os.environ, sys.modules)


def warn_of_spinning(threads: int, policy: str | None = WAIT_POLICY) -> None:
    """Warn of trainings whose threads will spin, by what ``ask_to_sleep`` has returned; one thread never waits."""
    if threads > 1 and policy is None:
        warnings.warn(
            "torch was imported before joulefront.search: its idle threads spin, and small models cost up to several times their energy. "
            "Import joulefront.search first, or start Python with OMP_WAIT_POLICY=PASSIVE (or OMP_NUM_THREADS=1)",
            stacklevel=3,
        )


def cores() -> int:
    """Number of processor cores that trainings may use: those of this process, or fewer where ``OMP_NUM_THREADS`` is set."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list is for nested teams: the outermost counts
    return min(here, int(limit)) if limit.isdecimal() and int(limit) > 0 else here
