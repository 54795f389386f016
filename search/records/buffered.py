"""What one session writes to its own SQLite file: kept in memory, and written trial by trial, in one transaction each time.

Optuna's storage commits every parameter and attribute by itself and reads the trials again before each decision, some hundred statements
a trial: on small models that cost as much as training them. Nobody else writes while a session holds its folder, so its memory is right;
the file has each trial before its training begins (`flush`) and again with its result.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.storages import InMemoryStorage

from .database import guarded

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True)
class _Written:
    """A trial as it is in the file, where it has the id ``place``; Optuna changes the attributes of the one in memory."""

    place: int
    trial: FrozenTrial
    params: frozenset[str]
    user_attrs: dict[str, Any]
    system_attrs: dict[str, Any]

    @classmethod
    def of(cls, place: int, trial: FrozenTrial) -> _Written:
        return cls(place, trial, frozenset(trial.params), dict(trial.user_attrs), dict(trial.system_attrs))


class BufferedStorage(InMemoryStorage):
    """A study of an SQLite file, in memory; only one session may hold it.

    A session that dies between two flushes leaves the file as it was at the last one: nothing is ever half written.
    """

    def __init__(self, disk: RDBStorage, name: str) -> None:
        """Read a study of the file; one that is not there raises KeyError."""
        super().__init__()
        self._disk, self._disk_study = disk, disk.get_study_id_from_name(name)
        study = self.create_new_study(disk.get_study_directions(self._disk_study), name)
        for key, value in disk.get_study_user_attrs(self._disk_study).items():
            super().set_study_user_attr(study, key, value)
        for key, value in disk.get_study_system_attrs(self._disk_study).items():
            super().set_study_system_attr(study, key, value)
        self._written: list[_Written] = []  # by number
        for trial in disk.get_all_trials(self._disk_study, deepcopy=False):
            number = self.create_new_trial(study, trial)
            self._studies[study].param_distribution.update(trial.distributions)
            self._written.append(_Written.of(trial._trial_id, self._get_trial(number)))
        self._study = study
        self._write = guarded(disk, self._write)  # type: ignore[method-assign]  # it waits and explains as every operation of the file

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set it in the file, too: there are few."""
        super().set_study_user_attr(study_id, key, value)
        self._disk.set_study_user_attr(self._disk_study, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set it in the file, too."""
        super().set_study_system_attr(study_id, key, value)
        self._disk.set_study_system_attr(self._disk_study, key, value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Write a trial that ends here, with all that is known of it."""
        with self._lock:
            done = super().set_trial_state_values(trial_id, state, values)
            if state.is_finished():
                self.flush()
            return done

    def flush(self) -> None:
        """Write what the file does not have yet.

        Raises:
            DatabaseError: If the file cannot be written any more.
        """
        with self._lock:
            trials = self._studies[self._study].trials
            new = trials[len(self._written) :]
            changed = [number for number, known in enumerate(self._written) if trials[number] is not known.trial]
            if new or changed:
                self._write(trials, changed, new)

    def _write(self, trials: list[FrozenTrial], changed: list[int], new: list[FrozenTrial]) -> None:
        from optuna.storages._rdb.storage import _create_scoped_session

        with _create_scoped_session(self._disk.scoped_session) as session:
            for number in changed:
                self._update(session, self._written[number], trials[number])
            places = [self._insert(session, trial) for trial in new]  # in the order of their numbers: the file counts them
        for number in changed:
            self._written[number] = _Written.of(self._written[number].place, trials[number])
        self._written += map(_Written.of, places, new)

    def _insert(self, session: Any, trial: FrozenTrial) -> int:
        bare = copy.copy(trial)
        bare._params, bare._distributions = {}, {}  # Optuna would look each up among all trials
        made = self._disk._get_prepared_new_trial(self._disk_study, bare, session)
        if made.number != trial.number:
            raise RuntimeError(f"another process has written trial {trial.number} to the database of this session; let one of them end")
        place = int(made.trial_id)
        self._add_parameters(session, place, trial, set())
        return place

    def _update(self, session: Any, known: _Written, trial: FrozenTrial) -> None:
        from optuna.storages._rdb import models

        place = known.place
        made = models.TrialModel.find_or_raise_by_id(place, session)
        self._add_parameters(session, place, trial, known.params)
        for kind, before, now in (
            (models.TrialUserAttributeModel, known.user_attrs, trial.user_attrs),
            (models.TrialSystemAttributeModel, known.system_attrs, trial.system_attrs),
        ):
            for key, value in now.items():
                if key not in before or before[key] is not value:
                    self._disk._set_trial_attr_without_commit(session, kind, place, key, value)
        for objective, value in enumerate(trial.values or ()):
            self._disk._set_trial_value_without_commit(session, made, objective, value)
        made.state, made.datetime_start, made.datetime_complete = trial.state, trial.datetime_start, trial.datetime_complete

    def _add_parameters(self, session: Any, place: int, trial: FrozenTrial, known: Container[str]) -> None:
        from optuna.distributions import distribution_to_json
        from optuna.storages._rdb import models

        for name, kind in trial.distributions.items():
            if name not in known:
                value, text = kind.to_internal_repr(trial.params[name]), distribution_to_json(kind)
                session.add(models.TrialParamModel(trial_id=place, param_name=name, param_value=value, distribution_json=text))
