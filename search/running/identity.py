"""Which run folder a session may use: a new one, or one of the same study, space, seed and data, with a sampler that can continue it.

Points of other data or of another space have no place on a front; a fingerprint of both, a few numbers, is kept in the folder, as is what
each session was: when, where, with what and by which command it measured, and why it ended.
"""

from __future__ import annotations

import os
import platform
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..carbon.intensity import Intensity
from ..certainty import folds_in, splits_in
from ..energy import Ledger
from ..energy.journal import fitted, parse
from ..energy.sources.cpu_time import estimates_in
from ..records.files import Guess, StudyFile, read_json, text_of
from ..records.run_folder import FORMAT, RunFolder, StoreError
from ..records.shared_study import SharedStudy, WorkerState, check_place, new_worker
from ..records.trial import Trial
from ..study import Study
from ..threads import WAIT_POLICY
from ..training.task import Task
from .fingerprint import alike, differences, of_space, of_task
from .membership import GRACE_BEATS

#: Packages whose version changes what a training takes or reaches.
LIBRARIES = ("joulefront", "torch", "torchvision", "timm", "scikit-learn", "scipy", "lightgbm", "xgboost", "catboost")
#: Packages that results depend on. What pandas reads otherwise is other data, which are refused.
PACKAGES = (*LIBRARIES, "optuna", "numpy", "pandas", "codecarbon", "nvidia-ml-py")
REMEDY = "models that were measured otherwise do not belong on one front: give a new --out (Python: out) to start afresh"


def described(study: Study) -> dict[str, Any]:
    """Return what ``study.json`` holds of a study."""
    return {
        "name": study.name,
        "objectives": list(study.objectives),
        "directions": list(study.directions),
        "rungs": list(study.rungs or ()),  # none until the data is known
        "sampler": study.sampler,
        "seed": study.seed,
        "space": study.space.name,
        "description": study.description,
        "min_accuracy": study.min_accuracy,
        "complete_only": study.complete_only,
        "weights": [dict(one) for one in study.weights],
    }


def estimate_file(path: Path) -> Path:
    """Return where `joulefront estimate` keeps what a run in this folder is expected to cost: beside it."""
    path = Path(os.path.realpath(path))  # that of "." has a name; links that loop are left as they are
    return path.parent / f"{path.name}.estimate.json"


@contextmanager
def existing_folder(path: str | Path) -> Iterator[RunFolder]:
    """Open an existing run folder that no other session can write meanwhile.

    Raises:
        StoreError: If there is no readable run, or another process holds it.
    """
    with RunFolder.open(path).lock():
        yield RunFolder.open(path)  # as the session before left it, now that no other can write


@contextmanager
def study_folder(
    path: Path,
    study: Study,
    storage: str | None,
    intensity: Intensity | None,
    pue: float,
    price_per_kwh: tuple[float, str] | None,
    origin: Mapping[str, Any] | None,
    *,
    forecast: bool = False,
    artifacts: str | None = None,
    beat_seconds: float = 5.0,
) -> Iterator[RunFolder]:
    """Open and lock the folder of a run that continues, or make a new one, which is removed again if its start is refused.

    With a forecast grams follow it by the hour, and the intensity is its mean over what is ahead. A new folder with a storage joins the
    study of this name there, or makes it: for the workers to come it keeps its files in ``artifacts`` and says every ``beat_seconds`` that
    it lives. What workers of one study would have to share of a forecast, grams by the hour, is kept in a folder alone.

    Raises:
        StoreError: If the folder holds another study, or cannot be used.
    """
    with ExitStack() as kept:
        if RunFolder.exists(path):
            store = RunFolder.open(path, storage=storage)
            refuse_other_study(store, study)
            _refuse_other_factor(store, intensity, forecast=forecast)
        else:
            missing = [parent for parent in path.parents if not parent.exists()]
            guess = estimate_file(path)
            facts = {
                "estimate": read_json(guess, Guess, "delete it, or make it again: joulefront estimate") if guess.exists() else None,
                "run_id": f"{study.name}-{uuid.uuid4().hex[:8]}",
                "study": described(study),
                "origin": dict(origin) if origin else None,
                "intensity": None if intensity is None else asdict(intensity),
                "pue": pue,
                "price_per_kwh": None if price_per_kwh is None else list(price_per_kwh),
                "carbon": [] if forecast else None,
                "sessions": [],
            }
            if storage is not None:
                place = check_place(artifacts or str(path / "shared"))
                facts |= {"shared": study.name, "worker": new_worker(), "artifacts": place, "beat_seconds": beat_seconds}
            store = RunFolder.create(path, facts, storage=storage)
            kept.enter_context(_removed_if_refused(store, missing))
            if storage is not None:
                _join(store, study)
        kept.enter_context(store.lock())
        store = RunFolder.open(path, storage=storage)
        if artifacts is not None and "shared" in store.facts:  # where this machine reaches what the others may reach elsewhere
            store = store.save_facts({**store.facts, "artifacts": check_place(str(artifacts))})
        yield store


