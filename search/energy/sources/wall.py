"""A meter at the wall: the whole machine, with its power supply and fans; beside the components, never added to them."""

from __future__ import annotations

import csv
import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from .source import JOULES_PER_KWH, JOULES_PER_WH, NANO, Capability, Clock, Reading, Source

#: No plug's answer has more bytes than this.
LONGEST = 1 << 20
#: Columns of cumulative energy in a CSV file -> joules per unit.
UNITS = {"joules": Decimal(1), "wh": Decimal(JOULES_PER_WH), "kwh": Decimal(JOULES_PER_KWH)}
#: A counter that moves in larger steps than this places no window of seconds: power is integrated instead.
COARSE_JOULES = 36.0
#: How far a logger's clock may run ahead of this machine's before its times are refused.
AHEAD_SECONDS = 2.0
#: Scale error of household metering plugs.
PLUG_GAIN_U = 0.02
#: Longest wait for a meter's first answer.
FIRST_SECONDS = 10.0
#: Longest wait for the answer that is under way when the meter is closed.
LAST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of a wall meter: a power, a counter with its smallest step, or both.

    ``utc_seconds`` is when the meter took it, since 1970; None for now.
    """

    watts: float | None = None
    joules: float | None = None
    step_joules: float = 0.0
    utc_seconds: float | None = None


#: Polls a meter: returns what is new since the last time, oldest first.
Poll = Callable[[], tuple[Sample, ...]]


def http_plug(url: str, *, timeout_seconds: float = 2.0) -> Poll:
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
            # The time limit of a socket is one of each piece: a plug that sends single bytes slowly would take for ever.
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
            total = (part.get("aenergy") or {}).get("total")
            # Wh with three decimals, trailing zeros left out.
            return _sample(part.get("apower"), total, JOULES_PER_WH, Decimal("0.001"))
    raise ValueError(
        f"expected Shelly's 'apower' or Tasmota's 'ENERGY', got the keys {sorted(data)[:8]}; use a CSV file or a callable instead"
    )


def _tasmota(energy: Mapping[str, Any]) -> Sample:
    several = energy.get("Power"), energy.get("Total")
    power, total = (value[0] if isinstance(value, list) and value else value for value in several)
    # kWh with as many decimals as EnergyRes says: 3.6 kJ for the usual three.
    digits = -int(total.as_tuple().exponent) if isinstance(total, Decimal) else 0
    return _sample(power, total, JOULES_PER_KWH, Decimal(1).scaleb(-max(digits, 3)))


def _sample(power: Any, total: Any, joules_per_unit: float, step: Decimal) -> Sample:
    for name, value in (("power", power), ("energy", total)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | Decimal)):
            raise ValueError(f"the plug's {name} must be a number, got {value!r}")
    if power is None and total is None:
        raise ValueError("the plug sent neither power nor energy; is this outlet one that measures?")
    joules = None if total is None else float(total) * joules_per_unit
    return Sample(None if power is None else float(power), joules, float(step) * joules_per_unit)


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
        self.inode: int | None = None
        self.header: list[str] | None = None

    def __call__(self) -> tuple[Sample, ...]:
        """Return the samples of the rows that are new, without those that cannot be read; nothing but such is a ``ValueError``."""
        with self.path.open("rb") as file:
            size, inode = file.seek(0, 2), os.fstat(file.fileno()).st_ino
            file.seek(max(0, self.position - 1))
            # Rotated, a new file under the old name or another text in the old one: the last row that was read ended in a line end.
            if size < self.position or inode != (self.inode or inode) or (self.position and file.read(1) != b"\n"):
                self.position, self.header = 0, None
            self.inode = inode
            file.seek(self.position)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self.position += end
        rows = list(csv.reader(data[:end].decode("utf-8-sig", errors="replace").splitlines()))
        if self.header is None and rows:
            header = [name.strip().casefold() for name in rows.pop(0)]
            if not {"watts", "power_w", *UNITS} & set(header):
                raise ValueError(f"{self.path}: the header must name watts, power_w, joules, wh or kwh, got {header}")
            self.header = header
        if self.skip_old:
            rows, self.skip_old = rows[-1:], False
        good, bad = [], None
        for row in filter(None, rows):
            try:
                good.append(self._row(row))
            except ValueError as error:
                bad = error
        if bad is not None and not good:
            raise bad
        return tuple(good)

    def _row(self, row: list[str]) -> Sample:
        assert self.header is not None
        cells = {name: cell.strip() for name, cell in zip(self.header, row, strict=False) if cell.strip()}
        try:
            watts = cells.get("watts", cells.get("power_w"))
            unit = next((name for name in UNITS if name in cells), None)
            joules = None if unit is None else Decimal(cells[unit]) * UNITS[unit]
            # One in the last place as it is written.
            step = Decimal(0) if unit is None else Decimal(1).scaleb(int(Decimal(cells[unit]).as_tuple().exponent)) * UNITS[unit]
            stamp = cells.get("timestamp")
            return Sample(
                None if watts is None else float(watts),
                None if joules is None else float(joules),
                float(step),
                None if stamp is None else _utc_seconds(stamp),
            )
        except (ArithmeticError, ValueError):
            raise ValueError(f"{self.path}: cannot read the row {row!r} under {self.header}") from None


def _utc_seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Wall:
    """Reads a wall meter on its own thread, since a plug that does not answer must not hold up the other meters.

    Args:
        meter: Asks the plug or the file; see `http_plug` and `CsvTail`.
        target: What is shown to people, e.g. the address.
        poll_seconds: Period of asking; None asks inside every `read` (for files, which answer at once).
        utc: Seconds since 1970, for meters that write their own times.
    """

    name = "wall"

    def __init__(
        self,
        meter: Poll,
        target: str = "callable",
        *,
        poll_seconds: float | None = 1.0,
        clock: Clock = time.monotonic_ns,
        utc: Callable[[], float] = time.time,
    ) -> None:
        self.meter, self.target, self.poll_seconds = meter, target, poll_seconds
        self.clock, self.utc = clock, utc
        self.pending: deque[Reading] = deque(maxlen=100_000)
        self.use_counter: bool | None = None
        self.step_joules = 0.0
        self.pid = os.getpid()
        self._found: tuple[Capability, ...] = ()
        self._last: list[Reading] = []
        self._asking = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._used = False

    def probe(self) -> tuple[Capability, ...]:
        """Poll once and return what came; probed again, the first good answer stands. After ``close`` it begins anew."""
        if self._found:
            return self._found
        self.pending.clear()
        readings = self._first()
        error = next((reading.error for reading in readings if reading.error), None)
        good = [reading for reading in readings if not reading.error]
        if error is not None and not good:
            remedy = f"check that {self.target} answers from this machine and shows power; see joulefront doctor"
            return (Capability("wall", self.name, False, "measured", "whole machine at the plug (AC)", error, remedy, counts=False),)
        # In a second life, what a logger wrote since the first belongs to nobody.
        self.pending.extend(readings[-1:] if self._used else readings)
        self._stop, self._used = threading.Event(), True
        found = Capability(
            "wall",
            self.name,
            True,
            "measured",
            f"whole machine at the plug (AC), {self.target}",
            reason="no row yet: waiting for the logger" if not good else None,
            # A power is as fresh as the question; when a plug refreshes its counter must be learnt.
            tick_seconds=None if self.use_counter else self.poll_seconds,
            resolution_joules=self.step_joules if self.use_counter else 0.0,
            gain_u=PLUG_GAIN_U,
            counts=False,
        )
        self._found = (found,)
        return self._found

    def read(self) -> tuple[Reading, ...]:
        """Return what came since the last time, or the last answer again; never waits for a plug."""
        if os.getpid() != self.pid:
            return ()  # the asking thread did not survive the fork; the parent's ledger has the readings
        if self.poll_seconds is None:
            self.pending.extend(self._ask())
        elif self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._poll, args=(self._stop,), name="joulefront-wall", daemon=True)
            self._thread.start()
        found = [self.pending.popleft() for _ in range(len(self.pending))]
        # A reading that is known already changes nothing in a ledger; none at all would pass for a meter that went silent.
        self._last = found[-1:] or self._last
        return tuple(found or self._last)

    def close(self) -> None:
        """Stop asking; waits a little for the answer that is under way. Another ledger may use the meter afterwards."""
        self._stop.set()
        if self._thread is not None and os.getpid() == self.pid:
            self._thread.join(LAST_SECONDS)  # a meter that hangs keeps its thread, which ends with the answer
        self._thread = None
        self._found = ()

    def _first(self) -> tuple[Reading, ...]:
        """Return the first answer; a plug that hangs is one that does not answer."""
        if self.poll_seconds is None:
            return self._ask()
        answers: list[tuple[Reading, ...]] = []
        thread = threading.Thread(target=lambda: answers.append(self._ask()), name="joulefront-wall", daemon=True)
        thread.start()
        thread.join(FIRST_SECONDS)
        return answers[0] if answers else (Reading("wall", self.clock(), error=f"{self.target}: no answer within {FIRST_SECONDS:.0f} s"),)

    def _poll(self, stop: threading.Event) -> None:
        assert self.poll_seconds is not None
        due = time.monotonic()
        while not stop.is_set():
            readings = self._ask()
            if stop.is_set():
                return  # the answer came too late: by now another ledger may use the meter
            self.pending.extend(readings)
            # Absolute deadlines keep the period; a plug that took longer loses its turn instead of being asked twice.
            due = max(due + self.poll_seconds, time.monotonic())
            stop.wait(due - time.monotonic())

    def _ask(self) -> tuple[Reading, ...]:
        with self._asking:
            before = self.clock()
            try:
                samples, error = self.meter(), None
            except Exception as wrong:  # whatever a plug or a user's function does: a gap with a reason; a zero would be a lie
                samples, error = (), f"{self.target}: {type(wrong).__name__}: {wrong}"
            after = self.clock()
        middle, half = (before + after) // 2, (after - before + 1) // 2
        if error is not None:
            return (Reading("wall", middle, half, error=error),)
        return tuple(self._reading(sample, middle, half) for sample in samples)

    def _reading(self, sample: Sample, t_ns: int, half_ns: int) -> Reading:
        wrong = "neither power nor energy" if sample.watts is None and sample.joules is None else None
        for what, value in (("power", sample.watts), ("energy", sample.joules)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                wrong = f"{what} is {value!r}, which is no consumption; is the plug reversed?"
        if sample.utc_seconds is not None:
            behind = self.utc() - sample.utc_seconds
            if behind < -AHEAD_SECONDS:
                wrong = f"its clock is {-behind:.1f} s ahead of this machine's; set both by NTP"
            t_ns, half_ns = t_ns - max(int(behind * NANO), 0), 0
        if wrong is not None:
            return Reading("wall", t_ns, half_ns, error=f"{self.target}: {wrong}")
        if self.use_counter is None:
            # Decided once: a change of the account in the middle of a window would be a step that no machine made.
            self.use_counter = sample.joules is not None and (sample.watts is None or sample.step_joules <= COARSE_JOULES)
            self.step_joules = sample.step_joules
        return Reading("wall", t_ns, half_ns, sample.joules if self.use_counter else None, sample.watts)


def open_wall(target: str | Path | Callable[[], float | Sample], *, poll_seconds: float = 1.0, timeout_seconds: float = 2.0) -> Wall:
    """Return the wall meter behind ``--meter wall=TARGET``: an address, a CSV file being appended, or any function giving watts.

    Raises:
        ValueError: The target is none of them.
    """
    if callable(target):

        def ask() -> tuple[Sample, ...]:
            value = target()
            return (value if isinstance(value, Sample) else Sample(watts=float(value)),)

        return Wall(ask, "callable", poll_seconds=poll_seconds)
    text = str(target)
    if text.startswith(("http://", "https://")):
        return Wall(http_plug(text, timeout_seconds=timeout_seconds), text, poll_seconds=poll_seconds)
    if "://" in text or not text:
        raise ValueError(f"wall must be http://ADDRESS, a CSV file or a function, got {text!r}")
    return Wall(CsvTail(Path(text)), text, poll_seconds=None)


def from_spec(argument: str | None) -> Source:
    """Return the meter of ``wall=TARGET`` in ``--meter``.

    Raises:
        ValueError: There is no target.
    """
    if not argument:
        raise ValueError("wall needs a target: --meter auto,wall=http://ADDRESS/rpc/Switch.GetStatus?id=0 or wall=FILE.csv")
    return open_wall(argument)
