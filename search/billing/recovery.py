"""What a killed session still owes: the ledger's last beat knows more than its last bill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..energy import Component, Record
from ..energy.journal import lines
from ..energy.record import sum_known
from ..records.bill import REPEAT, REPEATS, TRIAL, known_joules


def settle_killed(sessions: list[dict[str, Any]], ledger_file: Path) -> dict[int, float | None]:
    """Bring the bills of killed sessions up to the ledger's last beat, and book what they left open: trials as failed, repeats as such.

    Args:
        sessions: Sessions of a bill file; changed in place.
        ledger_file: The ledger's journal, with beats of at most five seconds.

    Returns:
        Joules by number of the trials that died with their session; None where the ledger does not know.
    """
    found: dict[int, float | None] = {}
    for session in sessions:
        if session.get("closed", True):
            continue
        beats, names = _last_beat(ledger_file, str(session.get("ledger_session")))
        open_trials: dict[str, float | None] = dict(session.get("open_trials_joules", {}))
        open_repeats: dict[str, float | None] = dict(session.get("open_repeats_joules", {}))
        failed = {number: joules or 0.0 for number, joules in open_trials.items()}
        if beats is not None:
            _extend_total(session, beats)
            for window in beats["open"]:
                kind, _, number = names.get(window["id"], "").partition(" ")
                if kind == TRIAL:
                    open_trials[number], failed[number] = _joules(window)
                elif kind == REPEAT:
                    open_repeats[number] = _joules(window)[1]
        found.update((int(number), joules) for number, joules in open_trials.items())
        states = session["by_state_joules"]
        for state, joules in (("failed", sum(failed.values())), (REPEATS, sum(joules or 0.0 for joules in open_repeats.values()))):
            if joules:
                states[state] = states.get(state, 0.0) + joules
        _balance(session)
        session.update(open_trials_joules={}, open_repeats_joules={}, closed=True)
    return found


def _last_beat(ledger_file: Path, ledger_session: str) -> tuple[Mapping[str, Any] | None, dict[str, str]]:
    """Return the last beat of a ledger's session, and the names by id of the windows that never ended."""
    last, names = None, {}
    if ledger_file.is_file():
        for event in lines(ledger_file):
            if str(event.get("session", "")) != ledger_session:
                continue
            if event["event"] == "open":
                names[event["record"]["id"]] = str(event["record"]["name"])
            elif event["event"] == "close":
                names.pop(event["record"]["id"], None)  # ended after the beat: its own record counts
            elif event["event"] == "beat":
                last = event
    return last, names


def _extend_total(session: dict[str, Any], beat: Mapping[str, Any]) -> None:
    """Take the beat's total when it is later than the bill's."""
    if session.get("total") is None:
        return
    known = Record.from_json(session["total"])
    if beat["t_ns"] > known.t1_ns:
        parts = tuple(Component.from_json(part) for part in beat["total"])
        later = replace(known, components=parts, t1_ns=int(beat["t_ns"]), seconds=(int(beat["t_ns"]) - known.t0_ns) / 1e9)
        session["total"] = later.to_json()
        if "split" in beat:
            session["by_component_joules"] = dict(beat["split"]["joules"])
            session["unknown_seconds"] = dict(beat["split"]["unknown_seconds"])


def _balance(session: dict[str, Any]) -> None:
    """Book what no trial and no rest accounts for (the stretch between bill and beat) as overhead."""
    if session.get("total") is None:
        return
    known, states = known_joules(session), session["by_state_joules"]
    if known:
        states["overhead"] = states.get("overhead", 0.0) + max(0.0, sum(known.values()) - sum(states.values()))


def _joules(window: Mapping[str, Any]) -> tuple[float | None, float]:
    """Return the energy of an open window at a beat, None when it is not known throughout, and what is known of it."""
    whole = sum_known(part["joules"] for part in window["components"] if part["counts"])
    return whole, float(window.get("known_joules", whole or 0.0))
