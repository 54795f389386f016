"""What a running study reports: one frozen fact per event for its listener, and the line that a terminal shows."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from ..certainty import decimals_of
from ..energy import SECONDS_PER_HOUR
from ..formatting import energies, for_stream, hanging, joules_text, stream_width
from ..front import Front
from ..integrations.run_log import RunLog, TrialLogger
from ..records.examples import SHARES
from ..records.run_folder import Run
from ..stopping.projection import Expected, expected
from ..stopping.rules import StopRules
from .session import Session

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Progress:
    """The state of a running study.

    Attributes:
        event: ``start``, ``wait`` (for clean hours), ``warning``, ``trial``, ``end`` or ``detail`` (for who asks for more).
        trials: Finished trials, ``failed`` ones among them.
        joules: Spent by the whole search, None when unknown.
        budget_joules: What it may spend, None without an energy budget; ``trial_limit`` likewise.
        best: Best quality so far, None before the first; ``decimals`` of it mean anything.
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
    decimals: int = 4

    @property
    def share(self) -> float:
        """How far the study is on its way to the nearest of its limits, 0 to 1."""
        parts = [0.0]
        if self.trial_limit:
            parts.append(self.trials / self.trial_limit)
        if self.joules is not None and self.budget_joules:
            parts.append(self.joules / self.budget_joules)
        if self.seconds_left is not None and self.seconds > 0:
            parts.append(self.seconds / (self.seconds + self.seconds_left))
        return min(1.0, max(parts))

    def line(self, verbose: bool = False) -> str:
        """One line for people: trials, energy, best quality, front, time left; ``verbose`` adds the hypervolume."""
        of = f"/{self.trial_limit}" if self.trial_limit is not None else ""
        parts = [f"trials {self.trials}{of}" + (f" ({self.failed} failed)" if self.failed else "")]
        parts.append(self.energy())
        parts.append(f"best {self.quality_name} " + ("-" if self.best is None else f"{self.best:.{self.decimals}f}"))
        parts.append(f"front {self.front}" + (f", hypervolume {self.hypervolume:.3f}" if verbose and self.hypervolume is not None else ""))
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
            return joules_text(self.joules)
        (spent, budget), unit = energies((self.joules, self.budget_joules))
        return f"{spent} of {budget} {unit}"


class Listener(Protocol):
    """Receives the events of a run."""

    def __call__(self, progress: Progress) -> None:
        """Take note of an event."""


def quiet(progress: Progress) -> None:
    """Ignore all events."""


def _clock(seconds: float) -> str:
    seconds = max(0, round(seconds))
    hours, rest = divmod(seconds, int(SECONDS_PER_HOUR))
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


#: In a log a line is written when the front improves, and otherwise when none was for so long.
LOG_SECONDS = 10.0
#: Columns of a terminal that the bar itself keeps.
LEAST_BAR = 12
#: Columns behind the bar for what a terminal echoes of keys, as ^C: in the next line it would hide from the bar which line is its own.
KEYS = 6


