"""Energy in anybody's Optuna study: a trial under the meter, a budget, and an end when the rest is not worth its energy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..argument_types import refuse_wrong_types
from ..energy import JOULES_PER_WH, Discovery, Ledger, Record, discover
from ..energy.record import add
from ..energy.windows import held_devices
from ..formatting import joules_text, plain, read_amount
from .metering import PREFIX, EnergyUnknownError, facts_of, known_joules, refuse_unknown, synchronize

if TYPE_CHECKING:
    import optuna

#: Attributes of a trial that was measured: what it took itself, and with the trainings whose checkpoints it continues.
JOULES, FROM_SCRATCH = f"{PREFIX}joules", f"{PREFIX}joules_from_scratch"
#: Attribute that keeps the record for further blocks of the same trial.
RECORD = f"{PREFIX}record"
#: The trials whose blocks are open in this thread.
_open: ContextVar[tuple[Any, ...]] = ContextVar("open trials", default=())
#: Attribute of a study that a callback of this module has ended: why.
STOPPED = "stopped_because"


@dataclass
class EnergyTrial:
    """A trial under the meter; what it took is known once its ``with`` block has ended.

    Attributes:
        record: The energy of this block by component, or None inside of it.
    """

    record: Record | None = None
    _before_joules: float = 0.0

    @property
    def joules(self) -> float:
        """Return the energy of this block; where a trial has several (folds), the objective adds them up.

        Raises:
            RuntimeError: If the block has not ended.
        """
        if self.record is None or self.record.joules is None:
            raise RuntimeError("the energy of a trial must be read after its `with energy_trial(trial)` block, got a read inside of it")
        return self.record.joules

    @property
    def joules_from_scratch(self) -> float:
        """Return the energy of the whole lineage: of this trial so far and of those whose checkpoints it resumes, see ``resume_from``."""
        return self.joules + self._before_joules

    @property
    def wh(self) -> float:
        """Return the energy of this block in Wh."""
        return self.joules / JOULES_PER_WH


@contextmanager
def energy_trial(
    trial: optuna.trial.BaseTrial, meter: str | Discovery = "auto", *, devices: Sequence[str] | None = None
) -> Iterator[EnergyTrial]:
    """Measure the training of a trial, and store what it took in the trial's user attributes.

    With several jobs (``study.optimize(n_jobs=2)``) each trial has what its own thread used, its child processes included, and says
    ``shared``. A training that fails or is pruned is measured, too. Of several blocks in one trial, e.g. one a fold, the attributes have
    the sum; a block within another one of the same trial is a part of that.

    Args:
        trial: The trial of the objective.
        meter: As for ``discover``, or what it found; its sources are released at the end.
        devices: GPUs that this trial holds alone while others run beside it, e.g. ``["gpu:GPU-1a2b"]``; None for all, one job at a time.

    Yields:
        The energy: ``energy.joules`` after the block, for the objective to return.

    Raises:
        SingleObjectiveError: If the study has a single objective, before anything is trained; the study stops.
        ValueError: If the meter is unknown; the study stops.
        EnergyUnknownError: If no meter can read the energy (before anything is trained), or one was lost; the study stops, so that the
            error comes once.
    """
    if not hasattr(trial, "set_user_attr"):
        raise ValueError(f"trial must be Optuna's, got {trial!r}; call energy_trial(trial) in the objective, with the trial that it gets")
    with _stopping(getattr(trial, "study", None), EnergyUnknownError, ValueError):  # each of them would end every trial
        _refuse_single_objective(trial)
        refuse_wrong_types(energy_trial, {"meter": meter})
        found = discover(meter) if isinstance(meter, str) else meter
        _parent_joules(trial)
        refuse_unknown(found)
        held_devices(devices, found.present)
    energy, around = EnergyTrial(), _open.get()
    inner = any(one is trial for one in around)
    with _stopping(getattr(trial, "study", None), EnergyUnknownError):
        with Ledger(found) as ledger:
            window = ledger.open(f"trial {getattr(trial, 'number', 0)}", synchronize=synchronize, devices=devices)
            failed: BaseException | None = None
            _open.set((*around, trial))
            try:
                yield energy
            except BaseException as error:
                failed = error
            _open.set(around)
            try:
                window.close(_state(failed), settle=True)
            except Exception as later:  # a device that failed usually fails to synchronise, too; the window has ended
                if failed is not None:
                    failed.add_note(f"closing the energy window failed too: {later!r}")
                failed = failed or later
            energy.record = record = window.record
            earlier = None if inner else _own_record(trial)  # of its blocks before
            whole = record if earlier is None else replace(add([Record.from_json(earlier), record]), state=record.state)
            for name, value in {} if inner else {**facts_of(whole), RECORD: whole.to_json() | {"hardware": {}}}.items():
                trial.set_user_attr(name, value)
            if failed is not None:
                raise failed
        # Of a lineage it is known since the parameters were suggested, maybe within.
        joules = known_joules(whole, found) + _parent_joules(trial)
        energy._before_joules = joules - known_joules(record, found)
        trial.set_user_attr(FROM_SCRATCH, joules)


def _state(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    return "pruned" if type(error).__name__ == "TrialPruned" else "failed" if isinstance(error, Exception) else "stopped"


def _own_record(trial: Any) -> dict[str, Any] | None:
    """What the blocks of a trial have left; not that of another one whose attributes it has, because it tries that one again."""
    found: dict[str, Any] | None = trial.user_attrs.get(RECORD)
    return found if found is not None and found["name"] == f"trial {getattr(trial, 'number', 0)}" else None


class SingleObjectiveError(ValueError):
    """A study has one objective, so that energy can be none of them."""


def _refuse_single_objective(trial: Any) -> None:
    study = getattr(trial, "study", None)  # a FixedTrial has none
    if study is not None and len(study.directions) < 2:
        said = "the study must have two or more objectives, one of them the energy, got 1"
        remedy = 'create it with optuna.create_study(directions=["maximize", "minimize"]) and return quality, energy.joules'
        raise SingleObjectiveError(f"{said}; {remedy}")
    if study is not None and all(direction.name == "MAXIMIZE" for direction in study.directions):
        said = "all objectives of the study are maximised, so that more energy is taken for better"
        warnings.warn(f"{said}; create it with a direction minimize for energy.joules, or return -energy.joules", stacklevel=5)


def _parent_joules(trial: Any) -> float:
    """What the trainings took whose checkpoint this trial resumes, where `FreezeThawSampler` has decided so."""
    from ..samplers import resume_from

    parent = resume_from(trial)
    if parent is None:
        return 0.0
    known = trial.study.get_trials(deepcopy=False)[parent].user_attrs
    if known.get(FROM_SCRATCH) is None:
        said = f"trial {trial.number} continues trial {parent}, whose energy must be known, got None"
        raise EnergyUnknownError(f"{said}; measure every trial with energy_trial")
    return float(known[FROM_SCRATCH])


@contextmanager
def _stopping(study: Any, *errors: type[Exception]) -> Iterator[None]:
    """Stop a study whose next trials would end by the same error, also where ``optimize`` catches errors, and log why.

    With as many jobs as trials Optuna never asks its threads for their errors: the log and the attribute ``STOPPED`` are all that is left.
    """
    try:
        yield
    except errors as error:
        with suppress(RuntimeError, AttributeError):  # ask and tell, or no study
            _end(study, str(error), "error")
        raise


@dataclass
class EnergyBudgetCallback:
    """End a study when its measured trials have spent an energy: ``study.optimize(objective, callbacks=[EnergyBudgetCallback("5Wh")])``.

    What failed and pruned trials took counts. Trials that are running when the budget is spent still end, one per job; what the sampler
    and the storage take is not in it.

    Attributes:
        budget: An energy with its unit, e.g. ``5Wh`` or ``900J``; a total of the study, so that a continued study keeps to it.

    Raises:
        ValueError: If the budget is no energy.
    """

    budget: str
    joules: float = field(init=False)

    def __post_init__(self) -> None:
        self.joules = read_amount(self.budget, "budget", "5Wh", kinds=("joules",)).value

    def spent(self, study: optuna.Study) -> float:
        """Return the joules of all trials so far.

        Raises:
            EnergyUnknownError: If a complete trial has none.
        """
        total = 0.0
        for trial in study.get_trials(deepcopy=False):
            known = None if _own_record(trial) is None else trial.user_attrs.get(JOULES)
            if known is None and trial.state.name == "COMPLETE":
                said = f"the energy of trial {trial.number} must be known for a budget, got None"
                raise EnergyUnknownError(f"{said}; train it inside `with energy_trial(trial)`")
            total += known or 0.0
        return total

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Look after a trial whether the budget is spent."""
        with _stopping(study, EnergyUnknownError):
            spent = self.spent(study)
        if spent >= self.joules:
            _end(study, f"the budget of {self.budget} is spent ({joules_text(spent)})")