@contextmanager
def _removed_if_refused(store: RunFolder, made: Sequence[Path]) -> Iterator[None]:
    """Remove a new folder, and those ``made`` around it, after an error before its first session."""
    try:
        yield
    except Exception:  # not when the user broke it off: what that cost is on the study's bill
        if RunFolder.exists(store.path) and not RunFolder.open(store.path).facts["sessions"]:
            if "shared" in store.facts:
                with suppress(Exception):  # where the storage is the reason
                    SharedStudy(store.study()).note(WorkerState(store.facts["worker"], "", ended=True))
            shutil.rmtree(store.path)  # it would count as a run
            with suppress(OSError):  # something else is in them
                for parent in made:
                    parent.rmdir()
        raise


def _join(store: RunFolder, study: Study) -> None:
    """Take over what the study of this name in the storage is, or make it; refuse another study, and one of another program."""
    shared, name = SharedStudy(store.study()), study.name

    def begun() -> bool:  # a start that has failed before its first trial leaves nothing to join
        at_work = any(not state.ended or state.joules for state in shared.look()[0].values())
        return bool(shared.study.get_trials(deepcopy=False)) or bool(shared.description() and at_work)

    if not begun():  # else nothing is made, and nobody waited for: a worker that was stopped may have the lock
        with shared.exclusive(GRACE_BEATS * float(store.facts["beat_seconds"])):  # held for the next lines alone, not while data is loaded
            if not begun():
                told = {key: store.facts.get(key) for key in ("run_id", "study", "origin", "artifacts", "beat_seconds")}
                shared.describe({**told, "format": FORMAT, "versions": versions()})
                return shared.note(WorkerState(store.facts["worker"], ""))  # whoever begins at the same time joins, with the same artifacts
    if (known := shared.description()) is None:
        raise StoreError(f"--storage has a study {name!r} of another program; give another --name (Python: the name of the study)")
    _compare_versions(name, known)
    store = store.save_facts({**store.facts, **known, "joined": True})
    try:
        refuse_other_study(store, study)
    except StoreError as error:
        raise StoreError(f"--storage has another study {name!r}: {error}, or another --name (Python: the name of the study)") from error


def _compare_versions(name: str, known: Mapping[str, Any]) -> None:
    """Refuse a shared study in another format, and warn of libraries other than those that it was begun with."""
    there = known.get("versions") or {}
    if (theirs := known.get("format", FORMAT)) != FORMAT:
        remedy = f"train with joulefront {there.get('joulefront', 'of the version that began it')} here, too, or give another --name"
        raise StoreError(f"the study {name!r} in --storage must be in format {FORMAT}, got {theirs}; {remedy}")
    _warn_of_versions(f"the study {name!r} was begun", there)


def _warn_of_versions(what: str, there: Mapping[str, str]) -> None:
    here = versions()
    apart = [one for one in LIBRARIES if one in there and here.get(one) != there[one]]
    if others := [f"{one} {here.get(one, 'missing')} for {there[one]}" for one in apart]:
        said = "the same training may take another energy and reach another quality here"
        warnings.warn(f"{what} with other versions ({', '.join(others)}): {said}", stacklevel=3)


def _refuse_other_factor(store: RunFolder, intensity: Intensity | None, *, forecast: bool) -> None:
    """Refuse grams by one number where they follow a forecast, and the reverse."""
    known = store.facts.get("intensity")
    if (store.facts.get("carbon") is not None) != forecast and (known or intensity):
        was, now, remedy = "a forecast", "one number or none", "add --forecast"
        if forecast:
            was, now, remedy = "one number" if known else "nothing", "a forecast", "leave out --forecast"
        raise StoreError(f"the grams of {str(store.path)!r} follow {was}, now {now} is given; {remedy}, or give a new --out")


