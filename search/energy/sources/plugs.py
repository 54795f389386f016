"""What metering plugs and loggers write, as samples of power and energy."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

JOULES_PER_WH = 3600.0
#: No plug's answer has more bytes than this.
LONGEST = 1 << 20
#: Columns of cumulative energy in a CSV file -> joules per unit.
UNITS = {"joules": Decimal(1), "wh": Decimal(3600), "kwh": Decimal(3_600_000)}


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a wall meter.

    Attributes:
        watts: Power now, or None when the meter has no power.
        joules: Cumulative energy, or None when it has no counter.
        step_joules: Smallest step of that counter.
        utc_seconds: When the meter took it (seconds since 1970), or None for now.
    """

    watts: float | None = None
    joules: float | None = None
    step_joules: float = 0.0
    utc_seconds: float | None = None


#: Asks a meter: returns what is new since the last time, oldest first.
Meter = Callable[[], tuple[Sample, ...]]


def http_plug(url: str, *, timeout_seconds: float = 2.0) -> Meter:
    """Return a meter that asks a metering plug over HTTP.

    Args:
        url: ``http://192.0.2.7/rpc/Switch.GetStatus?id=0`` (Shelly, second generation and later) or
            ``http://192.0.2.7/cm?cmnd=Status%2010`` (Tasmota).
        timeout_seconds: How long to wait for the plug to take the call, and for the whole of its answer.

    Raises:
        ValueError: `url` is not http or https.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url must start with http:// or https://, got {url!r}")

    def ask() -> tuple[Sample, ...]:
        from urllib.request import urlopen  # costs 40 ms, and only a user with a plug needs it

        with urlopen(url, timeout=timeout_seconds) as answer:
            # The time limit of a socket is one of each piece: a plug that sends a byte now and then would take for ever.
            until, text = time.monotonic() + timeout_seconds, b""
            while (piece := answer.read1(1 << 16)) and len(text) < LONGEST:
                text += piece
                if time.monotonic() > until:
                    raise TimeoutError(f"timed out: no whole answer within {timeout_seconds:g} s")
        return (parse_plug(text.decode("utf-8")),)

    return ask


def parse_plug(text: str) -> Sample:
    """Read the JSON of a Shelly or a Tasmota plug.

    Raises:
        ValueError: It is neither, or has no number.

    Source: Shelly Gen2 API, Switch status (``apower`` W, ``aenergy.total`` Wh); Tasmota, Status 10 (``Power`` W, ``Total`` kWh).
    """
    # Decimal keeps the digits as written: they tell the step of the counter.
    data = json.loads(text, parse_float=Decimal)
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object from the plug, got {text[:80]!r}")
    energy = (data.get("StatusSNS") or data).get("ENERGY") if isinstance(data.get("StatusSNS") or data, dict) else None
    if isinstance(energy, dict):
        return _tasmota(energy)
    for part in (data, *(value for value in data.values() if isinstance(value, dict))):
        if "apower" in part or "aenergy" in part:
            return _shelly(part)
    raise ValueError(
        f"expected Shelly's 'apower' or Tasmota's 'ENERGY', got the keys {sorted(data)[:8]}; use a CSV file or a callable instead"
    )


def _shelly(part: Mapping[str, Any]) -> Sample:
    total = (part.get("aenergy") or {}).get("total")
    # Wh with three decimals, trailing zeros left out.
    return _sample(part.get("apower"), total, JOULES_PER_WH, Decimal("0.001"))


def _tasmota(energy: Mapping[str, Any]) -> Sample:
    total = energy.get("Total")
    total = total[0] if isinstance(total, list) and total else total
    power = energy.get("Power")
    power = power[0] if isinstance(power, list) and power else power
    # kWh with as many decimals as EnergyRes says: 3.6 kJ for the usual three.
    digits = -int(total.as_tuple().exponent) if isinstance(total, Decimal) else 0
    return _sample(power, total, 1000 * JOULES_PER_WH, Decimal(1).scaleb(-max(digits, 3)))


def _sample(power: Any, total: Any, joules_per_unit: float, step: Decimal) -> Sample:
    for name, value in (("power", power), ("energy", total)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | Decimal)):
            raise ValueError(f"the plug's {name} must be a number, got {value!r}")
    if power is None and total is None:
        raise ValueError("the plug sent neither power nor energy; is this outlet one that measures?")
    return Sample(
        None if power is None else float(power), None if total is None else float(total) * joules_per_unit, float(step) * joules_per_unit
    )


class CsvTail:
    """A meter that follows a CSV file which a logger appends to; a row without its line end is left for the next time.

    The header names the columns: ``watts`` (or ``power_w``), ``joules``, ``wh`` or ``kwh`` (cumulative), and, if the logger writes it,
    ``timestamp`` (seconds since 1970 or ISO 8601, UTC when no zone is written).

    Args:
        path: The file; it may not exist yet.
        skip_old: Start with the last row that is already there, since the older ones belong to another time.
    """

    def __init__(self, path: Path, *, skip_old: bool = True) -> None:
        self.path = path
        self.skip_old = skip_old
        self.position = 0
        self.header: list[str] | None = None

    def __call__(self) -> tuple[Sample, ...]:
        """Return the samples of the rows that are new.

        Raises:
            OSError: The file cannot be read.
            ValueError: A row or the header cannot be understood.
        """
        with self.path.open("rb") as file:
            if file.seek(0, 2) < self.position:  # rotated: a new file under the old name
                self.position, self.header = 0, None
            file.seek(self.position)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self.position += end
        rows = list(csv.reader(data[:end].decode("utf-8-sig").splitlines()))
        if self.header is None and rows:
            self.header = [name.strip().casefold() for name in rows.pop(0)]
            if not {"watts", "power_w", *UNITS} & set(self.header):
                raise ValueError(f"{self.path}: the header must name watts, power_w, joules, wh or kwh, got {self.header}")
        if self.skip_old:
            rows, self.skip_old = rows[-1:], False
        return tuple(self._row(row) for row in rows if row)

    def _row(self, row: list[str]) -> Sample:
        assert self.header is not None
        cells = {name: cell.strip() for name, cell in zip(self.header, row, strict=False) if cell.strip()}
        try:
            watts = cells.get("watts", cells.get("power_w"))
            unit = next((name for name in UNITS if name in cells), None)
            joules = None if unit is None else Decimal(cells[unit]) * UNITS[unit]
            step = Decimal(0) if unit is None else _step(cells[unit]) * UNITS[unit]
            stamp = cells.get("timestamp")
            return Sample(
                None if watts is None else float(watts),
                None if joules is None else float(joules),
                float(step),
                None if stamp is None else _utc_seconds(stamp),
            )
        except (ArithmeticError, ValueError):
            raise ValueError(f"{self.path}: cannot read the row {row!r} under {self.header}") from None


def _step(text: str) -> Decimal:
    return Decimal(1).scaleb(int(Decimal(text).as_tuple().exponent))


def _utc_seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def callable_meter(function: Callable[[], float | Sample]) -> Meter:
    """Return a meter around any function that gives watts or a `Sample`."""

    def ask() -> tuple[Sample, ...]:
        value = function()
        return (value if isinstance(value, Sample) else Sample(watts=float(value)),)

    return ask
