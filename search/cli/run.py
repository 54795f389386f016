"""What ``joulefront estimate`` does: read, probe, print.

What ``joulefront repeat`` does: read, call the library, print.

The verbs of the command line that train under the meter: run, repeat and estimate.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    Anchor,
    AsJson,
    Budget,
    CoolDown,
    Data,
    Device,
    Idle,
    Intensity,
    Meter,
    MovedData,
    MovedStudy,
    Objectives,
    Out,
    Price,
    Pue,
    RunFolder,
    Sampler,
    Seed,
    Settings,
    StudyName,
    Target,
    Trials,
    Zone,
)


def estimate_study(
    source: str,
    options: Mapping[str, Any],
    *,
    overrides: Mapping[str, Any],
    zone: str | None,
    grams_per_kwh: float | None,
    pue: float,
    price: str | None,
    trials: int | None,
    budget: str | None,
    probes: int,
    earlier: Sequence[Path],
    out: Path | None,
    meter: str,
    device: str,
    as_json: bool,
) -> None:
    """Print what a study will cost; a run that follows in the same folder compares it with what it did cost."""
    from ..carbon.intensity import check_pue, choose_intensity
    from ..carbon.price import parse_price
    from ..records.files import write_json
    from ..records.run_folder import RunFolder
    from ..running.estimate import estimate, probe_study
    from ..stopping.limits import limits_of
    from ..study import Budget
    from .study_source import adapt, find_study

    wanted = None if budget is None else Budget.parse(budget)
    check_pue(pue)
    intensity = choose_intensity(grams_per_kwh, zone, network=False, token=None)
    per_kwh = None if price is None else parse_price(price)
    study = adapt(find_study(source, options), overrides, smoke=False)
    grams = None if intensity is None else intensity.grams_per_kwh
    money = None if per_kwh is None else (per_kwh.per_kwh, per_kwh.currency)
    limits, _ = limits_of(study, wanted, trials, None, None, 0, grams, pue, money)
    found, overhead, joules = probe_study(study, count=probes, meter=meter, device=device)
    known = [trial for folder in earlier for trial in RunFolder.open(folder).run().trials]
    guess = estimate(
        study,
        found,
        known,
        joules_limit=limits.joules,
        trial_limit=limits.trials,
        overhead=overhead,
        probe_joules=joules,
        seed=study.seed,
    )
    path = out if out is not None else Path("runs") / study.name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_name(f"{path.name}.estimate.json"), guess.to_json())
    print(json.dumps(guess.to_json(), indent=1) if as_json else guess.to_text())


def repeat_run(
    path: Path,
    words: Sequence[str],
    *,
    source: str | None,
    data: str | None,
    idle_seconds: float,
    cool_down_seconds: float,
    anchor_every: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure finalists of a run again and print what that says of the front."""
    from ..records.replicates import read_repeats
    from ..records.run_folder import RunFolder
    from ..report.replication_text import to_json, to_text
    from ..running.baselines import MeasurementProtocol
    from ..running.repeat import repeat
    from .study_source import command_line, remember, study_of

    protocol = MeasurementProtocol(idle_seconds, cool_down_seconds, anchor_every)
    store = RunFolder.open(path)
    earlier, command = len(store.facts["sessions"]), command_line(words)
    study = study_of(store, data, source)
    try:
        finding = repeat(study, path, protocol=protocol, **options)
    finally:
        remember(path, earlier, None, command)
    repeats = read_repeats(path)
    print(json.dumps(to_json(finding, repeats), indent=1, allow_nan=False) if as_json else to_text(finding, repeats))
    if RunFolder.open(path).facts["sessions"][-1].get("reason") == "interrupted":
        print(f"continue: {command}", file=sys.stderr)
    elif not any(member.quality for member in finding.members):
        reason = next((one.failed for one in repeats.trainings if one.failed), "nothing was trained")
        raise RuntimeError(f"no repeat has a result: {reason}")


