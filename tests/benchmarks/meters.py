"""The table of the sixteen bars: this package, CodeCarbon and, where it is installed, Zeus, measured in one run.

    python tests/benchmarks/meters.py [--json FILE]

Bars 1 to 6 run on a fake GPU driver and a fake powercap tree in simulated time, with CodeCarbon's and Zeus's own code on the same fakes;
the others take real time and real processes, about a minute. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

from bars_live import bar7, bar8, bar9, bar10_row, bar11
from bars_process import bar12, bar13, bar14, bars15_16
from bars_rapl import bar4, bar5, bar6
from bars_simulated import Lab, Row, bar1, bar2, bar3

BARS = (bar1, bar2, bar3, bar4, bar5, bar6, bar7, bar8, bar9, bar10_row, bar11, bar12, bar13, bar14)


def rows(lab: Lab) -> list[Row]:
    """Measure all bars, in their order."""
    found = []
    for bar in BARS:
        found.append(bar(lab))
        print(f"bar {found[-1].number}: {'met' if found[-1].passed else 'MISSED'}", file=sys.stderr)
    return [*found, *bars15_16(lab)]


def table(found: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| # | check | requirement | joulefront | pass | CodeCarbon | Zeus |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row.number} | {row.what} | {row.bar} | {row.ours} | {'yes' if row.passed else 'NO'} | {row.codecarbon} | {row.zeus} |"
        for row in found
    ]
    return "\n".join(lines)


def version(package: str) -> str:
    """Return the installed version of a package, or that there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> int:
    """Print the table; return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Lab(Path(folder)))
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}, {os.cpu_count()} logical CPUs, "
        f"load {os.getloadavg()[0]:.1f}; codecarbon {version('codecarbon')}, zeus {version('zeus')}\n"
    )
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=1))
    missed = [row.number for row in found if not row.passed]
    print(f"\nmissed: {', '.join(map(str, missed))}" if missed else "\nall sixteen bars met")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
