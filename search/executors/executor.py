"""The seam to where trainings run: in this process, in worker processes, on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..space import Space
from ..trainer import Job, Outcome, Phases, train
from ..training.task import Task


class Executor(Protocol):
    """Trains one job at a time and says when its phases begin and end."""

    @property
    def devices(self) -> tuple[str, ...] | None:
        """Ledger components that its trainings hold alone; None when nothing else runs on this machine."""
        ...

    def train(self, job: Job, *, phases: Phases, go_on: Callable[[Mapping[str, Any]], bool]) -> Outcome:
        """Train a job; a training that fails is an outcome, too."""
        ...

    def close(self) -> None:
        """Give the process or the device back."""
        ...


class InProcess:
    """Trains in this process: nothing is copied, and the ledger's windows open exactly where the work begins."""

    def __init__(self, space: Space, task: Task) -> None:
        self.space, self.task = space, task

    @property
    def devices(self) -> None:
        """Return None: nothing runs beside it."""

    def train(self, job: Job, *, phases: Phases, go_on: Callable[[Mapping[str, Any]], bool]) -> Outcome:
        """Train a job here."""
        return train(job, self.space, self.task, phases=phases, go_on=go_on)

    def close(self) -> None:
        """Nothing is held."""


_: type[Executor] = InProcess
