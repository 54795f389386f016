"""Idle threads must sleep, whichever way the trainings are started."""

import subprocess
import sys
import warnings

import numpy as np  # noqa: F401  # loads the algebra that is asked for below
import pytest
from threadpoolctl import threadpool_info

from joulefront.search.running.trial_runner import one_blas_thread
from joulefront.search.threads import ask_to_sleep, cores, warn_of_spinning

pytestmark = pytest.mark.slow

SPINS = cores() > 1 and any(library.get("threading_layer") == "pthreads" for library in threadpool_info())
SHOW = "import os; print(repr(os.environ.get('OMP_WAIT_POLICY')), threads.WAIT_POLICY)"
#: Ends the process where it begins to load an algebra: what is asked for must have been set by then, and loading it takes seconds.
AT_THE_ALGEBRA = f"""
import os, sys
class Stop:
    def find_spec(name, path=None, target=None):
        if name in ("torch", "numpy"):
            from joulefront.search import threads
            {SHOW}
            sys.stdout.flush()
            os._exit(0)
sys.meta_path.insert(0, Stop)
"""
#: CPU-seconds that this process takes in a quarter of a second in which it does nothing, after a product of matrices.
AFTER = (
    "import numpy as np, time; a = np.ones((400, 400)); a @ a; begin = time.process_time(); time.sleep(0.25); "
    "print(time.process_time() - begin)"
)


def said_by(code: str, **environment: str) -> str:
    """What a fresh interpreter prints that has no policy of its own."""
    clean = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "way_in",
    [
        "from joulefront.search import run",
        "import joulefront.search.cli",
        "import joulefront.spaces.convnet",
        "import joulefront.studies.digits",
    ],
)
def test_every_way_in_lets_idle_threads_sleep(way_in: str) -> None:
    code = f"{AT_THE_ALGEBRA}\n{way_in}; import torch"
    assert said_by(code) == "'PASSIVE' PASSIVE"


def test_a_policy_of_the_users_own_wins() -> None:
    assert said_by(f"from joulefront.search import threads; {SHOW}", OMP_WAIT_POLICY="ACTIVE") == "'ACTIVE' ACTIVE"


def test_torch_before_us_is_known_and_its_children_still_sleep() -> None:
    environment: dict[str, str] = {}
    assert ask_to_sleep(environment, {"torch"}) is None
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
    assert ask_to_sleep(environment, {"torch"}) == "PASSIVE"  # a worker process that inherits it


def test_threads_that_will_spin_are_warned_of_with_the_remedy() -> None:
    with pytest.warns(UserWarning, match=r"OMP_WAIT_POLICY=PASSIVE.*OMP_NUM_THREADS=1"):
        warn_of_spinning(2, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_spinning(1, None)  # one thread never waits
        warn_of_spinning(2, "PASSIVE")
        warn_of_spinning(2, "ACTIVE")  # the user has decided


@pytest.mark.parametrize(("said", "most"), [("1", 1), ("1,4", 1), ("", 10**6), ("0", 10**6), ("many", 10**6)])
def test_trainings_take_no_more_threads_than_the_user_allows(monkeypatch: pytest.MonkeyPatch, said: str, most: int) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    here = cores()
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert cores() == min(here, most)


def test_threads_of_the_algebra_sleep_when_it_is_done() -> None:
    many = {"OMP_NUM_THREADS": "2"}
    assert float(said_by(f"import joulefront.search; {AFTER}", **many)) < 0.02
    # With numpy before us they may spin, as they do when they are made, but not after a decision.
    limited = AFTER.replace(
        "a @ a;", "time.sleep(1.0); guard = one_blas_thread(); guard.__enter__(); a @ a; guard.__exit__(None, None, None);"
    )
    assert float(said_by(f"import numpy; from joulefront.search.running.trial_runner import one_blas_thread; {limited}", **many)) < 0.02


@pytest.mark.skipif(not SPINS, reason="needs two cores and OpenBLAS with threads of its own")
def test_a_timeout_of_the_users_own_wins_and_costs_what_it_costs() -> None:
    spent = said_by(f"import joulefront.search; {AFTER}", OMP_NUM_THREADS="2", OPENBLAS_THREAD_TIMEOUT="30")
    assert float(spent) > 0.03  # a whole core where nobody else wants it


def test_after_a_decision_the_algebra_has_its_threads_again() -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    with one_blas_thread():
        assert set(threads()) <= {1}
    assert threads() == before
