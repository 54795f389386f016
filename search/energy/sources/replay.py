"""Recorded traces played again as a meter: the same readings, to the last bit, on any clock."""

from __future__ import annotations

import csv
import gzip
import json
import time
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .source import NANO, Capability, Clock, MeterQuality, Reading, Source

SCHEMA = 1
#: Columns of a CSV that say which of several devices a row is of, the most lasting first.
DEVICES = ("uuid", "gpu_uuid", "index", "pci.bus_id", "gpu_bus_id")


@dataclass(frozen=True)
class Trace:
    """What a meter gave of one component, in its own time; what is not listed here is that of a ``Capability``.

    Attributes:
        t_ns: Times of the readings in nanoseconds from any origin, strictly increasing, shape ``(n,)``.
        joules: Cumulative energy, shape ``(n,)``, or None when only power was recorded.
        watts: Power, shape ``(n,)``, or None when only energy was recorded.
        tick_seconds: Refresh period of the counter; 0 when every reading is exact.
    """

    component: str
    t_ns: tuple[int, ...]
    joules: tuple[float, ...] | None = None
    watts: tuple[float, ...] | None = None
    quality: MeterQuality = "measured"
    boundary: str = "as recorded"
    gain_u: float = 0.05
    tick_seconds: float = 0.0
    range_joules: float | None = None
    counts: bool = True

    def __post_init__(self) -> None:
        if self.joules is None and self.watts is None:
            raise ValueError(f"trace of {self.component} needs joules or watts, got neither")
        for name, values in (("joules", self.joules), ("watts", self.watts)):
            if values is not None and len(values) != len(self.t_ns):
                raise ValueError(f"trace of {self.component}: {name} must have the length of t_ns ({len(self.t_ns)}), got {len(values)}")
        late = next((i for i in range(1, len(self.t_ns)) if self.t_ns[i] <= self.t_ns[i - 1]), None)
        if late is not None:
            raise ValueError(f"trace of {self.component}: t_ns must increase, but reading {late} is not later than the one before")

    @staticmethod
    def from_json(data: dict[str, Any]) -> Trace:
        """Rebuild a trace from its entries as `save_traces` writes them; unknown keys are ignored.

        Raises:
            ValueError: Something is missing or of the wrong length.
        """
        known = Trace.__dataclass_fields__
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name in known}
        if not {"component", "t_ns"} <= set(values):
            raise ValueError(f"a trace needs 'component' and 't_ns', got {sorted(data)}")
        return Trace(**values)


class Replay:
    """Plays traces from the first call of `read` on: reading i comes out once its time has passed on the clock.

    Args:
        traces: What to play; their own times are kept relative to each other.
        clock: Monotonic nanoseconds; a test gives one that it moves itself.
    """

    name = "replay"

    def __init__(self, traces: Iterable[Trace], *, clock: Clock = time.monotonic_ns) -> None:
        self.traces = tuple(traces)
        if not any(trace.t_ns for trace in self.traces):
            raise ValueError("replay needs a trace with at least one reading, got none")
        self.clock = clock
        self.start_ns: int | None = None  # the first read
        self.origin_ns = min(trace.t_ns[0] for trace in self.traces if trace.t_ns)
        self.played = [0] * len(self.traces)

    def probe(self) -> tuple[Capability, ...]:
        """Return which components were recorded; their quality is that of the recording."""
        return tuple(
            Capability(
                trace.component,
                self.name,
                True,
                trace.quality,
                f"{trace.boundary} (replayed)",
                tick_seconds=trace.tick_seconds,
                range_joules=trace.range_joules,
                gain_u=trace.gain_u,
                counts=trace.counts,
            )
            for trace in self.traces
        )

    def read(self) -> tuple[Reading, ...]:
        """Return the readings whose time has come since the last call, oldest first; a trace without a new one repeats its last."""
        now = self.clock()
        if self.start_ns is None:
            self.start_ns = now
        shift = self.start_ns - self.origin_ns
        found: list[Reading] = []
        for k, trace in enumerate(self.traces):
            stop = bisect_right(trace.t_ns, now - shift)
            # Between two readings the last one is repeated, which changes nothing; silence would be a failure.
            for i in range(min(self.played[k], max(stop - 1, 0)), stop):
                joules = None if trace.joules is None else trace.joules[i]
                watts = None if trace.watts is None else trace.watts[i]
                found.append(Reading(trace.component, trace.t_ns[i] + shift, 0, joules, watts))
            self.played[k] = max(self.played[k], stop)
        return tuple(sorted(found, key=lambda reading: reading.t_ns))

    def close(self) -> None:
        """Nothing is held open."""


