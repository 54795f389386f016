"""Watches one training at its rungs and says when it cannot reach the front any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..energy import Record
from ..records.trial import Trial
from ..study import Study
from .dominated import error_of, stop_reason
from .projection import epoch_energies, project


def rungs_on_the_way(study: Study, epochs: int, parent: Trial | None) -> tuple[int, ...]:
    """Return the rungs that a training passes before its end, where it is to be looked at; none where the net is not wanted.

    Only quality against training energy is judged: what else a study wants (few parameters, cheap predictions) may save a model that
    these two alone condemn.
    """
    begin = 0 if parent is None else parent.epochs
    two = len(study.objectives) == 2 and study.objectives[1] == "train_energy"
    return tuple(rung for rung in study.rungs if begin < rung < epochs) if study.stops_dominated and two else ()


@dataclass(frozen=True)
class SafetyNet:
    """The net under one training.

    Attributes:
        study: The study.
        trials: Gives all its trials, by number.
        epochs: Epochs that the training is to reach.
        parent: The trial that it continues, or None.
        phases: Records of its windows that have ended; grows while it trains.
    """

    study: Study
    trials: Callable[[], Sequence[Trial]]
    epochs: int
    parent: Trial | None
    phases: Sequence[Record]

    def reason(self, entry: Mapping[str, float]) -> str | None:
        """Say why the training should end after this epoch, or None.

        Args:
            entry: The epoch: ``{"epoch": 3, "loss": ..., "accuracy": ...}``; without a quality nothing is judged.
        """
        metric, epoch = self.study.objectives[0], int(entry["epoch"])
        value = entry.get(metric)
        # A training that ends between two rungs is granted what the upper one would give, for the energy of its own end.
        end = next((rung for rung in self.study.rungs if rung >= self.epochs), self.epochs)
        rungs = [rung for rung in self.study.rungs if epoch < rung <= end]
        if value is None or epoch not in self.study.rungs or not rungs:
            return None
        trials = self.trials()
        setup, epochs = self._energies(trials)
        if epochs is None:
            return None
        maximize = self.study.directions[0] == "maximize"
        return stop_reason(
            error_of(float(value), maximize=maximize),
            epoch,
            {rung: project(epochs, min(rung, self.epochs), setup_joules=setup) for rung in rungs},
            trials,
            metric,
            maximize=maximize,
            complete_epochs=self.study.rungs[-1] if self.study.complete_only else None,
        )

    def _energies(self, trials: Sequence[Trial]) -> tuple[float, list[float] | None]:
        """Return the energy of the start-up and of every epoch of the lineage so far; None when one is unknown."""
        own = [record.joules for record in self.phases if record.kind == "epoch"]
        setup = next((record.joules for record in self.phases if record.kind == "setup"), None) if self.parent is None else 0.0
        before = [] if self.parent is None else epoch_energies(self.parent, trials)
        if setup is None or before is None or not own or any(joules is None for joules in own):
            return 0.0, None
        return setup, before + [joules for joules in own if joules is not None]
