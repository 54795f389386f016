"""Ctrl-C: the first ends after the current epoch, the second at once; what was measured is kept.

Opens a run folder for a session, and notes in it what the session was.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..carbon.intensity import Intensity
from ..energy import Ledger
from ..records.run_folder import RunFolder, StoreError
from ..study import Study
from ..threads import WAIT_POLICY
from .identity import described, refuse_other_study


@contextlib.contextmanager
def stop_on_interrupt(interrupted: threading.Event) -> Iterator[None]:
    """Set an event at the first SIGINT or SIGTERM and raise at the second; nothing is changed outside of the main thread.

    Args:
        interrupted: Asked between epochs by the work inside.

    Raises:
        KeyboardInterrupt: At the second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        again = "press Ctrl-C again" if signum == signal.SIGINT else "send the signal again"
        print(f"\nstopping after this epoch; {again} to stop at once", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


PACKAGES = ("joulefront", "torch", "torchvision", "timm", "scikit-learn", "optuna", "numpy", "codecarbon", "nvidia-ml-py")


def open_or_create(
    path: Path,
    study: Study,
    storage: str | None,
    intensity: Intensity | None,
    pue: float,
    price_per_kwh: tuple[float, str] | None,
    origin: Mapping[str, Any] | None,
    *,
    forecast: bool = False,
) -> RunFolder:
    """Open the folder of a run that goes on, or make a new one.

    Args:
        path: The run folder.
        study: What to search.
        storage: Optuna storage URL, or None.
        intensity: Carbon per kWh, or None; with a forecast its mean over what is ahead.
        pue: Power usage effectiveness.
        price_per_kwh: Amount and currency, or None.
        origin: Where the study came from.
        forecast: Whether grams follow a forecast by the hour.

    Raises:
        StoreError: If the folder holds another study, or cannot be used.
    """
    if not RunFolder.exists(path):
        guess = path.with_name(f"{path.name}.estimate.json")
        facts = {
            "estimate": json.loads(guess.read_text(encoding="utf-8")) if guess.is_file() else None,
            "run_id": f"{study.name}-{uuid.uuid4().hex[:8]}",
            "study": described(study),
            "origin": dict(origin) if origin else None,
            "intensity": None if intensity is None else asdict(intensity),
            "pue": pue,
            "price_per_kwh": None if price_per_kwh is None else list(price_per_kwh),
            "carbon": [] if forecast else None,
            "sessions": [],
        }
        return RunFolder.create(path, facts, storage=storage)
    store = RunFolder.open(path)
    refuse_other_study(store, study)
    known = store.facts.get("intensity")
    if (store.facts.get("carbon") is not None) != forecast and (known or intensity):
        was, now = ("one number", "a forecast") if forecast else ("a forecast", "one number or none")
        raise StoreError(
            f"the grams of {str(path)!r} follow {was if known or not forecast else 'nothing'}, now {now} is given; "
            + ("leave out --forecast" if forecast else "add --forecast")
            + ", or give a new --out"
        )
    return store


def drop_unused(path: Path) -> None:
    """Remove the folder of a run in which no session has begun: its start was refused, and it would count as a run."""
    if RunFolder.exists(path) and not RunFolder.open(path).facts["sessions"]:
        shutil.rmtree(path)


def note_session(store: RunFolder, ledger: Ledger, device: str, threads: int, finished: int, meter: str) -> RunFolder:
    """Write down when, where and with what this session measures.

    Raises:
        StoreError: If earlier sessions were measured on other hardware.
    """
    total = ledger.total()
    sessions = list(store.facts.get("sessions", []))
    for before in sessions:
        if before["hardware_id"] != total.hardware_id:
            raise StoreError(
                f"{str(store.path)!r} was measured on other hardware ({before['hardware_id']}, here {total.hardware_id}); "
                "energies of different machines do not belong on one front: give a new --out"
            )
    sessions.append(
        {
            "started": utc_now(),
            "command": None,  # the command line notes what was typed
            "versions": versions(),
            "hardware": total.hardware,
            "hardware_id": total.hardware_id,
            "device": device,
            "threads": threads,
            "openmp_wait_policy": WAIT_POLICY,  # None: torch was loaded before it could be said, and idle threads spin
            "meter": meter,
            "trials_before": finished,
        }
    )
    return store.save_facts({**store.facts, "sessions": sessions})


def note_end(store: RunFolder, reason: str, **facts: Any) -> None:
    """Write down why the session ended, and what else it found out."""
    sessions = [dict(session) for session in store.facts["sessions"]]
    sessions[-1].update(ended=utc_now(), reason=reason)
    store.save_facts({**store.facts, **facts, "sessions": sessions})


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def refuse_unmeasurable(ledger: Ledger, meter: str) -> None:
    """Refuse to search without any meter.

    Raises:
        ValueError: If no component is measured or estimated; the message says why.
    """
    total = ledger.total()
    if not any(part.counts and part.joules is not None for part in total.components):
        reasons = "; ".join(f"{part.name}: {part.reason}" for part in total.components if part.reason)
        raise ValueError(f"--meter {meter}: nothing can be measured or estimated here ({reasons}); see joulefront doctor")


def meters_text(ledger: Ledger) -> str:
    """Say in a few words what is measured how; a wall meter is beside the sum and is said after it."""
    total = ledger.total()
    parts = [f"{part.name} {part.quality} by {part.source}" for part in total.counting if part.joules is not None]
    wall = total.component("wall")
    if wall is not None:
        how = f"{wall.quality} by {wall.source}" if wall.joules is not None else f"not known yet ({wall.reason or wall.source})"
        parts.append(f"beside it the whole machine {how}")
    return ", ".join(parts)


def utc_now() -> str:
    """Return the time as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
