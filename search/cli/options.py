"""The options of the command line, each described once, in groups that verbs share, and what a shell completes of them.

A verb declares the groups that it takes, and `with_options` gives it the flat signature that typer reads. Nothing here knows what an
option does: the bodies of the verbs read the filled groups.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer

BUNDLED = "joulefront.studies"
#: Where `run` puts its folders, and what a run folder holds; asked without loading Optuna, since a shell waits for it.
RUNS, FACTS = "runs", "study.json"


def bundled_studies() -> dict[str, str]:
    """Return the bundled studies: name -> first line of the file's docstring, without importing any of them."""
    spec = importlib.util.find_spec(BUNDLED)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found: dict[str, str] = {}
    for folder in folders:
        for file in sorted(Path(folder).glob("*.py")):
            if not file.stem.startswith("_"):
                text = file.read_text(encoding="utf-8").lstrip()
                found[file.stem] = text.strip('"').split("\n", 1)[0].strip('" ')
    return found


def complete_study(incomplete: str) -> list[tuple[str, str]]:
    """Return the bundled studies, with what they are, and the files that may hold one, which begin with what was typed."""
    named = [(name, line) for name, line in bundled_studies().items() if name.startswith(incomplete)]
    return named + [(path, "") for path in _paths(incomplete) if path.endswith((".toml", ".py", os.sep))]


def complete_run(incomplete: str) -> list[tuple[str, str]]:
    """Return the run folders that begin with what was typed, and folders on the way; those of ``runs/`` at once where nothing was."""
    folders = [path for path in [*_paths(incomplete), *([] if incomplete else _paths(RUNS + os.sep))] if path.endswith(os.sep)]
    runs = [folder for folder in folders if os.path.isfile(os.path.join(os.path.expanduser(folder), FACTS))]
    return [(run.rstrip(os.sep), "run folder") for run in runs] + [(folder, "") for folder in folders if folder not in runs]


def _paths(incomplete: str) -> list[str]:
    """Paths that begin so, as they were typed; folders end with a separator, hidden ones are left out unless asked for."""
    head, tail = os.path.split(incomplete)
    try:
        names = sorted(os.listdir(os.path.expanduser(head) or "."))
    except OSError:  # no such folder
        return []
    begun = [name for name in names if name.startswith(tail) and name.isprintable() and (tail.startswith(".") or not name.startswith("."))]
    paths = [os.path.join(head, name) for name in begun]
    return [path + os.sep if os.path.isdir(os.path.expanduser(path)) else path for path in paths]


# -- options that verbs take one by one ------------------------------------------------------------------------------------------------

RunArgument: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, e.g. runs/digits.", autocompletion=complete_run)]
Out: TypeAlias = Annotated[Path | None, typer.Option(help="Run folder; runs/STUDY by default.")]
Meter: TypeAlias = Annotated[str, typer.Option(help="auto, or a list of sources, e.g. nvml,rapl,cpu_time or wall=http://...")]
Zone: TypeAlias = Annotated[str | None, typer.Option(help="Grid zone of the electricity, e.g. FR; without it grams of CO2e are unknown.")]
Pue: TypeAlias = Annotated[float, typer.Option(help="Power usage effectiveness of the site; affects grams and money only.")]
Price: TypeAlias = Annotated[str | None, typer.Option(help="Price per kWh, e.g. 0.25EUR.")]
CpuWatts: TypeAlias = Annotated[
    float | None, typer.Option(help="Power of the CPU, of all sockets together, with all cores busy, in watts, for the CPU-time estimate.")
]
Pick: TypeAlias = Annotated[
    str,
    typer.Option(
        help="sensible (cheapest that cannot be told from the best), knee, best, cheapest (better than guessing), trial=N, "
        "accuracy>=X or energy<=5Wh."
    ),
]
Predictions: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Rank by the energy of the training and of so many predictions, e.g. 10M; needs the objective inference_energy."),
]
Complete: TypeAlias = Annotated[bool, typer.Option("--complete", help="Only models trained to the last rung.")]
TrialTimeout: TypeAlias = Annotated[
    str | None, typer.Option(help="End a single training that takes longer, as failed: 90s, 30m or 2h; 10 times the slowest by default.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, with units in the keys.")]

