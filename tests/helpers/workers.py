"""Workers of a shared study with trainings that sleep: everything is real but the model, so that hundreds of trials take a minute."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from joulefront.search import Study, run
from joulefront.search.energy import host
from joulefront.search.energy.discover import Discovery
from joulefront.search.energy.sources.cpu_coefficients import CpuCoefficients
from joulefront.search.energy.sources.cpu_time import CpuTime, CpuUse, Tree
from joulefront.search.execution.job import InProcess, Job, Outcome, WarmUp
from joulefront.search.execution.worker import context_for
from joulefront.search.report.front_view import FrontView
from joulefront.search.running import session
from joulefront.search.training.arrays import arrays
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges

_machine = threading.local()
#: CPU time of an epoch, so that its energy is known.
BUSY_SECONDS = 0.002


class Counter(Tree):
    """CPU-seconds at a watt that a test counts out: the energy of an epoch of one thread's trainings is what it says."""

    joules = 0.0

    def read(self, *, exact: bool = True) -> CpuUse:
        return CpuUse(self.joules, 0.0)


class Sleeper:
    """An executor whose epochs sleep; a checkpoint says how many there were, and each epoch is written to a log."""

    devices = None

    def __init__(self, epoch_seconds: float, log: Path | None = None) -> None:
        self.epoch_seconds, self.log = epoch_seconds, log

    def train(self, job: Job, *, phases: Any, should_continue: Callable[[Mapping[str, Any]], bool], watch: Any = None) -> Outcome:
        done = 0 if job.start is None else int(json.loads(job.start.read_text())["epochs"])
        with phases("setup", 0):
            pass
        curve, stopped = [], None
        for epoch in range(done + 1, job.epochs + 1):
            with phases("epoch", epoch):
                until = time.thread_time() + BUSY_SECONDS
                while time.thread_time() < until:
                    pass
                time.sleep(self.epoch_seconds)
                if (counter := getattr(_machine, "counter", None)) is not None:
                    counter.joules += _machine.epoch_joules
            if self.log is not None:
                with self.log.open("a") as file:
                    file.write(f"{job.number} {epoch} {os.getpid()} {json.dumps(dict(job.params), sort_keys=True)}\n")
            accuracy = 1.0 - 1.0 / (2.0 + float(job.params["width"]) / 50 + epoch)
            curve.append({"epoch": epoch, "loss": 1.0 - accuracy, "accuracy": accuracy})
            if not should_continue(curve[-1]):
                stopped = "stopped"
                break
        job.weights.write_text(json.dumps({"epochs": curve[-1]["epoch"], "number": job.number}))
        sha256 = hashlib.sha256(job.weights.read_bytes()).hexdigest()
        quality = {"accuracy": curve[-1]["accuracy"], "loss": curve[-1]["loss"]}
        return Outcome(int(curve[-1]["epoch"]), quality, tuple(curve), stopped, resumed=done > 0, sha256=sha256, parameters=1)

    def close(self) -> None:
        """Nothing is held."""


def _draw(trial: Any) -> dict[str, Any]:
    return {"width": trial.suggest_int("width", 4, 4000)}


def _make(architecture: Mapping[str, Any], task: Any) -> Any:
    raise AssertionError("nothing is trained")


def _task() -> Any:
    x = np.random.default_rng(0).normal(size=(60, 2)).astype("float32")
    return arrays(x, (x[:, 0] > 0).astype("int64"), name="halves", classes=["left", "right"])


def sleeping_study(sampler: str = "random", **changes: Any) -> Study:
    """Return a study whose candidates differ in a width."""
    space = Own(_draw, _make, recipe=RecipeRanges(learning_rate=(1e-3, 1e-1), weight_decay=0.0, batch_size=64))
    return Study(**{"name": "sleep", "task": _task, "space": space, "rungs": (1, 2, 4), "sampler": sampler, "seed": 0, **changes})


@contextmanager
def sleeping(epoch_seconds: float = 0.01, log: Path | None = None) -> Iterator[None]:
    """Let every study sleep in place of training; a thread that calls `work` may pretend to be another machine."""
    describe, discover = host.describe, session.discover

    def pretended(*args: Any, **words: Any) -> dict[str, Any]:
        model = getattr(_machine, "cpu_model", None)
        return describe(*args, **words) | ({} if model is None else {"cpu_model": model})

    def found(*args: Any, **words: Any) -> Discovery:
        counter = getattr(_machine, "counter", None)
        return discover(*args, **words) if counter is None else Discovery((CpuTime(CpuCoefficients(1.0), tree=counter),), ())

    with (
        patch.object(session, "discover", found),
        patch("joulefront.search.running.session.make_executors", lambda *args: [Sleeper(epoch_seconds, log)]),
        patch.object(WarmUp, "before", lambda *args, **words: None),
        patch.object(host, "describe", pretended),
    ):
        try:
            yield
        finally:
            vars(_machine).clear()  # the next test of this thread is on this machine again


@contextmanager
def a_joule_an_epoch() -> Iterator[None]:
    """Let each epoch of a training in this process take a joule, and all else none: a sampler decides alike on any machine."""
    counter, train = Counter(), InProcess.train

    def counted(self: InProcess, job: Job, *, phases: Any, **rest: Any) -> Outcome:
        @contextmanager
        def paid(kind: str, index: int) -> Iterator[Any]:
            with phases(kind, index) as opened:
                yield opened
                counter.joules += kind == "epoch"

        return train(self, job, phases=paid, **rest)

    found = Discovery((CpuTime(CpuCoefficients(1.0), tree=counter),), ())
    with patch.object(InProcess, "train", counted), patch.object(session, "discover", lambda *args, **words: found):
        yield


def recorded_run(out: Path) -> Path:
    """Return the folder of a finished search of three trials, whose whole process is billed."""
    with sleeping():
        run(sleeping_study(), out=out, trials=3, meter="cpu_time", whole_process=True)
    return out


def work(
    url: str, out: Path, study: Study, *, cpu_model: str | None = None, epoch_joules: float | None = None, **options: Any
) -> FrontView:
    """Be one worker of a study until it ends, on a machine with this processor, or where only epochs take energy; within `sleeping`."""
    _machine.cpu_model, _machine.epoch_joules = cpu_model, epoch_joules
    _machine.counter = None if epoch_joules is None else Counter()
    return run(study, out=out, storage=url, meter="cpu_time", **options)


def in_processes(*workers: Callable[[], object], epoch_seconds: float = 0.01, log: Path | None = None) -> None:
    """Let workers work at the same time in `sleeping`, each in a process of its own; what they are made of is pickled."""
    start: Any = context_for("cpu")  # a context whose type does not name its Process
    processes = [start.Process(target=_asleep, args=(worker, epoch_seconds, log)) for worker in workers]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(workers)


def _asleep(worker: Callable[[], object], epoch_seconds: float, log: Path | None) -> None:
    with sleeping(epoch_seconds, log):
        worker()


def in_threads(workers: Sequence[Callable[[], object]]) -> None:
    """Let workers work at the same time in this process; the error of one is raised.

    Where trainings of two overlap, the CPU time of a third that decides meanwhile is nobody's, and their energies may be unknown: take
    `in_processes` where they must be known, or one trains at a time. A process has one session else, whose work and seeds are its own.
    """
    several = threading.Semaphore(len(workers))
    with patch.object(session, "_ONE_SESSION", several), ThreadPoolExecutor(len(workers)) as threads:
        for done in [threads.submit(worker) for worker in workers]:
            done.result()
