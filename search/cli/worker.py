"""The verb ``worker``: join a study that ``run --storage`` has begun, from any machine that reaches its storage."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import streams
from .options import Out, TrainingMachineOptions, with_options


@with_options
def worker(
    context: typer.Context,
    machine: TrainingMachineOptions,
    study: Annotated[str, typer.Option(help="Name of the study, as joulefront run calls it.")],
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL that joulefront run was given; JOULEFRONT_STORAGE by default.")
    ] = None,
    out: Out = None,
    same_hardware: Annotated[
        bool, typer.Option("--same-hardware", help="Refuse to train on hardware unlike that of the first worker.")
    ] = False,
    artifacts: Annotated[
        str | None, typer.Option(help="Where this machine reaches the study's weights: a folder or s3://bucket/prefix.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Location of the study's data on this machine, if it is another one.")] = None,
    source: Annotated[str | None, typer.Option(help="The study's file or module on this machine, if it is not a bundled study.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Wall time of this worker: 90s, 30m or 2h.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Train nothing: let all workers end after the epochs under way.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; results and warnings alone.")] = False,
) -> None:
    """Join a study that other machines search, too.

    The study, its data, seed and budget are those that joulefront run wrote to the storage. The worker has its own meter, and its ledger in
    a run folder of its own; it ends when the budget of all workers is spent.
    """
    with streams.loading(context.obj[1]):
        from ..records.database import STORAGE_VARIABLE
        from ..running.progress import Console
        from ..running.run import run as run_study
        from ..study import LimitReachedError, seconds_of

    url = storage or os.environ.get(STORAGE_VARIABLE)
    if url is None:
        raise ValueError(f"--storage must be the URL that joulefront run was given, got none; give it here or in {STORAGE_VARIABLE}")
    seconds = None if timeout is None else seconds_of(timeout)
    facts, stopped = _described(url, study, stop=stop)
    if stop or stopped:
        print(f"{study} is stopped: {stopped or 'its workers end after the epochs under way'}; joulefront run goes on", file=sys.stderr)
        return
    try:
        with Console(silent=quiet) as listener:
            run_study(
                _made(facts, study, data, source),
                out=out.expanduser() if out is not None else Path("runs") / f"{study}-{socket.gethostname()}-{os.getpid()}",
                storage=url,
                timeout_seconds=seconds,
                **vars(machine),
                listener=listener,
                origin=facts.get("origin"),
                whole_process=context.obj[1],
                artifacts=artifacts,
                same_hardware=same_hardware,
                show=lambda front: print(front.to_text()),
            )
    except LimitReachedError as error:
        reached = str(error).partition("; ")[0]
        print(f"{study}: nothing to do, {reached}; joulefront run with a larger --trials or --budget lets it go on", file=sys.stderr)


def _described(url: str, name: str, *, stop: bool) -> tuple[dict[str, Any], str | None]:
    """Return what the storage says of a study, and why it was stopped, or None; with ``stop`` it is."""
    import optuna

    from ..records.database import cause_of, public_url, without_password
    from ..records.optuna_storage import open_storage
    from ..records.shared_study import SharedStudy

    shown = without_password(url)
    try:
        public_url(url)
    except ValueError as error:
        raise ValueError(f"--storage {shown!r} cannot be used: {error}") from error
    try:
        opened = open_storage(Path("study.db"), url, "write")
        names = optuna.get_all_study_names(opened)
    except Exception as error:
        cause, names = cause_of(error), []
        if "version_info" not in cause:  # a table that every database with a study has
            raise ValueError(
                f"--storage {shown!r} cannot be used: {cause}; "
                "it must be the URL of a study that joulefront run --storage has begun, as this machine reaches it"
            ) from error
    if name not in names:
        there = f"there are: {', '.join(sorted(names))}" if names else "there is none yet; begin it with joulefront run --storage"
        raise ValueError(f"--study must be a study of {shown}, got {name!r}; {there}")
    shared = SharedStudy(optuna.load_study(study_name=name, storage=opened))
    facts = shared.description()
    if facts is None:
        raise ValueError(f"--study must be one that joulefront run has begun, got {name!r}, of another program or an earlier version")
    if stop:
        shared.stop("joulefront worker --stop")
        return facts, None
    return facts, shared.look()[1]


def _made(facts: dict[str, Any], name: str, data: str | None, source: str | None) -> Any:
    """Make the study from its description; code that is not bundled is imported only where this machine's user names it."""
    import shlex

    from .options import bundled_studies
    from .study_source import StudyError, adapt, find_study

    origin = facts.get("origin") or {}
    where = source or origin.get("source")
    if where is None:
        raise ValueError(f"{name!r} came from Python: give --source my_study.py, or call joulefront.search.run with its storage")
    if source is None and where not in bundled_studies():
        raise StudyError(
            f"the study {name!r} must be a bundled one, got {where!r}: importing it would run that code; "
            f"give --source {shlex.quote(str(where))} if you know it"
        )
    options = {**origin.get("options", {}), **({"data": data} if data else {})}
    if data is None and Path(place := str(options.get("data"))).is_absolute() and not Path(place).exists():
        raise StudyError(f"the data of the study {name!r} must be at {place!r} on this machine, got nothing there; give --data where it is")
    return adapt(find_study(where, options), {**origin.get("overrides", {}), "name": name}, bool(options.get("smoke")))