# -- groups ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table is read: which column is predicted, which are used and how, and what divides its rows."""

    target: Annotated[str | None, typer.Option(help="Column to predict, for tables.")] = None
    kind: Annotated[str | None, typer.Option(help="For tables: classification, regression or anomaly, where it is told wrongly.")] = None
    drop: Annotated[str | None, typer.Option(help="For tables: columns to leave out, separated by commas.")] = None
    keep: Annotated[str | None, typer.Option(help="For tables: columns to use although they seem to name the rows or the target.")] = None
    categorical: Annotated[str | None, typer.Option(help="For tables: columns of numbers that are codes, not amounts.")] = None
    missing: Annotated[str | None, typer.Option(help="For tables: values that mean missing, e.g. -999 or age=99.")] = None
    split: Annotated[str | None, typer.Option(help="For tables: random, time:COLUMN or group:COLUMN.")] = None


@dataclass(frozen=True, kw_only=True)
class StudyOptions(TableOptions):
    """Which study, with which data, settings and changes."""

    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="Bundled study (see joulefront studies), my_study.py[:function], my_study.toml or package.module:function.",
            autocompletion=complete_study,
        ),
    ]
    data: Annotated[str | None, typer.Option(help="Data of the study: a folder, zip, CSV, Parquet, JSON or Excel file.")] = None
    metric: Annotated[str | None, typer.Option(help="For tables: the quality to search for, e.g. balanced_accuracy, auc or r2.")] = None
    pretrained: Annotated[
        str | None,
        typer.Option(metavar="[WHERE]", help="Pretrained weights: auto (what is on this machine), hub, a folder, a file, or no."),
    ] = None
    settings: Annotated[list[str] | None, typer.Option("--set", help="Another option of the study, NAME=VALUE; repeatable.")] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampler, the splits and the weights.")] = None
    sampler: Annotated[str | None, typer.Option(help="freeze-thaw, tpe, nsga2, gp, random or grid.")] = None
    rungs: Annotated[
        str | None, typer.Option(help="Epochs at which models may be measured, e.g. 1,3,9,27; by default by the steps of an epoch.")
    ] = None
    objectives: Annotated[str | None, typer.Option(help="Objectives, quality first: accuracy,train_energy[,inference_energy,...].")] = None


