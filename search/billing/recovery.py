"""What killed sessions still owe: the ledger's last checkpoint knows more than their last bill, and may be all that is left of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..energy import Component, Record
from ..energy.journal import fitted, lines
from ..energy.record import add, sum_known
from ..records.bill import REPEAT, REPEATS, TRIAL, SessionBill, known_joules
from ..records.replicates import Repeat
from ..records.trial import Trial
from .account import BOOKED

#: What a line raises that is valid JSON and was not written by a ledger.
NOT_OURS = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError)

#: Of a session whose first line is missing.
NOTHING = Record("", "total", None, "total", "open", "", 0, 0, 0.0)


@dataclass
class _Traces:
    """What the journal holds of one session.

    Attributes:
        total: Everything up to the last checkpoint, or the end; without components until one is read.
        split: What is known of each component by then, and for how long it was not; empty when the journal does not say.
        open: Windows that were open at the last checkpoint.
        names: Names by id of the windows that never ended.
        ended: Outermost windows that ended.
        joules: Of those that the journal holds no longer one by one: by the first word of their name and their state.
    """

    total: Record = NOTHING
    split: Mapping[str, Any] = field(default_factory=dict)
    open: list[Mapping[str, Any]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    ended: list[Record] = field(default_factory=list)
    joules: Mapping[str, float] = field(default_factory=dict)

    def note(self, event: Mapping[str, Any]) -> None:
        """Take in one line; one that does not fit raises one of ``NOT_OURS`` and changes nothing."""
        kind, record = event["event"], event.get("record", {})
        if kind == "start":
            begin, hardware = int(event["t_ns"]), dict(event["hardware"])
            whole = Record(f"{event['session']}.0", "total", None, "total", "open", str(event["utc"]), begin, begin, 0.0)
            self.total = replace(whole, hardware_id=str(event["hardware_id"]), hardware=hardware)
        elif kind == "open":
            self.names[record["id"]] = str(record["name"])
        elif kind == "close":
            self.names.pop(record["id"], None)  # ended after the checkpoint: its own record counts
            if record["parent"] is None:
                self.ended.append(Record.from_json(record))
        elif kind == "ended":
            self.joules = event["joules"]
        elif kind == "stop":
            self._reached(int(event["t_ns"]), tuple(Component.from_json(part) for part in record["components"]), {}, [])
        elif kind == "beat":
            parts = tuple(Component.from_json(part) for part in event["total"])
            split = {name: dict(event["split"][name]) for name in ("joules", "unknown_seconds")} if "split" in event else {}
            self._reached(int(event["t_ns"]), parts, split, [*event["open"]])

    def _reached(self, t_ns: int, parts: tuple[Component, ...], split: Mapping[str, Any], windows: list[Mapping[str, Any]]) -> None:
        self.total = replace(self.total, components=parts, t1_ns=t_ns, seconds=(t_ns - self.total.t0_ns) / 1e9)
        self.split, self.open = split, windows


def settle_killed(sessions: list[dict[str, Any]], ledger_file: Path, noted: Iterable[Mapping[str, Any]] = ()) -> dict[int, float | None]:
    """Bring the bills of killed sessions up to the ledger's last checkpoint, and book what they left open.

    Trials are booked as failed, repeats as such. Sessions of the journal that the bill does not name were killed before their first bill,
    or the bill is lost: they are added.

    Args:
        sessions: Sessions of a bill file; changed in place.
        ledger_file: The ledger's journal, with checkpoints of at most five seconds.
        noted: What ``study.json`` says of the sessions: what their processes took before the ledger.

    Returns:
        Joules by number of the trials of killed sessions, None where the ledger does not know: of those that died with their session,
        and of those that had ended, since the session may have died before it stored them.
    """
    billed, owing = {_name(session) for session in sessions}, {_name(session) for session in sessions if not session.get("closed", True)}
    journal, before = _read(ledger_file, billed - owing), {str(one.get("ledger_session")): one.get("before") for one in noted}
    if "" not in billed:  # which of the journal's sessions one without a name is, nobody can tell: none is billed twice
        sessions += [one for name, traces in journal.items() if name not in billed for one in _unbilled(name, traces, before.get(name))]
    found: dict[int, float | None] = {}
    for session in sessions:
        if not session.get("closed", True):
            traces = journal.get(_name(session), _Traces())
            ended = {record.name.removeprefix(f"{TRIAL} "): record.joules for record in traces.ended}
            own = {int(number): joules for number, joules in ended.items() if number.isdecimal()}
            found |= _settle(session, traces) | own  # a record of its own knows more than the checkpoint before it
    return found


def _read(ledger_file: Path, settled: Collection[str]) -> dict[str, _Traces]:
    """Return what the journal holds of the sessions that are not settled, by name."""
    found: dict[str, _Traces] = {}
    if ledger_file.is_file():
        for event in lines(ledger_file, settled):
            with suppress(*NOT_OURS):
                found.setdefault(str(event["session"]), _Traces()).note(event)
    return found


def _name(session: Mapping[str, Any]) -> str:
    """Return the name in the journal of a session of the bill; one that ended before its first trial has it in its total alone."""
    return str(session.get("ledger_session") or (session.get("total") or {}).get("id", "")).partition(".")[0]


def _unbilled(name: str, traces: _Traces, before: Mapping[str, float | None] | None) -> Iterator[dict[str, Any]]:
    """Yield the session that the bill lacks, as if its last bill were of the last checkpoint; none if nothing was measured."""
    if not traces.total.t0_utc or not any(part.joules is not None for part in traces.total.counting):
        return
    session = SessionBill(traces.total.t0_utc, total=traces.total, ledger_session=name, before=before, rebuilt="the ledger's file")
    if traces.split:
        session.by_component = session.with_before(traces.split["joules"], "cpu")
        session.unknown_seconds = traces.split["unknown_seconds"]
    known = [record for record in traces.ended if record.t1_ns <= traces.total.t1_ns]
    one_by_one = [(f"{record.name.partition(' ')[0]} {record.state}", record.known_joules) for record in known]
    for ended, joules in (*traces.joules.items(), *one_by_one):
        kind, _, state = ended.partition(" ")
        if kind in (TRIAL, REPEAT):
            state = REPEATS if kind == REPEAT else BOOKED.get(state, "failed")
            session.by_state[state] = session.by_state.get(state, 0.0) + joules
    yield session.to_json()


def from_records(sessions: Iterable[Mapping[str, Any]], trials: Iterable[Trial], repeats: Iterable[Repeat]) -> list[dict[str, Any]]:
    """Return bills of the sessions that these lack: what trainings say of theirs, a lower bound; without a name if no session is known."""
    billed, found = {_name(session) for session in sessions}, dict[str, SessionBill]()

    def book(name: str, state: str, record: Record) -> None:
        if name in billed or "" in billed or (name in ("trials", "repeats") and billed):
            return
        bill = found.setdefault(name, SessionBill(record.t0_utc, ledger_session=name, closed=True, rebuilt="records of trainings"))
        bill.total = record if bill.total is None else add([bill.total, record])
        for part in record.counting:
            if part.joules is not None:
                bill.by_component[part.name] = bill.by_component.get(part.name, 0.0) + part.joules
        bill.by_state[state] = bill.by_state.get(state, 0.0) + record.known_joules

    for trial in trials:
        with suppress(*NOT_OURS):
            whole = fitted(Record, trial.energy.record, "record") if trial.energy.record else _only(trial.increment_joules)
            state = "failed" if trial.state == "failed" else BOOKED.get(whole.state, "failed")
            book(whole.id.partition(".")[0] or "trials", state, whole)
    for one in repeats:
        with suppress(*NOT_OURS):
            book(one.ledger_session or "repeats", REPEATS, _only(one.spent_joules))
    return [bill.to_json() for bill in found.values() if any(bill.by_state.values())]


def _only(joules: float | None) -> Record:
    """Return a record of a training of which no more is known than this."""
    return replace(NOTHING, components=(Component("unknown", joules, "trainings", "mixed"),))


def close_without_journal(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return a session of a worker that died elsewhere, closed with what its last bill says: its open trials have failed."""
    if session.get("closed", True):
        return dict(session)
    closed = {**session, "by_state_joules": dict(session["by_state_joules"])}
    _settle(closed, _Traces())
    return closed


