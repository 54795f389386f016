"""A study: what to search, independent of the machine, with its budget, its objectives and their values for a measured trial."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, Literal

from .argument_types import plain_values, refuse_wrong_types
from .energy import SECONDS_PER_HOUR, Record
from .formatting import read_amount, read_number, unit_for
from .hints import Hints
from .records.trial import Trial
from .space import Candidate, RandomTrial, Space, Suggest, check_first, check_space, weightless
from .training.recipe import require_precision
from .training.task import Task

Direction = Literal["maximize", "minimize"]

#: Objective name -> (direction, unit, axis title). Quality metrics are fractions or unitless scores.
OBJECTIVES: dict[str, tuple[Direction, str, str]] = {
    "accuracy": ("maximize", "", "validation accuracy"),
    "balanced_accuracy": ("maximize", "", "validation balanced accuracy"),
    "macro_f1": ("maximize", "", "validation macro F1"),
    "auc": ("maximize", "", "validation AUC"),
    "r2": ("maximize", "", "validation R²"),
    "error": ("minimize", "", "validation error"),
    "train_energy": ("minimize", "J", "training energy"),
    "train_co2": ("minimize", "gCO2e", "training carbon"),
    "inference_energy": ("minimize", "J per 1,000", "inference energy"),
    "parameters": ("minimize", "", "parameters"),
}
ENERGY_OBJECTIVES = ("train_energy", "train_co2")
#: Why a model fails that has no parameters, where these are an objective.
UNCOUNTED = "objective 'parameters' is unknown: the model is no network and has none; leave it out of --objectives or search networks"
SAMPLERS = ("freeze-thaw", "tpe", "nsga2", "gp", "random", "grid")
#: Words that `--pretrained` takes beside paths.
PRETRAINED = ("auto", "hub", "no")

#: Rungs where an epoch has enough steps; elsewhere they are this many times the lowest.
THREEFOLD = (1, 3, 9, 27)
#: No training is longer: what files of a run take for damage is far above.
MOST_EPOCHS = 10**9
#: A model is measured after so many steps at the earliest. 290 sounds in batches of 64: the convolutional networks were at .43 to .55 of
#: five classes after 5 steps, .69 to .98 after 45, 1.0 after 135; a step at these sizes costs less than storing what it gives.
USEFUL_STEPS = 32
#: Random candidates whose median is the batch size of a study.
DRAWS = 16


class LimitReachedError(ValueError):
    """A study has reached the limit that it is to be continued to."""


@dataclass(frozen=True)
class Budget:
    """What a study may spend, exactly one of three currencies; grams need an intensity, and money a price per kWh in its ISO currency.

    ``text`` is the amount as its user wrote it.
    """

    joules: float | None = None
    grams_co2e: float | None = None
    money: tuple[float, str] | None = None
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Refuse, with a ValueError, anything but one positive amount."""
        refuse_wrong_types(Budget, vars(self), "budget.", money="write (2.0, 'EUR')")
        given = [x for x in (self.joules, self.grams_co2e, self.money[0] if self.money else None) if x is not None]
        if len(given) != 1 or not 0 < given[0] < math.inf:
            got = f"joules={self.joules}, grams_co2e={self.grams_co2e}, money={self.money}"
            raise ValueError(f"a budget needs exactly one amount > 0, and finite, got {got}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``5Wh``, ``0.02 kWh``, ``4.5 µWh``, ``900J``, ``100 mgCO2e``, ``2EUR`` or ``50ct``, see `read_amount`.

        >>> Budget.parse("5Wh").joules
        18000.0

        Raises:
            ValueError: If the number or its unit cannot be read; the message lists the units.
        """
        amount = read_amount(text, "--budget", "--budget 5Wh")
        value, kind = amount.value, amount.kind
        found = cls(joules=value) if kind == "joules" else cls(grams_co2e=value) if kind == "grams_co2e" else cls(money=(value, kind))
        return replace(found, text=str(text).strip())

    def to_text(self) -> str:
        """Return text that ``parse`` reads back, that of the user where there is one."""
        if self.money is not None:
            return self.text or f"{self.money[0]:.10g}{self.money[1]}"
        value, unit = (self.joules, "Wh") if self.joules is not None else (self.grams_co2e or 0.0, "gCO2e")
        found = unit_for([value], unit)
        return self.text or f"{found.of(value):.10g}{found.name}"


#: Units of time -> seconds.
_SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": SECONDS_PER_HOUR, "d": 24 * SECONDS_PER_HOUR}


def seconds_of(text: str, name: str = "--timeout") -> float:
    """Read a duration, the value of the option ``name``: ``90s``, ``30 min``, ``2h``, or ``1:30:00`` as progress prints it.

    >>> seconds_of("30m"), seconds_of("1:30:00")
    (1800.0, 5400.0)

    Raises:
        ValueError: If it is not a positive number with a unit.
    """
    amount: float | None = None
    if clock := re.fullmatch(r"\s*(?:(\d+):)?(\d+):(\d\d)\s*", text):
        amount = int(clock[1] or 0) * SECONDS_PER_HOUR + int(clock[2]) * 60.0 + int(clock[3])
    elif found := re.fullmatch(r"(.*?)\s*([a-z]+)\s*", text, re.DOTALL):
        number, factor = read_number(found[1]), _SECONDS.get(found[2])
        amount = None if number is None or factor is None else number * factor
    if amount is None or not 0 < amount < math.inf:
        raise ValueError(f"{name} must be a positive number with s, m, h or d, got {text!r}; for example {name} 30m")
    return amount


@dataclass(frozen=True)
class Study:
    """What to search.

    Attributes:
        name: Name of the study; the run folder defaults to ``runs/<name>``.
        task: The data, or a function without arguments that loads it (called once, when it is needed).
        space: The candidates.
        objectives: The quality first, then what it costs; names from ``OBJECTIVES``.
        rungs: Ascending numbers of epochs at which a model may be measured; None until the data is known, and then `fitted_to` chooses
            them by the number of steps.
        budget: What the search may spend, or None for ``trials`` alone.
        trials: Number of trials, or None.
        default_trials: Number of trials where no other limit is set or given, as for the bundled studies; None is no limit.
        sampler: One of ``SAMPLERS``. ``grid`` trains every combination of a finite space on every rung.
        seed: Seeds the sampler, the weights and the batches.
        min_accuracy: Quality under which a model is of no use, or None to let the sampler learn a floor.
        complete_only: Whether only models trained to the last rung count for the front.
        max_parameters: Candidates with more parameters are refused before training, at no cost; None for no limit.
        max_flops: The same for forward FLOPs of one example.
        max_memory_bytes: The same for the memory of the training, estimated by ``training.cost.training_bytes``.
        max_trial_joules: A single training is stopped (and measured) when it has paid this much; None for no limit.
        max_trial_seconds: A single training that takes longer is ended, as failed; None for 10 times what trainings have taken so far.
        stop_dominated: Whether a training is ended at a rung on its way when it cannot reach the front any more (see ``dominated``); None
            leaves that to the sampler: yes for ``freeze-thaw``, no for the others, which learn from exactly the trials they proposed.
            One of perfect quality ends there, too (see ``is_perfect``).
        sizes: Whether ``freeze-thaw`` gets parameters and FLOPs of every candidate that it compares: each network is built for them.
        ensemble: Most members of an ensemble that is tried when the search has ended, see ``running/ensemble.py``; 0 for none.
        description: One or two sentences: which question the study asks.
        first: Parameters of the trials to begin with, before the sampler decides; what an entry leaves out is drawn.
        weights: What is known of the pretrained weights that candidates start from, as JSON: model, origin, licence, hash, size, and the
            energy and grams of their pretraining, None where unknown.
        notice: One line for the user before the first trial, e.g. which weights were found.
    """

    name: str
    task: Task | Callable[[], Task]
    space: Space
    objectives: tuple[str, ...] = ("accuracy", "train_energy")
    rungs: tuple[int, ...] = None  # type: ignore[assignment]  # None until the data is known: whoever trains asks `fitted_to` before
    budget: Budget | None = None
    trials: int | None = None
    default_trials: int | None = None
    sampler: str = "freeze-thaw"
    seed: int = 0
    min_accuracy: float | None = None
    complete_only: bool = False
    max_parameters: float | None = None
    max_flops: float | None = None
    max_memory_bytes: float | None = None
    max_trial_joules: float | None = None
    max_trial_seconds: float | None = None
    stop_dominated: bool | None = None
    sizes: bool = False
    ensemble: int = 0
    description: str = ""
    first: tuple[Mapping[str, Any], ...] = ()
    weights: tuple[Mapping[str, Any], ...] = ()
    notice: str = ""

    def __post_init__(self) -> None:
        """Refuse a study that cannot be run, with a ValueError that names field, rule, value and remedy."""
        refuse_wrong_types(Study, vars(self), "study.", budget=f"write Budget.parse({str(self.budget)!r})", rungs="write (1, 3, 9)")
        for name, value in vars(self).items():
            object.__setattr__(self, name, plain_values(value))
        if not self.name.strip(". ") or not self.name.isprintable() or set(self.name) & set("/\\"):
            raise ValueError(f"study.name must be printable and usable as the name of a folder, without / or \\, got {self.name!r}")
        if (size := len(self.name.encode())) > 200:  # folders have at most 255, and there is more in the name of a copy
            raise ValueError(f"study.name must have at most 200 bytes, got {size} ({self.name[:40]}...); shorten it")
        if unknown := [name for name in self.objectives if name not in OBJECTIVES]:
            raise ValueError(f"objectives (--objectives): unknown {unknown}; choose from {', '.join(OBJECTIVES)}")
        if len(self.objectives) < 2 or len(set(self.objectives)) != len(self.objectives):
            raise ValueError(f"objectives (--objectives) needs at least two different names, got {self.objectives}")
        if not any(name in ENERGY_OBJECTIVES for name in self.objectives):
            raise ValueError(f"objectives (--objectives) needs one of {', '.join(ENERGY_OBJECTIVES)}, got {self.objectives}")
        if self.objectives[0] in (*ENERGY_OBJECTIVES, "inference_energy", "parameters"):
            raise ValueError(f"objectives (--objectives) must name the quality first, got {self.objectives}")
        if self.rungs is not None and not _ascending(self.rungs):
            raise ValueError(f"study.rungs must be ascending whole numbers from 1 to {MOST_EPOCHS:,}, got {self.rungs}")
        if not hasattr(self.space, "sample"):
            raise ValueError(f"study.space must be a space, got {type(self.space).__name__}; several are Union(...), your own Own(...)")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler (--sampler) must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}")
        for name in ("trials", "default_trials", "max_parameters", "max_flops", "max_memory_bytes"):
            if (most := getattr(self, name)) is not None and not most >= 1:
                raise ValueError(f"study.{name} must be >= 1, got {most!r}; None is no limit")
        for name in ("max_trial_joules", "max_trial_seconds"):
            if (most := getattr(self, name)) is not None and not most > 0:
                raise ValueError(f"study.{name} must be > 0, got {most!r}; None is no limit")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"study.seed must be a whole number from 0 to 2**63 - 1, got {self.seed!r}")
        if self.ensemble < 0:
            raise ValueError(f"study.ensemble must be >= 0, got {self.ensemble}; 0 is none")
        floor, least = self.min_accuracy, -math.inf if self.objectives[0] == "r2" else 0.0
        if floor is not None and not least <= floor <= 1:
            raise ValueError(f"study.min_accuracy must be a share of at most 1, as {self.objectives[0]} is, got {floor!r}; 95 % is 0.95")

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Optuna's direction of each objective."""
        return tuple(OBJECTIVES[name][0] for name in self.objectives)

    def limits(self, budget: Budget | None = None, trials: int | None = None) -> tuple[Budget | None, int | None]:
        """Return the budget and the number of trials that end the study: its own where none is given here."""
        budget, trials = budget or self.budget, trials or self.trials
        return budget, self.default_trials if budget is None and trials is None else trials

    @property
    def stops_dominated(self) -> bool:
        """Whether trainings are ended that cannot reach the front any more."""
        return self.sampler == "freeze-thaw" if self.stop_dominated is None else self.stop_dominated

    def fitted_to(self, task: Task, known: Sequence[int] | None = None, *, whole: bool = False) -> Study:
        """Return the study without models that cannot take the data, and with rungs: its own, those ``known``, or threefold ones.

        Those ``known`` are of earlier sessions, the threefold ones follow from the steps of an epoch. With ``whole`` no model is left out.
        The lowest is the first at which a training has taken ``USEFUL_STEPS``, and one epoch where those are no passes over the data
        (``epochs_are_passes``). Trials that the study begins with get at least the lowest rung.
        """
        rungs = self.rungs or tuple(known or ())
        if not rungs:
            lowest = 1
            if Hints(self.space).epochs_are_passes:
                batches = [self.space.sample(RandomTrial(seed)).recipe.batch_size for seed in range(DRAWS)]
                steps = max(1.0, len(task.train) / statistics.median(batches))
                lowest = next((rung for rung in THREEFOLD if rung * steps >= USEFUL_STEPS), THREEFOLD[-1])
            rungs = tuple(lowest * rung for rung in THREEFOLD)
        first = tuple({**one, "epochs": max(one["epochs"], rungs[0])} if "epochs" in one else one for one in self.first)
        return replace(self, rungs=rungs, first=first, space=self.space if whole else Hints(self.space).fitted_to(task))

    def rungs_to_check(self, start: int, end: int) -> tuple[int, ...]:
        """Return the rungs between two numbers of epochs at which a training is checked; none when dominated trainings are not ended.

        Only studies of quality against training energy are checked: with a further objective a model may be on the front that these two
        alone call dominated.
        """
        checked = self.stops_dominated and len(self.objectives) == 2 and self.objectives[1] == "train_energy"
        return tuple(rung for rung in self.rungs if start < rung < end) if checked else ()

    def is_perfect(self, quality: Mapping[str, Any]) -> bool:
        """Whether no model can have a better quality, 1 for a share or R² and 0 for an error: more epochs can only cost.

        Never where only complete trainings count, as those epochs are what makes a model count.
        """
        value, maximize = quality.get(self.objectives[0]), self.directions[0] == "maximize"
        return not self.complete_only and value is not None and (value >= 1.0 if maximize else value <= 0.0)

    def draw_epochs(self, trial: Suggest) -> int:
        """Draw the epochs of a trial, as its last parameter."""
        rungs = self.rungs or THREEFOLD
        low, high = rungs[0], rungs[-1]
        if self.complete_only and self.sampler != "freeze-thaw":
            low = high
        if self.sampler == "grid":
            return int(trial.suggest_categorical("epochs", [rung for rung in rungs if rung >= low]))
        # Our sampler names rungs; for the others equal ratios of epochs are equally likely.
        return trial.suggest_int("epochs", low, high, log=self.sampler != "freeze-thaw")

    def load_task(self) -> Task:
        """Return the task, loading it if the study holds a function.

        Raises:
            ValueError: If the space or the outputs of its models cannot be searched, or the study's quality is none of this kind of task;
                before anything is trained.
        """
        from .training.evaluate import qualities

        check_first(self.space, self.first, check_space(self.space, finite=self.sampler == "grid"))
        task = self.task() if callable(self.task) else self.task
        if not hasattr(task, "kind"):
            said = f"study.task must be a Task or a function without arguments that returns one, got {type(task).__name__}"
            raise ValueError(f"{said}; arrays(inputs, targets) makes one")
        Hints(self.space).check(task)
        known = [name for name in qualities(task.kind, len(task.classes)) if name in OBJECTIVES]
        strange = [name for name in self.objectives if OBJECTIVES[name][1:2] == ("",) and name not in (*known, "parameters")]
        if strange:
            said = f"{strange[0]} is not known of a {task.kind} task" + (f" with {len(task.classes)} classes" if task.classes else "")
            raise ValueError(f"objectives (--objectives): {said}; choose {' or '.join(known)} (--objectives {known[0]},train_energy)")
        return task


def parse_rungs(text: str) -> tuple[int, ...]:
    """Read ``1,3,9,27``.

    Raises:
        ValueError: If these are not ascending whole numbers of epochs.
    """
    try:
        rungs = tuple(int(number) for number in text.split(","))
    except ValueError:
        rungs = ()
    if not _ascending(rungs):
        said = f"--rungs must be ascending whole numbers from 1 to {MOST_EPOCHS:,}, separated by commas, got {text!r}"
        raise ValueError(f"{said}; for example --rungs 1,3,9,27")
    return rungs


def _ascending(rungs: Sequence[int]) -> bool:
    """Return whether these can be rungs."""
    whole = bool(rungs) and all(isinstance(rung, Integral) for rung in rungs)
    return whole and list(rungs) == sorted(set(rungs)) and rungs[0] >= 1 and rungs[-1] <= MOST_EPOCHS


def objective_values(trial: Trial, objectives: Sequence[str], phases: Sequence[Record] = ()) -> tuple[tuple[float, ...] | None, str | None]:
    """Return the values in the order of the objectives, or None and which one is unknown, and why, as far as trial or ``phases`` tell.

    A trial with an unknown value fails: an invented number would put a model on the front that nobody measured.
    """
    values: list[float] = []
    for name in objectives:
        value = {
            "train_energy": trial.train_joules,
            "train_co2": trial.grams_co2e,
            "inference_energy": trial.inference_joules_per_1000,
            "parameters": None if trial.parameters is None else float(trial.parameters),
        }.get(name, trial.quality.get(name))
        if value is None or value != value:
            if name == "parameters":  # counted before the first step where there are any: no meter has failed
                return None, UNCOUNTED
            parts = [part for one in (trial.energy.record, *(one.to_json() for one in phases)) for part in one.get("components", ())]
            lost = [f"; {part['name']}: {part['reason']}" for part in parts if part["counts"] and part["joules"] is None and part["reason"]]
            known, why = ", ".join(sorted(trial.quality)), "".join(dict.fromkeys(lost))
            return None, f"objective {name!r} is unknown for this trial (quality known: {known}; energy {trial.energy_quality}{why})"
        values.append(float(value))
    return tuple(values), None


def rejection_of(study: Study, candidate: Candidate, task: Task, device: str = "cpu") -> str | None:
    """Return which limit on size a candidate breaks, or which precision the device lacks, or None; costs no training."""
    if candidate.recipe.precision != "float32":
        try:
            require_precision(candidate.recipe.precision, device)
        except ValueError as error:
            return f"refused before training: {error}"
    limits = {"parameters": study.max_parameters, "flops": study.max_flops, "memory_bytes": study.max_memory_bytes}
    if all(most is None for most in limits.values()):
        return None
    from .training.cost import count

    try:
        model = weightless(study.space, candidate, task)
    except ValueError as error:  # e.g. a network that the images are too small for: one refused candidate, not the end of the study
        return f"refused before training: {' '.join(str(error).split())}"
    cost = count(model, task, candidate.recipe, memory=study.max_memory_bytes is not None)
    for name, most in limits.items():
        if most is not None and (have := getattr(cost, name)) is not None and have > most:
            return f"refused before training: {have:,} {name}, more than max_{name} = {most:,}"
    return None
