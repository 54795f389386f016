"""The verbs that train nothing: they read run folders, examine this machine, or measure a command."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from ..energy.journal import parse
from .options import (
    AsJson,
    Complete,
    CpuWatts,
    Meter,
    PlaceOptions,
    Predictions,
    Price,
    RunArgument,
    TableOptions,
    Zone,
    bundled_studies,
    complete_run,
    complete_study,
    with_options,
)

if TYPE_CHECKING:
    from ..energy.calibrations import MachineCalibration
    from ..energy.comparison import Comparison
    from ..energy.doctor import Diagnosis
    from ..records.run_folder import Run
    from ..records.trial import Trial


def studies(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One of them, with its options.", autocompletion=complete_study)
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a study in TOML, for an editor.")] = False,
) -> None:
    """List the bundled studies, or the options of one."""
    if schema:
        from .study_toml import schema as schema_of_files

        print(json.dumps(schema_of_files(), indent=1))
        return
    from ..formatting import terminal_width
    from .study_source import options_text

    if name is not None:
        print(options_text(name))
        return
    for known, line in bundled_studies().items():
        print(textwrap.fill(f"{known:15} {line}", max(terminal_width(), 40), subsequent_indent=" " * 16, break_on_hyphens=False))


@with_options
def inspect(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A table (CSV, Parquet, JSON, Excel), or a folder or zip of images or recordings.")
    ],
    table: TableOptions,
    seed: Annotated[int, typer.Option(help="Seed of the splits.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Show what a study would make of data, before anything is trained.

    Kind of task, classes and guessing, columns used and left out with the reason, and what was probably not meant. Of a table without
    --target: its columns, and how each is read.
    """
    import warnings

    from ..formatting import hanging
    from ..training.summary import TargetMissingError, columns_text, open_data, summarise, summary_text
    from .study_source import refuse_stream

    refuse_stream(data)
    given = {one.name: getattr(table, one.name) for one in fields(TableOptions) if one.name != "target"}
    options = {option: value for option, value in given.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the summary has them
        try:
            found = summarise(open_data(data, table.target, **options, **({"seed": seed} if table.target is not None else {})))
        except TargetMissingError:
            if as_json:
                raise
            print(hanging(columns_text(data)))
            return
    print(json.dumps(found, indent=1, allow_nan=False) if as_json else hanging(summary_text(found)))


def front(
    run: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print stable JSON, one object per member, with units in the keys.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the same as CSV.")] = False,
    complete: Complete = False,
    pick: Annotated[str | None, typer.Option(help="Only the model that a rule names, as for export.")] = None,
    predictions: Predictions = None,
    hardware: Annotated[
        str | None, typer.Option(help="In a run of several kinds of hardware: that with this ID, not this folder's.")
    ] = None,
) -> None:
    """Print the Pareto front of a run, or one model of it."""
    if as_json and as_csv:
        raise ValueError("--csv and --json exclude each other; give one")
    from .. import lifetime
    from ..formatting import hanging
    from ..report.front_view import FrontView, one_model

    shown = FrontView.of(_read(run).comparable(hardware), complete_only=complete or None)
    if predictions is not None:
        count = lifetime.read_predictions(predictions)
        picked = None if pick is None else lifetime.original(shown, lifetime.with_use(shown, count).pick(pick))
        rows = lifetime.to_rows(shown, count, picked)
        if as_json:
            print(json.dumps(rows, indent=1, allow_nan=False))
        else:
            print(lifetime.to_csv(rows) if as_csv else lifetime.to_text(shown, count, rows), end="" if as_csv else "\n")
        return
    only = None if pick is None else [shown.pick(pick)]
    if as_json:
        print(json.dumps(shown.to_rows(only), indent=1, allow_nan=False))
    elif as_csv:
        print(shown.to_csv(only), end="")
    else:
        print(hanging(shown.to_text(), indent=0) if only is None else one_model(shown, only[0]))


def plot(
    run: RunArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="front.html, front.png or front.svg.")] = Path("front.html"),
    complete: Complete = False,
    of: Annotated[
        str, typer.Option(help="front, relations (energy against operations) or tactics (families against plain), with a table.")
    ] = "front",
) -> None:
    """Draw the front as HTML, PNG or SVG, by the ending of the file."""
    if of != "front":
        from ..formatting import hanging
        from ..report.baseline_comparison import draw_comparison
        from ..report.energy_relations import draw_relations

        drawn = {"relations": draw_relations, "tactics": draw_comparison}
        if of not in drawn:
            raise ValueError(f"--of must be front, relations or tactics, got {of!r}")
        table, file = drawn[of](_read(run), out)
        print(f"{hanging(table, indent=0)}\n\n{file}")
        return
    from ..report.front_view import FrontView

    print(FrontView.of(_read(run), complete_only=complete or None).plot(out))