def run(
    context: typer.Context,
    study: StudyName,
    trials: Trials = None,
    budget: Budget = None,
    timeout: Annotated[str | None, typer.Option(help="Wall time of this session: 90s, 30m, 2h.")] = None,
    data: Data = None,
    target: Target = None,
    settings: Settings = None,
    seed: Seed = None,
    sampler: Sampler = None,
    objectives: Objectives = None,
    out: Out = None,
    storage: Annotated[str | None, typer.Option(help="Optuna storage URL; SQLite in the run folder by default.")] = None,
    meter: Meter = "auto",
    cpu_watts: Annotated[float | None, typer.Option(help="Watts of the whole CPU with all cores busy, for the CPU-time estimate.")] = None,
    zone: Zone = None,
    intensity: Intensity = None,
    forecast: Annotated[Path | None, typer.Option(help="CSV of the intensity over time, in place of one number.")] = None,
    carbon_aware: Annotated[bool, typer.Option("--carbon-aware", help="Large trainings wait for the forecast's clean hours.")] = False,
    deadline: Annotated[str | None, typer.Option(help="Until when they may wait: 24h, 2d or 2026-03-02T06:00 (UTC).")] = None,
    pue: Pue = 1.0,
    price: Price = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Trainings at the same time.")] = 1,
    network: Annotated[bool, typer.Option("--network", help="Allow the live carbon intensity (needs ELECTRICITYMAPS_TOKEN).")] = False,
    stop_gain: Annotated[str | None, typer.Option(help="End when the rest is expected to add less, e.g. 0.5%.")] = None,
    warm_start: Annotated[list[Path] | None, typer.Option(help="Earlier run folders as prior knowledge; may be repeated.")] = None,
    idle: Idle = 0.0,
    cool_down: CoolDown = 0.0,
    anchor: Anchor = 0,
    sizes: Annotated[bool, typer.Option("--sizes", help="Tell freeze-thaw the parameters and FLOPs of all that it weighs.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Two tiny trials, to see that everything works.")] = False,
) -> None:
    """Run or continue a study; print its front."""
    from .read import run_study
    from .study_source import named_values

    run_study(
        study,
        context.obj or (),
        {"data": data, "target": target, "seed": seed, "smoke": smoke or None, **named_values(settings or [])},
        overrides={"sampler": sampler, "objectives": objectives, "seed": seed, "sizes": sizes or None},
        smoke=smoke,
        out=out,
        trials=trials,
        budget=budget,
        timeout=timeout,
        storage=storage,
        meter=meter,
        cpu_watts=cpu_watts,
        zone=zone,
        grams_per_kwh=intensity,
        forecast=forecast,
        carbon_aware=carbon_aware,
        deadline=deadline,
        pue=pue,
        price=price,
        network=network,
        stop_gain=stop_gain,
        warm_start=warm_start or [],
        idle_seconds=idle,
        cool_down_seconds=cool_down,
        anchor_every=anchor,
        device=device,
        workers=workers,
    )


def repeat(
    context: typer.Context,
    run: RunFolder,
    times: Annotated[int, typer.Option(help="Trainings of each model.")] = 5,
    order: Annotated[str, typer.Option(help="random, abba (there and back) or given.")] = "random",
    pick: Annotated[str, typer.Option(help="front, or rules as for export with commas between them.")] = "front",
    most: Annotated[int, typer.Option(help="Of a longer front so many members, evenly spread.")] = 10,
    seed: Annotated[int | None, typer.Option(help="Seed of order, weights and batches; the study's by default.")] = None,
    meter: Annotated[str | None, typer.Option(help="Sources of energy; those of the run by default.")] = None,
    cpu_watts: Annotated[float | None, typer.Option(help="As in the run: watts of the whole CPU with all cores busy.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; that of the run by default.")] = None,
    idle: Idle = 0.0,
    cool_down: CoolDown = 0.0,
    anchor: Anchor = 0,
    study: MovedStudy = None,
    data: MovedData = None,
    as_json: AsJson = False,
) -> None:
    """Train the finalists again with fresh seeds: means with intervals, and which of them can be told apart."""
    repeat_run(
        run,
        context.obj or (),
        source=study,
        data=data,
        times=times,
        order=order,
        pick=pick,
        most=most,
        seed=seed,
        meter=meter,
        cpu_watts=cpu_watts,
        device=device,
        idle_seconds=idle,
        cool_down_seconds=cool_down,
        anchor_every=anchor,
        as_json=as_json,
    )


def estimate(
    study: StudyName,
    trials: Trials = None,
    budget: Budget = None,
    data: Data = None,
    target: Target = None,
    settings: Settings = None,
    seed: Seed = None,
    sampler: Sampler = None,
    objectives: Objectives = None,
    zone: Zone = None,
    intensity: Intensity = None,
    pue: Pue = 1.0,
    price: Price = None,
    probes: Annotated[int, typer.Option(min=2, help="Random candidates to probe.")] = 8,
    earlier: Annotated[list[Path] | None, typer.Option(help="Earlier run folders on this machine; may be repeated.")] = None,
    out: Out = None,
    meter: Meter = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """What a study will cost, with an interval, before anything is trained: a few metered steps of random candidates."""
    from .study_source import named_values

    estimate_study(
        study,
        {"data": data, "target": target, "seed": seed, **named_values(settings or [])},
        overrides={"sampler": sampler, "objectives": objectives, "seed": seed},
        zone=zone,
        grams_per_kwh=intensity,
        pue=pue,
        price=price,
        trials=trials,
        budget=budget,
        probes=probes,
        earlier=earlier or [],
        out=out,
        meter=meter,
        device=device,
        as_json=as_json,
    )
