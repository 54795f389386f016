"""A meter at the plug: the whole machine, with its power supply and fans; beside the components, never added to them."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..source import Capability, Reading
from .plugs import CsvTail, Meter, Sample, callable_meter, http_plug

if TYPE_CHECKING:
    from ..source import Source

#: A counter that moves in larger steps than this places no window of seconds: power is integrated instead.
COARSE_JOULES = 36.0
#: How far a logger's clock may run ahead of this machine's before its times are refused.
AHEAD_SECONDS = 2.0
#: Scale error of household metering plugs.
PLUG_GAIN_U = 0.02
#: Longest wait for a meter's first answer.
FIRST_SECONDS = 10.0
#: Longest wait for the answer that is under way when the meter is closed.
LAST_SECONDS = 2.0
NANO = 1_000_000_000


class Wall:
    """Reads a wall meter on its own thread, since a plug that does not answer must not hold up the other meters.

    Args:
        meter: Asks the plug or the file; see `plugs`.
        target: What is shown to people, e.g. the address.
        poll_seconds: Period of asking; None asks inside every `read` (for files, which answer at once).
        gain_u: Relative standard uncertainty of the meter's scale.
        coarse_joules: A counter with larger steps is not used when there is a power.
        clock: Monotonic nanoseconds.
        utc: Seconds since 1970, for meters that write their own times.
    """

    name = "wall"

    def __init__(
        self,
        meter: Meter,
        target: str = "callable",
        *,
        poll_seconds: float | None = 1.0,
        gain_u: float = PLUG_GAIN_U,
        coarse_joules: float = COARSE_JOULES,
        clock: Callable[[], int] = time.monotonic_ns,
        utc: Callable[[], float] = time.time,
    ) -> None:
        self.meter, self.target, self.poll_seconds = meter, target, poll_seconds
        self.gain_u, self.coarse_joules = gain_u, coarse_joules
        self.clock, self.utc = clock, utc
        self.pending: deque[Reading] = deque(maxlen=100_000)
        self.use_counter: bool | None = None
        self.step_joules = 0.0
        self.pid = os.getpid()
        self._found: tuple[Capability, ...] = ()
        self._last: list[Reading] = []
        self._asking = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._used = False

    def probe(self) -> tuple[Capability, ...]:
        """Ask once, and say what came; asked again, the first good answer stands. After ``close`` it begins anew."""
        if self._found:
            return self._found
        self.pending.clear()
        readings = self._first()
        error = next((reading.error for reading in readings if reading.error), None)
        good = [reading for reading in readings if not reading.error]
        if error is not None and not good:
            remedy = f"check that {self.target} answers from this machine and shows power; see joulefront doctor"
            return (Capability("wall", self.name, False, "measured", "whole machine at the plug (AC)", error, remedy, counts=False),)
        # In a second life, what a logger wrote since the first belongs to nobody.
        self.pending.extend(readings[-1:] if self._used else readings)
        self._stop, self._used = threading.Event(), True
        found = Capability(
            "wall",
            self.name,
            True,
            "measured",
            f"whole machine at the plug (AC), {self.target}",
            reason="no row yet: waiting for the logger" if not good else None,
            # A power is as fresh as the question; when a plug refreshes its counter must be learnt.
            tick_seconds=None if self.use_counter else self.poll_seconds,
            resolution_joules=self.step_joules if self.use_counter else 0.0,
            gain_u=self.gain_u,
            counts=False,
        )
        self._found = (found,)
        return self._found

    def read(self) -> tuple[Reading, ...]:
        """Return what came since the last time, or the last answer again; never waits for a plug."""
        if os.getpid() != self.pid:
            return ()  # the asking thread did not survive the fork; the parent's ledger has the readings
        if self.poll_seconds is None:
            self.pending.extend(self._ask())
        elif self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._poll, args=(self._stop,), name="joulefront-wall", daemon=True)
            self._thread.start()
        found = []
        while self.pending:
            found.append(self.pending.popleft())
        # A reading that is known already changes nothing in a ledger; none at all would pass for a meter that went silent.
        self._last = found[-1:] or self._last
        return tuple(found or self._last)

    def close(self) -> None:
        """Stop asking; waits a little for the answer that is under way. Another ledger may use the meter afterwards."""
        self._stop.set()
        if self._thread is not None and os.getpid() == self.pid:
            self._thread.join(LAST_SECONDS)  # a meter that hangs keeps its thread, which ends with the answer
        self._thread = None
        self._found = ()

    def _first(self) -> tuple[Reading, ...]:
        """Return the first answer; a plug that hangs is one that does not answer."""
        if self.poll_seconds is None:
            return self._ask()
        answers: list[tuple[Reading, ...]] = []
        thread = threading.Thread(target=lambda: answers.append(self._ask()), name="joulefront-wall", daemon=True)
        thread.start()
        thread.join(FIRST_SECONDS)
        return answers[0] if answers else (Reading("wall", self.clock(), error=f"{self.target}: no answer within {FIRST_SECONDS:.0f} s"),)

    def _poll(self, stop: threading.Event) -> None:
        assert self.poll_seconds is not None
        due = time.monotonic()
        while not stop.is_set():
            readings = self._ask()
            if stop.is_set():
                return  # the answer came too late: by now another ledger may use the meter
            self.pending.extend(readings)
            # Absolute deadlines keep the period; a plug that took longer loses its turn instead of being asked twice.
            due = max(due + self.poll_seconds, time.monotonic())
            stop.wait(due - time.monotonic())

    def _ask(self) -> tuple[Reading, ...]:
        with self._asking:
            before = self.clock()
            try:
                samples, error = self.meter(), None
            except Exception as wrong:  # whatever a plug or a user's function does: a gap with a reason; a zero would be a lie
                samples, error = (), f"{self.target}: {type(wrong).__name__}: {wrong}"
            after = self.clock()
        middle, half = (before + after) // 2, (after - before + 1) // 2
        if error is not None:
            return (Reading("wall", middle, half, error=error),)
        return tuple(self._reading(sample, middle, half) for sample in samples)

    def _reading(self, sample: Sample, t_ns: int, half_ns: int) -> Reading:
        if sample.utc_seconds is not None:
            behind = self.utc() - sample.utc_seconds
            if behind < -AHEAD_SECONDS:
                return Reading(
                    "wall", t_ns, half_ns, error=f"{self.target}: its clock is {-behind:.1f} s ahead of this machine's; set both by NTP"
                )
            t_ns, half_ns = t_ns - max(int(behind * NANO), 0), 0
        for what, value in (("power", sample.watts), ("energy", sample.joules)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                return Reading(
                    "wall", t_ns, half_ns, error=f"{self.target}: {what} is {value!r}, which is no consumption; is the plug reversed?"
                )
        if sample.watts is None and sample.joules is None:
            return Reading("wall", t_ns, half_ns, error=f"{self.target}: neither power nor energy")
        if self.use_counter is None:
            # Decided once: a change of the account in the middle of a window would be a step that no machine made.
            self.use_counter = sample.joules is not None and (sample.watts is None or sample.step_joules <= self.coarse_joules)
            self.step_joules = sample.step_joules
        return Reading("wall", t_ns, half_ns, sample.joules if self.use_counter else None, sample.watts)


def open_wall(target: str | Path | Callable[[], float | Sample], *, poll_seconds: float = 1.0, timeout_seconds: float = 2.0) -> Wall:
    """Return the wall meter behind ``--meter wall=TARGET``: an address, a CSV file being appended, or any function giving watts.

    Raises:
        ValueError: The target is none of them.
    """
    if callable(target):
        return Wall(callable_meter(target), "callable", poll_seconds=poll_seconds)
    text = str(target)
    if text.startswith(("http://", "https://")):
        return Wall(http_plug(text, timeout_seconds=timeout_seconds), text, poll_seconds=poll_seconds)
    if "://" in text or not text:
        raise ValueError(f"wall must be http://ADDRESS, a CSV file or a function, got {text!r}")
    return Wall(CsvTail(Path(text)), text, poll_seconds=None)


def from_spec(argument: str | None) -> Wall:
    """Return the meter of ``wall=TARGET`` in ``--meter``.

    Raises:
        ValueError: There is no target.
    """
    if not argument:
        raise ValueError("wall needs a target: --meter auto,wall=http://ADDRESS/rpc/Switch.GetStatus?id=0 or wall=FILE.csv")
    return open_wall(argument)


if TYPE_CHECKING:
    _: Source = Wall(lambda: ())
