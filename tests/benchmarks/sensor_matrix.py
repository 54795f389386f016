"""Kinds of sensors under kinds of loads: does the truth lie within two standard uncertainties, and how far off is the middle?

    python tests/benchmarks/sensor_matrix.py                       # the table of search/energy/README.md
    python tests/benchmarks/sensor_matrix.py --hold-out            # other seeds, other step frequencies and jitters
    python tests/benchmarks/sensor_matrix.py --sensors H100 --loads steps pulses

A GPU that is not there draws a load whose integral is known exactly; the sensors hold, average, look for a part of the time and lag. Time
is simulated and seeds are fixed: the numbers are the same everywhere. Half of the windows are opened and closed, with the
polling at their edges; half are asked for afterwards, as those of worker processes are. Exit code 1 when a cell covers less than 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bars_simulated import Lab
from helpers.traces import read_trace

from joulefront.search.energy import Ledger
from joulefront.search.energy.sources import nvml
from joulefront.search.energy.sources.nvml import Nvml

TRACES = sorted((Path(__file__).resolve().parents[3] / "shared" / "data" / "delrey2023" / "traces").glob("*.csv.gz"))
#: A simulation lasts so many seconds, and each cell has so many.
SECONDS, RUNS = 130.0, 4
#: No sensor gives the same number twice: this share of a reading is its own noise.
NOISE = 0.002
#: Windows that are opened in one simulation, and windows that are asked for.
OPENED, ASKED = 25, 30
#: Every cell must cover this share of its windows.
LEAST = 0.95

#: The fake driver's knobs of the power sensor; a plain call that is a mean over a second is known as one by its architecture.
POWERS: dict[str, dict[str, float]] = {
    "held 20 ms": {"refresh": 0.02},
    "held 25 ms": {"refresh": 0.025},
    "held 100 ms": {"refresh": 0.1},
    "held 1 s": {"refresh": 1.0},
    "mean of 25 ms": {"refresh": 0.025, "average": 0.025},
    "mean of 100 ms": {"refresh": 0.1, "average": 0.1},
    "mean of 1 s": {"instant": 0, "refresh": 0.1, "average": 1.0},
    "H100: 25 of 100 ms": {"refresh": 0.1, "average": 0.025, "model": 2},
    "later Hopper: 25 of 100 ms": {"refresh": 0.1, "average": 0.025, "arch": 9},
}
SENSORS: dict[str, dict[str, float]] = {
    **{f"power {name}": {"counter": 0, **knobs} for name, knobs in POWERS.items()},
    **{f"counter {tick} ms": {"instant": 0, "usage": 0, "tick": tick / 1000} for tick in (20, 50, 100)},
    **{f"counter {tick} ms + {name}": {"tick": tick / 1000, **knobs} for tick in (20, 50, 100) for name, knobs in POWERS.items()},
    "A100: counter and power see 25 of 100 ms": {"tick": 0.1, "seen": 0.025, "refresh": 0.1, "average": 0.025, "model": 1},
    "counter 100 ms, 50 ms late": {"instant": 0, "usage": 0, "behind": 0.05},
    "counter 100 ms, 100 ms late": {"instant": 0, "usage": 0, "behind": 0.1},
    **{
        f"counter {tick} ms, {late} ms late + {name}": {"tick": tick / 1000, "behind": late / 1000, **POWERS[name]}
        for tick, late, name in (
            (20, 100, "held 20 ms"),
            (100, 50, "held 100 ms"),
            (100, 100, "held 100 ms"),
            (100, 50, "mean of 100 ms"),
            (100, 100, "mean of 100 ms"),
            (100, 100, "mean of 1 s"),
            (100, 50, "later Hopper: 25 of 100 ms"),
            (100, 100, "later Hopper: 25 of 100 ms"),
        )
    },
    "counter 100 ms, read every 1.7 s + H100: 25 of 100 ms": {"rest": 1.7, **POWERS["H100: 25 of 100 ms"]},
    "counter 100 ms, read every 1.7 s + held 100 ms": {"rest": 1.7, **POWERS["held 100 ms"]},
}
#: Seconds and watts of a load, straight between its points, and its own windows if it has some.
Load = tuple[list[float], list[float], list[tuple[float, float]]]


@dataclass(frozen=True)
class Variant:
    """What differs between the table and its hold-out: seeds, step frequencies in Hz, jitter of a step, swing."""

    seed: str
    hertz: tuple[float, float]
    jitter: float
    swing: float


TABLE = Variant("table", (2.5, 14.0), 0.1, 0.6)
HOLD_OUT = Variant("hold-out", (1.7, 19.0), 0.05, 0.45)


def _levels(steps: Iterator[tuple[float, float]], begin: float) -> tuple[list[float], list[float]]:
    """Return the points of a load of levels (seconds, watts), with flanks of a tenth of a millisecond."""
    times, watts, now = [], [], begin
    for seconds, level in steps:
        times += [now + 1e-4, now + seconds]
        watts += [level, level]
        now += seconds
    return times, watts


def _pulses(rng: random.Random, variant: Variant, seconds: float, low: float, mean: float, hertz: float) -> Iterator[tuple[float, float]]:
    """Yield the levels of training steps of one frequency around a mean."""
    swing, left = variant.swing * (mean - low), seconds
    while left > 1e-3:
        for level in (mean + swing, mean - swing):
            step = max(min(left, rng.uniform(1 - variant.jitter, 1 + variant.jitter) / hertz / 2), 1e-3)
            left -= step
            yield step, level


def constant(rng: random.Random, variant: Variant, begin: float) -> Load:
    """Never change."""
    return [begin, begin + SECONDS], [rng.uniform(80, 400)] * 2, []


def steps(rng: random.Random, variant: Variant, begin: float) -> Load:
    """Rest and work in turns; windows begin and end with the work."""
    own: list[tuple[float, float]] = []

    def levels() -> Iterator[tuple[float, float]]:
        now = begin
        while now < begin + SECONDS:
            rest, work = rng.uniform(0.5, 2.0), 0.3 * 33 ** rng.random()
            own.append((now + rest, now + rest + work))
            now += rest + work
            yield rest, 60.0
            yield work, rng.uniform(150, 400)

    times, watts = _levels(levels(), begin)
    return times, watts, own


def bursts(rng: random.Random, variant: Variant, begin: float) -> Load:
    """Short bursts at random."""

    def levels() -> Iterator[tuple[float, float]]:
        now = begin
        while now < begin + SECONDS:
            rest, work = rng.expovariate(1 / 0.35) + 0.01, rng.uniform(0.01, 0.06)
            now += rest + work
            yield rest, 80.0
            yield work, 380.0

    return (*_levels(levels(), begin), [])


def ramps(rng: random.Random, variant: Variant, begin: float) -> Load:
    """Rise slowly and fall at once."""
    times, watts, now = [begin], [70.0], begin
    while now < begin + SECONDS:
        top, seconds = rng.uniform(150, 400), rng.uniform(0.7, 5.0)
        times += [now + seconds, now + seconds + 1e-3]
        watts += [top, 70.0]
        now += seconds + 1e-3
    return times, watts, []


def pulses(rng: random.Random, variant: Variant, begin: float) -> Load:
    """One training after another, each with steps of a frequency of its own."""

    def levels() -> Iterator[tuple[float, float]]:
        order = list(range(10))
        rng.shuffle(order)  # the frequencies of the trainings lie evenly in their range
        for number in order:
            hertz = variant.hertz[0] * (variant.hertz[1] / variant.hertz[0]) ** ((number + rng.random()) / len(order))
            yield from _pulses(rng, variant, SECONDS / len(order), 60.0, rng.uniform(180, 350), hertz)

    return (*_levels(levels(), begin), [])


def slow_pulses(rng: random.Random, variant: Variant, begin: float) -> Load:
    """Training steps at the slow end."""
    return pulses(rng, Variant(variant.seed, (variant.hertz[0], 6.0), variant.jitter, variant.swing), begin)


def fast_pulses(rng: random.Random, variant: Variant, begin: float) -> Load:
    """Training steps at the fast end, some in step with a sensor of 100 ms."""
    return pulses(rng, Variant(variant.seed, (6.0, variant.hertz[1]), variant.jitter, variant.swing), begin)


def duty_pulses(rng: random.Random, variant: Variant, begin: float) -> Load:
    """Steps of 0.5 to 20 Hz that work for 10 to 90 % of their time; one length differs from the next by 3 to 20 %."""

    def levels() -> Iterator[tuple[float, float]]:
        order = list(range(10))
        rng.shuffle(order)
        for number in order:
            period, duty = 2.0 / 40 ** ((number + rng.random()) / len(order)), rng.uniform(0.1, 0.9)
            jitter, high, left = rng.uniform(0.03, 0.2), rng.uniform(180, 400), SECONDS / len(order)
            while left > 1e-3:
                for level, share in ((high, duty), (80.0, 1 - duty)):
                    step = max(min(left, rng.uniform(1 - jitter, 1 + jitter) * period * share), 1e-3)
                    left -= step
                    yield step, level

    return (*_levels(levels(), begin), [])


def trials(rng: random.Random, variant: Variant, begin: float) -> Load:
    """Trainings of steps with rests between them; windows begin and end with the trainings."""
    own: list[tuple[float, float]] = []

    def levels() -> Iterator[tuple[float, float]]:
        now = begin
        while now < begin + SECONDS:
            rest, work = rng.uniform(0.5, 2.0), 0.3 * 33 ** rng.random()
            hertz = variant.hertz[0] * (variant.hertz[1] / variant.hertz[0]) ** rng.random()
            yield rest, 60.0
            made = list(_pulses(rng, variant, work, 60.0, rng.uniform(180, 350), hertz))
            work = sum(seconds for seconds, _ in made)
            own.append((now + rest, now + rest + work))
            now += rest + work
            yield from made

    times, watts = _levels(levels(), begin)
    return times, watts, own


def _recorded(rng: random.Random) -> tuple[list[float], list[float]]:
    """Return a stretch of one of the ten recorded traces, in seconds from its beginning."""
    times, watts = read_trace(rng.choice(TRACES))
    first = rng.randrange(max(int(len(times) * (1 - 1.2 * SECONDS / times[-1])), 1))
    return [t - times[first] for t in times[first:]], watts[first:]


def recorded(rng: random.Random, variant: Variant, begin: float) -> Load:
    """A recorded training, straight between its rows."""
    times, watts = _recorded(rng)
    return [begin + t for t in times], watts, []


def jagged(rng: random.Random, variant: Variant, begin: float) -> Load:
    """A recorded training with steps on top: a part of what is drawn above rest comes and goes."""
    times, watts = _recorded(rng)
    hertz = variant.hertz[0] * (variant.hertz[1] / variant.hertz[0]) ** rng.random()
    low = min(watts)

    def levels() -> Iterator[tuple[float, float]]:
        now, row = 0.0, 0
        while now < SECONDS:
            while row + 1 < len(times) and times[row + 1] <= now:
                row += 1
            for seconds, level in _pulses(rng, variant, 2 / hertz, low, watts[row], hertz):
                now += seconds
                yield seconds, level

    return (*_levels(levels(), begin), [])


LOADS: dict[str, Callable[[random.Random, Variant, float], Load]] = {
    "constant": constant,
    "steps": steps,
    "bursts": bursts,
    "ramps": ramps,
    "slow pulses": slow_pulses,
    "fast pulses": fast_pulses,
    "duty pulses": duty_pulses,
    "trials": trials,
    **({"recorded": recorded, "jagged": jagged} if TRACES else {}),
}


@dataclass(frozen=True)
class Cell:
    """One sensor under one load: share of windows that cover the truth, mean and median |error| and median 2u, relative."""

    covered: float
    bias: float
    error: float
    width: float
    windows: int
    remarks: str = ""


def simulate(lab: Lab, knobs: dict[str, float], load: str, variant: Variant, run: int) -> Iterator[tuple[float, float, float, str]]:
    """Yield joules, truth, standard uncertainty and remark of the windows of one simulation."""
    rng = random.Random(f"{variant.seed} {load} {run} {sorted(knobs.items())}")
    begin = 1000.0
    times, watts, own = LOADS[load](rng, variant, begin - 5)
    clock = lab.fakes.HandClock(now_ns=int(begin * 1e9))
    driver = lab.driver.reset().trace(times, watts).set(noise=NOISE, **{name: knob for name, knob in knobs.items() if name != "rest"})
    driver.set(phase=rng.uniform(0, 0.1), held_at=rng.uniform(0, 1)).follow(clock)
    with mock.patch.object(nvml, "_rest_seconds", return_value=knobs.get("rest", 0.0)):  # what a call costs is real time
        ledger = Ledger([Nvml(clock=clock, environment={})], interval_seconds=None, clock=clock).start()
    bench = lab.fakes.Bench(ledger, clock, driver, 0.1, clock.now_ns)
    bench.run(10.0)
    windows, asked = [], []
    end = begin + SECONDS - 8
    if own:
        for t0, t1 in own:
            if t0 > begin + 10.5 and t1 < end:
                bench.run(t0 - clock.now_ns / 1e9)
                with ledger.window("trial") as window:
                    bench.run(t1 - clock.now_ns / 1e9)
                windows.append(window)
                asked.append((t0, t1))
    else:
        while clock.now_ns / 1e9 < end - 1 and len(windows) < OPENED:
            bench.run(rng.uniform(0.0, 0.6))
            with ledger.window("trial") as window:
                bench.run(min(0.3 * 33 ** rng.random(), end - clock.now_ns / 1e9))
            windows.append(window)
    bench.run(max(begin + SECONDS - 5 - clock.now_ns / 1e9, 0.0))
    for _ in range(ASKED - len(asked)):
        length = 0.3 * 200 ** rng.random()
        t0 = rng.uniform(begin + 10.5, end - length)
        asked.append((t0, t0 + length))
    records = [window.record for window in windows] + [ledger.query(int(t0 * 1e9), int(t1 * 1e9)) for t0, t1 in asked]
    ledger.stop()
    for record in records:
        yield record.joules, driver.joules(record.t0_ns, record.t1_ns), record.u_random_joules, record.components[0].reason or ""


def cell(lab: Lab, sensor: str, load: str, variant: Variant, runs: int) -> Cell:
    """Simulate one sensor under one load."""
    found = [result for run in range(runs) for result in simulate(lab, SENSORS[sensor], load, variant, run)]
    errors = [joules / truth - 1 for joules, truth, _, _ in found]
    switched = sum("instead" in remark for *_, remark in found)
    return Cell(
        sum(abs(joules - truth) <= 2 * u for joules, truth, u, _ in found) / len(found),
        statistics.fmean(errors),
        statistics.median(map(abs, errors)),
        statistics.median(2 * u / joules if joules else math.inf for joules, _, u, _ in found),
        len(found),
        f"counter dropped in {switched} of {len(found)}" if switched else "",
    )


def row(arguments: tuple[str, list[str], Variant, int]) -> dict[str, Cell]:
    """Simulate one sensor under all loads, in a process of its own: the binding knows one driver."""
    sensor, loads, variant, runs = arguments
    with tempfile.TemporaryDirectory() as folder:
        lab: Any = Lab(Path(folder))
        return {load: cell(lab, sensor, load, variant, runs) for load in loads}


def main() -> int:
    """Print the table; return 1 when a cell covers too little."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hold-out", action="store_true", help="other seeds, step frequencies, jitter and swing than the table's")
    parser.add_argument("--sensors", nargs="*", default=[], help="only sensors whose names contain one of these")
    parser.add_argument("--loads", nargs="*", default=[], help="only loads whose names contain one of these")
    parser.add_argument("--width", action="store_true", help="show the median 2u in place of the median |error|")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulations of each cell, about 55 windows each (default {RUNS})")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the cells to this file")
    options = parser.parse_args()
    variant = HOLD_OUT if options.hold_out else TABLE
    sensors = [name for name in SENSORS if not options.sensors or any(part in name for part in options.sensors)]
    loads = [name for name in LOADS if not options.loads or any(part in name for part in options.loads)]
    print(f"coverage of ± 2u in %, bias in %, {'median 2u' if options.width else 'median |error|'} in %\n")
    print(f"| sensor | {' | '.join(loads)} |\n|---|{'---|' * len(loads)}")
    low, least, kept = [], 1.0, {}
    with ProcessPoolExecutor(options.processes) as pool:
        for sensor, cells in zip(sensors, pool.map(row, [(sensor, loads, variant, options.runs) for sensor in sensors]), strict=True):
            shown = []
            kept[sensor] = {load: asdict(found) for load, found in cells.items()}
            for load, found in cells.items():
                last = found.width if options.width else found.error
                shown.append(f"{100 * found.covered:.1f}, {100 * found.bias:+.2f}, {100 * last:.2f}")
                least = min(least, found.covered)
                if found.covered < LEAST:
                    low.append(f"{sensor}, {load}: {100 * found.covered:.1f} %")
                if found.remarks:
                    print(f"{sensor}, {load}: {found.remarks}", file=sys.stderr)
            print(f"| {sensor} | {' | '.join(shown)} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    print(f"\n{len(sensors) * len(loads)} cells, least coverage {100 * least:.1f} %; below {100 * LEAST:.0f} %: {'; '.join(low) or 'none'}")
    return 1 if low else 0


if __name__ == "__main__":
    raise SystemExit(main())
