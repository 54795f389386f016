"""The verbs of the command line: each one call into the library. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import INTERRUPTED, exit_code, one_line

app = typer.Typer(
    name="joulefront",
    help="Search models that are worth their energy: the Pareto front of accuracy against measured kWh and CO2.",
    epilog="Every verb takes --debug: an error then comes with its traceback.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

STUDY = typer.Argument(metavar="STUDY", help="Bundled name (see joulefront studies), my_study.py[:function] or package.module:function.")
RUN = typer.Argument(metavar="RUN", help="A run folder, e.g. runs/digits.")


@app.command()
def run(
    context: typer.Context,
    study: Annotated[str, STUDY],
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in total.")] = None,
    budget: Annotated[str | None, typer.Option(help="What the search may spend: 5Wh, 900J, 0.1kWh, 20gCO2e or 1EUR.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Wall time of this session: 90s, 30m, 2h.")] = None,
    data: Annotated[str | None, typer.Option(help="Data of the study: a folder, zip, CSV or Parquet file.")] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict, for tables.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Another option of the study, NAME=VALUE; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampler, splits and weights.")] = None,
    sampler: Annotated[str | None, typer.Option(help="freeze-thaw, tpe, nsga2, gp, random or grid.")] = None,
    objectives: Annotated[str | None, typer.Option(help="Quality first: accuracy,train_energy[,inference_energy,...].")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/STUDY by default.")] = None,
    storage: Annotated[str | None, typer.Option(help="Optuna storage URL; SQLite in the run folder by default.")] = None,
    meter: Annotated[str, typer.Option(help="auto, or sources such as nvml,rapl,cpu_time.")] = "auto",
    cpu_watts: Annotated[float | None, typer.Option(help="Watts of the whole CPU with all cores busy, for the CPU-time estimate.")] = None,
    zone: Annotated[str | None, typer.Option(help="Where the energy comes from, e.g. FR; without it grams of CO2e are unknown.")] = None,
    intensity: Annotated[float | None, typer.Option(help="Carbon intensity in g/kWh, in place of --zone's table.")] = None,
    forecast: Annotated[Path | None, typer.Option(help="CSV of the intensity over time, in place of one number.")] = None,
    carbon_aware: Annotated[bool, typer.Option("--carbon-aware", help="Large trainings wait for the forecast's clean hours.")] = False,
    deadline: Annotated[str | None, typer.Option(help="Until when they may wait: 24h, 2d or 2026-03-02T06:00 (UTC).")] = None,
    pue: Annotated[float, typer.Option(help="Power usage effectiveness of the site; enters grams and money only.")] = 1.0,
    price: Annotated[str | None, typer.Option(help="Price per kWh, e.g. 0.25EUR.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Trainings at the same time.")] = 1,
    network: Annotated[bool, typer.Option("--network", help="Allow the live carbon intensity (needs ELECTRICITYMAPS_TOKEN).")] = False,
    stop_gain: Annotated[str | None, typer.Option(help="End when the rest is expected to add less, e.g. 0.5%.")] = None,
    warm_start: Annotated[list[Path] | None, typer.Option(help="Earlier run folders as prior knowledge; may be repeated.")] = None,
    idle: Annotated[float, typer.Option(help="Seconds of idle baseline before, between and after the trials.")] = 0.0,
    cool_down: Annotated[float, typer.Option(help="Longest wait before a trial for the device to cool down, in seconds.")] = 0.0,
    anchor: Annotated[int, typer.Option(help="Measure one fixed configuration again after so many trials.")] = 0,
    sizes: Annotated[bool, typer.Option("--sizes", help="Tell freeze-thaw the parameters and FLOPs of all that it weighs.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Two tiny trials, to see that everything works.")] = False,
) -> None:
    """Run or continue a study; print its front."""
    from .catalog import named_values
    from .commands import run_study

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


@app.command()
def studies() -> None:
    """List the bundled studies."""
    from .catalog import bundled_studies

    for name, line in bundled_studies().items():
        print(f"{name:15} {line}")


@app.command()
def front(
    run: Annotated[Path, RUN],
    as_json: Annotated[bool, typer.Option("--json", help="Stable JSON, one object a member, units in the keys.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as CSV.")] = False,
    complete: Annotated[bool, typer.Option("--complete", help="Only models trained to the last rung.")] = False,
) -> None:
    """Print the Pareto front of a run."""
    from .commands import show_front

    show_front(run, as_json=as_json, as_csv=as_csv, complete_only=complete)


@app.command()
def repeat(
    context: typer.Context,
    run: Annotated[Path, RUN],
    times: Annotated[int, typer.Option(help="Trainings of each model.")] = 5,
    order: Annotated[str, typer.Option(help="random, abba (there and back) or given.")] = "random",
    pick: Annotated[str, typer.Option(help="front, or rules as for export with commas between them.")] = "front",
    most: Annotated[int, typer.Option(help="Of a longer front so many members, evenly spread.")] = 10,
    seed: Annotated[int | None, typer.Option(help="Seed of order, weights and batches; the study's by default.")] = None,
    meter: Annotated[str | None, typer.Option(help="Sources of energy; those of the run by default.")] = None,
    cpu_watts: Annotated[float | None, typer.Option(help="As in the run: watts of the whole CPU with all cores busy.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; that of the run by default.")] = None,
    idle: Annotated[float, typer.Option(help="Seconds of idle baseline before, between and after the trainings.")] = 0.0,
    cool_down: Annotated[float, typer.Option(help="Longest wait before a training for the device to cool down, in seconds.")] = 0.0,
    anchor: Annotated[int, typer.Option(help="Measure one fixed configuration again after so many trainings.")] = 0,
    study: Annotated[str | None, typer.Option(help="Where the study lies now, if it has moved or came from Python.")] = None,
    data: Annotated[str | None, typer.Option(help="Where the study's data lies now, if it has moved.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, units in the keys.")] = False,
) -> None:
    """Train the finalists again with fresh seeds: means with intervals, and which of them can be told apart."""
    from .repeats.command import repeat_run

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


@app.command()
def plot(
    run: Annotated[Path, RUN],
    out: Annotated[Path, typer.Option("-o", "--out", help="front.html, front.png or front.svg.")] = Path("front.html"),
    complete: Annotated[bool, typer.Option("--complete", help="Only models trained to the last rung.")] = False,
    of: Annotated[
        str, typer.Option(help="front; relations (energy against operations) or tactics (families against plain), with a table.")
    ] = "front",
) -> None:
    """Draw the front: HTML, PNG or SVG by the file's ending."""
    from .commands import draw_plot

    draw_plot(run, out, complete_only=complete, of=of)


