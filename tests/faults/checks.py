"""What must be true of a run folder after each kill and at the end; each check returns what is wrong, in sentences."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joulefront.search.energy.sources.cpu_coefficients import DEFAULT_CORE_WATTS
from joulefront.search.front import Front
from joulefront.search.records.bill import known_joules
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.trial import KEY, Trial, from_optuna
from joulefront.search.samplers.history import EPOCHS_REACHED

from .processes import ledger_events, ledger_joules

#: What a session may have spent in one checkpoint before it made one: five seconds of two cores.
FIRST_CHECKPOINT_JOULES = 5.0
#: A ledger's checkpoints are so far apart; on a busy machine its thread may be late by so much.
CHECKPOINT_SECONDS, LATE_SECONDS = 5.0, 2.5
#: What this machine can take by the estimate from CPU-seconds.
LARGEST_WATTS = (os.cpu_count() or 1) * DEFAULT_CORE_WATTS
#: Between two numbers that should be equal lie the readings of a moment.
SMALL_JOULES = 0.5


@dataclass
class Watch:
    """Remembers a run folder between the kills.

    Attributes:
        path: The run folder.
        worst_joules: Most that a settled session's bill and ledger were apart.
        worst_seconds: Longest time by which a killed session's bill was later than the last checkpoint of its ledger.
        ledgers: Joules by session of the ledger, as they were last seen: the file may be shortened when sessions are settled.
        ended: Sessions of the ledger that ended by themselves: nothing of them may be missing.
        last_ns: When the ledger of each session was written last.
    """

    path: Path
    worst_joules: float = 0.0
    worst_seconds: float = 0.0
    ledgers: dict[str, list[float]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    last_ns: dict[str, int] = field(default_factory=dict)
    _finished: dict[int, str] = field(default_factory=dict)
    _running: set[int] = field(default_factory=set)
    _billed: float = 0.0

    def after_kill(self) -> list[str]:
        """Check a folder on which nobody works: its last session was killed and is not settled, all before it are."""
        self._remember()
        return [*self.trials(), *self.bill(unsettled=1)]

    def at_end(self) -> list[str]:
        """Check a folder whose study has ended normally."""
        self._remember()
        trials = self.stored_trials()
        left = [f"trial {trial.number} is running for ever" for trial in trials if trial.state == "running"]
        files = [file.name for file in self.path.rglob("*") if file.suffix in (".tmp", ".part")]
        return [*left, *self.trials(), *self.bill(unsettled=0), *self.books(trials), *(f"{name} was left behind" for name in files)]

    def _remember(self) -> None:
        self.ended |= {str(event["session"]) for event in ledger_events(self.path / "ledger.jsonl") if event["event"] == "stop"}
        self.last_ns |= {str(event["session"]): event["t_ns"] for event in ledger_events(self.path / "ledger.jsonl") if "t_ns" in event}
        for session, joules in ledger_joules(self.path / "ledger.jsonl").items():
            if len(joules) >= len(self.ledgers.get(session, [])):
                self.ledgers[session] = joules

    def stored_trials(self) -> list[Trial]:
        """Read the trials from the storage itself."""
        return [from_optuna(trial) for trial in RunFolder.open(self.path).study().get_trials(deepcopy=False)]

    def trials(self) -> list[str]:
        """No trial is lost, changed, doubled or running for ever; no lineage is trained twice; the front is right and has its weights."""
        folder = RunFolder.open(self.path)
        stored = folder.study().get_trials(deepcopy=False)
        trials = [from_optuna(trial) for trial in stored]
        wrong = []
        if [trial.number for trial in trials] != list(range(len(trials))):
            wrong.append("the numbers of the trials have gaps or doubles")
        facts = {trial.number: repr((trial.state, trial.values, trial.facts())) for trial in trials if trial.state != "running"}
        wrong += [f"finished trial {n} was lost or changed" for n, known in self._finished.items() if facts.get(n) != known]
        running = {trial.number for trial in trials if trial.state == "running"}
        wrong += [f"trial {n} still runs after its session was killed and settled" for n in sorted(running & self._running)]
        self._finished, self._running = facts, running
        paid = Counter(
            (one.user_attrs[KEY], one.user_attrs[EPOCHS_REACHED])
            for one, trial in zip(stored, trials, strict=True)
            if trial.state == "complete" and "copy_of" not in trial.extra
        )
        wrong += [f"one candidate was trained {count} times to {key[1]} epochs" for key, count in paid.items() if count > 1]
        children = Counter(trial.parent for trial in trials if trial.state == "complete" and "copy_of" not in trial.extra)
        wrong += [f"trial {n} was continued {count} times" for n, count in children.items() if n is not None and count > 1]
        wrong += [
            f"trial {trial.number} goes on from trial {trial.parent}, which has as many epochs"
            for trial in trials
            if trial.state == "complete" and trial.parent is not None and trials[trial.parent].epochs >= trial.epochs
        ]
        return wrong + front_is_wrong(folder, trials)

    def bill(self, unsettled: int) -> list[str]:
        """A killed session's bill is within a checkpoint of its ledger, any other is its ledger; parts add up, and nothing is lost later.

        Args:
            unsettled: Number of the last sessions that the next start will settle.
        """
        file = self.path / "bill.json"
        sessions = json.loads(file.read_text())["sessions"] if file.is_file() else []
        wrong = []
        billed = {str(session["ledger_session"]): session for session in sessions}
        if len(billed) < len(sessions):
            wrong.append("two sessions of the bill have one name in the ledger")
        settled = list(self.ledgers)[: len(self.ledgers) - unsettled]
        total = 0.0
        for name in settled:
            known = self.ledgers[name]
            session = billed.get(name)
            joules = 0.0 if session is None or session.get("total") is None else sum(known_joules(session).values())
            joules -= (({} if session is None else session.get("before")) or {}).get("joules") or 0.0  # what no ledger has seen
            total += joules
            steps = [after - before for before, after in itertools.pairwise(known)]
            checkpoint = max(steps, default=0.0) or FIRST_CHECKPOINT_JOULES
            # The bill is written after the ledger's checkpoint, and at the end of each training: it may know a checkpoint more.
            later = 0.0 if session is None or session.get("total") is None else (session["total"]["t1_ns"] - self.last_ns[name]) / 1e9
            more = max(checkpoint, max(later, 0.0) * LARGEST_WATTS)
            allowed = SMALL_JOULES + (0.01 * known[-1] if name in self.ended else more)
            apart = abs(known[-1] - joules)
            self.worst_joules, self.worst_seconds = max(self.worst_joules, apart), max(self.worst_seconds, later)
            if later > CHECKPOINT_SECONDS + LATE_SECONDS:
                wrong.append(f"session {name}: its bill is {later:.1f} s later than its ledger's last checkpoint")
            if session is None and known[-1] > 0:
                wrong.append(f"session {name} is not in the bill: {known[-1]:.1f} J")
            elif apart > allowed:
                wrong.append(
                    f"session {name}: {joules:.1f} J in the bill, {known[-1]:.1f} J in the ledger, a checkpoint is {allowed:.1f} J"
                )
            if session is not None and not session["closed"]:
                wrong.append(f"session {name} was not settled by the next start")
        for name, session in billed.items():
            if name in settled and session.get("total") is not None:
                parts, whole = sum(session["by_state_joules"].values()), sum(known_joules(session).values())
                if abs(parts - whole) > 1e-6 * max(1.0, whole):
                    wrong.append(f"session {name}: its states add up to {parts:.3f} J, its components to {whole:.3f} J")
        if total < self._billed - 1e-9:
            wrong.append(f"the bill has shrunk from {self._billed:.1f} J to {total:.1f} J")
        self._billed = total
        return wrong

    @property
    def ledger_total(self) -> float:
        return sum(known[-1] for known in self.ledgers.values())

    @property
    def bill_total(self) -> float:
        return self._billed

    def books(self, trials: Sequence[Trial]) -> list[str]:
        """The trials' increments are the trial states of the bill."""
        states: dict[str, float] = {}
        for session in json.loads((self.path / "bill.json").read_text())["sessions"]:
            for state, joules in session["by_state_joules"].items():
                states[state] = states.get(state, 0.0) + joules
        booked = sum(states.get(state, 0.0) for state in ("complete", "stopped", "pruned", "failed"))
        paid = sum(trial.increment_joules or 0.0 for trial in trials)
        if abs(booked - paid) > max(SMALL_JOULES, 0.02 * paid):
            return [f"the trials have paid {paid:.2f} J, the bill has {booked:.2f} J for them"]
        return []


def front_is_wrong(folder: RunFolder, trials: Sequence[Trial]) -> list[str]:
    """Compare the front with the definition, and look for the weights of its members."""
    front = Front.of(folder.run())
    signs = [1.0 if direction == "maximize" else -1.0 for direction in front.directions]
    points = {t.number: tuple(s * v for s, v in zip(signs, t.values, strict=True)) for t in trials if t.state == "complete"}
    best = {a for n, a in points.items() if not any(dominates(b, a) for b in points.values())}
    members = {trial.number: trial for trial in front}
    wrong = []
    if {points.get(number) for number in members} != best:
        wrong.append(f"the front is {sorted(members)}, by brute force {sorted(n for n, a in points.items() if a in best)}")
    wrong += [
        f"trial {number} is on the front and has no weights"
        for number, trial in members.items()
        if not folder.artifact(original(trial.extra, number)).exists()
    ]
    return wrong


def original(extra: Mapping[str, Any], number: int) -> int:
    """Number of the trial that was trained: a duplicate has no weights of its own."""
    return int(extra.get("copy_of", number))


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether one point is nowhere worse and somewhere better; larger is better."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)