def save_traces(path: Path, traces: Iterable[Trace]) -> None:
    """Write traces as JSON; `read_traces` gives equal ones back, since Python's floats survive it exactly."""
    path.write_text(json.dumps({"schema": SCHEMA, "traces": [vars(trace) for trace in traces]}), encoding="utf-8")


def read_traces(path: Path) -> tuple[Trace, ...]:
    """Read traces from JSON (`save_traces`), or power traces from CSV (``.csv``, ``.csv.gz``).

    A CSV has a time column (``timestamp`` as nvidia-smi or ISO 8601 write it, or ``seconds``) and a power column (``watts``,
    ``power_w`` or nvidia-smi's ``power.draw [W]``). One of several GPUs needs a column ``uuid``, ``index`` or ``pci.bus_id``: each is a
    trace of its own, as ``gpu:replay:0``.

    Raises:
        ValueError: The file cannot be understood; the message names the line.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        return _read_csv(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.get("schema") == SCHEMA:
            return tuple(Trace.from_json(trace) for trace in data["traces"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); record it anew") from error
    raise ValueError(f"{path}: expected a trace file of schema {SCHEMA}, written by save_traces")


def _read_csv(path: Path) -> tuple[Trace, ...]:
    opener = gzip.open if path.suffix == ".gz" else open
    found: dict[str, tuple[list[int], list[float]]] = {}
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = [name.strip().casefold() for name in next(reader, [])]
        when = next((header.index(name) for name in ("seconds", "timestamp") if name in header), None)
        what = next((i for i, name in enumerate(header) if name in ("watts", "power_w") or ("power" in name and "draw" in name)), None)
        which = next((header.index(name) for name in DEVICES if name in header), None)
        if when is None or what is None:
            raise ValueError(f"{path}: the header must name 'timestamp' or 'seconds', and 'watts' or 'power.draw [W]', got {header}")
        broken: str | None = None
        for row in reader:
            if broken is not None:
                raise ValueError(broken)
            if not row or "N/A" in row[min(what, len(row) - 1)]:
                continue  # nvidia-smi had no number then: a gap
            try:
                t_ns = _nanoseconds(row[when].strip())
                value = float(row[what].strip().removesuffix("W"))
                times, watts = found.setdefault("" if which is None else row[which].strip(), ([], []))
            except (ValueError, IndexError):
                # A recorder that was stopped leaves half a last row; anywhere else it is damage.
                broken = f"{path}, line {reader.line_num}: cannot read {row!r}"
                continue
            # nvidia-smi occasionally writes one moment twice; the first is kept.
            if not times or t_ns != times[-1]:
                times.append(t_ns)
                watts.append(value)
    names = {device: f"gpu:replay:{device}" if len(found) > 1 else "gpu:replay" for device in found}
    boundary = f"power trace {path.name}"
    return tuple(Trace(names[device], tuple(times), watts=tuple(watts), boundary=boundary) for device, (times, watts) in found.items())


def _nanoseconds(text: str) -> int:
    try:
        return round(float(text) * NANO)
    except ValueError:
        moment = datetime.fromisoformat(text.replace("/", "-"))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        whole = moment.replace(microsecond=0)
        return int(whole.timestamp()) * NANO + moment.microsecond * 1000  # integers: a float of seconds would lose 100 ns


def from_spec(argument: str | None) -> Source:
    """Return the meter of ``replay=FILE`` in ``--meter``.

    Raises:
        ValueError: There is no file, or it cannot be understood.
    """
    if not argument:
        raise ValueError("replay needs a file: --meter replay=FILE.json, written by save_traces, or replay=FILE.csv")
    try:
        return Replay(read_traces(Path(argument)))
    except OSError as error:
        raise ValueError(f"replay must name a file that can be read, got {argument!r} ({error.strerror}); correct replay=FILE") from error
