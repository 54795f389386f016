"""One training as a plain function, the seam to where it runs (this process, worker processes, a cluster), and the warm-up before it.

A job knows neither Optuna nor the ledger, so it can be trained anywhere.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from ..energy.journal import LARGEST
from ..formatting import own_place
from ..hints import Hints, Kind, kinds_of, may_compile, one_of_each_kind
from ..records.examples import Examples
from ..records.trial import INTERRUPTED
from ..space import FixedTrial, Space
from ..training.feature_cache import FeatureCache
from ..training.recipe import Recipe
from ..training.results import FeaturesUsed, Fitted, Phases
from ..training.splits_data import Excerpt
from ..training.task import Task
from ..whole_file import unwritable
from .watch import UNWATCHED, TrainingEnded, Watch, watched, within

#: An inference window runs so long, far above the resolution of every meter; on a CPU, whose meters are finer, as long as the training has
#: taken, within bounds: a model of some milliseconds is not worth a quarter of a second. The record has the uncertainty.
INFERENCE_SECONDS, CPU_INFERENCE_SECONDS = 1.0, (0.05, 0.25)
#: Examples that a warm-up learns from: enough for the neighbours that an estimator may ask for, and fewer large ones, by their numbers.
EXAMPLES, NUMBERS, FEWEST = 128, 2**17, 8
#: Probes and warm-ups take seconds; what takes longer than this hangs.
WARM_UP_SECONDS = 600.0


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Attributes:
        number: Number of the trial.
        epochs: Epochs to reach, counted from scratch.
        seed: Seeds weights, order of the examples and augmentation.
        threads: ``torch.set_num_threads``; a recipe's own number wins.
        start: Weights file of the parent trial to continue from, or None.
        weights: File to write the weights (and the checkpoint) to.
        measure_inference: Whether to spend a window on predictions alone.
        check_at: Epochs after which the model is validated on the way.
        checkpoint_below: A checkpoint to continue from is stored beside the weights when fewer epochs than this were reached.
        features: Where the features of frozen backbones are kept and found; None keeps them for this training alone.
        metric: The quality that patience looks at; its results for each validation example go to the file ``examples``, None keeps none.
        scores: File for the validation predictions of an estimator and their targets, from which an ensemble is chosen; None keeps none.
        score_test: Whether the model is scored on the test split, too: finalists that are trained again, never trials of a search.
        patience: Whether the recipe's patience may end it early: a model that is trained again gets the epochs of the first one.
    """

    number: int
    params: Mapping[str, Any]
    epochs: int
    seed: int
    device: str
    threads: int
    start: Path | None
    weights: Path
    measure_inference: bool = False
    check_at: tuple[int, ...] = ()
    checkpoint_below: float = math.inf
    features: FeatureCache | None = None
    metric: str = ""
    examples: Path | None = None
    scores: Path | None = None
    score_test: bool = False
    patience: bool = True


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        epochs: Epochs reached in total, or 0 if it failed before the first.
        quality: Validation metrics; empty when it failed.
        curve: ``(epoch, loss, quality)`` entries as JSON.
        stopped: Why it ended before ``job.epochs``, or None.
        failed: Why it has no quality, in one line, or None; ``excused`` when that has nothing to do with the candidate.
        resumed: Whether it went on from the checkpoint of ``job.start``; without one there it began from scratch.
        predictions: Number of predictions made in the inference window.
        parameters: Parameters of the model, or None where it has none.
        flops: Forward FLOPs of one example, or None.
        extra: Columns of the tactics.
        threads: Threads that were used.
        sha256: SHA-256 of the weights file, or None when it failed.
        features: The features that it was trained on, for a model with a frozen backbone.
        ends_study: Whether no further training could be stored either, e.g. because the disk is full.
        cpu_seconds: CPU-seconds of the worker and its children during the job, as far as the parent saw them where the worker died; None
            where the job ran in the parent.
        test: Quality on the test split, where the job asked for it and there is one.
    """

    epochs: int
    quality: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[Mapping[str, Any], ...] = ()
    stopped: str | None = None
    failed: str | None = None
    predictions: int = 0
    parameters: int | None = None
    flops: int | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    cpu_seconds: float | None = None
    excused: bool = False
    resumed: bool = False
    sha256: str | None = None
    ends_study: bool = False
    features: FeaturesUsed | None = None
    test: Mapping[str, float] = field(default_factory=dict)


def seed_of(study_seed: int, key: str) -> int:
    """Seed of a candidate: one for all of its rungs."""
    return zlib.crc32(f"{study_seed}:{key}".encode())


def train(job: Job, space: Space, task: Task, *, phases: Phases, should_continue: Callable[[Mapping[str, Any]], bool]) -> Outcome:
    """Train a candidate to ``job.epochs`` and write its weights.

    A training that fails (NaN, out of memory, an exception in the model) is an outcome with ``failed``. Each phase is entered by `phases`;
    `should_continue` is asked after each epoch with ``{"epoch", "loss", ...}``, and False ends the training there, as a measured point.
    """
    import torch

    training = _Training(job, space, task, phases, should_continue)
    try:
        fitted = training.fit()
        found = training.keep(fitted)
    except TrainingEnded as ended:
        return replace(training.so_far(), failed=str(ended) or "ended from outside")
    except KeyboardInterrupt:
        return replace(training.so_far(), failed=INTERRUPTED, excused=True)
    except (Exception, SystemExit) as error:  # a model may call exit()
        if (said := unwritable(error, job.weights)) is not None:
            return replace(training.so_far(), failed=said, excused=True, ends_study=True)
        return replace(training.so_far(), failed=reason_of(error))
    finally:
        if job.device.startswith("cuda"):
            with suppress(RuntimeError):  # a context that an error has destroyed refuses this, too
                torch.cuda.empty_cache()
    return replace(
        training.so_far(),
        epochs=fitted.epochs,
        quality=_known(fitted.quality),
        curve=tuple(map(_entry, fitted.curve)),  # the last epoch is validated after `should_continue` was asked about it
        stopped=fitted.stopped,
        extra=dict(fitted.extra),
        features=fitted.features,
        **found,
    )


class _Training:
    """A job under way, and what is known of it by now."""

    def __init__(self, job: Job, space: Space, task: Task, phases: Phases, should_continue: Callable[[Mapping[str, Any]], bool]) -> None:
        self.job, self.space, self.task, self.phases, self.should_continue = job, space, task, phases, should_continue
        candidate = space.sample(FixedTrial(job.params))
        self.candidate = candidate if job.patience else replace(candidate, recipe=replace(candidate.recipe, patience=None))
        self.threads = self.candidate.recipe.threads or job.threads
        self.reached: list[dict[str, Any]] = []
        self.cost: Any = None
        self.start: Any = None
        self.seconds = 0.0

    def so_far(self) -> Outcome:
        """Return what came of it if it ends here."""
        last = int(self.reached[-1]["epoch"]) if self.reached else 0
        parameters, flops = getattr(self.cost, "parameters", None), getattr(self.cost, "flops", None)
        curve, resumed = tuple(self.reached), self.start is not None
        return Outcome(last, curve=curve, parameters=parameters, flops=flops, threads=self.threads, resumed=resumed)

    def fit(self) -> Fitted:
        """Build the model, or go on from the checkpoint of its parent, and train it."""
        import torch

        from ..training.checkpoint import load_checkpoint
        from ..training.cost import count
        from ..training.fit import fit
        from ..training.recipe import kernels_apart

        job, task, recipe = self.job, self.task, self.candidate.recipe
        torch.set_num_threads(self.threads)
        with self.phases("setup", 0):
            torch.manual_seed(job.seed)
            model = self.space.build(self.candidate, task)
            self.start = None if job.start is None else load_checkpoint(job.start, model)
        with self.phases("overhead", 0):
            self.cost = count(model, task, recipe)
        began = time.monotonic()
        with kernels_apart(self.candidate.architecture, recipe):
            fitted = fit(
                model,
                task,
                recipe,
                epochs=job.epochs,
                start=self.start,
                seed=job.seed,
                device=job.device,
                phases=self.phases,
                should_continue=self._after_epoch,
                check_at=job.check_at,
                features=job.features,
                metric=job.metric,
            )
        self.seconds = time.monotonic() - began
        return fitted

    def _after_epoch(self, point: Any) -> bool:
        self.reached.append(_entry(point))
        return self.should_continue(self.reached[-1])

    def keep(self, fitted: Fitted) -> dict[str, Any]:
        """Write the weights and what an ensemble needs, score the test split, and predict for a while: as far as the job asks for it."""
        from ..training.checkpoint import save_weights
        from ..training.evaluate import predict_for

        job, recipe = self.job, self.candidate.recipe
        sha256 = save_weights(job.weights, fitted, with_checkpoint=recipe.resumable and fitted.epochs < job.checkpoint_below)
        self._keep_examples(fitted)
        seconds = float(np.clip(self.seconds, *CPU_INFERENCE_SECONDS)) if job.device == "cpu" else INFERENCE_SECONDS
        asked = (fitted.model, self.task, recipe, job.device, seconds, self.phases)
        return {"sha256": sha256, "test": self._score_test(fitted), "predictions": predict_for(*asked) if job.measure_inference else 0}

    def _keep_examples(self, fitted: Fitted) -> None:
        job = self.job
        if job.examples is None or fitted.scores is None:
            return
        with self.phases("overhead", 0):
            if job.scores is not None and hasattr(fitted.model, "sklearn") and not hasattr(fitted.model.sklearn, "not_exportable"):
                job.scores.parent.mkdir(exist_ok=True)
                np.savez(job.scores, scores=fitted.scores[0].astype(np.float32), targets=fitted.scores[1])
            if (kept := Examples.of(job.metric, self.task.kind, *fitted.scores)) is not None:
                kept.save(job.examples)

    def _score_test(self, fitted: Fitted) -> dict[str, float]:
        if not self.job.score_test or self.task.test is None or len(self.task.test) == 0:
            return {}
        from ..training.evaluate import evaluate

        with self.phases("eval", fitted.epochs):
            return _known(evaluate(fitted.model, self.task, self.task.test, recipe=self.candidate.recipe, device=self.job.device))


def _entry(point: Any) -> dict[str, Any]:
    return {"epoch": point.epoch, "loss": _finite(point.loss), **{name: _finite(value) for name, value in (point.quality or {}).items()}}


def _known(quality: Mapping[str, float]) -> dict[str, float]:
    return {name: number for name, value in quality.items() if (number := _finite(value)) is not None}


def reason_of(error: BaseException) -> str:
    """Return in one line why a training failed, and where in the user's own code."""
    text, name = " ".join(str(error).split()), type(error).__name__
    if name == "OutOfMemoryError" or isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return f"out of memory: {text[:200]}" if text else "out of memory"
    if name in ("TrainingFailed", "TimeoutError"):
        return text
    return f"{name}: {text}".removesuffix(": ")[:300] + own_place(error)


