"""What each verb of the command line does: read, call the library, print."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..front import Front
from ..records.run_folder import RunFolder
from ..report.front_view import FrontView
from .study_source import adapt, command_line, origin_of, remember, study_of

if TYPE_CHECKING:
    from ..records.trial import Trial


def run_study(
    source: str,
    words: Sequence[str],
    options: Mapping[str, Any],
    *,
    overrides: Mapping[str, Any],
    smoke: bool,
    out: Path | None,
    trials: int | None,
    budget: str | None,
    timeout: str | None,
    zone: str | None,
    grams_per_kwh: float | None,
    price: str | None,
    pue: float,
    network: bool,
    stop_gain: str | None,
    idle_seconds: float,
    cool_down_seconds: float,
    anchor_every: int,
    forecast: Path | None,
    deadline: str | None,
    carbon_aware: bool,
    **machine: Any,
) -> None:
    """Run a study and print its front, the paths of its pictures and the next command."""
    from ..carbon.intensity import check_pue, choose_intensity
    from ..carbon.price import parse_price
    from ..running.baselines import MeasurementProtocol
    from ..running.carbon_session import carbon_time_of
    from ..running.progress import Console
    from ..running.run import run
    from ..stopping.limits import seconds_of, share_of
    from ..study import Budget
    from .study_source import find_study

    # All that can be wrong is looked at before anything is loaded: a typing mistake must cost nothing.
    Budget.parse(budget) if budget is not None else None
    check_pue(pue)
    timeout_seconds = None if timeout is None else seconds_of(timeout)
    carbon = carbon_time_of(forecast, deadline, carbon_aware=carbon_aware, zone=zone, grams_per_kwh=grams_per_kwh, network=network)
    token = os.environ.get("ELECTRICITYMAPS_TOKEN")
    intensity = None if carbon is not None else choose_intensity(grams_per_kwh, zone, network=network, token=token)
    per_kwh = None if price is None else parse_price(price)
    study = adapt(find_study(source, options), overrides, smoke)
    path = out if out is not None else Path("runs") / (f"{study.name}-smoke" if smoke else study.name)
    origin, command = origin_of(source, options, overrides), command_line(words)
    earlier = len(RunFolder.open(path).facts["sessions"]) if RunFolder.exists(path) else 0
    try:
        front = run(
            study,
            out=path,
            trials=2 if smoke and trials is None else trials,
            budget=budget,
            timeout_seconds=timeout_seconds,
            stop_gain=None if stop_gain is None else share_of(stop_gain),
            protocol=MeasurementProtocol(idle_seconds, cool_down_seconds, anchor_every),
            intensity=intensity,
            carbon=carbon,
            pue=pue,
            price_per_kwh=None if per_kwh is None else (per_kwh.per_kwh, per_kwh.currency),
            listener=Console(),
            origin=origin,
            **machine,
        )
    finally:
        remember(path, earlier, origin, command)
    run_ = RunFolder.open(path).run()
    print(front.to_text())
    if len(front) == 0:
        reasons = sorted({trial.reason for trial in run_.trials if trial.reason})
        raise RuntimeError("no trial was measured" + (f": {reasons[0]}" if reasons else ""))
    from ..report.front_view import save_front

    for name in ("front.html", "front.png"):
        save_front(front, path / name)
    print(f"\n{path / 'front.html'}\n{path / 'front.png'}")
    form = "skops" if front.knee().parameters is None else "onnx"
    print(f"\nnext: joulefront export {shlex.quote(str(path))} --pick knee --to {form} -o model")
    if run_.facts["sessions"][-1].get("reason") == "interrupted":
        print(f"continue: {command}")


def show_front(path: Path, *, as_json: bool, as_csv: bool, complete_only: bool) -> None:
    """Print the front as a table, JSON or CSV."""
    front = FrontView.of(RunFolder.open(path).run(), complete_only=complete_only or None)
    if as_json:
        print(json.dumps(front.to_rows(), indent=1, allow_nan=False))
    elif as_csv:
        print(front.to_csv(), end="")
    else:
        print(front.to_text())


def draw_plot(path: Path, out: Path, *, complete_only: bool, of: str) -> None:
    """Draw the front, or a comparison after its table, in the format of the file's ending."""
    if of != "front":
        from ..report.comparison_figures import save_comparison

        said, target = save_comparison(RunFolder.open(path).run(), of, out)
        print(f"{said}\n\n{target}")
        return
    from ..report.front_view import save_front

    print(save_front(Front.of(RunFolder.open(path).run(), complete_only=complete_only or None), out))


