"""What killed sessions still owe: the ledger's file knows more than their last bill, and may be all that is left of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..energy import Component, Record
from ..energy.journal import fitted, lines
from ..energy.record import add, scaled, sum_known
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
        names: Names by id of the outermost windows that never ended.
        ended: Outermost windows that ended; ``phases`` are those that ended within others, by the id of these, which are still open.
        joules: Of those that the journal holds no longer one by one: by the first word of their name and their state.
    """

    total: Record = NOTHING
    split: Mapping[str, Any] = field(default_factory=dict)
    open: list[Mapping[str, Any]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    ended: list[Record] = field(default_factory=list)
    phases: dict[str, list[Record]] = field(default_factory=dict)
    joules: Mapping[str, float] = field(default_factory=dict)

    def note(self, event: Mapping[str, Any]) -> None:
        """Take in one line; one that does not fit raises one of ``NOT_OURS`` and changes nothing."""
        kind, record = event["event"], event.get("record", {})
        if kind == "start":
            begin, hardware = int(event["t_ns"]), dict(event["hardware"])
            whole = Record(f"{event['session']}.0", "total", None, "total", "open", str(event["utc"]), begin, begin, 0.0)
            self.total = replace(whole, hardware_id=str(event["hardware_id"]), hardware=hardware)
        elif kind == "open":
            if record.get("parent") is None:
                self.names[record["id"]] = str(record["name"])
        elif kind == "close":
            if record["parent"] is None or record["parent"] in self.names:
                fitted(Record, record, "record")
                within = self.phases.setdefault(record["parent"], []) if record["parent"] in self.names else self.ended
                within.append(Record.from_json(record))
            self.names.pop(record["id"], None)  # ended after the checkpoint: its own record counts
            self.phases.pop(record["id"], None)
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

    Trials are booked as failed, repeats as such. Trainings that ended after the checkpoint have records of their own, which are added. What
    a session took beside them since, at most the time between two checkpoints, nobody knows.

    Sessions of the journal that the bill does not name were killed before their first bill, or the bill is lost: they are added.

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
    """Yield the session that the bill lacks, as if its last bill were of the last checkpoint or its start; none if nothing was measured."""
    whole = traces.total
    if not whole.components and (known := [*traces.ended, *chain(*traces.phases.values())]):
        whole = replace(whole, components=scaled(known[0], 0.0).components)
    if not whole.t0_utc or not any(part.joules is not None for part in whole.counting):
        return
    session = SessionBill(whole.t0_utc, total=whole, ledger_session=name, before=before, rebuilt="the ledger's file")
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


def close_without_journal(
    sessions: Iterable[Mapping[str, Any]], told_joules: float, open_joules: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """Return the sessions of a worker that died elsewhere, closed with what its bill says or, where that is more, its last word.

    Args:
        sessions: The sessions of its last bill.
        told_joules: What it had spent in all of them at its last word, which counts against the budget.
        open_joules: Of that, what its open trials had taken, by number: they have failed.
    """
    closed = [{**session, "by_state_joules": dict(session["by_state_joules"])} for session in sessions]
    known = [math.fsum(known_joules(session).values()) if session.get("total") else 0.0 for session in closed]
    for session, joules in zip(closed, known, strict=True):
        if session.get("closed", True):
            continue
        if joules > 0 and (more := told_joules - math.fsum(known)) > 0:
            parts, whole = known_joules(session), scaled(Record.from_json(session["total"]), 1 + more / joules)
            session |= {"by_component_joules": {name: one * (1 + more / joules) for name, one in parts.items()}}
            session |= {"total": replace(whole, seconds=session["total"]["seconds"]).to_json(), "open_trials_joules": open_joules}
        _settle(session, _Traces())
    return closed


def _settle(session: dict[str, Any], traces: _Traces) -> dict[int, float | None]:
    """Close the bill of one session; return what its open trials had taken, by number."""
    open_trials: dict[str, float | None] = dict(session.get("open_trials_joules", {}))
    open_repeats: dict[str, float | None] = dict(session.get("open_repeats_joules", {}))
    named = {TRIAL: open_trials, REPEAT: open_repeats}
    billed_open = {f"{kind} {number}": joules for kind, found in named.items() for number, joules in found.items()}
    late, states = _late(session, traces, billed_open), session["by_state_joules"]
    _extend_total(session, traces)
    newer, joules_since = session.get("total") is not None and session["total"]["t1_ns"] > traces.total.t1_ns, dict[str, float]()
    with suppress(*NOT_OURS):
        joules_since = _add_late(session, [*late, *chain(*traces.phases.values())], traces, billed_open)
    for record in late:
        kind, _, number = record.name.partition(" ")
        state = "idle" if record.kind == "idle" else {TRIAL: BOOKED.get(record.state, "failed"), REPEAT: REPEATS}.get(kind, "overhead")
        states[state] = states.get(state, 0.0) + record.known_joules
        named.get(kind, {}).pop(number, None)
    failed = {number: joules or 0.0 for number, joules in open_trials.items()}
    for window in () if newer else traces.open:
        with suppress(*NOT_OURS):
            kind, _, number = traces.names.get(window["id"], "").partition(" ")
            whole, known = _joules(window)
            if kind == TRIAL and number.isdecimal():
                open_trials[number], failed[number] = whole, known
            elif kind == REPEAT:
                open_repeats[number] = known
    for parent, phases in traces.phases.items():
        kind, _, number = traces.names[parent].partition(" ")
        since = math.fsum(joules_since.get(record.id, 0.0) for record in phases)
        if kind == TRIAL and number.isdecimal():
            failed[number] = failed.get(number, 0.0) + since
            open_trials[number] = None if (before := open_trials.get(number, 0.0)) is None else before + since
        elif kind == REPEAT:
            open_repeats[number] = (open_repeats.get(number) or 0.0) + since
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


def _late(session: Mapping[str, Any], traces: _Traces, billed_open: Collection[str]) -> list[Record]:
    """Return the outermost windows that have ended and that the last bill does not have, or has as open."""
    if session.get("total") is None:
        return []
    t1_ns, ended = Record.from_json(session["total"]).t1_ns, {record.name: record for record in traces.ended}  # the last of a name
    own = {record.id for name, record in ended.items() if name in billed_open and name not in traces.names.values()}
    return [record for record in traces.ended if record.t1_ns > t1_ns or record.id in own]


def _add_late(
    session: dict[str, Any], late: Iterable[Record], traces: _Traces, billed_open: Mapping[str, float | None]
) -> dict[str, float]:
    """Add to the total what windows took after its end; return that, by their ids.

    Of one that was open then it is what it took less what it had taken by then, or where nothing knows that, its share by time, which is
    right for a power that was even. Windows beside each other were billed apart, so that their joules add up.
    """
    if session.get("total") is None:
        return {}
    total = Record.from_json(session["total"])
    if total.t1_ns == traces.total.t1_ns:
        by_then = {window["id"]: _joules(window)[1] for window in traces.open}
    else:
        by_then = {record.id: joules for record in late if (joules := billed_open.get(record.name)) is not None}
    known, unknown = known_joules(session), dict(session.get("unknown_seconds", {}))
    parts, reached = [total], total.t1_ns
    for record in sorted((one for one in late if one.t1_ns > total.t1_ns), key=lambda one: one.t1_ns):
        share = min(1.0, (record.t1_ns - total.t1_ns) / max(record.t1_ns - record.t0_ns, 1))
        if share < 1.0 and record.id in by_then and record.known_joules:
            share = max(0.0, 1.0 - by_then[record.id] / record.known_joules)
        # The time of windows beside each other passes once.
        parts.append(replace(scaled(record, share), seconds=(record.t1_ns - max(record.t0_ns, reached)) / 1e9))
        reached = record.t1_ns
        for part in parts[-1].counting:
            if part.joules is not None:
                known[part.name] = known.get(part.name, 0.0) + part.joules
            else:
                unknown[part.name] = unknown.get(part.name, 0.0) + parts[-1].seconds
    if len(parts) > 1:
        whole = add([replace(part, hardware_id=total.hardware_id) for part in parts])
        session["total"] = replace(total, components=whole.components, t1_ns=reached, seconds=whole.seconds).to_json()
        session.update(by_component_joules=known, unknown_seconds=unknown)
    return {part.id: part.known_joules for part in parts[1:]}


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
