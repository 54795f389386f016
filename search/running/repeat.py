"""Measure finalists again: from scratch, with fresh seeds, in an order that lets no drift favour one of them.

A search knows each model from one measurement, and a front selects the lucky ones. Repeats show what a model reaches and takes on average,
and which neighbours on the front can be told apart at all. They are no trials: no sampler learns from them, and they are never points of
the front. Their joules are billed to the study by themselves (``repeats``) and count for its budget.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..argument_types import refuse_wrong_types
from ..billing.account import TrialMeter
from ..billing.trial_energy import price_of_features, trial_energy
from ..certainty import written
from ..energy import Ledger, Record
from ..energy.journal import fitted
from ..execution.job import Executor, Job, Outcome, reason_of
from ..execution.watch import TimeLimit, Watch, pace_of, slowest_epoch
from ..formatting import for_stream, joules_text
from ..front import Front
from ..records.bill import REPEAT, meters_of
from ..records.files import last_session, write_json
from ..records.replicates import REPEATS_FILE, Plan, Repeat, Repeats, ReplicateComparison, Slot, compare_replicates, slots
from ..records.run_folder import RunFolder, StoreError
from ..records.trial import INTERRUPTED, Trial
from ..space import FixedTrial, Space
from ..study import Study
from ..threads import cores
from ..training.recipe import pick_device
from .baselines import PLAIN, MeasurementProtocol
from .endings import Endings, noted_on
from .identity import existing_folder, refuse_other_data, timestamp
from .session import Session, SessionOptions, meters_text, open_session

#: Members of a front that are repeated by default, at most.
MOST = 10


def finalists(front: Front, pick: str = "front", most: int = MOST) -> tuple[Trial, ...]:
    """Return the trials that a rule names, cheapest first, at most so many, evenly spread from the cheapest to the best.

    The rule is ``front`` for all members, or rules of `joulefront.search.front.Front.pick` with commas between them.

    Raises:
        ValueError: If the front is empty, a rule names nothing, or ``most`` is below 1.
    """
    if most < 1:
        raise ValueError(f"--max-members must be >= 1, got {most}")
    if pick.strip() != "front":
        picked = {trial.number: trial for trial in (front.pick(rule) for rule in pick.split(","))}
        return tuple(sorted(picked.values(), key=lambda trial: (trial.train_joules or 0.0, trial.number)))
    knee = front.knee()  # its error explains an empty front
    members = front.members
    if len(members) <= most:
        return members
    if most == 1:
        return (knee,)
    return tuple(members[round(place * (len(members) - 1) / (most - 1))] for place in range(most))


def refuse_other_models(store: RunFolder, study: Study, members: Sequence[Trial]) -> None:
    """Refuse a study that is not the one of the run: its models would be others.

    Raises:
        StoreError: If objectives or space differ.
        ValueError: If the space does not know the parameters of a member.
    """
    held = store.facts["study"]
    for name, given in (("objectives", list(study.objectives)), ("space", study.space.name)):
        if held[name] != given:
            raise StoreError(
                f"{str(store.path)!r} holds a study with other {name} ({held[name]}, now {given}); give the --study that it came from"
            )
    for trial in members:
        key_of(study.space, trial)


def key_of(space: Space, trial: Trial) -> str:
    """Canonical text of a trial's candidate."""
    return space.key(space.sample(FixedTrial(trial.params)))


def refuse_other_device(store: RunFolder, device: str) -> None:
    """Refuse another kind of device than the run's: its energies are no repeats.

    Raises:
        StoreError: If the run was trained on another kind.
    """
    known = {str(session["device"]).partition(":")[0] for session in store.facts["sessions"] if session.get("device")}
    if known and device.partition(":")[0] not in known:
        raise StoreError(
            f"--device {device}: the models of {str(store.path)!r} were trained on {', '.join(sorted(known))}; "
            "energies of another device are no repeats. Leave --device out"
        )


