"""Which weights a run keeps for trainings that may go on."""

from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import ATTRIBUTE, EXCUSED, Trial, from_optuna
from joulefront.search.running.recorder import Recorder
from joulefront.search.samplers.history import FINISHED, FROM_SCRATCH

NAMES, DIRECTIONS = ("accuracy", "train_energy"), ("maximize", "minimize")


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
    recorder = Recorder(study=None, store=None, optuna_study=study, account=None, train_examples=1)  # type: ignore[arg-type]  # of no use here
    assert recorder._may_go_on(Run("r", Path(), NAMES, DIRECTIONS, (1, 9), trials, Bill())) == {0, 7}
