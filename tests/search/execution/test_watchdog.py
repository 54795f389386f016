"""What ends a training that hangs: an exception in its thread, or the end of the process."""

import contextlib
import threading
import time
from collections.abc import Callable

import pytest
from helpers import forked

from joulefront.search.execution.watch import UNWATCHED, Watch, watched, within


def loop() -> None:
    while True:
        with contextlib.suppress(Exception):  # as a model may
            sum(range(100))


@pytest.mark.parametrize("hang", [loop, lambda: time.sleep(60), threading.Event().wait], ids=["loop", "sleep", "lock"])
def test_python_that_hangs_is_interrupted(hang: Callable[[], None]) -> None:
    began = time.monotonic()
    assert watched(hang, Watch(within(0.3))) == (None, "it did not end within 0 s")
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_a_loop_in_another_thread_is_interrupted_too() -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(watched(loop, Watch(within(0.3)))), daemon=True)
    thread.start()
    thread.join(20)
    assert found == [(None, "it did not end within 0 s")]


@pytest.mark.slow
def test_work_that_ends_is_left_alone() -> None:
    assert watched(lambda: 7, UNWATCHED) == (7, None)
    for _ in range(50):  # also when it is overdue from the beginning: the exception ends here or never comes
        found, reason = watched(lambda: 7, Watch(lambda: "late"))
        assert (found, reason) in ((7, None), (7, "late"), (None, "late"))
    time.sleep(1.2)


@pytest.mark.slow
def test_what_nothing_can_interrupt_is_written_down_and_ends_the_process() -> None:
    script = (
        "import ctypes\n"
        "from joulefront.search.execution import watch\n"
        "watch.ATTEMPTS = 1\n"
        "libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)\n"
        "def hang():\n"
        "    for _ in range(2): libc.pthread_mutex_lock(mutex)\n"
        "mine = watch.Watch(watch.within(1), lambda reason: print('written down:', reason, flush=True))\n"
        "watch.watched(hang, mine)\n"
    )
    done = forked.run("-c", script, timeout=60)
    assert done.returncode == 1
    assert done.stdout == "written down: it did not end within 1 s\n"
    assert "the same command continues" in done.stderr
