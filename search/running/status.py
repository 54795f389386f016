"""The state of a running study as one fact for its listener."""

from __future__ import annotations

from ..front import Front
from ..records.run_folder import Run
from ..stopping.limits import Limits
from ..stopping.projection import expected
from .progress import Progress


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

    Args:
        run: Everything that is known of it.
        event: What has just happened.
        message: A sentence about it.
        complete_only: Whether only complete trainings count for the front.
        limits: When it ends.
        spent_joules: Energy of all sessions.
        begun_joules: Energy of all sessions when the first trial of this one began: its start is paid once.
        before: Trials that were finished by then.
        seconds: Wall time of this session.
        trial_seconds: Wall time since then.
    """
    front = Front.of(run, complete_only=complete_only)
    done = [trial for trial in run.trials if trial.state != "running"]
    qualities = [trial.values[0] for trial in done if trial.state == "complete"]
    best = None if not qualities else max(qualities) if run.directions[0] == "maximize" else min(qualities)
    left = []  # to each limit, if the session goes on as it went so far
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
