"""The verbs of a search: run it, join it from another machine, estimate what it will cost."""

from __future__ import annotations

import gc
import json
import os
import shlex
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    AsJson,
    CarbonOptions,
    LimitOptions,
    MachineOptions,
    Out,
    PlaceOptions,
    ProtocolOptions,
    RunOptions,
    SessionLimitOptions,
    StudyOptions,
    TableOptions,
    TrainingMachineOptions,
    bundled_studies,
    with_options,
)
from .read import price_per_kwh_of, raise_if_interrupted

if TYPE_CHECKING:
    from ..report.front_view import FrontView
    from ..study import Study


@contextmanager
def loading(whole_process: bool) -> Iterator[None]:
    """Load libraries without looking for garbage, a tenth of their time; with ``whole_process`` what is there then is never looked at."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        if whole_process:
            gc.freeze()


@with_options
def run(
    context: typer.Context,
    study: StudyOptions,
    limits: SessionLimitOptions,
    place: CarbonOptions,
    machine: TrainingMachineOptions,
    protocol: ProtocolOptions,
    own: RunOptions,
    smoke: Annotated[bool, typer.Option("--smoke", help="Two tiny trials, to check that everything works.")] = False,
) -> None:
    """Run or continue a study; print its front."""
    with loading(context.obj[1]):
        from ..running.baselines import MeasurementProtocol
        from ..running.progress import Console
        from ..running.run import run as run_study
        from ..study import LimitReachedError, seconds_of
        from .study_source import adapt, command_line, find_study, origin_of
        from .study_toml import with_session

    if study.study.endswith(".toml"):
        limits, place, machine, protocol, own = with_session(context, study.study, limits, place, machine, protocol, own)
    # Every option is checked before anything is loaded: a typing mistake must cost nothing.
    asked = _checked(limits, place, own)
    values = {**_values(study), "smoke": smoke or None}
    trial_seconds = None if limits.trial_timeout is None else seconds_of(limits.trial_timeout, "--trial-timeout")
    changes = {"sizes": own.sizes or None, "max_trial_seconds": trial_seconds, "name": own.name}
    overrides = {**_overrides(study), **changes}
    found = adapt(find_study(study.study, values), overrides, smoke)
    path = own.out.expanduser() if own.out is not None else Path("runs") / (f"{found.name}-smoke" if smoke else found.name)
    _refuse_folder_in_data(study, path)
    words, whole_process = context.obj
    origin, command = origin_of(study.study, values, overrides), command_line(words)
    named = "" if study.study in bundled_studies() else f" --study {shlex.quote(study.study)}"
    _warn_of_other_code(study, path, origin)
    if (reason := _nothing_to_do(limits, path, found)) is not None:
        return _print_finished(path, found, origin, machine, reason, named)
    try:
        with Console(verbose=own.verbose, silent=own.quiet) as listener:
            run_study(
                found,
                out=path,
                trials=2 if smoke and limits.trials is None else limits.trials,
                storage=own.storage,
                **vars(machine),
                **asked,
                protocol=MeasurementProtocol(protocol.idle, protocol.cool_down, protocol.anchor),
                warm_start=own.warm_start or [],
                listener=listener,
                origin=origin,
                command=command,
                whole_process=whole_process,
                show=lambda front: _print_run(front, path, own.storage, named),
                artifacts=own.artifacts,
            )
        raise_if_interrupted(path, f"continue: {command}")
    except LimitReachedError as error:
        if own.storage is None:
            return _print_finished(path, found, origin, machine, str(error).partition(" already")[0], named)
        print(f"{found.name}: nothing to do, {error}", file=sys.stderr)  # the other workers were faster


def _checked(limits: SessionLimitOptions, place: CarbonOptions, own: RunOptions) -> dict[str, Any]:
    """Return by the library's names what is written as text, read; options that exclude each other are refused."""
    from ..carbon.intensity import check_pue
    from ..carbon.zones import choose_intensity
    from ..integrations.run_log import loggers_of
    from ..running.clean_hours import carbon_time_of
    from ..stopping.rules import STOP_GAIN, share_of
    from ..study import Budget, seconds_of

    budget = None if limits.budget is None else Budget.parse(limits.budget)
    check_pue(place.pue)
    timeout_seconds = None if limits.timeout is None else seconds_of(limits.timeout)
    where: Any = dict(carbon_aware=place.carbon_aware, zone=place.zone, grams_per_kwh=place.intensity, network=place.network)
    carbon = carbon_time_of(place.forecast, place.deadline, **where)
    token = os.environ.get("ELECTRICITYMAPS_TOKEN")
    intensity = None if carbon is not None else choose_intensity(place.intensity, place.zone, network=place.network, token=token)
    price_per_kwh = price_per_kwh_of(place)
    loggers = [] if own.log is None else loggers_of(own.log)
    if limits.no_stop and limits.stop_gain is not None:
        raise ValueError("give --stop-gain or --no-stop, not both: one says when to stop, the other never to")
    if own.artifacts is not None and own.storage is None:
        raise ValueError(f"--artifacts is for the workers of a --storage, got {own.artifacts!r} without one; leave it out")
    stop_gain = None if limits.no_stop else STOP_GAIN if limits.stop_gain is None else share_of(limits.stop_gain)
    asked = {"budget": budget, "timeout_seconds": timeout_seconds, "price_per_kwh": price_per_kwh, "stop_gain": stop_gain}
    return {**asked, "carbon": carbon, "intensity": intensity, "pue": place.pue, "loggers": loggers}


