"""Idle threads must sleep, whichever way the trainings are started."""

import subprocess
import sys
import warnings

import pytest

from joulefront.search.openmp import ask_to_sleep, warn_of_spinning
from joulefront.search.running.machine import cores

SHOW = "import os; print(repr(os.environ.get('OMP_WAIT_POLICY')), openmp.WAIT_POLICY)"


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
    assert said_by(f"{way_in}; from joulefront.search import openmp; {SHOW}") == "'PASSIVE' PASSIVE"


def test_a_policy_of_the_users_own_wins() -> None:
    assert said_by(f"from joulefront.search import openmp; {SHOW}", OMP_WAIT_POLICY="ACTIVE") == "'ACTIVE' ACTIVE"


def test_torch_before_us_is_known_and_its_children_still_sleep() -> None:
    environment: dict[str, str] = {}
    assert ask_to_sleep(environment, {"torch"}) is None
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}
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