@dataclass
class MarginalGainCallback:
    """End a study when the rest is expected to add less than a share of the hypervolume; it needs ``FreezeThawSampler``.

    Attributes:
        share: Share of the present hypervolume, e.g. ``"0.5%"`` or 0.005.
        remaining: Energy that is left to spend, in the unit of the energy objective: a number, or a function of the study; None for that of
            one median complete training.

    Raises:
        ValueError: If the share is no number from 0 to below 1, or what remains none from 0.
    """

    share: float | str = 0.005
    remaining: float | Callable[[optuna.Study], float] | None = None

    def __post_init__(self) -> None:
        from ..stopping.rules import share_of

        refuse_wrong_types(MarginalGainCallback, vars(self))
        self.share = share_of(self.share, "share")
        _refuse_wrong_rest(None if callable(self.remaining) else self.remaining)

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Look after a trial whether going on is worth it; during the initial design it is."""
        from ..samplers import FreezeThawSampler, remaining_gain

        if not isinstance(study.sampler, FreezeThawSampler):
            said = f"MarginalGainCallback needs a sampler that can look ahead, got {type(study.sampler).__name__}"
            raise ValueError(f"{said}; create the study with sampler=FreezeThawSampler(rungs=[1, 3, 9])")
        left = self.remaining(study) if callable(self.remaining) else self.remaining
        _refuse_wrong_rest(left)
        view = remaining_gain(study.sampler, study, left)
        if view is not None and not view.worth(float(self.share)):
            _end(study, view.why_not(float(self.share), plain))


def _refuse_wrong_rest(left: Any) -> None:
    refuse_wrong_types(MarginalGainCallback, {"remaining": left})
    if left is not None and not 0 <= left < float("inf"):
        raise ValueError(f"remaining must be a finite number >= 0, in the unit of the energy objective, got {left!r}; None if unknown")


def _end(study: optuna.Study, reason: str, level: str = "info") -> None:
    import optuna

    study.set_user_attr(STOPPED, reason)
    getattr(optuna.logging.get_logger("optuna.joulefront"), level)(f"The study ends: {reason}.")
    with suppress(RuntimeError):  # where a user asks and tells, who then looks at the attribute
        study.stop()