def refuse_other_machine(store: RunFolder, members: Sequence[Trial], ledger: Ledger) -> None:
    """Refuse other hardware or other meters than those of the search: the spread would be theirs and not the models'.

    Raises:
        StoreError: The message says what differs.
    """
    here = ledger.total()
    for trial in members:
        if trial.hardware_id is not None and trial.hardware_id != here.hardware_id:
            raise StoreError(
                f"trial {trial.number} of {str(store.path)!r} was measured on other hardware ({trial.hardware_id}, here "
                f"{here.hardware_id}); repeat it there, or search here with joulefront run --out another-folder"
            )
        if trial.energy.record:
            record = fitted(Record, trial.energy.record, f"the record of trial {trial.number}")
            before, now = meters_of(record), meters_of(here)
            if set(before) != set(now) or any(now[name] not in before[name] for name in now):
                raise StoreError(
                    f"trial {trial.number} of {str(store.path)!r} was metered otherwise ({_said(before)}; now {_said(now)}); "
                    "give the --meter and --cpu-watts of the search"
                )


def _said(meters: dict[str, str]) -> str:
    return ", ".join(f"{name} by {how}" for name, how in sorted(meters.items())) or "nothing"


@dataclass
class RepeatLoop:
    """The trainings of one session of repeats, one after the other.

    Attributes:
        trials: What is trained again, by number.
        repeats: What was trained so far; the last plan is the one in work.
        epoch_seconds: What an epoch has taken in the slowest training so far, the search's included; None when that is unknown.
    """

    study: Study
    session: Session
    trials: Mapping[int, Trial]
    repeats: Repeats
    listener: Callable[[str], None]
    epoch_seconds: float | None = None

    @property
    def plan(self) -> int:
        """Number of the plan in work."""
        return len(self.repeats.plans) - 1

    @property
    def _executor(self) -> Executor:
        (executor,) = self.session.executors
        return executor

    def keep(self, repeats: Repeats) -> None:
        """Take note of a training; a reader of the file sees the old list or the new one."""
        self.repeats = repeats
        write_json(self.session.folder.path / REPEATS_FILE, repeats.to_json())

    def go(self, left: tuple[Slot, ...]) -> None:
        """Train until the plan is done or the user stops it."""
        for done, slot in enumerate(left):
            if self.session.interrupted.is_set():
                return
            with self.session.equal_conditions():
                training = self._train(slot)
            self._keep_training(training)
            self.listener(f"{done + 1}/{len(left)}: {self._said(training)}")

    def _keep_training(self, training: Repeat) -> None:
        self.keep(self.repeats.with_training(training))
        self.session.account.save()

    def _train(self, slot: Slot) -> Repeat:
        trial, seed = self.trials[slot.trial], self.repeats.plans[self.plan].seed
        weights = self.session.folder.artifact(trial.number).with_name("repeat.weights")
        drawn = f"{seed}:repeat {slot.round}:{key_of(self.study.space, trial)}"  # another one in every round, and than the search took
        job = Job(
            number=trial.number,
            params=trial.params,
            # A schedule with a horizon (cosine) keeps that of the search, though the training ends where the trial did.
            epochs=trial.horizon,
            seed=zlib.crc32(drawn.encode()),
            device=self.session.device,
            threads=int(trial.extra.get("threads") or cores()),
            start=None,
            weights=weights,
            checkpoint_below=0,
            features=self.session.features,
            score_test=True,
            # Another seed ends its training elsewhere, and those that last as long would be the lucky ones.
            patience=False,
        )
        self.session.warm_up(self._executor, job)
        pid = getattr(self._executor, "pid", None)
        meter = self.session.account.open(len(self.repeats.trainings), self._executor.devices, kind=REPEAT, pid=pid)
        limit = TimeLimit(self.study.max_trial_seconds, trial.epochs, lambda: self.epoch_seconds)

        def phases(kind: str, index: int) -> AbstractContextManager[Any]:
            limit.begin(kind)
            return meter.phase(kind, index)

        def should_continue(entry: Mapping[str, Any]) -> bool:
            limit.epoch()
            self.session.account.save_sometimes()
            return not self.session.interrupted.is_set() and entry["epoch"] < trial.epochs

        def abandon(reason: str) -> None:
            self._keep_training(self._ended(slot, job, meter, Outcome(0, failed=reason)))
            self.session.reason = f"a training of trial {trial.number} hung: {reason}"
            self.session.close()

        try:
            outcome = self._executor.train(job, phases=phases, should_continue=should_continue, watch=Watch(limit, abandon))
        except BaseException as error:
            with noted_on(error):
                self.session.account.close(meter, state="killed", cpu_seconds=None)
                self.session.account.save()
            raise
        finally:
            weights.unlink(missing_ok=True)
        return self._ended(slot, job, meter, outcome)

    def _ended(self, slot: Slot, job: Job, meter: TrialMeter, outcome: Outcome) -> Repeat:
        """Close the window of a training; return what came of it."""
        trial = self.trials[slot.trial]
        failed = outcome.failed
        if failed is None and self.session.interrupted.is_set() and outcome.epochs < trial.epochs:
            failed = INTERRUPTED
        elif failed is None and self.study.objectives[0] not in outcome.quality:
            failed = f"{self.study.objectives[0]} is unknown"
        elif failed is None and outcome.epochs < trial.epochs:
            failed = f"another model than that of the search: {outcome.epochs} epochs of {trial.epochs} ({outcome.stopped})"
        try:
            whole = self.session.account.close(meter, state="failed" if failed else "ok", cpu_seconds=outcome.cpu_seconds)
        except Exception as error:  # the device does not answer any more; the second call asks only the ledger
            failed = failed or reason_of(error)
            whole = self.session.account.close(meter, state="failed", cpu_seconds=outcome.cpu_seconds)
        if not failed:
            self.epoch_seconds = slowest_epoch(self.epoch_seconds, whole.seconds, len(outcome.curve))
        shared = (*price_of_features(outcome.features, meter.phases, self.session.features, whole), *self.session.inputs)
        energy = trial_energy(whole, meter.phases, parent=None, predictions=0, intensity=None, shared=shared, compiled=[trial])
        return Repeat(
            plan=self.plan,
            trial=trial.number,
            round=slot.round,
            position=slot.position,
            seed=job.seed,
            epochs=outcome.epochs,
            quality=dict(outcome.quality),
            test=dict(outcome.test),
            train_joules=energy.train_joules,
            train_u_joules=energy.train_u_joules,
            spent_joules=whole.joules,
            seconds=energy.train_seconds,
            cpu_seconds=energy.cpu_seconds,
            hardware_id=whole.hardware_id,
            energy_quality=energy.quality,
            utc=timestamp(),
            failed=failed,
            ledger_session=whole.id.partition(".")[0],
        )

    def _said(self, training: Repeat) -> str:
        if training.failed is not None:
            return f"trial {training.trial} failed: {training.failed}"
        name, trial, facts = self.study.objectives[0], self.trials[training.trial], self.session.folder.facts
        return (
            f"trial {training.trial}: {name} {written(facts, name, training.quality[name])} "
            f"(search {written(facts, name, trial.values[0])}), "
            f"{joules_text(training.train_joules)} (search {joules_text(trial.train_joules)})"
        )


