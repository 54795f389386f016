"""Recorded power traces of real trainings, kept beside the checkout."""

import csv
import gzip
from datetime import datetime
from pathlib import Path


def read_trace(path: Path) -> tuple[list[float], list[float]]:
    """Return the instants in seconds from the first row, ascending, and the watts, of a trace by ``nvidia-smi``."""
    times: list[float] = []
    watts: list[float] = []
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file, skipinitialspace=True):
            # Two loggers wrote them: nvidia-smi itself with slashes, a script of the authors with dashes.
            text = row.get("power.draw [W]") or row.get("gpu_power_draw") or ""
            try:
                at = datetime.strptime(row["timestamp"].replace("-", "/"), "%Y/%m/%d %H:%M:%S.%f").timestamp()
                power = float(text.split()[0])
            except (ValueError, IndexError):
                continue  # a row cut off in the middle
            if not times or at > times[-1]:
                times.append(at)
                watts.append(power)
    return [t - times[0] for t in times], watts
