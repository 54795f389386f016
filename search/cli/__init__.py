"""The verbs of the command line: each one call into the library. Results go to stdout, progress and errors to stderr.

What a user reads when something goes wrong: one line, and an exit code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import AsJson, Complete, MovedData, MovedStudy, Price, Pue, RunFolder
from .run import estimate, repeat, run

#: What a shell expects of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130
#: What is wrong with a path that the user gave.
_PATHS = FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError | PermissionError


def exit_code(error: Exception) -> int:
    """Return 2 for wrong usage, 1 for work that failed."""
    usage = getattr(error, "exit_code", None)  # the parser's own errors bring it
    return int(usage) if usage is not None else 2 if isinstance(error, ValueError | _PATHS) else 1


def one_line(error: Exception) -> str:
    """Say an error in one line, with what to do about it."""
    if hasattr(error, "format_message"):  # the parser's
        context: Any = getattr(error, "ctx", None)
        return f"{_flat(error.format_message()).rstrip('.')}. See {context.command_path if context else 'joulefront'} --help"
    if not isinstance(error, ValueError | RuntimeError | OSError | ImportError | LookupError) or isinstance(error, KeyError | IndexError):
        # Nobody wrote this one for the user: say what it is and how to find out more.
        return f"{type(error).__name__}: {_flat(str(error))} (the same command with --debug shows where)"
    if isinstance(error, _PATHS) and error.filename is not None and error.strerror is not None:
        return f"cannot use {str(error.filename)!r}: {error.strerror.lower()}; give another path"
    return _flat(str(error)) or f"{type(error).__name__} (the same command with --debug shows where)"


def _flat(text: str) -> str:
    return " ".join(text.split())


app = typer.Typer(
    name="joulefront",
    help="Search models that are worth their energy: the Pareto front of accuracy against measured kWh and CO2.",
    epilog="Every verb takes --debug: an error then comes with its traceback.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


for _verb in (run, repeat, estimate):
    app.command()(_verb)


@app.command()
def studies() -> None:
    """List the bundled studies."""
    from .study_source import bundled_studies

    for name, line in bundled_studies().items():
        print(f"{name:15} {line}")


@app.command()
def front(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Stable JSON, one object a member, units in the keys.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as CSV.")] = False,
    complete: Complete = False,
) -> None:
    """Print the Pareto front of a run."""
    from .read import show_front

    show_front(run, as_json=as_json, as_csv=as_csv, complete_only=complete)


@app.command()
def plot(
    run: RunFolder,
    out: Annotated[Path, typer.Option("-o", "--out", help="front.html, front.png or front.svg.")] = Path("front.html"),
    complete: Complete = False,
    of: Annotated[
        str, typer.Option(help="front; relations (energy against operations) or tactics (families against plain), with a table.")
    ] = "front",
) -> None:
    """Draw the front: HTML, PNG or SVG by the file's ending."""
    from .read import draw_plot

    draw_plot(run, out, complete_only=complete, of=of)


@app.command()
def report(run: RunFolder, out: Annotated[Path, typer.Option("-o", "--out", help="The page.")] = Path("report.html")) -> None:
    """Write one self-contained page about the run."""
    from .read import write_report

    write_report(run, out)


@app.command()
def dashboard(
    run: RunFolder,
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve optuna-dashboard on the run's storage."""
    from .read import serve_dashboard

    serve_dashboard(run, host, port)


@app.command()
def export(
    run: RunFolder,
    to: Annotated[str, typer.Option(help="onnx, pt2, safetensors or skops.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the model and its card.")],
    pick: Annotated[str, typer.Option(help="knee, best, cheapest, trial=N, accuracy>=X or energy<=5Wh.")] = "knee",
    data: MovedData = None,
    study: MovedStudy = None,
) -> None:
    """Export a model of the front, checked against the trained one on validation data."""
    from .read import export_model

    export_model(run, pick, to, out, data=data, source=study)


@app.command()
def optimise(
    run: RunFolder,
    pick: Annotated[str, typer.Option(help="knee, best, cheapest, trial=N, accuracy>=X or energy<=5Wh.")] = "knee",
    prune: Annotated[list[float] | None, typer.Option(help="Share of the weights to set to zero; may be repeated. [default: 0.5]")] = None,
    compile_model: Annotated[bool, typer.Option("--compile/--no-compile", help="Try torch.compile; seconds to minutes.")] = True,
    rounds: Annotated[int, typer.Option(help="Windows of each tactic, taken in turns.")] = 3,
    meter: Annotated[str, typer.Option(help="auto, or sources such as nvml,rapl,wall=http://...")] = "auto",
    data: MovedData = None,
    study: MovedStudy = None,
    as_json: AsJson = False,
) -> None:
    """Quantise, compile and prune a trained model: what each costs, saves per prediction, and when it has paid for itself."""
    from .read import optimise_model

    shares = prune or [0.5]
    optimise_model(
        run, pick, data=data, source=study, meter=meter, prune=shares, compile_model=compile_model, rounds=rounds, as_json=as_json
    )


@app.command()
def price(
    run: RunFolder,
    zones: Annotated[str, typer.Option(help="Comma-separated zones, e.g. FR,US,TW.")],
    pue: Pue = 1.0,
    price: Price = None,
    as_json: AsJson = False,
) -> None:
    """The same study elsewhere: grams of CO2e and money per zone, without training again."""
    from .read import price_run

    price_run(run, zones, pue=pue, price=price, as_json=as_json)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.")],
    as_json: AsJson = False,
) -> None:
    """A leaderboard of several runs."""
    from .read import compare_runs

    compare_runs(runs, as_json=as_json)


@app.command()
def doctor(
    as_json: AsJson = False,
    meter: Annotated[str, typer.Option(help="auto, or sources such as nvml,rapl,wall=http://...")] = "auto",
    zone: Annotated[str | None, typer.Option(help="Where the energy comes from, e.g. FR.")] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Calibrate the CPU-time estimate (half a minute).")] = False,
    compare_meters: Annotated[
        bool, typer.Option("--compare-meters", help="Short loads under every source that works here; with wall=... its line is kept.")
    ] = False,
) -> None:
    """Say what can be measured on this machine, what cannot, and the one-line remedy."""
    from .read import examine_machine

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
        goes_on = words[:1] in (["run"], ["repeat"])
        print("interrupted" + ("; what was measured is kept. The same command goes on from there" if goes_on else ""), file=sys.stderr)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
