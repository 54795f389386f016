"""How work ends: signals ask for it, and every step at the end is taken, also after an error, the first of which the user sees."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from ..execution.job import reason_of

T = TypeVar("T")


@contextmanager
def noted_on(error: BaseException) -> Iterator[None]:
    """Make an error inside a note on an earlier one, which it would hide."""
    try:
        yield
    except BaseException as later:
        if later is not error:
            error.add_note(f"then: {reason_of(later)}")


class Endings:
    """Steps that are taken at the end, the last one first, each of them whatever becomes of the others.

    The error inside, or else the first one of a step, is raised; those that come later are notes on it.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[BaseException | None], object]] = []

    def then(self, step: Callable[[BaseException | None], object]) -> None:
        """Take a step before those that were named so far; it is given the error so far, if any."""
        self._steps.append(step)

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter a context that is left at the end; none of them swallows an error."""
        value = context.__enter__()

        def leave(error: BaseException | None) -> None:
            context.__exit__(None if error is None else type(error), error, None if error is None else error.__traceback__)

        self.then(leave)
        return value

    def close(self, error: BaseException | None = None) -> None:
        """Take the steps that are left; raises the first error of one, unless there is one already."""
        first = error
        while self._steps:
            step = self._steps.pop()
            try:
                step(first)
            except BaseException as later:
                if first is None:
                    first = later
                elif later is not first:
                    first.add_note(f"then: {reason_of(later)}")
        if first is not None and error is None:
            raise first

    def __enter__(self) -> Endings:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(error)


@dataclass
class Interrupts:
    """What the user's signals (SIGINT, SIGTERM) do to a session.

    Attributes:
        seen: Set by the first signal; checked between epochs.
        patient: Whether the first signal lets an epoch end; otherwise it raises, as every later one does.
        terminated: Whether one of them was SIGTERM, which is meant for the process: it is sent again when all is closed.
    """

    seen: threading.Event = field(default_factory=threading.Event)
    patient: bool = False
    terminated: bool = False


@contextmanager
def stop_on_interrupt() -> Iterator[Interrupts]:
    """Handle SIGINT and SIGTERM, which ends the process after all; nothing is changed outside of the main thread.

    Raises:
        KeyboardInterrupt: At the second signal, or at the first one where nobody looks at the event.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return

    def stop(signum: int, frame: Any) -> None:
        again = interrupts.seen.is_set()
        interrupts.seen.set()
        interrupts.terminated = interrupts.terminated or signum == signal.SIGTERM
        if again or not interrupts.patient:
            raise KeyboardInterrupt
        how = "press Ctrl-C" if signum == signal.SIGINT else "send the signal"
        print(f"\nstopping after this epoch; {how} again to stop at once", file=sys.stderr, flush=True)

    try:
        with ExitStack() as restored:
            for number in (signal.SIGINT, signal.SIGTERM):
                restored.callback(signal.signal, number, signal.signal(number, stop))
            yield interrupts
    finally:
        if interrupts.terminated:
            with suppress(AttributeError, OSError, ValueError):  # no stdout, or nobody reads it
                sys.stdout.flush()
            signal.raise_signal(signal.SIGTERM)