def refuse_other_study(store: RunFolder, study: Study) -> None:
    """Refuse what can be seen before the data is loaded.

    Raises:
        StoreError: If objectives, rungs, space or seed differ, or the sampler cannot continue the trials that are there.
    """
    before, now, folder = store.facts["study"], described(study), repr(str(store.path))
    if missing := {"space", "seed", "sampler"} - before.keys():
        raise StoreError(f"{folder}: study.json must say the {min(missing)} of its study, got none; restore it from a copy")
    for name in ("objectives", "rungs", "space"):
        if before[name] != now[name] and not (name == "rungs" and [] in (before[name], now[name])):
            quality = name == "objectives" and before[name][:1] != now[name][:1]
            why = f": {before[name][0]} and {now[name][0]} are of other --metric, --target or data" if quality else ""
            raise StoreError(f"{folder} holds a study with other {name} ({before[name]}, now {now[name]}){why}; {REMEDY}")
    if not store.facts["sessions"] and not store.facts.get("joined"):  # nothing was trained: an earlier start has failed
        return
    if before["seed"] != now["seed"]:
        raise StoreError(
            f"{folder} was begun with seed {before['seed']}, now it is {now['seed']}: splits, weights and twins follow the seed. "
            f"Give --seed {before['seed']} (Python: seed={before['seed']}), or a new --out (Python: out)"
        )
    if _epochs_of(before["sampler"]) != _epochs_of(now["sampler"]):
        raise StoreError(
            f"{folder} was searched by {before['sampler']}, whose trials have their epochs from {_epochs_of(before['sampler'])}; "
            f"{now['sampler']} draws them from {_epochs_of(now['sampler'])} and cannot go on from there. "
            f"Give --sampler {before['sampler']} (Python: sampler={before['sampler']!r}), or a new --out (Python: out)"
        )
    known = store.facts.get("fingerprint", {}).get("space")
    if known is not None and (found := differences(known, of_space(study.space))):
        shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        raise StoreError(f"{folder} holds candidates of another space ({shown}); {REMEDY}")


def refuse_other_meters(store: RunFolder, trials: Iterable[Trial], ledger: Ledger) -> None:
    """Refuse what makes energies of this session no energies of the earlier ones.

    Raises:
        StoreError: If CPU and memory were counted by other meters, as by RAPL before a restart that took its permission away and by an
            estimate after it; or estimated by other watts per busy CPU.
    """
    here = [trial.energy.record for trial in trials if trial.hardware_id in (None, ledger.hardware_id)]
    total, folder = ledger.total(), repr(str(store.path))
    meters, own = {found for record in here if (found := _meters_in(record))}, _meters_in(total.to_json())
    if meters and own not in meters:
        lost = " ".join(set(min(meters)).difference(own))
        why = [f"{part.source}: {part.reason}" for part in total.components if part.quality == "absent" and f" by {part.source} " in lost]
        raise StoreError(
            f"the energies of {folder} were counted as {', '.join(min(meters))}, now as {', '.join(own) or 'nothing'}: they do not belong "
            f"on one front. Let joulefront doctor say how to read the same again{f' ({why[0]})' if why else ''}, or give a new --out"
        )
    before, now = {found for record in here for found in estimates_in(record)}, estimates_in(total.to_json())
    if before and not now <= before:
        watts = float(min(before).split()[0]) * (os.cpu_count() or 1)
        raise StoreError(
            f"the energies of {folder} were estimated by {min(before)}, now by {min(now)}: they do not belong on one front. "
            f"Go on with --cpu-watts {watts:g} (that for all logical CPUs), or give a new --out"
        )