def _refuse_folder_in_data(study: StudyOptions, path: Path) -> None:
    """Refuse to run among data of which each folder is a class: the run would be the next one."""
    data = Path(study.data or "").expanduser().absolute()
    if study.study in ("images", "sound") and study.data and data in path.absolute().parents and not (data / "train").exists():
        raise ValueError(f"--out must lie outside of --data, where each folder is a class, got {str(path)!r}; give another --out")


def _warn_of_other_code(study: StudyOptions, path: Path, origin: Mapping[str, Any]) -> None:
    from ..records.run_folder import RunFolder

    known = (RunFolder.open(path).facts.get("origin") or {}) if RunFolder.exists(path) else {}
    if known.get("code", origin["code"]) != origin["code"]:
        said = f"{study.study} is other code than that of the trials in {path}; if its models differ, give a new --out"
        warnings.warn(said, stacklevel=1)


def _nothing_to_do(limits: SessionLimitOptions, path: Path, found: Study) -> str | None:
    """Return why a run that is asked for nothing more has ended; None where there is something to do."""
    from ..records.run_folder import RunFolder
    from ..running.recorder import finished

    more = (limits.trials, limits.budget, limits.timeout, limits.stop_gain)
    if any(one is not None for one in more) or not RunFolder.exists(path):
        return None
    return finished(RunFolder.open(path), found, no_stop=limits.no_stop)


def _print_finished(path: Path, found: Study, origin: Mapping[str, Any], machine: MachineOptions, reason: str, named: str) -> None:
    """Print the front of a run that has nothing left to do, and why; another study, other data and a wrong meter are refused as ever."""
    from ..energy import discover
    from ..formatting import for_stream
    from ..records.run_folder import RunFolder
    from ..running.identity import refuse_other_study
    from ..running.run import load

    refuse_other_study(RunFolder.open(path), found)
    before = (RunFolder.open(path).facts.get("origin") or {}).get("options", {})  # the data are not read again
    for option in (one.name for one in fields(TableOptions)):
        if before.get(option) != origin["options"].get(option):
            raise ValueError(f"{str(path)!r} holds the study of --{option} {before.get(option, 'by default')}; give a new --out")
    discover(machine.meter, cpu_watts=machine.cpu_watts).close()  # nothing is measured, and a wrong option is one all the same
    said = f"{found.name} is finished in {path}: {reason}; a larger --trials or --budget continues it"
    print(for_stream(said, sys.stderr), file=sys.stderr)
    _print_run(load(path), path, None, named)


