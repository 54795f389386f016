"""Run or continue a study: open the folder, start the ledger, load the data, loop."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .account import Account
from .bill import Session, add_up, read_sessions, settle_killed
from .energy import Intensity, Ledger, discover
from .executors.executor import Executor
from .front import Front
from .limits import Limits, joules_of
from .loop import Loop
from .progress import Listener, Progress
from .store import Store, StoreError
from .study import Budget, Study
from .training.task import Task

PACKAGES = ("joulefront", "torch", "torchvision", "timm", "scikit-learn", "optuna", "numpy", "codecarbon", "nvidia-ml-py")


def quiet(progress: Progress) -> None:
    """Listen to nothing."""


def run(
    study: Study,
    *,
    out: str | Path | None = None,
    trials: int | None = None,
    budget: str | Budget | None = None,
    timeout_seconds: float | None = None,
    storage: str | None = None,
    meter: str = "auto",
    cpu_watts: float | None = None,
    intensity: Intensity | None = None,
    pue: float = 1.0,
    price_per_kwh: tuple[float, str] | None = None,
    device: str = "auto",
    workers: int = 1,
    listener: Listener = quiet,
    origin: Mapping[str, Any] | None = None,
) -> Front:
    """Run a study until a limit is reached, and return its front.

    The limits are totals of the study. Called again on the same folder it goes on; when the study's own limits are reached
    and none is given here, it goes on for as much again.

    Args:
        study: What to search.
        out: Run folder; ``runs/<study.name>`` by default.
        trials: Number of trials in total.
        budget: What the search may spend in total, e.g. ``"5Wh"``.
        timeout_seconds: Wall time of this session.
        storage: Optuna storage URL; SQLite in the run folder by default.
        meter: ``auto`` or a list of sources, e.g. ``nvml,rapl``.
        cpu_watts: Watts of the whole CPU with all cores busy, when you know better than the CPU-time estimate's default.
        intensity: Carbon per kWh of the place, see ``joulefront.search.energy.intensity_for``.
        pue: Power usage effectiveness of the site; enters grams and money, never joules.
        price_per_kwh: Amount and currency, for a budget in money.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: Trainings at the same time; each gets its share of the cores.
        listener: Receives progress.
        origin: Where the study came from (``{"source", "options"}``), so that ``export`` can make it again.

    Returns:
        The front of all measured trials.

    Raises:
        ValueError: If an argument breaks its rule.
        StoreError: If the folder cannot be used.
    """
    if workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}")
    path = Path(out) if out is not None else Path("runs") / study.name
    wanted = Budget.parse(budget) if isinstance(budget, str) else budget
    where = pick_device(device)
    threads = max(1, cores() // workers)
    store = _open_or_create(path, study, storage, intensity, pue, price_per_kwh, origin)
    with store.lock():
        earlier = read_sessions(store.bill_file)
        store.fail_dead_trials(settle_killed(earlier))
        bill = add_up(earlier)
        finished = sum(trial.state != "running" for trial in store.run().trials)
        limits = _limits(study, wanted, trials, timeout_seconds, bill.total_joules, finished, intensity, pue, price_per_kwh, listener)
        found = discover(meter, cpu_watts=cpu_watts)
        with Ledger(found.sources, absent=found.absent, file=store.ledger_file) as ledger, ledger.window("start", kind="overhead") as start:
            _refuse_unmeasurable(ledger, meter)
            store = _note_session(store, ledger, where, threads, finished, meter)
            task = study.load_task()
            account = Account(ledger, Session(started=_now()), earlier, bill.total_joules, store.bill_file, _synchronize(where))
            executors = _executors(study, task, where, workers)
            loop = Loop(
                study=study,
                store=store,
                optuna_study=store.study(_sampler(study, finished)),
                task=task,
                limits=limits,
                account=account,
                intensity=intensity,
                pue=pue,
                device=where,
                threads=threads,
                executors=executors,
                listener=listener,
            )
            loop.tell_listener(
                "start", f"{study.name}: {'continuing ' if finished else ''}in {path} on {where}, {threads} thread(s), {_meters(ledger)}"
            )
            start.close()
            with _stop_on_interrupt(loop):
                try:
                    _warm_up(study, task, ledger, where, threads)
                    reason = loop.go()
                finally:
                    for executor in executors:
                        executor.close()
                    loop.tell_listener("end", f"ended: {loop.stop_reason or 'broken off'}")
                    account.save()
        _note_end(store, reason)
    return Front.of(store.run(), complete_only=study.complete_only)


def load(path: str | Path, *, complete_only: bool = False) -> Front:
    """Return the front of a run folder.

    Raises:
        StoreError: If there is no readable run.
    """
    return Front.of(Store.open(path).run(), complete_only=complete_only)


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(device: str) -> str:
    """Resolve ``auto`` and refuse a device that is not there.

    Raises:
        ValueError: If the device is unknown or absent.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"--device {device}: PyTorch sees no CUDA device here; use --device cpu, or install a driver and a CUDA build of torch"
        )
    return device


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _open_or_create(
    path: Path,
    study: Study,
    storage: str | None,
    intensity: Intensity | None,
    pue: float,
    price_per_kwh: tuple[float, str] | None,
    origin: Mapping[str, Any] | None,
) -> Store:
    described = {
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
    if not Store.exists(path):
        facts = {
            "run_id": f"{study.name}-{uuid.uuid4().hex[:8]}",
            "study": described,
            "origin": dict(origin) if origin else None,
            "intensity": None if intensity is None else asdict(intensity),
            "pue": pue,
            "price_per_kwh": None if price_per_kwh is None else list(price_per_kwh),
            "sessions": [],
        }
        return Store.create(path, facts, storage=storage)
    store = Store.open(path)
    before = store.facts["study"]
    for name in ("objectives", "rungs", "space"):
        if before[name] != described[name]:
            raise StoreError(
                f"{str(path)!r} holds a study with other {name} ({before[name]}, now {described[name]}); give a new --out to start afresh"
            )
    known = store.facts.get("intensity")
    if "train_co2" in study.objectives and intensity is not None and known and known["grams_per_kwh"] != intensity.grams_per_kwh:
        raise StoreError(
            f"{str(path)!r} was searched at {known['grams_per_kwh']:g} g/kWh, now {intensity.grams_per_kwh:g}; give a new --out"
        )
    return store


def _limits(
    study: Study,
    budget: Budget | None,
    trials: int | None,
    timeout_seconds: float | None,
    spent_joules: float | None,
    finished: int,
    intensity: Intensity | None,
    pue: float,
    price_per_kwh: tuple[float, str] | None,
    listener: Listener,
) -> Limits:
    given = budget is not None or trials is not None
    chosen = budget if budget is not None else None if trials is not None else study.budget
    count = trials if trials is not None else None if budget is not None else study.trials
    grams = None if intensity is None else intensity.grams_per_kwh
    joules = None if chosen is None else joules_of(chosen, grams_per_kwh=grams, pue=pue, price_per_kwh=price_per_kwh)
    if joules is None and count is None and timeout_seconds is None:
        raise ValueError("a study needs an end: give --budget 5Wh, --trials 40 or --timeout 30m, or set it in the study")
    limits = Limits(joules, count, timeout_seconds, "" if chosen is None else chosen.to_text())
    reached = limits.reached(joules=spent_joules, trials=finished, seconds=0.0)
    if reached is None:
        return limits
    if given:
        raise StoreError(f"{reached} already (limits count the whole study); give a larger one to go on")
    further = replace(
        limits,
        joules=None if joules is None else joules + (spent_joules or 0.0),
        trials=None if count is None else count + finished,
        label="" if joules is None else f"{(joules + (spent_joules or 0.0)) / 3600:.3g}Wh",
    )
    listener(Progress("start", message=f"{reached}; going on for as much again"))
    return further


def _sampler(study: Study, finished: int) -> Any:
    from .samplers.choice import make_sampler

    # A continued study must not draw the same random numbers again.
    return make_sampler(study.sampler, rungs=study.rungs, seed=study.seed + 7919 * finished, study=study)


def _executors(study: Study, task: Task, device: str, workers: int) -> list[Executor]:
    """One executor a worker: this process itself, or processes of their own."""
    from .executors.executor import InProcess

    if workers == 1:
        return [InProcess(study.space, task)]
    from .executors.process import WorkerProcess

    if not device.startswith("cuda"):
        return [WorkerProcess(study, device) for _ in range(workers)]
    import torch

    count = torch.cuda.device_count()
    if workers > count:
        raise ValueError(f"--workers {workers}: there are {count} CUDA devices, and two trainings on one cannot be told apart")
    return [WorkerProcess(study, f"cuda:{index}") for index in range(workers)]


def _synchronize(device: str) -> Callable[[], object] | None:
    """Wait for queued work at the edges of windows; worker processes wait for their own."""
    if not device.startswith("cuda"):
        return None
    import torch

    return lambda: torch.cuda.synchronize(device)


def _warm_up(study: Study, task: Task, ledger: Ledger, device: str, threads: int) -> None:
    """Pay what only the first training of a process pays (lazy imports, device start, thread pools) before the first trial."""
    import torch

    from .draw import Draw
    from .probe import probe

    torch.set_num_threads(threads)
    draw = Draw(study.seed)
    study.space.sample(draw)
    probe(draw.params, study.space, task, ledger, device=device, seed=study.seed, seconds=0.0)


def _refuse_unmeasurable(ledger: Ledger, meter: str) -> None:
    total = ledger.total()
    if not any(part.counts and part.joules is not None for part in total.components):
        reasons = "; ".join(f"{part.name}: {part.reason}" for part in total.components if part.reason)
        raise ValueError(f"--meter {meter}: nothing can be measured or estimated here ({reasons}); see joulefront doctor")


def _note_session(store: Store, ledger: Ledger, device: str, threads: int, finished: int, meter: str) -> Store:
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
            "started": _now(),
            "command": " ".join(["joulefront", *sys.argv[1:]]) if Path(sys.argv[0]).name.startswith("joulefront") else None,
            "versions": versions(),
            "hardware": total.hardware,
            "hardware_id": total.hardware_id,
            "device": device,
            "threads": threads,
            "meter": meter,
            "trials_before": finished,
        }
    )
    return store.save_facts({**store.facts, "sessions": sessions})


def _note_end(store: Store, reason: str) -> None:
    sessions = [dict(session) for session in store.facts["sessions"]]
    sessions[-1].update(ended=_now(), reason=reason)
    store.save_facts({**store.facts, "sessions": sessions})


def _meters(ledger: Ledger) -> str:
    parts = [
        f"{part.name} {part.quality} by {part.source}" for part in ledger.total().components if part.counts and part.joules is not None
    ]
    return ", ".join(parts)


@contextlib.contextmanager
def _stop_on_interrupt(loop: Loop) -> Iterator[None]:
    """First Ctrl-C: end after the current epoch. Second: stop at once (what was measured is kept)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        if loop.interrupted.is_set():
            raise KeyboardInterrupt
        loop.interrupted.set()
        print("\nstopping after this epoch; press Ctrl-C again to stop at once", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
