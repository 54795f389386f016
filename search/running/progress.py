"""What a running study reports: one frozen fact per event for its listener, and the line that a terminal shows."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..energy import JOULES_PER_WH, SECONDS_PER_HOUR
from ..formatting import digits, energy_text, unit_for
from ..front import Front
from ..records.run_folder import Run
from ..stopping.limits import Limits, StopRules
from ..stopping.projection import Expected, expected
from .session import Session

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Progress:
    """The state of a running study.

    Attributes:
        event: ``start``, ``wait`` (for clean hours), ``warning``, ``trial`` or ``end``.
        trials: Finished trials, ``failed`` ones among them.
        joules: Spent by the whole search, None when unknown.
        budget_joules: What it may spend, None without an energy budget; ``trial_limit`` likewise.
        best: Best quality so far, None before the first.
        front: Number of trials on the front.
        hypervolume: Normalised hypervolume of the front, None before the first trial.
        seconds: Wall time of this session.
        seconds_left: Estimated wall time to the first limit, None when nothing is known.
        message: A sentence about the event, e.g. what a trial reached or why it failed.
        expected: What the study is expected to have cost at its end, None while that is unknown.
    """

    event: str
    trials: int = 0
    failed: int = 0
    joules: float | None = None
    budget_joules: float | None = None
    trial_limit: int | None = None
    best: float | None = None
    quality_name: str = "accuracy"
    front: int = 0
    hypervolume: float | None = None
    seconds: float = 0.0
    seconds_left: float | None = None
    message: str = ""
    expected: Expected | None = None

    def line(self) -> str:
        """One line for people: trials, Wh, best quality, front, hypervolume, time left."""
        of = f"/{self.trial_limit}" if self.trial_limit is not None else ""
        parts = [f"trials {self.trials}{of}" + (f" ({self.failed} failed)" if self.failed else "")]
        parts.append(self.energy())
        parts.append(f"best {self.quality_name} " + ("-" if self.best is None else f"{self.best:.4f}"))
        parts.append(f"front {self.front}" + ("" if self.hypervolume is None else f", hypervolume {self.hypervolume:.3f}"))
        if self.expected is not None and self.expected.trials > self.trials:
            parts.append(self.expected.to_text())
        if self.seconds_left is not None:
            parts.append(f"{_clock(self.seconds_left)} left")
        return " · ".join(parts)

    def energy(self) -> str:
        """What was spent, and of how much, both in one unit."""
        if self.joules is None:
            return "energy unknown"
        if self.budget_joules is None:
            return energy_text(self.joules / JOULES_PER_WH)
        unit = unit_for(self.budget_joules / JOULES_PER_WH)
        return f"{digits(self.joules / JOULES_PER_WH / unit.size)} of {energy_text(self.budget_joules / JOULES_PER_WH)}"


class Listener(Protocol):
    """Receives the events of a run."""

    def __call__(self, progress: Progress) -> None:
        """Take note of an event."""
        ...


def quiet(progress: Progress) -> None:
    """Ignore all events."""


def _clock(seconds: float) -> str:
    seconds = max(0, round(seconds))
    hours, rest = divmod(seconds, int(SECONDS_PER_HOUR))
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


@dataclass
class Console:
    """Writes progress to standard error: one line kept up to date on a terminal, a line per trial elsewhere."""

    stream: Any = field(default_factory=lambda: sys.stderr)
    _width: int = 0

    def __call__(self, progress: Progress) -> None:
        """Show an event."""
        live = bool(getattr(self.stream, "isatty", lambda: False)())
        if progress.message and (not live or progress.event != "trial" or "failed" in progress.message):
            self._clear(live)
            print(progress.message, file=self.stream, flush=True)
        if live:
            if progress.event == "end":
                self._clear(live)
            else:
                text = progress.line()
                print("\r" + text.ljust(self._width), end="", file=self.stream, flush=True)
                self._width = len(text)
        elif progress.event == "trial":
            print("  " + progress.line(), file=self.stream, flush=True)

    def _clear(self, live: bool) -> None:
        if live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=self.stream, flush=True)
            self._width = 0


#: Shares of the study's limit at which the refined estimate of its cost is kept for the report.
NOTED = (0.25, 0.5, 0.75)


@dataclass
class Reporter:
    """Sends the state of a running study to its listener.

    ``expectations`` hold what the study was expected to cost when these shares of it were done.
    """

    session: Session
    optuna_study: optuna.Study
    rules: StopRules
    listener: Listener
    expectations: dict[float, Expected] = field(default_factory=dict)
    _start_seconds: float = 0.0
    _start_joules: float = 0.0

    def begin(self) -> None:
        """Take note that the first trial begins: what was spent so far is paid once."""
        self._start_seconds, self._start_joules = self.rules.seconds(), self.rules.account.spent_joules() or 0.0

    def tell(self, event: str, message: str) -> None:
        """Send the state of the study."""
        seconds = self.rules.seconds()
        progress = progress_of(
            self.session.folder.run(self.optuna_study),
            event=event,
            message=message,
            complete_only=self.rules.study.complete_only,
            limits=self.rules.limits,
            spent_joules=self.rules.account.spent_joules(),
            begun_joules=self._start_joules,
            before=self.session.trials_before,
            seconds=seconds,
            trial_seconds=seconds - self._start_seconds,
        )
        if progress.expected is not None:
            share = progress.trials / progress.expected.trials
            for mark in NOTED:
                if share >= mark:
                    self.expectations.setdefault(mark, progress.expected)
        self.listener(progress)


def progress_of(
    run: Run,
    *,
    event: str,
    message: str,
    complete_only: bool,
    limits: Limits,
    spent_joules: float | None,
    begun_joules: float,
    before: int,
    seconds: float,
    trial_seconds: float,
) -> Progress:
    """Sum up a study.

    Seconds are those of this session, ``trial_seconds`` of them since its first trial began. By then ``before`` trials had finished and all
    sessions had spent ``begun_joules``: the start of a session is paid once.
    """
    front = Front.of(run, complete_only=complete_only)
    done = [trial for trial in run.trials if trial.state != "running"]
    qualities = [trial.values[0] for trial in done if trial.state == "complete"]
    best = None if not qualities else max(qualities) if run.directions[0] == "maximize" else min(qualities)
    left = []  # to each limit, if the session continues as it went so far
    if limits.seconds is not None:
        left.append(limits.seconds - seconds)
    if limits.joules is not None and spent_joules is not None and spent_joules > begun_joules and len(done) > before:
        left.append((limits.joules - spent_joules) * trial_seconds / (spent_joules - begun_joules))
    if limits.trials is not None and len(done) > before:
        left.append((limits.trials - len(done)) * trial_seconds / (len(done) - before))
    return Progress(
        event=event,
        trials=len(done),
        failed=sum(trial.state == "failed" for trial in done),
        joules=spent_joules,
        budget_joules=limits.joules,
        trial_limit=limits.trials,
        best=best,
        quality_name=run.objectives[0],
        front=len(front),
        hypervolume=front.hypervolume() if len(front) else None,
        seconds=seconds,
        seconds_left=min(left) if left else None,
        message=message,
        expected=expected(
            [trial.increment_joules or 0.0 for trial in done], spent_joules, limits, begun_joules=begun_joules, before=before
        ),
    )
