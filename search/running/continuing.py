"""What a run folder may go on with: its own data, space and seed, and a sampler that can read its trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ..records.run_folder import Store, StoreError
from ..study import Study
from ..training.task import Task
from . import fingerprint

REMEDY = "models that were measured otherwise do not belong on one front: give a new --out (Python: out) to start afresh"


def described(study: Study) -> dict[str, Any]:
    """Return what ``study.json`` says of a study."""
    return {
        "name": study.name,
        "objectives": list(study.objectives),
        "directions": list(study.directions),
        "rungs": list(study.rungs),
        "sampler": study.sampler,
        "seed": study.seed,
        "space": study.space.name,
        "description": study.description,
        "min_accuracy": study.min_accuracy,
        "complete_only": study.complete_only,
    }


def refuse_other_study(store: Store, study: Study) -> None:
    """Refuse what can be seen before the data is loaded.

    Raises:
        StoreError: If objectives, rungs, space or seed differ, or the sampler cannot go on from the trials that are there.
    """
    before, now, folder = store.facts["study"], described(study), repr(str(store.path))
    for name in ("objectives", "rungs", "space"):
        if before[name] != now[name]:
            raise StoreError(f"{folder} holds a study with other {name} ({before[name]}, now {now[name]}); {REMEDY}")
    if not store.facts["sessions"]:  # nothing was trained: an earlier start has failed
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
    if known is not None:
        _refuse(store, "candidates of another space", fingerprint.differences(known, fingerprint.of_space(study.space)))


def refuse_other_data(store: Store, task: Task) -> None:
    """Refuse to measure a folder's models again on other data than theirs.

    Raises:
        StoreError: The message says in what the data differ.
    """
    _refuse_data(store, fingerprint.of_task(task), "give the --data of the search")


def note_study(store: Store, study: Study, task: Task) -> Store:
    """Refuse other data than the folder's; then write down what this session searches and with what.

    A folder that was begun by a version that took no fingerprint goes on with a warning.

    Raises:
        StoreError: If the data differ; the message says in what.
    """
    now = fingerprint.of_task(task)
    _refuse_data(store, now, REMEDY)
    if "data" not in store.facts.get("fingerprint", {}) and store.facts["sessions"]:
        warnings.warn(
            f"{str(store.path)!r} does not say which data and ranges it was begun with; from now on it does, "
            "and whether they are those of the sessions before is for you to know",
            stacklevel=3,
        )
    seen = {"space": fingerprint.of_space(study.space), "data": now}
    return store.save_facts({**store.facts, "study": described(study), "fingerprint": seen})


def _refuse_data(store: Store, now: Mapping[str, Any], remedy: str) -> None:
    known = store.facts.get("fingerprint", {})
    if "data" in known:
        _refuse(store, "trials of other data", fingerprint.differences(known["data"], now), remedy)


def _refuse(store: Store, what: str, found: list[str], remedy: str = REMEDY) -> None:
    if found:
        shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        raise StoreError(f"{str(store.path)!r} holds {what} ({shown}); {remedy}")


def _epochs_of(sampler: str) -> str:
    """From what a sampler draws the epochs of a trial; Optuna refuses to mix them in one study."""
    return {"freeze-thaw": "rungs", "grid": "a list"}.get(sampler, "a logarithmic range")
