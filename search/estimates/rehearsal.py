"""What deciding costs: a sampler asked about trials that are never trained, in a storage like the real one, under the meter."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..energy import Ledger
from ..records.run_folder import Store
from ..running.continuing import described
from ..samplers.factory import make_sampler
from ..samplers.history import EPOCHS_REACHED
from ..study import Study
from ..training.task import Task

#: Trials of a rehearsal: past the random start of the samplers, so that their models are asked, too.
TRIALS = 20


def decision_joules(study: Study, task: Task, ledger: Ledger, *, trials: int = TRIALS) -> float | None:
    """Return what asking for one trial and storing its result costs on this machine, or None when energy is unknown.

    Qualities and energies are made up: they decide what is asked for, not what the asking costs.

    Args:
        study: The study; its sampler is asked.
        task: Its data, for samplers that are told the sizes of candidates.
        ledger: A running ledger.
        trials: Number of trials.
    """
    random = np.random.default_rng(study.seed)
    with TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "rehearsal", {"study": described(study), "sessions": [], "run_id": "rehearsal"})
        sampler = make_sampler(study.sampler, rungs=study.rungs, seed=study.seed, study=study, task=task)
        optuna_study = store.study(sampler)
        begin_ns, asked_for = time.monotonic_ns(), 0
        while asked_for < trials and not getattr(sampler, "exhausted", False):
            asked = optuna_study.ask()
            study.space.sample(asked)
            epochs = study.draw_epochs(asked)
            quality = float(random.uniform(0.2, 1.0)) * (1.0 - 0.5**epochs)
            values = {name: quality if direction == "maximize" else 1.0 / (1.0 + quality) for name, direction in _directions(study)}
            values |= {name: epochs * float(random.uniform(0.5, 2.0)) for name in study.objectives if "energy" in name or "co2" in name}
            asked.set_user_attr(EPOCHS_REACHED, epochs)
            optuna_study.tell(asked, [values[name] for name in study.objectives])
            asked_for += 1
        joules = ledger.joules(begin_ns)
    return None if joules is None or not asked_for else joules / asked_for


def _directions(study: Study) -> list[tuple[str, str]]:
    return list(zip(study.objectives, study.directions, strict=True))