def _meters_in(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return by which meter each kind of part in a record's sum (JSON) was counted; GPUs aside, which `note_session` tells apart."""
    parts = record.get("components")
    known = [part for part in parts if isinstance(part, Mapping) and part.get("counts")] if isinstance(parts, list | tuple) else []
    counting = [(str(part.get("name")).split(":")[0], part) for part in known]
    return tuple(sorted({f"{kind} by {part.get('source')} ({part.get('boundary')})" for kind, part in counting if kind != "gpu"}))


def refuse_other_data(store: RunFolder, task: Task) -> None:
    """Refuse to measure a folder's models again on other data than theirs.

    Raises:
        StoreError: The message says in what the data differ.
    """
    _refuse_data(store, of_task(task), "give the --data of the search")


def note_study(store: RunFolder, study: Study, task: Task) -> RunFolder:
    """Refuse other data than the folder's; then write down what this session searches and with what.

    A folder that was begun by a version that took no fingerprint is continued with a warning.

    Raises:
        StoreError: If the data differ; the message says in what.
    """
    from ..training.summary import summarise

    now = of_task(task)
    _refuse_data(store, now, REMEDY)
    if "data" not in store.facts.get("fingerprint", {}) and store.facts["sessions"]:
        said = "from now on it does, and whether they are those of the sessions before is for you to know"
        warnings.warn(f"{str(store.path)!r} does not say which data and ranges it was begun with; {said}", stacklevel=3)
    before = store.facts.get("fingerprint", {})
    seen = {"space": of_space(study.space), "data": now, "fitted": before.get("fitted", not before)}
    found = summarise(task)
    facts = {**store.facts, "study": described(study), "fingerprint": seen, "guessing": found["guessing"], "data": found}
    fitted(StudyFile, parse(text_of(facts).encode()), "study.json")  # before anything is paid for a file that nobody could read again
    return store.save_facts(facts)


def note_session(store: RunFolder, ledger: Ledger, command: str | None, origin: Mapping[str, Any] | None, **where: Any) -> RunFolder:
    """Note in the folder, which this session holds, when, where, with what and by which command it measures.

    ``where`` are ``device``, ``threads``, ``meter``, ``trials_before``, ``ledger_session`` and what the process took ``before``.

    Raises:
        StoreError: If earlier sessions were measured on other hardware.
    """
    total, sessions = ledger.total(), list(store.facts.get("sessions", []))
    for before in sessions:
        if before.get("hardware_id") != total.hardware_id:
            here, remedy = total.hardware_id, "energies of different machines do not belong on one front: give a new --out"
            raise StoreError(f"{str(store.path)!r} was measured on other hardware ({before.get('hardware_id')}, here {here}); {remedy}")
    if sessions:
        _warn_of_versions(f"the last session of {str(store.path)!r} was run", sessions[-1].get("versions") or {})
    session = {"started": timestamp(), "command": command, "versions": versions(), "hardware": total.hardware}
    # No wait policy: torch was loaded before it could be set, and idle threads spin.
    session |= {"hardware_id": total.hardware_id, **where, "openmp_wait_policy": WAIT_POLICY}
    return store.save_facts({**store.facts, **({"origin": dict(origin)} if origin else {}), "sessions": [*sessions, session]})


def note_end(store: RunFolder, reason: str, **facts: Any) -> RunFolder:
    """Note in the folder why the session ended, and what else it found out."""
    sessions = [dict(session) for session in store.facts["sessions"]]
    sessions[-1].update(ended=timestamp(), reason=reason)
    return store.save_facts({**store.facts, **facts, "sessions": sessions})


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        for package in (f"{name}-cpu", name):  # XGBoost is one or the other
            with suppress(PackageNotFoundError):
                found[name] = version(package)
    return found


def timestamp() -> str:
    """Return the present in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _refuse_data(store: RunFolder, now: Mapping[str, Any], remedy: str) -> None:
    if "data" not in (store.facts.get("fingerprint") or {}):
        return
    known = dict(store.facts["fingerprint"]["data"])
    if folds := folds_in(store.facts):  # an earlier version kept them among the examples
        known |= {"examples": {split: count for split, count in known["examples"].items() if split in now["examples"]}, "folds": folds}
    if differences(known, now):
        where = ((store.facts.get("origin") or {}).get("options") or {}).get("data")
        made = f"{_data_text(known)}{f', from {where}' if where else ''}"
        got = f"{_data_text(now)}{_not_in_sizes(known, now)}"
        raise StoreError(f"run folder {str(store.path)!r} was made with other data: {made}; got {got}; {remedy}")


def _data_text(seen: Mapping[str, Any]) -> str:
    """Rows by split, what one example is, and what is predicted, of a fingerprint."""
    counts = splits_in({"fingerprint": {"data": seen}})
    splits, classes = ", ".join(f"{count:,} {name}" for name, count in counts.items()), list(map(str, seen.get("classes") or ()))
    names = f" {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}" if classes else ""
    shape = " x ".join(map(str, seen.get("input_shape") or ()))
    goal = f"{len(classes)} classes{names}" if classes else str(seen.get("kind"))
    return f"{sum(counts.values()):,} rows ({splits}) of {shape} inputs, {goal}"


def _not_in_sizes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say what differs although sizes, shapes and classes are the same; nothing where these differ."""
    if _data_text(before) != _data_text(now):
        return ""
    found = [name for name in before.get("contents", {}) if not alike(before["contents"][name], now.get("contents", {}).get(name))]
    what = f"the values of the {' and '.join(found)} rows" if found else "how the columns are read, or the folds"
    return f", alike in size; {what} differ"


def _epochs_of(sampler: str) -> str:
    """From what a sampler draws the epochs of a trial; Optuna refuses to mix them in one study."""
    return {"freeze-thaw": "rungs", "grid": "a list"}.get(sampler, "a logarithmic range")
