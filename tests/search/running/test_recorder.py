"""Which weights a run keeps for trainings that may go on."""

from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from joulefront.search.records.trial import ATTRIBUTE, EXCUSED, Trial, from_optuna
from joulefront.search.running.recorder import resumable
from joulefront.search.samplers.history import FINISHED, FROM_SCRATCH

DIRECTIONS = ("maximize", "minimize")


def test_weights_are_kept_for_the_ends_of_lineages_that_the_sampler_may_continue() -> None:
    study = optuna.create_study(directions=DIRECTIONS)

    def told(key: str, *, failed: bool = False, parent: int | None = None, complete: bool = False, **said: Any) -> None:
        trial = Trial(0, "complete", {}, 1, parent=parent, complete_training=complete)
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if failed else TrialState.COMPLETE,
                params={"epochs": 1},
                distributions={"epochs": IntDistribution(1, 9)},
                values=None if failed else [0.5, 1.0],
                user_attrs={"key": key, ATTRIBUTE: trial.facts(), **said},
            )
        )

    told("killed in between")
    told("killed in between", failed=True, parent=0, **{EXCUSED: "killed"})
    told("failed")
    told("failed", failed=True, parent=2)
    told("ended by itself", **{FINISHED: True})
    told("cosine", **{FROM_SCRATCH: True})
    told("continued")
    told("continued", parent=6)
    told("to the last rung", complete=True)
    trials = tuple(from_optuna(trial) for trial in study.get_trials())
    assert resumable(trials, study.get_trials()) == {0, 7}