@dataclass
class Console:
    """Writes progress to standard error: a bar that fits any terminal, in a log a line per improvement of the front or ten seconds.

    Attributes:
        verbose: Whether details are shown, e.g. hypervolumes.
        silent: Whether only warnings are.
    """

    stream: Any = field(default_factory=lambda: sys.stderr)
    verbose: bool = False
    silent: bool = False
    _ended: bool = False
    _bar: Any = None
    _task: Any = None
    _hypervolume: float = 0.0
    _written: float = -LOG_SECONDS
    _reasons: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Console:
        """Show events until the end of the block."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Leave the terminal as it was, whatever has ended the study: the bar goes and the cursor is shown."""
        self._close()

    def __call__(self, progress: Progress) -> None:
        """Show an event."""
        if self.silent:
            self._tell_failures(progress)
            if progress.event != "warning":
                return
        live = is_live(self.stream) and not self.silent
        if progress.event == "detail":
            if self.verbose:
                self._say(progress.message)
        elif progress.event == "trial":
            self._trial(progress, live)
        else:
            if progress.event == "end":
                self._close()
                if not live and not self._ended:
                    self._say(progress.line(self.verbose))
                self._ended = True
            if progress.message:
                self._say(progress.message)
        if live and progress.event in ("start", "trial", "wait"):
            self._show(progress)

    def _trial(self, progress: Progress, live: bool) -> None:
        better = (progress.hypervolume or 0.0) > self._hypervolume
        self._hypervolume = max(self._hypervolume, progress.hypervolume or 0.0)
        _, _, reason = progress.message.partition(" failed: ")
        strange = bool(reason) and reason not in self._reasons
        self._reasons[reason] += 1
        if live:
            if strange:
                self._say(progress.message)
        elif better or strange or time.monotonic() - self._written >= LOG_SECONDS:
            self._written = time.monotonic()
            self._say(f"{progress.message} · {progress.line(self.verbose)}" if progress.message else progress.line(self.verbose))

    def _tell_failures(self, progress: Progress) -> None:
        """Count the trials that failed; who hears of none of them has one line about all at the end."""
        reason = progress.message.partition(" failed: ")[2] if progress.event == "trial" else ""
        self._reasons.update([reason] if reason else [])
        if progress.event == "end" and not self._ended and self._reasons:
            ((most, times),) = self._reasons.most_common(1)
            count, often = self._reasons.total(), "" if len(self._reasons) == 1 else f" ({times} times)"
            self._say(f"{count} of {progress.trials} trials failed: {most}{often}")
        self._ended |= progress.event == "end"

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(hanging(text, self._bar.console.width), markup=False, highlight=False, soft_wrap=True)
        else:
            print(for_stream(text, self.stream), file=self.stream, flush=True)

    def _show(self, progress: Progress) -> None:
        """Keep the bar up to date; what does not fit beside it is left out, the least important first."""
        if self._bar is None:
            from rich.console import Console as Terminal
            from rich.constrain import Constrain
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as FullWidth
            from rich.table import Column

            terminal = Terminal(file=self.stream)

            class Bar(FullWidth):
                def get_renderable(self) -> Constrain:
                    return Constrain(super().get_renderable(), max(1, terminal.width - KEYS))

            text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
            self._bar = Bar(BarColumn(bar_width=None), text, console=terminal, expand=True, transient=True)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()
        parts = progress.line(self.verbose).split(" · ")
        while len(parts) > 1 and len(" · ".join(parts)) > self._bar.console.width - LEAST_BAR - KEYS:
            del parts[-1 if progress.seconds_left is None or len(parts) < 3 else -2]
        self._bar.update(self._task, completed=progress.share, description=" · ".join(parts), refresh=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def is_live(stream: Any) -> bool:
    """Whether a stream is a terminal on which a line can be written over; one that says it is dumb gets the lines of a log."""
    return bool(getattr(stream, "isatty", lambda: False)()) and os.environ.get("TERM", "") not in ("dumb", "unknown")


def progress_line(stream: TextIO) -> Callable[[str], None]:
    """Return what shows a text in place of the one before, on one line of a terminal; in a log every text has a line, and "" none."""

    def show(text: str) -> None:
        if is_live(stream):  # what does not fit would go on in a line that is never cleared
            room = stream_width(stream) - 1
            print(f"\r\x1b[K{text if len(text) <= room else text[: room - 1] + '…'}", end="", file=stream, flush=True)
        elif text:
            print(text, file=stream, flush=True)

    return show


#: Shares of the study's limit at which the refined estimate of its cost is kept for the report.
NOTED = (0.25, 0.5, 0.75)


@dataclass
class Reporter:
    """Sends the state of a running study to its listener.

    ``expectations`` hold what the study was expected to cost when these shares of it were done; ``loggers`` get the trials.
    """

    session: Session
    optuna_study: optuna.Study
    rules: StopRules
    listener: Listener
    loggers: Sequence[TrialLogger] = ()
    expectations: dict[float, Expected] = field(default_factory=dict)
    _start_seconds: float = 0.0
    _start_joules: float = 0.0

    def __post_init__(self) -> None:
        self.logs = [RunLog(one, lambda text: self.tell("warning", text)) for one in self.loggers]

    def begin(self) -> None:
        """Take note that the first trial begins: what was spent so far is paid once."""
        self._start_seconds, self._start_joules = self.rules.seconds(), self.rules.account.spent_joules() or 0.0

    def tell(self, event: str, message: str) -> None:
        """Send the state of the study."""
        seconds, run = self.rules.seconds(), self.session.folder.run(self.optuna_study, bill=False)
        for log in self.logs if event in ("trial", "end") else ():
            log.follow(run)
        progress = self._progress(run, event, message, seconds)
        if progress.expected is not None:
            share = progress.trials / progress.expected.trials
            for mark in NOTED:
                if share >= mark:
                    self.expectations.setdefault(mark, progress.expected)
        self.listener(progress)

    def _progress(self, run: Run, event: str, message: str, seconds: float) -> Progress:
        """Sum up the study after so many seconds of this session, whose start, as each warm-up between its trials, is paid once."""
        limits, spent_joules, before = self.rules.limits, self.rules.account.spent_joules(), self.session.trials_before
        begun_joules = self._start_joules + self.session.warmed_joules
        trial_seconds = seconds - self._start_seconds - self.session.warmed_seconds
        front = Front.of(run, complete_only=self.rules.study.complete_only)
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
            decimals=decimals_of(front.evidence.examples if run.objectives[0] in SHARES else None),
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
