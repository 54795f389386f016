"""One worker among those that train a study: its beats, what the others have spent, who of them is dead, and whether a training fits.

A worker says at every beat, and after every epoch under a budget, what it has spent; the sum over all workers is what the budget counts, so
it is overshot by less than an epoch of each. A worker that is not heard of for `GRACE_BEATS` beats is dead: its trials are closed with
what they had taken at its last word, and its bill ends there. It may come back: then it finds its trial closed after the epoch under way
(`SharedStudy.is_closed`), ends it, and stores nothing of it; its own bill counts. Beats wait for nobody but the database, and silence is
counted only while the one who listens gets to listen: a busy machine, or a database that was away, makes nobody dead.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..billing.account import Account
from ..billing.recovery import close_without_journal
from ..formatting import joules_text
from ..records.database import fail_open_trials
from ..records.run_folder import RunFolder, StoreError
from ..records.shared_study import LOCK_SECONDS, ArtifactStore, LedgerCopy, SharedStudy, WorkerState
from ..records.trial import KEY, WORKER, Trial, counted
from ..samplers.history import RESUME_FROM
from ..stopping.rules import EXHAUSTED, NOT_WORTH_IT, Limits, StopRules
from ..study import Budget, Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

#: A worker is dead when it was not heard of for so many beats.
GRACE_BEATS = 4
#: While others are waited for, they are looked at this often.
LOOK_SECONDS = 0.2
#: Facts of ``study.json`` that all workers of a study share.
SHARED_FACTS = (
    *("run_id", "study", "origin", "intensity", "pue", "price_per_kwh", "fingerprint", "guessing", "data", "baseline"),
    *("artifacts", "beat_seconds", "limits", "hardware_id"),
)


@dataclass(frozen=True)
class Refusal:
    """Why a trial is not trained here and now; it is ``excused`` where that says nothing against its candidate."""

    reason: str
    excused: bool = False


@dataclass
class Membership:
    """A worker's place in a shared study; its threads and the one that beats use it.

    Attributes:
        shared: The study.
        state: What this worker last said of itself.
        beat_seconds: How often it says so while it lives.
        others: What the others have said last, by id.
        stopped: Why the study was stopped for all workers, or None.
        account: Pays for this worker's trials; from `begin` on.
        draws: Added to the seed of the sampler, zero for the first worker: two that draw alike would want the same candidates.
    """

    shared: SharedStudy
    state: WorkerState
    beat_seconds: float
    others: dict[str, WorkerState] = field(default_factory=dict)
    stopped: str | None = None
    account: Account | None = None
    draws: int = 0
    clock: Callable[[], float] = time.monotonic
    _heard: dict[str, tuple[int, float]] = field(default_factory=dict)
    _unowned: dict[int, float] = field(default_factory=dict)
    _looked: float | None = None
    _listened: float = 0.0
    _noted: float = 0.0
    _stuck: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @classmethod
    def of(cls, folder: RunFolder) -> Membership | None:
        """Return the place that a run folder has in a shared study; None for a study of its own."""
        if folder.facts.get("shared") is None:
            return None
        shared = SharedStudy(folder.study())
        states, stopped = shared.look()
        known = states.pop(folder.facts["worker"], WorkerState(folder.facts["worker"], ""))
        state = replace(known, host=socket.gethostname(), ended=False)
        member = cls(shared, state, float(folder.facts["beat_seconds"]), states, stopped)
        member._hear()
        return member

    def begin(self, account: Account, hardware_id: str, *, same_hardware: bool = False) -> None:
        """Say what trains here, and beat from now on.

        Raises:
            StoreError: If the study was begun on other hardware, and only the same is wanted.
        """
        known = self.shared.description() or {}
        first = known.get("hardware_id")
        if same_hardware and first not in (None, hardware_id):
            raise StoreError(
                f"--same-hardware: the study {self.shared.study.study_name!r} was begun on hardware {first}, here it is {hardware_id}; "
                "train on machines of that kind, or leave --same-hardware out: then the front keeps them apart"
            )
        self.account, self.state = account, replace(self.state, hardware_id=hardware_id)
        account.elsewhere = self.elsewhere_joules
        self.shared.save_bill(self.state.id, account.sessions())  # before the others count what it says: who dies then has a bill
        # Of those that begin at the same time one alone is the first; where there are others already, a stopped one may have the lock.
        with contextlib.nullcontext() if self.others else self._in_turn():
            self.exchange()
        self.draws = 1 + zlib.crc32(self.state.id.encode()) % 2**31 if self.others else 0
        self._thread = threading.Thread(target=self._beat, name="joulefront-beat", daemon=True)
        self._thread.start()

    def refreshed(self, folder: RunFolder) -> RunFolder:
        """Return the folder with what all workers share as it is known by now."""
        known = self.shared.description() or {}
        return folder.save_facts({**folder.facts, **known, "artifacts": folder.facts["artifacts"]})  # as this machine reaches them

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Share the facts of the study that are known here and were not known before; the first to know them decides."""
        own = {**facts, "hardware_id": self.state.hardware_id}

        def news(known: Mapping[str, Any]) -> dict[str, Any]:
            new = {key: own[key] for key in SHARED_FACTS if known.get(key) is None and own.get(key) is not None}
            return new if known.get("fingerprint") else {**new, "study": facts["study"]}  # its rungs follow from the data

        if news(self.shared.description() or {}):  # else a worker that joins needs no lock, which a stopped one may have
            with self._in_turn():
                known = self.shared.description() or {}
                self.shared.describe({**known, **news(known)})

    def limits(self, budget: Budget | None, trials: int | None, study: Study) -> tuple[Budget | None, int | None]:
        """Return the limits of the study: those given here, which hold for the workers to come, or else those that were given before.

        A study that was stopped goes on when it is given new ones.
        """
        given = budget is not None or trials is not None
        known = self.shared.description() or {}
        with self._in_turn() if given or known.get("limits") is None else contextlib.nullcontext():
            known = self.shared.description() or {}
            before = known.get("limits")
            if before is not None and not given:
                return before["budget"] and Budget.parse(before["budget"]), before["trials"]
            budget, trials = study.limits(budget, trials)
            limits = {"budget": None if budget is None else replace(budget, text="").to_text(), "trials": trials}
            if limits != before:
                self.shared.describe({**known, "limits": limits})
                self.shared.stop("")
                self.stopped = None
        return budget, trials

    def leave(self, rules: StopRules, tell: Callable[[str, str], None], interrupted: threading.Event) -> None:
        """Wait until nothing that others train can be lost with them; let all end where the study itself is at its end."""
        if (reason := rules.reason or "").startswith((NOT_WORTH_IT, EXHAUSTED)):
            self.shared.stop(reason)
        if not interrupted.is_set() and (left := self.await_others(interrupted)):
            tell("end", f"{left} trial{' is' if left == 1 else 's are'} still under way at other workers")

    # -- spending ---------------------------------------------------------------------------------------------------------------------

    def elsewhere_joules(self) -> float:
        """Return what the other workers, dead ones included, had spent when they were last looked at."""
        return sum(state.joules for state in tuple(self.others.values()))

    def exchange(self, *, ended: bool = False) -> None:
        """Say what was spent here, and hear what was spent elsewhere."""
        with self._lock:
            if self.account is not None:
                opened = {str(number): joules for number, joules in self.account.open_joules().items()}
                own = self.account.own_joules()
                # A beat between two readings takes the power of a moment ago to go on; the closed bill has the last reading.
                joules = own if ended and own is not None else max(own or 0.0, self.state.joules)
                self.state = replace(self.state, beat=self.state.beat + 1, joules=joules, open_joules=opened, ended=ended)
                self.shared.note(self.state)
                self._noted = self.clock()
            states, self.stopped = self.shared.look()
            states.pop(self.state.id, None)
            self.others = states
            self._hear()

    def reserve(self, number: int, joules: float | None) -> None:
        """Say what a training that begins here is expected to take, None at its end: others do not begin what would not fit beside it."""
        with self._lock:
            kept = {one: expected for one, expected in self.state.expected_joules.items() if one != str(number)}
            self.state = replace(self.state, expected_joules={**kept, **({} if joules is None else {str(number): joules})})
            self.shared.note(self.state)

    def _free_joules(self, limits: Limits) -> float | None:
        """What is left of the budget beside what the trainings under way are expected to take yet; None without a budget."""
        spent = None if self.account is None else self.account.spent_joules()
        if limits.joules is None or spent is None:
            return None
        reserved = sum(one.reserved_joules for one in (self.state, *self.others.values()) if not one.ended)
        return limits.joules - spent - reserved

    def alike(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Return the trials that were measured on hardware like this worker's: energies of others are not compared with its own."""
        return [trial for trial in trials if trial.user_attrs.get(WORKER, {}).get("hardware_id") in (None, self.state.hardware_id)]

    def full(self, limits: Limits, trials: Sequence[Trial], stored: Sequence[FrozenTrial]) -> str | None:
        """Return why no further trial may begin anywhere, or None; under the lock of all workers.

        ``trials`` are those of this hardware, ``stored`` all of them as Optuna holds them.
        """
        self.exchange()
        if self._anyone_dead():  # a beat does not queue for the lock, which is held here
            self._bury()
        if limits.trials is not None and counted(trial for trial in stored if trial.state.name != "WAITING") >= limits.trials:
            return f"all {limits.trials} trials are done or under way"
        free = self._free_joules(limits)
        least = min((joules for trial in trials if trial.state == "complete" and (joules := trial.increment_joules)), default=0.0)
        if free is not None and least > free:
            return f"what is free of the budget of {limits.label} pays for no further training"
        return None

    def claim(
        self, limits: Limits, stored: Sequence[FrozenTrial], number: int, epochs: int, parent: Trial | None, expected: float | None
    ) -> Refusal | None:
        """Return why a trial that was asked for must not be trained here, or None: then what it is expected to take is reserved.

        Under the lock of all workers; ``stored`` are all trials, the one that was asked for among them.
        """
        refused = claimed(self.alike(stored), stored[number], epochs, None if parent is None else parent.number)
        free = self._free_joules(limits)
        if refused is None and free is not None and expected is not None and expected > free:
            wanted, left = (joules_text(joules) for joules in (expected, max(0.0, free)))
            refused = Refusal(f"it would take about {wanted}, and {left} of the budget is free")
        if refused is None:
            self.reserve(number, expected)
        return refused

    # -- who lives ----------------------------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        now = self.clock()
        # Who was away itself (no core, no database) has not listened meanwhile: that is at most one beat of silence.
        self._listened += 0.0 if self._looked is None else min(now - self._looked, self.beat_seconds)
        self._looked = now
        for id, state in self.others.items():
            if self._heard.get(id, (-1, 0.0))[0] != state.beat:
                self._heard[id] = state.beat, self._listened

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Keep the others from deciding meanwhile; yield whether that is so.

        A worker that was stopped in the middle of its decision keeps the lock. It is silent, too, and waited for until it counts as dead;
        then the claims of trials keep the others apart, and nobody waits longer than a beat before the lock was free once more.
        """
        until, stuck = time.monotonic() + LOCK_SECONDS, self._stuck
        while True:
            with self.shared.exclusive(min(self.beat_seconds, max(0.0, until - time.monotonic()))) as held:
                self._stuck = not held and (stuck or bool(self._quiet()))
                if held or self._stuck or time.monotonic() >= until:
                    yield held
                    return

    def _in_turn(self) -> contextlib.AbstractContextManager[object]:
        """Keep the others from deciding meanwhile, unless one of them has the lock for so long that it counts as dead."""
        return self.shared.exclusive(GRACE_BEATS * self.beat_seconds)

    def recording(self) -> contextlib.AbstractContextManager[object]:
        """Keep others from closing a trial or a bill while it is written; they wait only where they may take this worker for dead."""
        silent = self.clock() - self._noted > GRACE_BEATS / 2 * self.beat_seconds
        return self._in_turn() if silent else contextlib.nullcontext()

    def _beat(self) -> None:
        while not self._ended.wait(self.beat_seconds):
            with contextlib.suppress(Exception):  # the threads that train find out, and say so; this one must go on
                self.exchange()
                assert self.account is not None
                self.shared.save_bill(self.state.id, self.account.sessions())
                self.bury_dead(at_once=True)  # in the queue of those that decide it would be silent itself

    def _dead(self, trial: FrozenTrial) -> str | None:
        """Return the id of the dead worker that an open trial belongs to ("" for one that died before it said who it is), or None."""
        owner = trial.user_attrs.get(WORKER, {}).get("id")
        if owner is None:
            begun = self._unowned.setdefault(trial.number, self._listened)
            return "" if self._listened - begun > GRACE_BEATS * self.beat_seconds else None
        lives = owner == self.state.id or (owner in self.others and not self.others[owner].ended and not self._silent(owner))
        return None if lives else str(owner)

    def bury_dead(self, *, at_once: bool = False) -> list[int]:
        """Close the trials of dead workers, and their bills; return the numbers of the trials: none while others decide, if `at_once`."""
        if not self._anyone_dead():
            return []
        with self.shared.exclusive(0.0) if at_once else self.alone() as held:
            return self._bury() if held or not at_once else []

    def _quiet(self) -> list[WorkerState]:
        return [one for one in tuple(self.others.values()) if not one.ended and self._silent(one.id)]

    def _anyone_dead(self) -> bool:
        return bool(self._quiet()) or any(self._dead(trial) is not None for trial in running(self.shared))

    def _bury(self) -> list[int]:
        """Close what dead workers have left, under the lock of all workers."""
        with self._lock:
            self.exchange()
            dead = {trial.number: owner for trial in running(self.shared) if (owner := self._dead(trial)) is not None}
            taken = {n: self.others[owner].open_joules.get(str(n)) if owner in self.others else None for n, owner in dead.items()}
            found = fail_open_trials(self.shared.study, taken, only=set(dead))
            bills = self.shared.bills()
            for last in self._quiet():
                self.shared.note(replace(last, open_joules={}, expected_joules={}, ended=True))
                if any(not session.get("closed", True) for session in bills.get(last.id, ())):
                    self.shared.save_bill(last.id, close_without_journal(bills[last.id], last.joules, last.open_joules))
        return found

    def _silent(self, id: str) -> bool:
        return self._listened - self._heard.get(id, (0, self._listened))[1] > GRACE_BEATS * self.beat_seconds

    def await_others(self, interrupted: threading.Event) -> int:
        """Wait until no open trial can be that of a dead worker: each has ended, was closed, or its worker has beaten since.

        Return how many trials living workers still train.
        """
        before = {id: beat for id, (beat, _) in self._heard.items()}
        while True:
            self.exchange()
            self.bury_dead()
            opened = [trial for trial in running(self.shared) if trial.user_attrs.get(WORKER, {}).get("id") != self.state.id]
            owners = [trial.user_attrs.get(WORKER, {}).get("id") for trial in opened]
            if all(id in before and self._heard.get(id, (before[id], 0.0))[0] != before[id] for id in owners) or interrupted.is_set():
                return len(opened)
            before |= {id: self._heard[id][0] for id in owners if id in self._heard and id not in before}
            interrupted.wait(LOOK_SECONDS)

    def close(self) -> None:
        """Beat a last time, with the closed bill; whatever was left open here is closed."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(10.0)
        if self.account is None:
            return
        own = [trial for trial in running(self.shared) if trial.user_attrs.get(WORKER, {}).get("id") == self.state.id]
        left = {trial.number: self.state.open_joules.get(str(trial.number)) for trial in own}
        fail_open_trials(self.shared.study, left, only=set(left))
        with self.recording():  # who takes this worker for dead does not write an older bill over this one
            self.shared.save_bill(self.state.id, self.account.sessions(closed=True))
            self.exchange(ended=True)


def claimed(trials: Sequence[FrozenTrial], asked: FrozenTrial, epochs: int, parent: int | None) -> Refusal | None:
    """Return why a candidate must not be trained now though no trial has measured it: another worker does, or has gone further; or None.

    A lineage is one worker's at a time. What is trained from scratch to other epochs is another training. ``trials`` are those of like
    hardware, as they are under the lock of all workers.
    """
    alike = [trial for trial in trials if trial.user_attrs.get(KEY) == asked.user_attrs[KEY] and trial.number != asked.number]
    for trial in alike:
        resumes = trial.user_attrs.get(RESUME_FROM) is not None or parent is not None
        if trial.state.name == "RUNNING" and (resumes or trial.params.get("epochs") == epochs):
            return Refusal(f"trial {trial.number} trains the same candidate at another worker", excused=True)
        if parent is not None and trial.state.name == "COMPLETE" and trial.user_attrs.get(RESUME_FROM) == parent:
            return Refusal(f"trial {trial.number} has continued trial {parent} meanwhile", excused=True)
    return None


def ledger_copy(folder: RunFolder) -> LedgerCopy:
    """Begin to keep a copy of a worker's ledger beside the weights."""
    store = ArtifactStore(str(folder.facts["artifacts"]), str(folder.facts["run_id"]))
    return LedgerCopy(folder.ledger_file, store, f"ledger-{folder.facts['worker']}.jsonl")


def running(shared: SharedStudy) -> list[FrozenTrial]:
    """Return the trials that are under way at any worker."""
    return [trial for trial in shared.study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]
