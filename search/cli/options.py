"""Options that several verbs of the command line take, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

StudyName: TypeAlias = Annotated[
    str, typer.Argument(metavar="STUDY", help="Bundled name (see joulefront studies), my_study.py[:function] or package.module:function.")
]
RunFolder: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/digits.")]
Trials: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Trials in total.")]
Budget: TypeAlias = Annotated[str | None, typer.Option(help="What the search may spend: 5Wh, 900J, 0.1kWh, 20gCO2e or 1EUR.")]
Data: TypeAlias = Annotated[str | None, typer.Option(help="Data of the study: a folder, zip, CSV or Parquet file.")]
MovedData: TypeAlias = Annotated[str | None, typer.Option(help="Where the study's data lies now, if it has moved.")]
MovedStudy: TypeAlias = Annotated[str | None, typer.Option(help="Where the study lies now, if it has moved or came from Python.")]
Target: TypeAlias = Annotated[str | None, typer.Option(help="Column to predict, for tables.")]
Settings: TypeAlias = Annotated[list[str] | None, typer.Option("--set", help="Another option of the study, NAME=VALUE; may be repeated.")]
Seed: TypeAlias = Annotated[int | None, typer.Option(help="Seed of sampler, splits and weights.")]
Sampler: TypeAlias = Annotated[str | None, typer.Option(help="freeze-thaw, tpe, nsga2, gp, random or grid.")]
Objectives: TypeAlias = Annotated[str | None, typer.Option(help="Quality first: accuracy,train_energy[,inference_energy,...].")]
Out: TypeAlias = Annotated[Path | None, typer.Option(help="Run folder; runs/STUDY by default.")]
Meter: TypeAlias = Annotated[str, typer.Option(help="auto, or sources such as nvml,rapl,cpu_time.")]
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Zone: TypeAlias = Annotated[str | None, typer.Option(help="Where the energy comes from, e.g. FR; without it grams of CO2e are unknown.")]
Intensity: TypeAlias = Annotated[float | None, typer.Option(help="Carbon intensity in g/kWh, in place of --zone's table.")]
Pue: TypeAlias = Annotated[float, typer.Option(help="Power usage effectiveness of the site; enters grams and money only.")]
Price: TypeAlias = Annotated[str | None, typer.Option(help="Price per kWh, e.g. 0.25EUR.")]
Idle: TypeAlias = Annotated[float, typer.Option(help="Seconds of idle baseline before, between and after the trainings.")]
CoolDown: TypeAlias = Annotated[float, typer.Option(help="Longest wait before a training for the device to cool down, in seconds.")]
Anchor: TypeAlias = Annotated[int, typer.Option(help="Measure one fixed configuration again after so many trainings.")]
Complete: TypeAlias = Annotated[bool, typer.Option("--complete", help="Only models trained to the last rung.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="As JSON, units in the keys.")]
