"""The verb measure: any command under the meter."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import typer

from ..energy.journal import parse
from .options import AsJson, CpuWatts, Meter, PlaceOptions, with_options


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
    from ..carbon.intensity import check_pue
    from ..carbon.price import cost, parse_price
    from ..carbon.zones import choose_intensity
    from ..formatting import for_stream
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
        money = "" if price is None or paid is None else f"\nprice: {paid:.3g} {price.currency}, at {price.per_kwh:g} {price.currency}/kWh"
        print(done.to_text() + money, file=sys.stderr)
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