def report(
    run: RunArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="The HTML file; a folder that is missing is made.")] = Path("report.html"),
    predictions: Predictions = None,
) -> None:
    """Write one self-contained page about the run."""
    from .. import lifetime
    from ..front import Front
    from ..report.page import report_html

    found, uses = _read(run), 0 if predictions is None else lifetime.read_predictions(predictions)
    if uses:
        lifetime.with_use(Front.of(found), uses)  # refuses what was not measured
    report_html(found, out, uses=uses)
    print(out)


def dashboard(
    run: RunArgument,
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the decision page of a run, beside optuna-dashboard, until Ctrl-C.

    The page follows a study that is still running. Nothing in the run folder is changed: optuna-dashboard gets a copy.
    """
    from ..report.live import serve

    serve(run, host=host, port=port)


def price(
    run: RunArgument,
    zones: Annotated[str, typer.Option(help="Grid zones separated by commas, e.g. FR,US,TW.")],
    pue: Annotated[float | None, typer.Option(help="Power usage effectiveness of the site; that of the run by default.")] = None,
    price: Price = None,
    as_json: AsJson = False,
) -> None:
    """Price the study for other places.

    Prints grams of CO2e and money per zone, without training again.
    """
    from ..carbon.intensity import parse_price
    from ..report.pricing import price_table

    per_kwh = None if price is None else parse_price(price)
    table = price_table(_read(run), [zone.strip() for zone in zones.split(",") if zone.strip()], pue=pue, price=per_kwh)
    print(json.dumps(table.to_rows(), indent=1) if as_json else table.to_text())


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.", autocompletion=complete_run)],
    as_json: AsJson = False,
) -> None:
    """Print a leaderboard of several runs."""
    from ..report.leaderboard import leaderboard

    table = leaderboard([_read(run) for run in runs])
    print(json.dumps(table.to_rows(), indent=1) if as_json else table.to_text())


def repair(run: RunArgument) -> None:
    """Make a lost or damaged study.db again from trials.json."""
    from ..records.run_folder import RunFolder

    folder, lost = RunFolder.repair(run)
    print(f"{folder.path} has its database again, with {len(folder.run().trials)} trials")
    if lost:
        print(f"{len(lost)} trial(s) after the last copy are lost, their weights lie in artifacts: {', '.join(lost)}", file=sys.stderr)


def doctor(
    as_json: AsJson = False,
    meter: Meter = "auto",
    zone: Zone = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure a busy CPU's watts and how late a GPU's counter is (a minute under load).")
    ] = False,
    compare_meters: Annotated[
        bool,
        typer.Option(
            "--compare-meters", help="Run short loads under every source that works here; with wall=... the fitted line is stored."
        ),
    ] = False,
) -> None:
    """Show what can be measured on this machine.

    What cannot be measured comes with a one-line remedy.
    """
    from ..carbon.zones import intensity_for
    from ..energy.doctor import calibrate_all, compare_machine, diagnose_machine
    from ..formatting import hanging

    carbon = None if zone is None else intensity_for(zone).describe()
    try:
        found: MachineCalibration | Comparison | Diagnosis = (
            calibrate_all(meter) if calibrate else compare_machine(meter) if compare_meters else diagnose_machine(meter, carbon=carbon)
        )
    except LookupError as error:  # nothing here is measured, so there is nothing to calibrate against
        raise RuntimeError(str(error.args[0] if error.args else error)) from error
    print(found.to_json() if as_json else hanging(found.to_text()))


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove the features; the next study computes them anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the features of pretrained networks that are kept on this disk.

    They are shared by all studies on the same data; JOULEFRONT_CACHE names another folder.
    """
    from ..formatting import fitted, hanging
    from ..training.feature_cache import FeatureCache

    kept = FeatureCache.of_user()
    if clear:
        print(f"{kept.clear() / 1e6:.1f} MB of features removed from {kept.folder}")
        return
    entries = kept.entries()
    total, names = sum(size for _, _, size in entries), ("backbone", "feature_set", "rows")
    if as_json:
        rows = [{"key": key, **{name: facts.get(name) for name in names}, "bytes": size} for key, facts, size in entries]
        print(json.dumps({"folder": str(kept.folder), "bytes": total, "limit_bytes": kept.limit_bytes, "entries": rows}, indent=1))
        return
    cells = [["key", "MB", "examples", "features"]]
    for key, facts, size in entries:
        backbone, feature_set, count = (facts.get(name) for name in names)
        cells.append([key[:12], f"{size / 1e6:.1f}", str(count), f"{feature_set} of {backbone}"])
    print(*([fitted(cells, [False, True, True, False]), ""] if entries else []), sep="\n", end="\n" if entries else "")
    print(hanging(f"{kept.folder}: {len(entries)} entries, {total / 1e6:.1f} MB of at most {kept.limit_bytes / 1e9:.0f} GB"))


def _read(path: Path) -> Run:
    from ..records.run_folder import RunFolder

    return RunFolder.open(path).run()


def trained(trial: Trial, trials: Sequence[Trial]) -> Trial:
    """Return the trial that has the weights: a duplicate has those of the trial that it repeats."""
    from ..records.trial import by_number

    while (number := trial.extra.get("copy_of")) is not None and (found := by_number(trials, number)) is not None:
        trial = found
    return trial


def raise_if_interrupted(path: Path, how: str | None = None) -> None:
    """Say how to go on, and raise KeyboardInterrupt, where Ctrl-C has ended the last session of a run.

    All is printed by then; what a shell does only after a success, such as an export, must not begin.
    """
    if interrupted(path):
        if how is not None:
            print(how)
        raise KeyboardInterrupt


def interrupted(path: Path) -> bool:
    """Whether Ctrl-C has ended the last session of a run."""
    from ..records.files import last_session
    from ..records.run_folder import RunFolder

    return last_session(RunFolder.open(path).facts).get("reason") == "interrupted"


def price_per_kwh_of(place: PlaceOptions) -> tuple[float, str] | None:
    """Return amount and currency of the option; None where it was not given."""
    from ..carbon.intensity import parse_price

    return None if place.price is None else astuple(parse_price(place.price))


@with_options
def measure(
    place: PlaceOptions,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The command with its arguments.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the record as JSON to this file.")] = None,
    meter: Meter = "auto",
    cpu_watts: CpuWatts = None,
    as_json: AsJson = False,
) -> None:
    """Run any command and print what it took, its child processes included.

    Streams and exit code stay the command's own (128 + N when signal N ended it, 127 when it does not exist); the record is printed on
    stderr when it has ended, with --json on stdout. Ctrl-C reaches the command, and what it took until then is printed.
    """
    from ..carbon.intensity import check_pue, cost, parse_price
    from ..carbon.zones import choose_intensity
    from ..formatting import for_stream, plain
    from ..integrations.command import measure_command
    from ..records.files import write_json
    from ..whole_file import full_disk

    # All is checked before the command starts: a typing mistake must not cost a training.
    check_pue(place.pue)
    price = None if place.price is None else parse_price(place.price)
    intensity = choose_intensity(place.intensity, place.zone)
    if out is not None:
        if out.is_dir():
            raise ValueError(f"-o must be a file, got the folder {str(out)!r}; give for example {str(out / 'energy.json')!r}")
        if out.is_file() and not _replaceable(out):
            raise ValueError(f"-o must be a new file or an earlier record, got {str(out)!r}, which holds something else; give another path")
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            if out.is_file() or not out.exists():  # not /dev/stdout
                TemporaryFile(dir=out.parent).close()
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            raise ValueError(f"-o must be a file that can be written, got {str(out)!r} ({said}); give another path") from error
    done = measure_command(command, meter, cpu_watts=cpu_watts, intensity=intensity, pue=place.pue)
    paid = cost(done.record.joules, price, place.pue)
    facts = {**done.to_json(), **({} if price is None else {"cost": paid, "currency": price.currency})}
    if as_json:
        print(json.dumps(facts, indent=1, allow_nan=False, default=str))
    else:
        print(done.to_text(), file=sys.stderr)
        if price is not None and paid is not None:
            print(f"price: {plain(paid)} {price.currency}, at {price.per_kwh:g} {price.currency}/kWh", file=sys.stderr)
    if out is not None:
        try:
            write_json(out, facts)
        except OSError as error:  # the record is on the terminal, and the exit code stays the command's own
            said = full_disk(error) or f"cannot write {str(out)!r}: {(error.strerror or str(error)).lower()}"
            print(for_stream(f"error: {said}", sys.stderr), file=sys.stderr)
    if done.exit_code:
        raise typer.Exit(done.exit_code)


def _replaceable(file: Path) -> bool:
    """Whether a file is empty or a record of `measure`: a script or a run's own file, named by mistake, is not written over."""
    try:
        text = file.read_bytes()
        return not text.strip() or {"command", "exit_code", "kwh"} <= set(parse(text))
    except (OSError, ValueError, TypeError):
        return False