def write_report(path: Path, out: Path) -> None:
    """Write the report page."""
    from ..report.page import report_html

    report_html(RunFolder.open(path).run(), out)
    print(out)


def serve_dashboard(path: Path, host: str, port: int) -> None:
    """Serve optuna-dashboard until Ctrl-C."""
    store = RunFolder.open(path)
    from optuna_dashboard import run_server

    print(f"http://{host}:{port}/", file=sys.stderr)
    run_server(store.url, host=host, port=port)


def export_model(path: Path, pick: str, to: str, out: Path, *, data: str | None, source: str | None) -> None:
    """Export the picked model and say where it is."""
    from ..export import export
    from ..export.export import pick_format

    pick_format(to)
    store = RunFolder.open(path)
    run_ = store.run()
    trial = Front.of(run_).pick(pick)
    study = study_of(store, data, source)
    weights = store.artifact(trained(trial, run_.trials).number)
    print(export(trial, study=study, task=study.load_task(), weights=weights, to=to, out=out, run=run_).summary())


def optimise_model(
    path: Path,
    pick: str,
    *,
    data: str | None,
    source: str | None,
    meter: str,
    prune: Sequence[float],
    compile_model: bool,
    rounds: int,
    as_json: bool,
) -> None:
    """Print what quantising, compiling and pruning the picked model saves."""
    from ..execution.devices import cores, torch_threads
    from ..export.compress import optimise, to_json, to_text

    store = RunFolder.open(path)
    run_ = store.run()
    trial = Front.of(run_).pick(pick)
    study = study_of(store, data, source)
    task = study.load_task()
    weights = store.artifact(trained(trial, run_.trials).number)
    torch_threads(cores())
    rows, quality = optimise(
        trial, study=study, task=task, weights=weights, meter=meter, prune=prune, compile_model=compile_model, rounds=rounds
    )
    print(to_json(rows, quality) if as_json else to_text(rows, task.metric, quality))


def trained(trial: Trial, trials: Sequence[Trial]) -> Trial:
    """Return the trial that was trained: a repeated candidate was answered from its twin, which has the weights."""
    while (number := trial.extra.get("copy_of")) is not None:
        trial = trials[number]
    return trial


def price_run(path: Path, zones: str, *, pue: float, price: str | None, as_json: bool) -> None:
    """Print grams and money of the study in other places."""
    from ..carbon.price import parse_price
    from ..report.pricing import price_table

    per_kwh = None if price is None else parse_price(price)
    table = price_table(RunFolder.open(path).run(), [zone.strip() for zone in zones.split(",") if zone.strip()], pue=pue, price=per_kwh)
    print(json.dumps(table.to_rows(), indent=1) if as_json else table.to_text())


def compare_runs(paths: Sequence[Path], *, as_json: bool) -> None:
    """Print a leaderboard."""
    from ..report.leaderboard import leaderboard

    table = leaderboard([RunFolder.open(path).run() for path in paths])
    print(json.dumps(table.to_rows(), indent=1) if as_json else table.to_text())


def examine_machine(*, as_json: bool, meter: str, zone: str | None, calibrate: bool, compare: bool) -> None:
    """Print the diagnosis of this machine's meters."""
    from ..carbon.intensity import intensity_for
    from ..energy.doctor import calibrate_machine, compare_machine, diagnose_machine

    place = intensity_for(zone)
    try:
        found: Any = (
            calibrate_machine(meter)
            if calibrate
            else compare_machine(meter)
            if compare
            else diagnose_machine(meter, carbon=None if place is None else place.describe())
        )
    except LookupError as error:  # nothing here is measured, so there is nothing to calibrate against
        raise RuntimeError(str(error.args[0] if error.args else error)) from error
    print(found.to_json() if as_json else found.to_text())
