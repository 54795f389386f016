"""Whether one training takes too long: its own limit, many times what was expected, or the session's end inside of an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..records.trial import INTERRUPTED
from .rules import BROKEN_OFF, TIMEOUT_GRACE_SECONDS, StopRules

#: A training is ended when it takes so many times as long as the slowest one so far would have taken, and longer than this.
TIMES_EXPECTED, LEAST_SECONDS = 10.0, 60.0
#: The same before anything is known: a first epoch may take hours.
LEAST_SECONDS_UNKNOWN = 6 * 3600.0


class TimeLimit:
    """Whether one training takes too long: longer than its study allows, or many times what the slowest one would have taken.

    Attributes:
        most_seconds: The limit of the study, or None.
        epochs: Epochs that the training makes.
        expected: Returns what an epoch has taken in the slowest training so far, or None before the first.
        reason: Why it had to end; None while it has not.
    """

    def __init__(self, most_seconds: float | None, epochs: int, expected: Callable[[], float | None]) -> None:
        self.most_seconds, self.epochs, self.expected = most_seconds, epochs, expected
        self.reason: str | None = None
        self._began: float | None = None
        self._apart: float | None = None
        self._edge = self._slowest = 0.0

    def begin(self, kind: str = "") -> None:
        """Take note that a phase begins; before the first one a worker process starts.

        The time of ``features`` is left out: they are computed once, for many trainings that take a fraction of that.
        """
        now = time.monotonic()
        if self._began is None:
            self._began = self._edge = now
        if self._apart is not None:
            self._began, self._edge = self._began + (now - self._apart), self._edge + (now - self._apart)
        self._apart = now if kind == "features" else None

    def epoch(self) -> None:
        """Take note that an epoch has ended."""
        now = time.monotonic()
        self._slowest, self._edge = max(self._slowest, now - self._edge), now

    def __call__(self) -> str | None:
        """Return why the training must end now, or None."""
        if (found := self._found()) is not None:
            self.reason = found
        return found

    def _found(self) -> str | None:
        limit = self.most_seconds
        if limit is None:
            least = LEAST_SECONDS_UNKNOWN if self.expected() is None or self._apart is not None else LEAST_SECONDS
            limit = max(least, TIMES_EXPECTED * self.epochs * self._epoch_seconds())
        if self._began is None or time.monotonic() - self._began <= limit:
            return None
        expected = "" if self.most_seconds else ", 10 times what was expected"
        remedy = "if it needs longer, give --trial-timeout (Python: max_trial_seconds of the study)"
        return f"the training was ended after {limit:.0f} s{expected}; {remedy}"

    def _epoch_seconds(self) -> float:
        return max(self._slowest, self.expected() or 0.0)


class Overdue(TimeLimit):
    """Whether a trial's training must end although its epoch has not; all other limits are looked at between two epochs.

    ``excused`` tells whether its end says nothing about its candidate.
    """

    def __init__(self, rules: StopRules, epochs: int) -> None:
        super().__init__(rules.study.max_trial_seconds, epochs, lambda: rules.epoch_seconds)
        self.rules, self.excused = rules, False

    def _found(self) -> str | None:
        self.excused = True
        if (outside := self._outside()) is not None:
            return outside
        self.excused = False
        return super()._found()

    def _outside(self) -> str | None:
        """Look at what ends the session; features have no epoch whose end could be waited for, and what is stored of them stays."""
        rules, at_once = self.rules, self._began is None or self._apart is not None
        if rules.at_once or (at_once and rules.interrupted.is_set()):
            return BROKEN_OFF if rules.reason == BROKEN_OFF else INTERRUPTED
        spent = None if self._apart is None or rules.limits.joules is None else rules.account.spent_joules()
        if (found := rules.limits.reached(joules=spent, trials=0, seconds=0.0)) is not None:
            return found
        return rules.timed_out(0.0 if at_once else max(TIMEOUT_GRACE_SECONDS, 2 * self._epoch_seconds()))