def _settle(session: dict[str, Any], traces: _Traces) -> dict[int, float | None]:
    """Close the bill of one session; return what its open trials had taken, by number."""
    _extend_total(session, traces)
    open_trials: dict[str, float | None] = dict(session.get("open_trials_joules", {}))
    open_repeats: dict[str, float | None] = dict(session.get("open_repeats_joules", {}))
    failed = {number: joules or 0.0 for number, joules in open_trials.items()}
    for window in traces.open:
        with suppress(*NOT_OURS):
            kind, _, number = traces.names.get(window["id"], "").partition(" ")
            whole, known = _joules(window)
            if kind == TRIAL and number.isdecimal():
                open_trials[number], failed[number] = whole, known
            elif kind == REPEAT:
                open_repeats[number] = known
    states = session["by_state_joules"]
    for state, joules in (("failed", sum(failed.values())), (REPEATS, sum(joules or 0.0 for joules in open_repeats.values()))):
        if joules:
            states[state] = states.get(state, 0.0) + joules
    _balance(session)
    session.update(open_trials_joules={}, open_repeats_joules={}, closed=True)
    return {int(number): joules for number, joules in open_trials.items()}


def _extend_total(session: dict[str, Any], traces: _Traces) -> None:
    """Take the journal's total when it is later than the bill's."""
    if session.get("total") is None or not traces.total.components:
        return
    known, t1_ns = Record.from_json(session["total"]), traces.total.t1_ns
    if t1_ns > known.t1_ns:
        later = replace(known, components=traces.total.components, t1_ns=t1_ns, seconds=(t1_ns - known.t0_ns) / 1e9)
        session["total"] = later.to_json()
        if traces.split:
            before = SessionBill("", before=session.get("before"))
            session["by_component_joules"] = before.with_before(traces.split["joules"], "cpu")
            session["unknown_seconds"] = dict(traces.split["unknown_seconds"])


def _balance(session: dict[str, Any]) -> None:
    """Let the states add up to the components: what no trial and no rest accounts for (after the last bill) is overhead.

    The last bill may also have shared out more than there was: the power since the last reading was a guess then. The rests give that
    back, and only then a training.
    """
    if session.get("total") is None or not (known := known_joules(session)):
        return
    states: dict[str, float] = session["by_state_joules"]
    left = math.fsum([*known.values(), *(-joules for joules in states.values())])
    for state in ("overhead", "idle", "unattributed", "failed", *states):
        given = min(max(-left, 0.0), states.get(state, 0.0))
        if given:
            states[state], left = states[state] - given, left + given
    states["overhead"] = states.get("overhead", 0.0) + max(0.0, left)


def _joules(window: Mapping[str, Any]) -> tuple[float | None, float]:
    """Return the energy of an open window at a checkpoint, None when it is not known throughout, and what is known of it."""
    whole = sum_known(part["joules"] for part in window["components"] if part["counts"])
    return whole, float(window.get("known_joules", whole or 0.0))