@dataclass(frozen=True, kw_only=True)
class MovedOptions:
    """Where the study of a run is found when it is no longer where the run was started."""

    study: Annotated[
        str | None, typer.Option(help="New location of the study file, if it has moved; or the study of a run that Python started.")
    ] = None
    data: Annotated[str | None, typer.Option(help="New location of the study's data, if it has moved.")] = None
    trust: Annotated[
        bool, typer.Option("--trust", help="Import the study that the run folder names although it is not bundled: its code runs.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """What the study as a whole may take; its own limits hold for those that are not given."""

    trials: Annotated[int | None, typer.Option(min=1, help="Total number of trials; the study's own if none.")] = None
    budget: Annotated[
        str | None,
        typer.Option(help="What the search may spend (5Wh, 900J, 0.1kWh, 20gCO2e, 1EUR), the front shown on top; the study's own if none."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SessionLimitOptions(LimitOptions):
    """The limits of the study, and those of one session."""

    timeout: Annotated[str | None, typer.Option(help="Wall time of this session: 90s, 30m or 2h.")] = None
    trial_timeout: TrialTimeout = None
    stop_gain: Annotated[
        str | None, typer.Option(help="Stop when the rest is expected to add less than this share of the hypervolume; 0.5% by default.")
    ] = None
    no_stop: Annotated[bool, typer.Option("--no-stop", help="Go on to the limits, whatever the rest is expected to add.")] = False


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """What a kWh emits and costs where the study runs."""

    zone: Zone = None
    intensity: Annotated[float | None, typer.Option(help="Carbon intensity in gCO2e/kWh, instead of the zone's table value.")] = None
    pue: Pue = 1.0
    price: Price = None


@dataclass(frozen=True, kw_only=True)
class CarbonOptions(PlaceOptions):
    """The place, and how its carbon intensity changes over time."""

    network: Annotated[bool, typer.Option("--network", help="Fetch the live carbon intensity (needs ELECTRICITYMAPS_TOKEN).")] = False
    forecast: Annotated[Path | None, typer.Option(help="CSV file of the carbon intensity over time, instead of a constant.")] = None
    carbon_aware: Annotated[
        bool, typer.Option("--carbon-aware", help="Delay large trainings until the low-carbon hours of the forecast.")
    ] = False
    deadline: Annotated[
        str | None, typer.Option(help="Latest completion time of delayed trainings: 24h, 2d or 2026-03-02T06:00 (UTC).")
    ] = None


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What trains and what measures it."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"
    meter: Meter = "auto"
    cpu_watts: CpuWatts = None


@dataclass(frozen=True, kw_only=True)
class TrainingMachineOptions(MachineOptions):
    """The machine of a search, whose trainings may be parallel."""

    workers: Annotated[int, typer.Option(min=1, help="Number of parallel trainings.")] = 1
    executor: Annotated[str, typer.Option(help="local, or ray: the trainings are actors of a Ray cluster.")] = "local"


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """Measurements beside the trainings that make them comparable."""

    idle: Annotated[float, typer.Option(help="Seconds of idle baseline before, between and after the trainings.")] = 0.0
    cool_down: Annotated[float, typer.Option(help="Longest wait for the device to cool down before a training, in seconds.")] = 0.0
    anchor: Annotated[int, typer.Option(help="Measure a fixed configuration again after every N trainings; 0 means never.")] = 0


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run is kept, what its sampler knows, and what is said meanwhile."""

    out: Out = None
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna storage URL, its password better in PGPASSFILE or JOULEFRONT_STORAGE; SQLite in the run folder by default. "
            "A study of this name there is joined; joulefront worker joins it from other machines."
        ),
    ] = None
    artifacts: Annotated[
        str | None, typer.Option(help="With --storage: where all workers reach the weights, a folder or s3://bucket/prefix.")
    ] = None
    name: Annotated[str | None, typer.Option(help="Name of the study in place of its own: that of its folder, and in a --storage.")] = None
    warm_start: Annotated[list[Path] | None, typer.Option(help="Earlier run folder that the sampler learns from; repeatable.")] = None
    log: Annotated[
        str | None, typer.Option(help="Log trials and front, with units, to mlflow, wandb or tensorboard; several separated by commas.")
    ] = None
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Let freeze-thaw use the parameters and FLOPs of every candidate it considers.")
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; results and warnings alone.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Hypervolumes and what the last energy has brought, too.")] = False


# -- from groups to a signature --------------------------------------------------------------------------------------------------------


def with_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb whose signature has the fields of each group in place of the group.

    Args:
        verb: A function whose parameters are groups of options (dataclasses of this module) or options by themselves.

    Returns:
        A function of keywords alone, for ``typer``, that fills the groups and calls the verb.

    Raises:
        ValueError: If two groups of a verb have an option of the same name.

    >>> def verb(limits: LimitOptions, name: str) -> None:
    ...     print(limits.trials, name)
    >>> list(inspect.signature(with_options(verb)).parameters)
    ['trials', 'budget', 'name']
    >>> with_options(verb)(trials=3, budget=None, name="digits")
    3 digits
    """
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, type[Any]] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        kind = hints.get(name)
        if isinstance(kind, type) and is_dataclass(kind):
            groups[name] = kind
            types = get_type_hints(kind, include_extras=True)
            flat += [_keyword(one.name, types[one.name], one.default) for one in fields(kind)]
        else:
            flat.append(_keyword(name, kind, parameter.default))

    @functools.wraps(verb)
    def flattened(**values: Any) -> None:
        filled = {name: kind(**{one.name: values.pop(one.name) for one in fields(kind)}) for name, kind in groups.items()}
        verb(**filled, **values)

    flattened.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]  # read by inspect.signature
    flattened.__annotations__ = {one.name: one.annotation for one in flat}
    return flattened


def _keyword(name: str, kind: Any, default: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
