"""Ctrl-C: the first ends after the current epoch, the second at once; what was measured is kept."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def stop_on_interrupt(interrupted: threading.Event) -> Iterator[None]:
    """Set an event at the first SIGINT or SIGTERM and raise at the second; nothing is changed outside of the main thread.

    Args:
        interrupted: Asked between epochs by the work inside.

    Raises:
        KeyboardInterrupt: At the second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        again = "press Ctrl-C again" if signum == signal.SIGINT else "send the signal again"
        print(f"\nstopping after this epoch; {again} to stop at once", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