def _print_run(front: FrontView, path: Path, storage: str | None, named: str) -> None:
    """Print the front of a run, the paths of its pictures and the next command; without a measured trial that is a ``RuntimeError``."""
    from ..formatting import hanging
    from ..records.files import last_session
    from ..records.run_folder import RunFolder
    from ..report.front_view import save_front
    from ..report.page import report_html
    from ..whole_file import full_disk

    result = RunFolder.open(path, storage=storage).run()
    ended = str(last_session(result.facts).get("reason") or "")
    if len(front) == 0:
        print(hanging(front.to_text(), indent=0))
        if ended == "interrupted":
            return
        reasons = sorted({trial.reason for trial in result.trials if trial.reason})
        if "timeout" in ended and not any(trial.increment_joules for trial in result.trials):  # loading data and libraries counts, too
            raise RuntimeError(f"no trial was measured: {ended} while the study was starting; give a longer --timeout")
        raise RuntimeError("no trial was measured" + (f": {reasons[0]}" if reasons else ""))
    # What predicts quality and energy costs a second or more: whoever wants it asks for it with joulefront report.
    for name, verb in (("front.html", "report"), ("front.png", "plot")):
        try:
            if verb == "report":
                report_html(result, path / name, ranking=False)
            else:
                save_front(front, path / name)
        except OSError as error:
            said = full_disk(error, f"joulefront {verb} {shlex.quote(str(path))} -o {shlex.quote(str(path / name))} draws it")
            if said is None:
                raise
            print(front.to_text())
            raise RuntimeError(f"{said}. All trials are kept") from error
    print(front.to_text())  # after the pictures: whatever becomes of the stream, they are there
    print(f"\n{path / 'front.html'}\n{path / 'front.png'}")
    print(f"\nnext: joulefront export {shlex.quote(str(path))} --pick sensible --to onnx -o model{named}")


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
    with loading(context.obj[1]):
        from ..records.database import STORAGE_VARIABLE, own_url
        from ..running.progress import Console
        from ..running.run import run as run_study
        from ..study import LimitReachedError, seconds_of
        from .study_source import shared_facts, study_again

    url = own_url(storage, storage) if storage else os.environ.get(STORAGE_VARIABLE)
    if url is None:
        raise ValueError(f"--storage must be the URL that joulefront run was given, got none; give it here or in {STORAGE_VARIABLE}")
    seconds = None if timeout is None else seconds_of(timeout)
    facts, stopped = shared_facts(url, study, stop=stop)
    if stop or stopped:
        print(f"{study} is stopped: {stopped or 'its workers end after the epochs under way'}; joulefront run goes on", file=sys.stderr)
        return
    origin = facts.get("origin") or {}
    if data is None and Path(place := str(origin.get("options", {}).get("data"))).is_absolute() and not Path(place).exists():
        raise ValueError(
            f"the data of the study {study!r} must be at {place!r} on this machine, got nothing there; give --data where it is"
        )
    origin = {**origin, "overrides": {**origin.get("overrides", {}), "name": study}}
    path = out.expanduser() if out is not None else Path("runs") / f"{study}-{socket.gethostname()}-{os.getpid()}"
    try:
        with Console(silent=quiet) as listener:
            run_study(
                study_again(origin, study, "--source", data, source),
                out=path,
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
        raise_if_interrupted(path)
    except LimitReachedError as error:
        reached = str(error).partition("; ")[0]
        print(f"{study}: nothing to do, {reached}; joulefront run with a larger --trials or --budget lets it go on", file=sys.stderr)


@with_options
def estimate(
    context: typer.Context,
    study: StudyOptions,
    limits: LimitOptions,
    place: PlaceOptions,
    machine: MachineOptions,
    probes: Annotated[
        int, typer.Option(min=2, help="Most candidates to probe; fewer where they would cost more than 5 % of what is needed.")
    ] = 8,
    earlier: Annotated[list[Path] | None, typer.Option(help="Earlier run folder on this machine; repeatable.")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what a study will cost and which budget it needs, with intervals.

    A few steps of random candidates are trained under the meter, for at most 5 % of what the study
    needs beside its start. A run that follows in the same folder compares the estimate with what the study really cost.
    """
    from ..carbon.intensity import check_pue
    from ..carbon.zones import choose_intensity
    from ..formatting import hanging
    from ..records.files import write_json
    from ..records.run_folder import RunFolder
    from ..running.estimate import estimate as estimate_cost
    from ..running.estimate import probe_study
    from ..running.progress import progress_line
    from ..stopping.rules import joules_of, limits_of
    from ..study import Budget
    from .study_source import adapt, find_study
    from .study_toml import with_session

    if study.study.endswith(".toml"):
        limits, place, machine = with_session(context, study.study, limits, place, machine)
    budget = None if limits.budget is None else Budget.parse(limits.budget)
    check_pue(place.pue)
    intensity = choose_intensity(place.intensity, place.zone, network=False, token=None)
    price_per_kwh = price_per_kwh_of(place)
    found = adapt(find_study(study.study, _values(study)), _overrides(study), smoke=False)
    if callable(found.task):
        found = replace(found, task=cache(found.task))  # loaded once, under the meters: its size decides the rungs as well
    grams = None if intensity is None else intensity.grams_per_kwh
    worth = partial(joules_of, grams_per_kwh=grams, pue=place.pue, price_per_kwh=price_per_kwh)
    bounds = limits_of(found, budget, limits.trials, None, worth)
    show = progress_line(sys.stderr)
    known = [trial for folder in earlier or [] for trial in RunFolder.open(folder).run().trials]
    file = _estimate_file(out.expanduser() if out is not None else Path("runs") / found.name)
    try:
        probed, overhead, joules = probe_study(found, count=probes, tell=show, whole_process=context.obj[1], **vars(machine))
    finally:
        show("")
    guess = estimate_cost(
        found if found.rungs else found.fitted_to(found.load_task()),
        probed,
        known,
        joules_limit=bounds.joules,
        trial_limit=bounds.trials,
        overhead=overhead,
        probe_joules=joules,
        seed=found.seed,
    )
    print(json.dumps(guess.to_json(), indent=1) if as_json else hanging(guess.to_text(), indent=9), flush=True)
    write_json(file, guess.to_json())


def _estimate_file(path: Path) -> Path:
    """Return where the estimate of a run is kept, once it is certain that it can be written there: before anything is probed."""
    from ..running.identity import estimate_file

    file = estimate_file(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_file():
            raise ValueError(f"{str(file)!r} must be a file, got a folder, a pipe or a device; remove it, or give another --out")
        with tempfile.TemporaryFile(dir=file.parent):
            return file
    except OSError as error:
        raise ValueError(f"--out must lie in a folder that can be written, got {str(path)!r} ({error.strerror}); give another") from error


def _values(study: StudyOptions) -> dict[str, Any]:
    """Return what the function of the study is called with."""
    from .study_source import named_values

    return {
        "data": study.data,
        **{one.name: getattr(study, one.name) for one in fields(TableOptions)},
        "metric": study.metric,
        "pretrained": study.pretrained,
        "seed": study.seed,
        **named_values(study.settings or []),
    }


def _overrides(study: StudyOptions) -> Mapping[str, Any]:
    """Return the fields of the study that the command line replaces; None keeps the study's own."""
    return {"sampler": study.sampler, "objectives": study.objectives, "seed": study.seed, "rungs": study.rungs}