def _finite(value: float | None) -> float | None:
    """Return a number that a file of ours may hold: what a diverged training gives instead of one is unknown, next to nothing is zero."""
    if value is None or not abs(value) < LARGEST:
        return None
    return float(value) if abs(value) > 1 / LARGEST else 0.0


class Executor(Protocol):
    """Trains one job at a time and opens a window around each of its phases."""

    @property
    def devices(self) -> tuple[str, ...] | None:
        """Ledger components that its trainings hold alone; None when nothing else runs on this machine."""

    def train(self, job: Job, *, phases: Phases, should_continue: Callable[[Mapping[str, Any]], bool], watch: Watch = UNWATCHED) -> Outcome:
        """Train a job; a training that fails, or that the watch ends, is an outcome, too."""

    def close(self) -> None:
        """Give the process or the device back."""


class InProcess:
    """Trains in this process: nothing is copied, and the ledger's windows open exactly where the work begins."""

    devices = None  # nothing runs beside it

    def __init__(self, space: Space, task: Task) -> None:
        self.space, self.task = space, task

    def train(self, job: Job, *, phases: Phases, should_continue: Callable[[Mapping[str, Any]], bool], watch: Watch = UNWATCHED) -> Outcome:
        """Train a job here; what hangs so that no exception reaches it ends with this process."""
        outcome, reason = watched(lambda: train(job, self.space, self.task, phases=phases, should_continue=should_continue), watch)
        if outcome is None:
            return Outcome(0, failed=reason)
        return replace(outcome, failed=reason) if outcome.failed and reason else outcome

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class WarmUp:
    """Pays what only the first training of its kind pays in a process: trains a candidate of it on a few examples, and forgets it.

    Libraries are imported where they are first used, devices and thread pools start with their first work: without this, the first trial
    of a kind would be billed for them, and no later one. A kind is warmed up when its first candidate is to be trained, so a process loads
    what its trials need and nothing else. A candidate that cannot be trained is its trial's finding, not an error here.

    A family that waits for another (fine-tuning for its heads) is left out: its warm-up would cost what its trials do.
    Nothing of the space is compiled: where it may be, a linear model is, which pays for loading and finding out about the compiler.
    """

    space: Space
    task: Task
    device: str
    seed: int
    _left: dict[Kind, Mapping[str, Any]] | None = None
    _compiler: bool | None = None

    def all(self, threads: int) -> None:
        """Warm up for every kind of the space, see `before`, within ``WARM_UP_SECONDS``."""
        watch = Watch(within(WARM_UP_SECONDS))
        for params in tuple(self._kinds().values()):
            self.before(params, threads, watch)

    def before(self, params: Mapping[str, Any], threads: int, watch: Watch = UNWATCHED) -> None:
        """Warm up for a training with these parameters, unless that was done for its kind.

        A recipe's own number of threads wins; the watch ends a warm-up that hangs.

        Raises:
            KeyboardInterrupt: If the user breaks it off.
        """
        for kind in kinds_of(self.space.sample(FixedTrial(params))) if self._kinds() else ():
            if (own := self._kinds().pop(kind, None)) is not None:
                self._train(own, threads, watch)

    def _train(self, own: Mapping[str, Any], threads: int, watch: Watch) -> None:
        import torch

        count = min(EXAMPLES, max(FEWEST, NUMBERS // math.prod(self.task.input_shape)))
        few = [Excerpt(split, count, most=1, seed=0, device=self.device) for split in (self.task.train, self.task.validation)]
        small = replace(self.task, train=few[0], validation=few[1], folds=0)
        here, first, self._compiler = InProcess(self.space, small), self._compiler is None, self._compiles()
        uncompiled: Any = torch.compiler.set_stance("force_eager") if self._compiler else nullcontext()
        with uncompiled, TemporaryDirectory(prefix="joulefront-") as folder:
            weights = Path(folder) / "weights"
            for epochs, start in ((1, None), (2, weights)):
                job = Job(-1, own, epochs, self.seed, self.device, threads, start, weights)
                outcome = here.train(job, phases=lambda kind, index: nullcontext(), should_continue=lambda entry: True, watch=watch)
                if outcome.failed == INTERRUPTED:
                    raise KeyboardInterrupt
        with suppress(Exception):
            if first and self._compiler:
                watched(lambda: _compile_something(small, self.device, threads), watch)

    def _compiles(self) -> bool:
        return may_compile(self.space, self.seed) if self._compiler is None else self._compiler

    def _kinds(self) -> dict[Kind, Mapping[str, Any]]:
        if self._left is None:
            waits = Hints(self.space).waits
            self._left = {kind: params for kind, params in one_of_each_kind(self.space, self.seed).items() if not waits(params)}
        return self._left


def _compile_something(task: Task, device: str, threads: int) -> None:
    import torch

    from ..training.fit import fit

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(task.input_shape), task.outputs))
    fit(model, task, Recipe(batch_size=len(task.train), compile=True, threads=threads), epochs=1, device=device)


def warm_up_seconds(max_trial_seconds: float | None) -> float:
    """How long a warm-up may take in a study whose trainings may take so long."""
    return WARM_UP_SECONDS if max_trial_seconds is None else min(WARM_UP_SECONDS, 10 * max_trial_seconds)
