"""What the energy of a search has brought lately: a fact in place of a promise.

What going on would bring cannot be said: replayed on finished studies, the sampler's expectation was above what came every time, by
factors from one to some hundreds, and what the same energy had brought before was off as far in both directions.

Run or continue a study: open the folder, start the ledger, load the data, loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..billing.recovery import settle_killed
from ..billing.session_account import Account
from ..carbon.intensity import Intensity
from ..energy import Ledger, discover
from ..energy.calibrations import load_wall_calibration
from ..energy.doctor import calibrated_coefficients
from ..execution.devices import cores, make_executors, pick_device, take_devices, torch_threads
from ..formatting import energy_text
from ..front import Front
from ..records.bill import Session, add_up, read_sessions
from ..records.run_folder import RunFolder
from ..report.front_view import FrontView
from ..samplers.factory import make_sampler
from ..stopping.limits import limits_of, refuse_wrong_limits
from ..stopping.stop_gain import StopGain
from ..study import Budget, Study
from ..training.device import synchronizer
from .baselines import BaselineController, MeasurementProtocol
from .carbon_log import keep_place
from .carbon_session import CarbonSession, CarbonTime, grams_as_joules
from .identity import note_study
from .progress import Listener, Progress
from .recorder import Recorder
from .session import drop_unused, meters_text, note_end, note_session, open_or_create, refuse_unmeasurable, stop_on_interrupt, utc_now
from .trial_loop import Loop

#: Share of the trials' energy that is looked back at.
SHARE = 0.25
#: Fewer trials than this have no course.
LEAST = 12


def lately(front: Front) -> str | None:
    """Say how much the last quarter of the trials' energy raised the hypervolume.

    Args:
        front: The front of all trials.

    Returns:
        A clause such as ``the last quarter of the trials' energy (1.2 mWh, 9 trials) raised the hypervolume from 0.580 to 0.589``; None
        while there is no course to speak of.
    """
    done = sorted((trial for trial in front.trials if trial.state != "running"), key=lambda trial: trial.number)
    joules = [trial.increment_joules or 0.0 for trial in done]
    if len(done) < LEAST or not sum(joules) > 0:
        return None
    spent, first = 0.0, 0
    while spent < (1.0 - SHARE) * sum(joules):
        spent += joules[first]
        first += 1
    if first == len(done):  # the very last training took more than the quarter
        first -= 1
    before = replace(front, trials=tuple(done[:first])).hypervolume()
    after = front.hypervolume()
    count = len(done) - first
    energy = energy_text(sum(joules[first:]) / 3600.0)
    what = f"the last quarter of the trials' energy ({energy}, {count} trial{'' if count == 1 else 's'})"
    if after <= before:
        return f"{what} did not raise the hypervolume of {after:.3f}"
    return f"{what} raised the hypervolume from {before:.3f} to {after:.3f}"


PLAIN = MeasurementProtocol()


def quiet(progress: Progress) -> None:
    """Listen to nothing."""


def run(
    study: Study,
    *,
    out: str | Path | None = None,
    trials: int | None = None,
    budget: str | Budget | None = None,
    timeout_seconds: float | None = None,
    storage: str | None = None,
    meter: str = "auto",
    cpu_watts: float | None = None,
    intensity: Intensity | None = None,
    carbon: CarbonTime | None = None,
    pue: float = 1.0,
    price_per_kwh: tuple[float, str] | None = None,
    device: str = "auto",
    workers: int = 1,
    protocol: MeasurementProtocol = PLAIN,
    stop_gain: float | None = None,
    warm_start: Sequence[str | Path] = (),
    listener: Listener = quiet,
    origin: Mapping[str, Any] | None = None,
) -> FrontView:
    """Run a study until a limit is reached, and return its front.

    The limits are totals of the study. Called again on the same folder it goes on; when the study's own limits are reached
    and none is given here, it goes on for as much again.

    Args:
        study: What to search.
        out: Run folder; ``runs/<study.name>`` by default.
        trials: Number of trials in total.
        budget: What the search may spend in total, e.g. ``"5Wh"``.
        timeout_seconds: Wall time of this session.
        storage: Optuna storage URL; SQLite in the run folder by default.
        meter: ``auto`` or a list of sources, e.g. ``nvml,rapl``.
        cpu_watts: Watts of the whole CPU with all cores busy, when you know better than the CPU-time estimate's default.
        intensity: Carbon per kWh of the place, see ``joulefront.search.energy.intensity_for``; a run that goes on keeps its own.
        carbon: A forecast in place of ``intensity``: grams follow the hour in which joules are spent, and with a deadline large
            trainings wait for clean hours.
        pue: Power usage effectiveness of the site; enters grams and money, never joules. A run that goes on keeps its own.
        price_per_kwh: Amount and currency, for a budget in money.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: Trainings at the same time; each gets its share of the cores.
        protocol: Idle baselines, cool-down and anchor measurements; none by default.
        stop_gain: End when the rest of the budget is expected to add less than this share of the hypervolume, e.g. 0.005.
        warm_start: Run folders of earlier studies with the same parameters: knowledge for the sampler, never points of the front.
        listener: Receives progress.
        origin: Where the study came from (``{"source", "options"}``), so that ``export`` can make it again.

    Returns:
        The front of all measured trials.

    Raises:
        ValueError: If an argument breaks its rule.
        StoreError: If the folder cannot be used.
        DeviceError: If another run holds the GPU.
    """
    if workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}")
    protocol.check(workers)
    refuse_wrong_limits(trials, timeout_seconds, stop_gain, warm_start)
    if carbon is not None:
        if intensity is not None:
            raise ValueError("give --forecast or --intensity (Python: carbon or intensity), not both: grams follow one of them")
        carbon.check()
        intensity = carbon.nominal()
    path = Path(out) if out is not None else Path("runs") / study.name
    wanted = Budget.parse(budget) if isinstance(budget, str) else budget
    where = pick_device(device)
    threads = max(1, cores() // workers)
    torch_threads(threads)
    prior = [RunFolder.open(folder).study().get_trials(deepcopy=False) for folder in warm_start]
    with take_devices(where, workers) as devices, contextlib.ExitStack() as open_things:
        where = devices.names[0]
        fresh = not RunFolder.exists(path)
        store = open_or_create(path, study, storage, intensity, pue, price_per_kwh, origin, forecast=carbon is not None)
        if fresh:
            open_things.callback(drop_unused, path)
        open_things.enter_context(store.lock())
        store, intensity, pue = keep_place(store, intensity, pue, forecast=carbon is not None)
        earlier = read_sessions(store.bill_file)
        store.fail_dead_trials(settle_killed(earlier, store.ledger_file))
        spent = add_up(earlier).total_joules
        finished = sum(trial.state != "running" for trial in store.run().trials)
        grams = None if intensity is None else intensity.grams_per_kwh
        chosen = wanted or (study.budget if trials is None else None)
        priced = spent if carbon is None else grams_as_joules(store.facts["carbon"], chosen, grams, pue, otherwise=spent)
        limits, raised = limits_of(study, wanted, trials, timeout_seconds, priced, finished, grams, pue, price_per_kwh)
        known = None if cpu_watts else calibrated_coefficients()
        found = discover(meter, cpu_watts=cpu_watts, coefficients=known, environment=devices.environment)
        ledger = open_things.enter_context(Ledger(found.sources, absent=found.absent, file=store.ledger_file))
        with ledger.window("start", kind="overhead"):
            refuse_unmeasurable(ledger, meter)
            task = study.load_task()
            store = note_study(store, study, task)
            store = note_session(store, ledger, where, threads, finished, meter)
            baselines = BaselineController(protocol, study, task, ledger, where, threads)
            # A continued study must not draw the same random numbers again.
            seed = study.seed + 7919 * finished
            sampler = make_sampler(study.sampler, rungs=study.rungs, seed=seed, study=study, task=task, prior_trials=prior)
            wall = load_wall_calibration(ledger.hardware_id)
            account = Account(ledger, Session(started=utc_now()), earlier, spent, store.bill_file, synchronizer(where), wall)
            hourly = None
            if carbon is not None and intensity is not None:
                hourly = CarbonSession.begin(
                    carbon, study, limits, chosen, account, nominal=intensity, earlier=store.facts["carbon"], pue=pue, workers=workers
                )
            optuna_study = store.study(sampler)
            foresight = StopGain(study, optuna_study, stop_gain)
            loop = Loop(
                study=study,
                store=store,
                optuna_study=optuna_study,
                task=task,
                limits=limits,
                account=account,
                intensity=intensity,
                pue=pue,
                device=where,
                threads=threads,
                executors=make_executors(study, task, devices.names),
                baselines=baselines,
                recorder=Recorder(study, store, optuna_study, account, len(task.train)),
                foresight=foresight,
                listener=listener,
                carbon=hourly,
            )
            for executor in loop.executors:
                open_things.callback(executor.close)
            doing = "continuing " if finished else ""
            loop.tell_listener(
                "start",
                f"{study.name}: {doing}in {path} on {where}, {threads} thread(s), {meters_text(ledger)}"
                + (f"; {raised}" if raised else ""),
            )
            baselines.warm_up()
        with stop_on_interrupt(loop.interrupted):
            try:
                baselines.begin()
                loop.go()
            finally:
                facts = baselines.end()
                reason = loop.stop_reason or "broken off by an error"
                course = lately(Front.of(store.run(loop.optuna_study), complete_only=study.complete_only))
                loop.tell_listener("end", f"ended: {reason}" + ("" if course is None else f"; {course}"))
                loop.account.save(closed=True)
                if loop.expectations:
                    facts["expected"] = [{"share": share, **found.to_json()} for share, found in sorted(loop.expectations.items())]
                note_end(store, reason, **facts, **({} if hourly is None else hourly.facts()))
                store.save_snapshot(store.run(loop.optuna_study).trials)
    return FrontView.of(store.run())


def load(path: str | Path, *, complete_only: bool | None = None) -> FrontView:
    """Return the front of a run folder.

    Raises:
        StoreError: If there is no readable run.
    """
    return FrontView.of(RunFolder.open(path).run(), complete_only=complete_only)
