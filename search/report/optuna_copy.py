"""A study as optuna-dashboard shows it best: values with units, flat attributes, notes and our figure, in a copy in memory.

Optuna's own record of a trial holds one nested attribute, ours, which optuna-dashboard shows as a line of JSON. The copy is brought up to
date as the study trains; what is written in optuna-dashboard is lost with it and never reaches the run folder.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..formatting import energies, joules_text
from ..front import Front
from ..records.run_folder import Run
from ..records.trial import Trial
from ..study import OBJECTIVES
from .facts import how_energy_is_known, over_default, short_component

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    import optuna
    from optuna.trial import FrozenTrial

#: Our picture in optuna-dashboard, under its id.
FIGURE = "front"


@dataclass
class OptunaCopy:
    """A copy of a study in memory.

    Attributes:
        study: The Optuna study of the copy.
    """

    study: optuna.Study
    _ended: set[int] = field(default_factory=set)
    _told: str = ""

    @classmethod
    def of(cls, run: Run) -> OptunaCopy:
        """Make an empty copy whose objectives carry their units."""
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # metric names are marked experimental
            level = optuna.logging.get_verbosity()
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            study = optuna.create_study(
                storage=optuna.storages.InMemoryStorage(),
                study_name=run.name or "study",
                directions=[optuna.study.StudyDirection[name.upper()] for name in run.directions],
            )
            study.set_metric_names([with_unit(name) for name in run.objectives])
            optuna.logging.set_verbosity(level)
        return cls(study)

    def application(self) -> WSGIApplication:
        """Return optuna-dashboard on the copy."""
        from optuna_dashboard import wsgi

        app: WSGIApplication = wsgi(self.study._storage)
        return app

    def follow(self, run: Run, stored: Sequence[FrozenTrial]) -> None:
        """Take over new trials and those that have ended since, and write the notes and the figure again where the front has changed."""
        front = Front.of(run)
        storage = self.study._storage
        copied = {trial.number: trial for trial in storage.get_all_trials(self.study._study_id, deepcopy=False)}
        for frozen, trial in zip(stored, run.trials, strict=True):
            if frozen.number in self._ended:
                continue
            if frozen.number not in copied:
                storage.create_new_trial(self.study._study_id, template_trial=_template(frozen, attributes(trial)))
            else:
                self._end(copied[frozen.number], frozen, attributes(trial))
            if frozen.state.is_finished():
                self._ended.add(frozen.number)
        told = note(run, front)
        if told != self._told:
            self._tell(front, told)
            self._told = told

    def _end(self, mine: FrozenTrial, frozen: FrozenTrial, flat: dict[str, Any]) -> None:
        storage, number = self.study._storage, mine._trial_id
        for name, value in frozen.params.items():
            if name not in mine.params:
                distribution = frozen.distributions[name]
                storage.set_trial_param(number, name, distribution.to_internal_repr(value), distribution)
        for name, value in flat.items():
            storage.set_trial_user_attr(number, name, value)
        if frozen.state.is_finished():
            storage.set_trial_state_values(number, frozen.state, frozen.values)

    def _tell(self, front: Front, told: str) -> None:
        from optuna_dashboard import save_note, save_plotly_graph_object

        from .plotly_front import front_plotly

        save_note(self.study, told)
        if front.members:
            save_plotly_graph_object(self.study, front_plotly(front), graph_object_id=FIGURE)


def with_unit(name: str) -> str:
    """An objective with its unit: ``training energy (J)``.

    >>> with_unit("train_energy"), with_unit("accuracy"), with_unit("my_loss")
    ('training energy (J)', 'validation accuracy', 'my_loss')
    """
    _, unit, words = OBJECTIVES.get(name, ("", "", name))
    return f"{words} ({unit})" if unit else words


def attributes(trial: Trial) -> dict[str, Any]:
    """What is known of a trial as flat attributes, the unit in each name; what is unknown is left out."""
    joules = {"training energy (J)": trial.train_joules, "paid by the search (J)": trial.increment_joules}
    joules |= {"1,000 predictions (J)": trial.inference_joules_per_1000, "validation (J)": trial.energy.evaluation_joules}
    flat: dict[str, Any] = {**joules, "training energy is": trial.energy_quality if trial.train_joules is not None else None}
    flat |= {f"validation {name}": value for name, value in trial.quality.items()}
    flat |= {f"{short_component(name)} (J)": part.joules for name, part in trial.components.items()}
    flat |= {"training CO2e (g)": trial.grams_co2e, "trained for (s)": trial.energy.train_seconds, "epochs": trial.epochs}
    flat |= {"parameters": trial.parameters, "FLOPs of a prediction": trial.flops, "continues trial": trial.parent}
    flat |= {
        "reason": trial.reason,
        "beside other programs": True if trial.energy.contended else None,
        "default model": True if trial.is_default else None,
    }
    return {name: value for name, value in flat.items() if value is not None}


def note(run: Run, front: Front) -> str:
    """What a study found so far, as Markdown in which no text of a run is markup."""
    bill = run.bill.total_joules
    lines = [_plain(str((run.facts.get("study") or {}).get("description") or run.name)), "", "The page to decide on: [/](/)", ""]
    if front.members:
        named = {"sensible": front.sensible(), "best": front.best(), "knee": front.knee(), "cheapest": front.cheapest()}
        shown, unit = energies([trial.train_joules for trial in named.values()])
        for (word, trial), joules in zip(named.items(), shown, strict=True):
            quality = f"{_plain(front.objectives[0])} {front.quality_text(trial.values[0])}"
            lines.append(f"- **{word}**: trial {trial.number}, {quality}, {joules} {unit}")
        lines += ["", f"The sensible one is {_plain(front.choice.why)}."]
        lines += [_plain(gained)] if (gained := over_default(front)) else []
        lines.append(f"Energy is {_plain(how_energy_is_known(front))}; what could not be measured is counted nowhere.")
    if bill is not None:
        lines.append(f"The search has taken {joules_text(bill)} so far.")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A text with Markdown's and HTML's own characters escaped, in one line."""
    return re.sub(r"([\\`*_{}\[\]()#+!<>|~&$-])", r"\\\1", " ".join(text.split()))


def _template(frozen: FrozenTrial, flat: dict[str, Any]) -> FrozenTrial:
    """A trial for the copy, with flat attributes in place of ours."""
    import optuna

    return optuna.trial.FrozenTrial(
        number=frozen.number,
        state=frozen.state,
        value=None,
        values=frozen.values,
        datetime_start=frozen.datetime_start,
        datetime_complete=frozen.datetime_complete,
        params=dict(frozen.params),
        distributions=dict(frozen.distributions),
        user_attrs=flat,
        system_attrs={},
        intermediate_values={},
        trial_id=frozen.number,
    )
