"""One training of a finalist after the other, under the ledger."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..billing.session_account import Account
from ..billing.trial_energy import energy_facts
from ..execution.devices import cores
from ..execution.job import Executor, Job
from ..formatting import energy_text
from ..records.bill import REPEAT
from ..records.files import write_json
from ..records.replicates import INTERRUPTED, REPEATS_FILE, Repeat, Repeats, Slot
from ..records.run_folder import Store
from ..records.trial import Trial
from ..running.fairness import Keeper
from ..running.opening import utc_now
from ..study import Study
from .finalists import key_of


def seed_of_repeat(seed: int, round_number: int, key: str) -> int:
    """Seed of a repeat: another one in every round, and another one than the search took."""
    return zlib.crc32(f"{seed}:repeat {round_number}:{key}".encode())


@dataclass
class RepeatLoop:
    """One session of trainings again, one after the other.

    Attributes:
        study: The study of the run.
        store: The run folder.
        trials: What is trained again, by number.
        account: Who pays for what.
        executor: Where trainings run.
        keeper: Keeps them fair.
        device: PyTorch device.
        repeats: What was trained so far; the last plan is the one in work.
        listener: Receives a line about each training.
        interrupted: Set by Ctrl-C.
    """

    study: Study
    store: Store
    trials: Mapping[int, Trial]
    account: Account
    executor: Executor
    keeper: Keeper
    device: str
    repeats: Repeats
    listener: Callable[[str], None]
    interrupted: threading.Event = field(default_factory=threading.Event)

    @property
    def plan(self) -> int:
        """Number of the plan in work."""
        return len(self.repeats.plans) - 1

    def keep(self, repeats: Repeats) -> None:
        """Take note of a training; a reader of the file sees the old list or the new one."""
        self.repeats = repeats
        write_json(self.store.path / REPEATS_FILE, repeats.to_json())

    def go(self, left: tuple[Slot, ...]) -> None:
        """Train until the plan is done or the user stops it."""
        for done, slot in enumerate(left):
            if self.interrupted.is_set():
                return
            with self.keeper.trial():
                training = self._train(slot)
            self.keep(self.repeats.with_training(training))
            self.account.save()
            self.listener(f"{done + 1}/{len(left)}: {self._said(training)}")

    def _train(self, slot: Slot) -> Repeat:
        trial, seed = self.trials[slot.trial], self.repeats.plans[self.plan].seed
        weights = self.store.artifact(trial.number).with_name("repeat.weights")
        job = Job(
            number=trial.number,
            params=trial.params,
            # A schedule with a horizon (cosine) keeps that of the search, though the training ends where the trial did.
            epochs=max(trial.epochs, int(trial.extra.get("asked_epochs") or 0)),
            seed=seed_of_repeat(seed, slot.round, key_of(self.study.space, trial)),
            device=self.device,
            threads=int(trial.extra.get("threads") or cores()),
            start=None,
            weights=weights,
            checkpoint_below=0,
        )
        number = len(self.repeats.trainings)
        meter = self.account.open(number, self.executor.devices, kind=REPEAT)

        def go_on(entry: Mapping[str, Any]) -> bool:
            self.account.save_sometimes()
            return not self.interrupted.is_set() and entry["epoch"] < trial.epochs

        try:
            outcome = self.executor.train(job, phases=meter.phase, go_on=go_on)
        except BaseException:
            self.account.close(number, meter, state="killed", cpu_seconds=None)
            self.account.save()
            raise
        finally:
            weights.unlink(missing_ok=True)
        failed = outcome.failed
        if self.interrupted.is_set() and outcome.epochs < trial.epochs:
            failed = INTERRUPTED
        elif failed is None and self.study.objectives[0] not in outcome.quality:
            failed = f"{self.study.objectives[0]} is unknown"
        elif failed is None and outcome.epochs < trial.epochs:
            failed = f"another model than that of the search: {outcome.epochs} epochs of {trial.epochs} ({outcome.stopped})"
        whole = self.account.close(number, meter, state="failed" if failed else "ok", cpu_seconds=outcome.cpu_seconds)
        facts = energy_facts(whole, meter.phases, parent=None, predictions=0, intensity=None)
        return Repeat(
            plan=self.plan,
            trial=trial.number,
            round=slot.round,
            position=slot.position,
            seed=job.seed,
            epochs=outcome.epochs,
            quality=dict(outcome.quality),
            train_joules=facts["train_joules"],
            train_u_joules=facts["train_u_joules"],
            spent_joules=whole.joules,
            seconds=facts["train_seconds"],
            cpu_seconds=facts["cpu_seconds"],
            hardware_id=whole.hardware_id,
            energy_quality=facts["energy_quality"],
            utc=utc_now(),
            failed=failed,
        )

    def _said(self, training: Repeat) -> str:
        if training.failed is not None:
            return f"trial {training.trial} failed: {training.failed}"
        name, trial = self.study.objectives[0], self.trials[training.trial]
        joules = None if training.train_joules is None else training.train_joules / 3600
        return (
            f"trial {training.trial}: {name} {training.quality[name]:.4f} (search {trial.values[0]:.4f}), "
            f"{energy_text(joules)} (search {energy_text(trial.train_wh)})"
        )
