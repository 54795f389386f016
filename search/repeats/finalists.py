"""Which models of a run are measured again, and whether this machine may do it."""

from __future__ import annotations

from collections.abc import Sequence

from ..energy import Ledger, Record
from ..front import Front
from ..records.run_folder import Store, StoreError
from ..records.trial import Trial
from ..space import Space, Stored
from ..study import Study

MOST = 10


def finalists(front: Front, pick: str = "front", most: int = MOST) -> tuple[Trial, ...]:
    """Return the trials that a rule names, cheapest first.

    Args:
        front: Where to pick.
        pick: ``front`` for all members, or rules of `joulefront.search.front.pick` with commas between them.
        most: Of more members so many are taken, evenly spread from the cheapest to the best.

    Raises:
        ValueError: If the front is empty, a rule names nothing, or ``most`` is below 1.
    """
    if most < 1:
        raise ValueError(f"--most must be >= 1, got {most}")
    if pick.strip() != "front":
        picked = {trial.number: trial for trial in (front.pick(rule) for rule in pick.split(","))}
        return tuple(sorted(picked.values(), key=lambda trial: (trial.train_joules or 0.0, trial.number)))
    knee = front.knee()  # says why the front is empty, when it is
    members = front.members
    if len(members) <= most:
        return members
    if most == 1:
        return (knee,)
    return tuple(members[round(place * (len(members) - 1) / (most - 1))] for place in range(most))


def refuse_other_study(store: Store, study: Study, members: Sequence[Trial]) -> None:
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
    return space.key(space.sample(Stored(trial.params)))


def refuse_other_device(store: Store, device: str) -> None:
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


def refuse_other_machine(store: Store, members: Sequence[Trial], ledger: Ledger) -> None:
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
        if trial.record:
            before, now = _meters(Record.from_json(trial.record)), _meters(here)
            if set(before) != set(now) or any(now[name] not in before[name] for name in now):
                raise StoreError(
                    f"trial {trial.number} of {str(store.path)!r} was metered otherwise ({_said(before)}; now {_said(now)}); "
                    "give the --meter and --cpu-watts of the search"
                )


def _meters(record: Record) -> dict[str, str]:
    """How each component that counts is known: the meter, and for an estimate its coefficients."""
    return {
        part.name: f"{part.source} {part.reason or ''}".strip() if part.source == "cpu_time" else part.source
        for part in record.components
        if part.counts and part.joules is not None
    }


def _said(meters: dict[str, str]) -> str:
    return ", ".join(f"{name} by {how}" for name, how in sorted(meters.items())) or "nothing"
