"""What went wrong beside the readings, kept so that a record can say it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from .clock import NANO, Clock

#: Different texts that are kept; a text that is never twice the same must not fill the memory.
MOST = 100
#: What went wrong is taken to last for so long: sources are asked for their extras now and then, the rarest at each beat.
LASTS_NS = 5 * NANO


@dataclass
class _Trouble:
    first_ns: int
    last_ns: int
    times: int = 1


class Troubles:
    """Texts with the stretch of time in which they were noted.

    A source that fails at telling a temperature must end neither the measuring nor the work that is measured; it ends up here instead.

    Args:
        clock: Monotonic nanoseconds.
    """

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, _Trouble] = {}

    def note(self, text: str) -> None:
        """Note that something went wrong now."""
        now = self._clock()
        with self._lock:
            known = self._seen.get(text)
            if known is not None:
                known.last_ns, known.times = now, known.times + 1
            elif len(self._seen) < MOST:
                self._seen[text] = _Trouble(now, now)

    def ask(self, source: object, what: str) -> dict[str, Any]:
        """Return what a source says by component, or nothing, with a note, when it raises.

        Args:
            source: The source.
            what: Name of its method.
        """
        try:
            return dict(getattr(source, what)())
        except Exception as error:  # whatever somebody else's meter does, the measuring goes on
            self.note(f"{getattr(source, 'name', None) or type(source).__name__} failed at {what}: {error!r}")
            return {}

    def during(self, t0_ns: int, t1_ns: int) -> list[str]:
        """Return what was noted between two instants, shortly before them, or both before and after them."""
        with self._lock:
            found = [(text, one.times) for text, one in self._seen.items() if one.first_ns <= t1_ns and t0_ns <= one.last_ns + LASTS_NS]
        return [text if times == 1 else f"{text} ({times} times by now)" for text, times in found]
