"""What a study will cost, with an interval, before anything is trained."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .draw import Draw
from .energy import Ledger, discover
from .energy.machine import calibrated_coefficients
from .probe import Probe, probe
from .study import Study
from .trial import Trial

#: Draws of the bootstrap; the interval is the middle 90 % of them.
DRAWS = 2000
LOW, HIGH = 0.05, 0.95
#: Trials of one draw; beyond them a budget holds as many as their mean says.
MOST_DRAWN = 4096


@dataclass(frozen=True)
class Estimate:
    """What a study is expected to cost.

    Attributes:
        joules: Expected energy of the whole search.
        low_joules: Lower end of the 90 % interval.
        high_joules: Upper end.
        trials: Expected number of trials.
        low_trials: Lower end of the 90 % interval.
        high_trials: Upper end.
        seconds: Expected wall time with one worker.
        full_training_joules: Median energy of one complete training of a random candidate.
        probes: Number of probed candidates that could be trained.
        failed_probes: Number that could not.
        earlier: Number of trials of earlier runs on this hardware that entered.
        probe_joules: What the probing itself has cost.
    """

    joules: float
    low_joules: float
    high_joules: float
    trials: float
    low_trials: float
    high_trials: float
    seconds: float
    full_training_joules: float
    probes: int
    failed_probes: int
    earlier: int
    probe_joules: float | None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary, units in the keys."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def to_text(self) -> str:
        """Return a few lines for people."""
        basis = f"{self.probes} probed candidates" + (f" ({self.failed_probes} more could not be trained)" if self.failed_probes else "")
        if self.earlier:
            basis += f" and {self.earlier} earlier trials on this hardware"
        probing = "" if self.probe_joules is None else f"; probing took {self.probe_joules / 3600:.3g} Wh"
        return "\n".join(
            [
                f"energy   {self.joules / 3600:.3g} Wh (90 %: {self.low_joules / 3600:.3g} to {self.high_joules / 3600:.3g} Wh)",
                f"trials   {self.trials:.0f} (90 %: {self.low_trials:.0f} to {self.high_trials:.0f})",
                f"time     about {self.seconds / 60:.1f} min with one worker",
                f"one complete training of a random candidate: {self.full_training_joules / 3600:.3g} Wh (median)",
                f"from {basis}{probing}",
            ]
        )


def estimate(
    study: Study,
    probes: Sequence[Probe],
    earlier: Sequence[Trial] = (),
    *,
    joules_limit: float | None = None,
    trial_limit: int | None = None,
    probe_joules: float | None = None,
    seed: int = 0,
) -> Estimate:
    """Estimate the cost of a study from probed candidates and earlier trials.

    A trial is a candidate and a number of epochs. Candidates are drawn from the probes (and from the per-epoch energies of earlier
    trials), epochs as the study's sampler draws them: spread evenly over the logarithm of the epochs for Optuna's samplers, one rung's
    increment at a time for ``freeze-thaw``. A study with an energy budget costs its budget and the number of trials is what is
    uncertain; one with a number of trials costs what those trials cost.

    Raises:
        ValueError: If no probe could be trained, or the study has no limit.
    """
    good = [p for p in probes if p.failed is None and p.epoch_joules is not None]
    per_epoch = [p.epoch_joules for p in good if p.epoch_joules is not None]
    startup = [p.startup_joules or 0.0 for p in good]
    seconds_per_joule = [p.epoch_seconds / p.epoch_joules for p in good if p.epoch_joules]
    used = [t for t in earlier if t.state == "complete" and t.train_joules and t.epochs]
    per_epoch += [(t.train_joules or 0.0) / t.epochs for t in used]
    startup += [max(0.0, (t.increment_joules or 0.0) - (t.train_joules or 0.0)) if t.parent is None else 0.0 for t in used]
    if not per_epoch:
        reasons = "; ".join(sorted({p.failed for p in probes if p.failed})) or "their energy is unknown"
        raise ValueError(f"none of {len(probes)} probed candidates could be measured: {reasons}")
    if joules_limit is None and trial_limit is None:
        raise ValueError("a study without --budget and --trials has no end to estimate; give one of them")
    random = np.random.default_rng(seed)
    energies, extras = np.array(per_epoch), np.array(startup)
    totals, counts = [], []
    for _ in range(DRAWS):
        chosen = random.integers(len(energies), size=len(energies))  # which candidates were probed is luck, too
        size = trial_limit if trial_limit is not None else MOST_DRAWN
        pick = chosen[random.integers(len(chosen), size=size)]
        spent = np.cumsum(energies[pick] * _epochs(study, size, random) + extras[pick])
        if joules_limit is None:
            count, total = float(size), float(spent[-1])
        elif spent[-1] >= joules_limit:
            count, total = float(np.searchsorted(spent, joules_limit)) + 1, joules_limit
        elif trial_limit is not None:
            count, total = float(size), float(spent[-1])
        else:  # so many trials fit that their mean says it
            count, total = joules_limit / (float(spent[-1]) / size), joules_limit
        totals.append(total)
        counts.append(count)
    joules = float(np.median(totals))
    return Estimate(
        joules=joules,
        low_joules=float(np.quantile(totals, LOW)),
        high_joules=float(np.quantile(totals, HIGH)),
        trials=float(np.median(counts)),
        low_trials=float(np.quantile(counts, LOW)),
        high_trials=float(np.quantile(counts, HIGH)),
        seconds=joules * float(np.median(seconds_per_joule)) if seconds_per_joule else 0.0,
        full_training_joules=float(np.median(energies)) * study.rungs[-1],
        probes=len(good),
        failed_probes=sum(p.failed is not None for p in probes),
        earlier=len(used),
        probe_joules=probe_joules,
    )


def _epochs(study: Study, count: int, random: np.random.Generator) -> np.ndarray:
    """``(count,)`` epochs that each trial pays for."""
    rungs = np.array(study.rungs, dtype=float)
    if study.sampler != "freeze-thaw":
        if study.complete_only:
            return np.full(count, rungs[-1])
        if study.sampler == "grid":
            return random.choice(rungs, size=count)
        return np.round(np.exp(random.uniform(np.log(rungs[0]), np.log(rungs[-1] + 1e-9), size=count)))
    increments = np.diff(rungs, prepend=0.0)
    # Halving from rung to rung: of two candidates at a rung about one is worth the next (see the bundled results).
    shares = 0.5 ** np.arange(len(rungs))
    return random.choice(increments, size=count, p=shares / shares.sum())


def probe_study(study: Study, *, count: int, meter: str = "auto", device: str = "auto") -> tuple[list[Probe], float | None]:
    """Probe random candidates of a study.

    Args:
        study: The study; its task is loaded.
        count: Number of candidates.
        meter: As for ``run``.
        device: As for ``run``.

    Returns:
        The probes, and what probing them has cost in joules.
    """
    from .executors.devices import take_devices
    from .machine import cores, pick_device, torch_threads

    where = pick_device(device)
    torch_threads(cores())
    with contextlib.ExitStack() as open_things:
        devices = open_things.enter_context(take_devices(where, 1))
        found = discover(meter, coefficients=calibrated_coefficients(), environment=devices.environment)
        ledger = open_things.enter_context(Ledger(found.sources, absent=found.absent))
        task = study.load_task()
        begin_ns = time.monotonic_ns()
        probes = []
        for index in range(count + 1):
            draw = Draw(1000 * study.seed + index)
            study.space.sample(draw)
            one = probe(draw.params, study.space, task, ledger, device=devices.names[0], threads=cores(), seed=study.seed)
            if index > 0:  # the first pays for lazy imports and the start of the device
                probes.append(one)
        return probes, ledger.joules(begin_ns)
