"""Short trainings before the trials: metered steps that tell what an epoch of a candidate costs, and the warm-up of a process.

A probe takes seconds instead of epochs of training. A warm-up pays what only the first training of its kind pays in a process, before
any trial is metered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..energy import Ledger, Record
from ..records.trial import INTERRUPTED
from ..space import FixedTrial, RandomTrial, Space
from ..training.recipe import Recipe, synchronizer
from ..training.splits_data import Excerpt
from ..training.task import Task
from .job import UNWATCHED, InProcess, Job, Watch, reason_of, watched, within

#: Steps of one probe epoch; the first probe epoch warms up (allocation, autotuning) and is not counted.
PROBE_STEPS = 6
#: Counted probe epochs continue until they are far above the resolution of a meter.
PROBE_SECONDS = 0.5


@dataclass(frozen=True)
class Probe:
    """What one candidate's epoch costs on this machine.

    Attributes:
        epoch_joules: Energy of a full epoch over the whole training split, or None when unknown; ``epoch_seconds`` is its duration.
        startup_joules: Energy to build the model and to warm up.
        flops: Forward FLOPs of one example, or None.
        failed: Why it cannot be trained, or None.
    """

    params: Mapping[str, Any]
    epoch_joules: float | None
    epoch_seconds: float
    startup_joules: float | None
    parameters: int | None = None
    flops: int | None = None
    failed: str | None = None


def probe(
    params: Mapping[str, Any],
    space: Space,
    task: Task,
    ledger: Ledger,
    *,
    device: str,
    threads: int,
    seed: int,
    seconds: float = PROBE_SECONDS,
) -> Probe:
    """Train a candidate for a few metered steps, which continue for so many ``seconds``, and scale them to an epoch.

    A recipe's own number of threads wins.
    """
    import torch

    from ..training.cost import count
    from ..training.fit import fit

    epochs: list[Record] = []
    began = time.monotonic()
    window = ledger.open("probe", kind="overhead")
    try:
        candidate = space.sample(FixedTrial(params))
        recipe = candidate.recipe if candidate.recipe.resumable else replace(candidate.recipe, schedule="constant")
        torch.set_num_threads(recipe.threads or threads)
        small = replace(
            task, train=Excerpt(task.train, PROBE_STEPS * recipe.batch_size), validation=Excerpt(task.validation, recipe.batch_size)
        )
        torch.manual_seed(seed)
        model = space.build(candidate, task)
        cost = count(model, task, recipe)
        windows: list[Any] = []

        def phases(kind: str, index: int) -> AbstractContextManager[Any]:
            if kind != "epoch":
                return nullcontext()
            windows.append(ledger.window(f"epoch {index}", kind="epoch", parent=window, synchronize=synchronizer(device)))
            return windows[-1]  # type: ignore[no-any-return]  # the ledger's records

        def should_continue(point: Any) -> bool:
            record = windows[-1].record
            if record is not None:
                epochs.append(record)
            return len(epochs) < 2 or time.monotonic() - began < seconds

        steps = partial(fit, epochs=200, seed=seed, device=device, phases=phases, should_continue=should_continue)
        fitted, reason = watched(lambda: steps(model, small, recipe), Watch(within(WARM_UP_SECONDS)))
        if fitted is None:
            raise TimeoutError(reason)
    except Exception as error:  # a candidate that cannot be trained is a finding, too
        record = window.close(state="failed")
        return Probe(params, None, record.seconds, record.joules, failed=reason_of(error))
    finally:
        whole = window.close()
    counted = epochs[1:] or epochs
    scale = len(task.train) / len(small.train) / len(counted)
    joules = [record.joules for record in counted]
    known = None if any(value is None for value in joules) else sum(value for value in joules if value is not None)
    spent = None if whole.joules is None or known is None else max(0.0, whole.joules - known)
    seconds = sum(record.seconds for record in counted)
    return Probe(params, None if known is None else known * scale, seconds * scale, spent, cost.parameters, cost.flops)


#: Examples that a warm-up learns from: enough for the neighbours that an estimator may ask for.
EXAMPLES = 128
#: A kind that so many random candidates in a row do not show is too rare to look for.
ENOUGH_DRAWS = 200
#: Probes and warm-ups take seconds; what takes longer than this hangs.
WARM_UP_SECONDS = 600.0


def warm_up(space: Space, task: Task, *, device: str, threads: int, seed: int, watch: Watch = UNWATCHED) -> None:
    """Train one candidate of each kind on a few examples, continue from its file, and forget it.

    Libraries are imported where they are first used, devices and thread pools start with their first work: without this, the first trial
    of a kind would be billed for them, and no later one. A candidate that cannot be trained is its trial's finding, not an error here.

    A family that waits for another (fine-tuning for its heads) may never begin, and is left out.
    Nothing of the space is compiled: where it may be, a linear model is, which pays for loading and finding out about the compiler.
    A recipe's own number of threads wins; the watch ends a warm-up that hangs.

    Raises:
        KeyboardInterrupt: If the user breaks it off.
    """
    few = [Excerpt(split, EXAMPLES, most=1, seed=0, device=device) for split in (task.train, task.validation)]
    small, compiles = replace(task, train=few[0], validation=few[1]), may_compile(space, seed)
    here, waits = InProcess(space, small), getattr(space, "waits", lambda params: False)
    with _eagerly() if compiles else nullcontext(), TemporaryDirectory(prefix="joulefront-") as folder:
        weights = Path(folder) / "weights"
        for params in one_of_each_kind(space, seed):
            for epochs, start in ((1, None), (2, weights)):
                job = Job(-1, params, epochs, seed, device, threads, start, weights)
                outcome = here.train(job, phases=lambda kind, index: nullcontext(), should_continue=lambda entry: True, watch=watch)
                if outcome.failed == INTERRUPTED:
                    raise KeyboardInterrupt
    with suppress(Exception):
        if compiles:
            watched(lambda: _compile_something(small, device, threads), watch)


def may_compile(space: Space, seed: int = 0) -> bool:
    """Whether candidates of a space ask for ``torch.compile``, as far as random ones show."""
    return any(space.sample(RandomTrial(seed + draw)).recipe.compile for draw in range(ENOUGH_DRAWS))


def _eagerly() -> Any:
    import torch

    return torch.compiler.set_stance("force_eager")


def _compile_something(task: Task, device: str, threads: int) -> None:
    import torch

    from ..training.fit import fit

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(task.input_shape), task.outputs))
    fit(model, task, Recipe(batch_size=len(task.train), compile=True, threads=threads), epochs=1, device=device)


def warm_up_seconds(max_trial_seconds: float | None) -> float:
    """How long a warm-up may take in a study whose trainings may take so long."""
    return WARM_UP_SECONDS if max_trial_seconds is None else min(WARM_UP_SECONDS, 10 * max_trial_seconds)


def one_of_each_kind(space: Space, seed: int) -> list[Mapping[str, Any]]:
    """Return the parameters of a random candidate of each kind: each family, and within it each estimator.

    The first kind is that of ``RandomTrial(seed)``.
    """
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    without = 0
    while without < ENOUGH_DRAWS:
        draw = RandomTrial(seed)
        architecture = space.sample(draw).architecture
        kind = (architecture.get("family"), architecture.get("estimator"))
        without = without + 1 if kind in found else 0
        found.setdefault(kind, draw.params)
        seed += 1
    return list(found.values())