@app.command()
def report(run: Annotated[Path, RUN], out: Annotated[Path, typer.Option("-o", "--out", help="The page.")] = Path("report.html")) -> None:
    """Write one self-contained page about the run."""
    from .commands import write_report

    write_report(run, out)


@app.command()
def dashboard(
    run: Annotated[Path, RUN],
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve optuna-dashboard on the run's storage."""
    from .commands import serve_dashboard

    serve_dashboard(run, host, port)


@app.command()
def export(
    run: Annotated[Path, RUN],
    to: Annotated[str, typer.Option(help="onnx, pt2, safetensors or skops.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the model and its card.")],
    pick: Annotated[str, typer.Option(help="knee, best, cheapest, trial=N, accuracy>=X or energy<=5Wh.")] = "knee",
    data: Annotated[str | None, typer.Option(help="Where the study's data lies now, if it has moved.")] = None,
    study: Annotated[str | None, typer.Option(help="Where the study lies now, if it has moved or came from Python.")] = None,
) -> None:
    """Export a model of the front, checked against the trained one on validation data."""
    from .commands import export_model

    export_model(run, pick, to, out, data=data, source=study)


@app.command()
def price(
    run: Annotated[Path, RUN],
    zones: Annotated[str, typer.Option(help="Comma-separated zones, e.g. FR,US,TW.")],
    pue: Annotated[float, typer.Option(help="Power usage effectiveness of the site.")] = 1.0,
    price: Annotated[str | None, typer.Option(help="Price per kWh, e.g. 0.25EUR.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """The same study elsewhere: grams of CO2e and money per zone, without training again."""
    from .commands import price_run

    price_run(run, zones, pue=pue, price=price, as_json=as_json)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """A leaderboard of several runs."""
    from .commands import compare_runs

    compare_runs(runs, as_json=as_json)


@app.command()
def estimate(
    study: Annotated[str, STUDY],
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in total.")] = None,
    budget: Annotated[str | None, typer.Option(help="What the search may spend: 5Wh, 900J, 0.1kWh, 20gCO2e or 1EUR.")] = None,
    data: Annotated[str | None, typer.Option(help="Data of the study.")] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict, for tables.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the probed candidates.")] = None,
    probes: Annotated[int, typer.Option(min=2, help="Random candidates to probe.")] = 8,
    earlier: Annotated[list[Path] | None, typer.Option(help="Earlier run folders on this machine; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder the estimate is kept for; runs/STUDY by default.")] = None,
    meter: Annotated[str, typer.Option(help="auto, or sources such as nvml,rapl,cpu_time.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, units in the keys.")] = False,
) -> None:
    """What a study will cost, with an interval, before anything is trained: a few metered steps of random candidates."""
    from .commands import estimate_study

    options = {"data": data, "target": target, "seed": seed}
    estimate_study(
        study,
        options,
        trials=trials,
        budget=budget,
        probes=probes,
        earlier=earlier or [],
        out=out,
        meter=meter,
        device=device,
        as_json=as_json,
    )


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    meter: Annotated[str, typer.Option(help="auto, or sources such as nvml,rapl,wall=http://...")] = "auto",
    zone: Annotated[str | None, typer.Option(help="Where the energy comes from, e.g. FR.")] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Calibrate the CPU-time estimate (half a minute).")] = False,
    compare_meters: Annotated[
        bool, typer.Option("--compare-meters", help="Short loads under every source that works here; with wall=... its line is kept.")
    ] = False,
) -> None:
    """Say what can be measured on this machine, what cannot, and the one-line remedy."""
    from .commands import examine_machine

    examine_machine(as_json=as_json, meter=meter, zone=zone, calibrate=calibrate, compare=compare_meters)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2, failed work exit code 1."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in typed if word != "--debug"]
    try:
        code = app(words or ["--help"], prog_name="joulefront", standalone_mode=False, obj=words)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if len(words) < len(typed):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(exit_code(error))
    if code == INTERRUPTED:
        print("interrupted; what was measured is kept. The same command goes on from there", file=sys.stderr)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