def to_stderr(text: str) -> None:
    """Say something about the progress."""
    print(for_stream(text, sys.stderr), file=sys.stderr, flush=True)


def repeat(
    study: Study,
    path: str | Path,
    *,
    times: int = 5,
    order: str = "random",
    pick: str = "front",
    most: int = MOST,
    seed: int | None = None,
    meter: str | None = None,
    cpu_watts: float | None = None,
    device: str | None = None,
    protocol: MeasurementProtocol = PLAIN,
    listener: Callable[[str], None] = to_stderr,
    command: str | None = None,
    whole_process: bool = False,
    show: Callable[[ReplicateComparison], object] | None = None,
) -> ReplicateComparison:
    """Train the finalists of a run again and compare them; the run folder keeps every training in ``repeats.json``.

    Called again it adds ``times`` more trainings of each; called again after Ctrl-C with the same arguments it finishes what was planned.
    The split of the data stays that of the study: the spread is that of training, not of the choice of examples. What is returned covers
    all repeats of this run, earlier ones included.

    Args:
        study: The study of the run.
        path: The run folder.
        times: Trainings of each model.
        order: One of `joulefront.search.records.replicates.ORDERS`.
        pick: ``front``, or rules such as ``knee`` or ``trial=12`` with commas between them.
        most: Of a longer front so many members are taken, evenly spread.
        seed: Seeds order and trainings; the study's by default. Every round has seeds of its own.
        meter: Sources of the ledger; those of the run's last session by default.
        cpu_watts: The same as in the search, when it was given there.
        device: PyTorch device; that of the run's last session by default.
        protocol: Idle baselines, cool-down and anchor measurements; none by default.
        listener: Receives a line about the start and one about each training.
        command: What was typed, for the run folder.
        whole_process: Whether this process is there for the repeats alone: what it took before the meters is billed, too.
        show: Prints the comparison while the meters still run, so that this is on the bill, too.

    Raises:
        ValueError: If an argument breaks its rule, or the front is empty.
        StoreError: If the folder cannot be used, or study, hardware, device or meters are not those of the search.
        DeviceError: If another run holds the GPU.
    """
    refuse_wrong_types(repeat, locals())
    slots([0], times, order, seed or 0)  # a typing mistake must cost nothing
    store = RunFolder.open(path)
    last = last_session(store.facts)
    where = pick_device(device or str(last.get("device", "auto")))
    refuse_other_device(store, where)
    sources = meter or str(last.get("meter", "auto"))
    options = SessionOptions(sources, cpu_watts, where, protocol=protocol, whole_process=whole_process, command=command)
    with open_session(options, existing_folder(path)) as opened:
        run = opened.before
        front = Front.of(run)
        asked_for = finalists(front, pick, most)
        members = tuple(one for one in asked_for if not one.members)  # an ensemble was not trained itself
        if asked_for and not members:
            raise ValueError(f"an ensemble is not trained again, got {pick!r}; --pick trial=N of its members {list(asked_for[0].members)}")
        refuse_other_models(opened.folder, study, members)
        trials = {trial.number: trial for trial in members}
        asked = Plan(timestamp(), tuple(trials), times, order, study.seed if seed is None else seed, run.repeats.rounds)
        repeats, continued = _with(run.repeats, asked)
        with opened.starting() as start:
            refuse_other_machine(opened.folder, members, start.ledger)
            task = study.load_task()
            refuse_other_data(opened.folder, task)
            session = start.prepare(opened.folder, study, task)
            again = RepeatLoop(study, session, trials, repeats, listener, pace_of(run.trials, session.ledger.hardware_id))
            left = again.repeats.open_slots(again.plan)
            some = f" of {len(front)}, evenly spread over the front," if pick.strip() == "front" and len(members) < len(front) else ""
            joules = sum(trials[slot.trial].train_joules or 0.0 for slot in left)
            meters = meters_text(session.ledger, session.device)
            listener(
                f"{run.name}: {'going on with' if continued else 'training'} {len(members)} model(s){some} {times} time(s) again, "
                f"order {order}: {len(left)} trainings, about {joules_text(joules)} and their validation; {meters}"
            )
            session.get_ready()
        with Endings() as after:
            after.then(lambda _: again.keep(again.repeats.with_facts(again.plan, session.baseline_facts)))
            with session.measuring():
                again.go(left)
            session.reason = "interrupted" if session.interrupted.is_set() else "finalists trained again"
        finding = compare_replicates(again.repeats, run.trials, run.objectives[0], run.directions[0])
        if show is not None:
            session.show(lambda: show(finding))
    return finding


def _with(repeats: Repeats, asked: Plan) -> tuple[Repeats, bool]:
    """Add a plan, unless the last one asks for the same and is not finished."""
    names = ("trials", "times", "order", "seed")
    same = all(getattr(last, name) == getattr(asked, name) for last in repeats.plans[-1:] for name in names)
    if repeats.plans and same and repeats.open_slots(len(repeats.plans) - 1):
        return repeats, True
    return repeats.with_plan(asked), False
