"""What a study will cost, with an interval, before anything is trained.

Candidates that a study begins with and random ones are probed for a few metered steps; what deciding costs is measured by a sampler on
trials that are never trained, in a storage like the real one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..argument_types import refuse_wrong_types
from ..energy import Ledger
from ..execution.job import WarmUp
from ..execution.probe import FeatureCosts, Probe, probe
from ..formatting import energies
from ..hints import Hints
from ..records.run_folder import RunFolder
from ..records.trial import Trial
from ..samplers.factory import any_resumable, make_sampler
from ..samplers.history import EPOCHS_REACHED
from ..space import NearestTrial, RandomTrial
from ..study import Study
from ..training.feature_cache import FeatureCache
from ..training.files import spaced
from ..training.task import Task
from .identity import described
from .session import SessionOptions, open_bench

#: Draws of the bootstrap; the interval is the middle 90 % of them.
DRAWS, LOW, HIGH = 2000, 0.05, 0.95
#: Trials of one draw; beyond them a budget holds as many as their mean energy allows.
MOST_DRAWN = 4096
#: Share of the trials at a rung that ``freeze-thaw`` takes to the next: the bundled studies have had from a tenth to a half and a little.
GOES_ON = (0.1, 0.6)
#: It takes candidates in proportion to the inverse of their energy to this power: from "whatever comes" to "what costs half, twice".
THRIFT = (0.0, 1.0)
#: A run pays so many times its rehearsed start and decisions: it also writes files and shows progress, and decisions grow with trials.
#: Three runs of the bundled digits (40 trials) have paid 1.1, 1.4 and 1.4 times.
BESIDE = (1.0, 1.6)
#: Complete trainings' energy after which ``freeze-thaw`` has 95 % of the hypervolume that it has after 20: the range over six problems.
#: Source: studies/results/search.md, the tasks that were kept out of every choice, between its rows by the logarithm of the energy.
NEEDED = (2.0, 14.0)
#: An estimate takes at most this share of the needed budget beside the start that every run pays, but so many probes and decisions.
FRUGAL, LEAST_PROBES, LEAST_DECISIONS = 0.05, 2, 2
#: Trials of a rehearsal, and how many of them samplers begin with that are drawn at random, at most.
TRIALS, RANDOM = 20, 10


@dataclass(frozen=True)
class Overhead:
    """What a search pays beside its trainings: loading and warming up once, and for each trial asking for it and storing it, here."""

    start_joules: float
    decision_joules: float
    hardware_id: str | None = None


@dataclass(frozen=True)
class Estimate:
    """What a study is expected to cost.

    Attributes:
        joules: Expected energy of the whole search, with the ends of its 90 % interval beside it, as for ``trials``.
        seconds: Expected wall time with one worker; None when no pace is known.
        overhead_joules: What start and decisions are expected to cost of ``joules``; None when that is unknown, and then it is left out.
        full_training_joules: Median energy of one complete training of a random candidate.
        probes: Number of probed candidates that could be trained; ``failed_probes`` could not.
        earlier: Number of trials of earlier runs on this hardware that entered; ``elsewhere`` those on other hardware, which did not.
        probe_joules: What the probing itself has cost.
        features_joules: What features of frozen networks, which trials share, cost of ``joules``; 0 where they are kept, None without any.
        needed_joules: What is needed for 95 % of what a long search brings, start and decisions included, with the ends of its 90 %
            interval and ``needed_seconds`` beside it; None for Optuna's samplers, of which it is not known.
    """

    joules: float
    low_joules: float
    high_joules: float
    trials: float
    low_trials: float
    high_trials: float
    seconds: float | None
    overhead_joules: float | None
    full_training_joules: float
    probes: int
    failed_probes: int
    earlier: int
    probe_joules: float | None
    features_joules: float | None = None
    needed_joules: float | None = None
    low_needed_joules: float | None = None
    high_needed_joules: float | None = None
    needed_seconds: float | None = None
    elsewhere: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary, units in the keys."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def to_text(self) -> str:
        """Return a few lines for people."""
        basis = f"{self.probes} probed candidates" + (f" ({self.failed_probes} more could not be trained)" if self.failed_probes else "")
        if self.earlier:
            basis += f" and {self.earlier} earlier trials on this hardware"
        if self.elsewhere:
            basis += f"; {self.elsewhere} earlier trials on other hardware left out"
        named = (self.joules, self.low_joules, self.high_joules, self.overhead_joules, self.full_training_joules, self.probe_joules)
        needs = (self.needed_joules, self.low_needed_joules, self.high_needed_joules)
        (energy, low, high, overhead, full, probed, features, need, least, most), unit = energies((*named, self.features_joules, *needs))
        needed = f"{need} {unit}{_duration(self.needed_seconds, ' and about ')} (90 %: {least} to {most} {unit})"
        probing = "" if self.probe_joules is None else f"; probing took {probed} {unit}, its start included"
        once = f"once for all: {features} {unit}" if self.features_joules else "none: kept by earlier studies, or few trials need any"
        spread = "the budget: candidates fill it" if low == high else f"90 %: {low} to {high} {unit}"
        return "\n".join(
            [
                f"energy   {energy} {unit} ({spread})",
                "         of which start and decisions: " + ("unknown, left out" if self.overhead_joules is None else f"{overhead} {unit}"),
                *([f"         of which features, {once}"] if self.features_joules is not None else []),
                f"trials   {self.trials:.0f} (90 %: {self.low_trials:.0f} to {self.high_trials:.0f})"
                + ("" if self.trials else ": a start alone takes as much, give a larger budget"),
                f"time    {_duration(self.seconds, ' about ') or ' unknown'} with one worker",
                *([f"needed   {needed} for 95 % of what a long search brings"] if self.needed_joules is not None else []),
                f"one complete training of a random candidate: {full} {unit} (median)",
                f"from {basis}{probing}",
            ]
        )


def _duration(seconds: float | None, before: str = "") -> str:
    """A time in the unit in which it reads best, behind some words; nothing where it is unknown.

    >>> _duration(44.0), _duration(0.4), _duration(600.0, "about "), _duration(15012.0), _duration(None, "about ")
    ('44 s', '0.4 s', 'about 10.0 min', '4.2 h', '')
    """
    if seconds is None:
        return ""
    small = f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return before + (small if seconds < 60 else f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h")


def estimate(
    study: Study,
    probes: Sequence[Probe],
    earlier: Sequence[Trial] = (),
    *,
    joules_limit: float | None = None,
    trial_limit: int | None = None,
    overhead: Overhead | None = None,
    probe_joules: float | None = None,
    seed: int = 0,
) -> Estimate:
    """Estimate the cost of a study from probed candidates and earlier trials.

    A trial is a candidate and a number of epochs. Candidates are drawn from the probes (and from the per-epoch energies of earlier
    trials), epochs as the study's sampler draws them: spread evenly over the logarithm of the epochs for Optuna's samplers, one rung's
    increment at a time for ``freeze-thaw``, or all of the rung where no candidate can be resumed. A study with an energy budget costs
    its budget and the number of trials is what is uncertain; one with a number of trials costs what those trials cost. How often
    ``freeze-thaw`` continues and how much it prefers what is cheap depends on qualities that nobody knows yet: that is drawn, too, and
    widens the interval. Features of a frozen network are paid by the first trial that needs them, those of further images by the first
    that needs more.

    Raises:
        ValueError: If no probe could be trained, or the study has no limit.
    """
    refuse_wrong_types(estimate, locals())
    known = _Known.of(probes, earlier, None if overhead is None else overhead.hardware_id)
    if joules_limit is None and trial_limit is None:
        raise ValueError("a study without --budget and --trials has no end to estimate; give one of them")
    longest, budget = (math.inf if limit is None else float(limit) for limit in (trial_limit, joules_limit))
    draws = _Draws(study, known, overhead or Overhead(0.0, 0.0), longest, budget)
    random = np.random.default_rng(seed)
    goals = np.exp(np.random.default_rng(seed + 1).uniform(math.log(NEEDED[0]), math.log(NEEDED[1]), size=DRAWS))
    totals, counts, beside, frozen, needed = np.array([draws.course(goal, random) for goal in goals]).T
    joules, pace = float(np.median(totals)), known.seconds_per_joule
    need, least, most = (float(value) if draws.frugal else None for value in np.quantile(needed, (0.5, LOW, HIGH)))
    return Estimate(
        joules=joules,
        low_joules=float(np.quantile(totals, LOW)),
        high_joules=float(np.quantile(totals, HIGH)),
        trials=float(np.median(counts)),
        low_trials=float(np.quantile(counts, LOW)),
        high_trials=float(np.quantile(counts, HIGH)),
        seconds=None if pace is None else joules * pace,
        overhead_joules=None if overhead is None else float(np.median(beside)),
        full_training_joules=float(np.median(known.epoch_joules)) * study.rungs[-1],
        probes=known.probes,
        failed_probes=sum(p.failed is not None for p in probes),
        earlier=known.earlier,
        elsewhere=known.elsewhere,
        probe_joules=probe_joules,
        features_joules=float(np.median(frozen)) if known.shared.names else None,
        needed_joules=need,
        low_needed_joules=least,
        high_needed_joules=most,
        needed_seconds=None if need is None or pace is None else need * pace,
    )


@dataclass(frozen=True)
class _Known:
    """What is known of candidates, probed ones first, then those of earlier trials: ``(n,)`` joules of an epoch and beside all epochs."""

    epoch_joules: np.ndarray
    startup_joules: np.ndarray
    shared: FeatureCosts
    seconds_per_joule: float | None
    probes: int
    earlier: int
    elsewhere: int

    @classmethod
    def of(cls, probes: Sequence[Probe], earlier: Sequence[Trial], hardware_id: str | None) -> _Known:
        """Take what could be measured; energies of other hardware are no energies of this."""
        good = [(p, p.epoch_joules) for p in probes if p.failed is None and p.epoch_joules is not None]
        alike = [t for t in earlier if hardware_id is None or t.energy.hardware_id in (None, hardware_id)]
        # An ensemble was not trained, and a duplicate was trained once.
        used = [t for t in alike if t.state == "complete" and t.train_joules and t.epochs and not t.members and "copy_of" not in t.extra]
        if not good and not used:
            reasons = "; ".join(sorted({p.failed for p in probes if p.failed})) or "their energy is unknown"
            raise ValueError(f"none of {len(probes)} probed candidates could be measured: {reasons}")
        pace = [p.epoch_seconds / joules for p, joules in good if joules]
        pace = pace or [t.energy.train_seconds / t.train_joules for t in used if t.energy.train_seconds and t.train_joules]
        # Their features are kept on this machine: they cost no more.
        heads = [((t.train_joules or 0.0) - (t.energy.features_joules or 0.0)) / t.epochs for t in used]
        startup = [max(0.0, (t.increment_joules or 0.0) - (t.train_joules or 0.0)) if t.parent is None else 0.0 for t in used]
        return cls(
            np.array([joules for _, joules in good] + heads),
            np.array([p.startup_joules or 0.0 for p, _ in good] + startup),
            FeatureCosts.of([*(p.shared for p, _ in good), *(None for _ in used)]),
            float(np.median(pace)) if pace else None,
            len(good),
            len(used),
            len(earlier) - len(alike),
        )

    @cached_property
    def least_joules(self) -> float:
        """What a measured zero is taken for: as cheap as the cheapest that was seen."""
        return float(min(self.epoch_joules[self.epoch_joules > 0], default=1.0))


@dataclass(frozen=True)
class _Draws:
    """Draws how a study may go until one of its limits, which are infinite where it has none."""

    study: Study
    known: _Known
    overhead: Overhead
    trial_limit: float
    joules_limit: float

    @property
    def frugal(self) -> bool:
        """Whether the sampler looks at energies."""
        return self.study.sampler == "freeze-thaw"

    @cached_property
    def resumes(self) -> bool:
        """Whether a trial of a rung pays only what comes on top of the rung below."""
        return any_resumable(self.study.space)

    def course(self, goal: float, random: np.random.Generator) -> tuple[float, ...]:
        """Draw what the trials pay, one after another; ``goal`` is how many complete trainings of a median candidate are needed.

        Return the joules and trials of the whole, the joules of it beside trainings and for features, and those that the goal needs.
        """
        known, size, factor = self.known, int(min(self.trial_limit, MOST_DRAWN)), random.uniform(*BESIDE)
        pick, median = self._candidates(size, random)
        computed = known.shared.paid(pick)
        trained = known.epoch_joules[pick] * self._epochs(size, random)
        start, decision = factor * self.overhead.start_joules, factor * self.overhead.decision_joules
        paid = trained + known.startup_joules[pick] + decision + computed
        needed, rest = goal * median * self.study.rungs[-1], float(np.mean(known.startup_joules[pick])) + decision
        needed_in_all = start + needed + max(1.0, needed / (float(trained.mean()) or 1.0)) * rest + float(computed.sum())
        each = float(np.mean(paid - computed))  # of more trials than are drawn their mean is enough; they find their features
        total, count = self._ends(start + np.cumsum(paid), start, each)
        beside = factor * (self.overhead.start_joules + self.overhead.decision_joules * count)
        return total, count, min(total, beside), min(total, float(computed[: max(1, int(count))].sum())), needed_in_all

    def _candidates(self, size: int, random: np.random.Generator) -> tuple[np.ndarray, float]:
        """Draw ``(size,)`` candidates, by a sampler that may prefer what is cheap, and return the median energy of an epoch."""
        joules = self.known.epoch_joules
        chosen = random.integers(len(joules), size=len(joules))  # which candidates were probed is luck, too
        weights = np.maximum(joules[chosen], self.known.least_joules) ** -(random.uniform(*THRIFT) if self.frugal else 0.0)
        return chosen[random.choice(len(chosen), size=size, p=weights / weights.sum())], float(np.median(joules[chosen]))

    def _epochs(self, count: int, random: np.random.Generator) -> np.ndarray:
        """``(count,)`` epochs that each trial pays for; without checkpoints each begins from scratch."""
        rungs, study = np.array(self.study.rungs, dtype=float), self.study
        if self.frugal:
            increments = np.diff(rungs, prepend=0.0) if self.resumes else rungs
            shares = random.uniform(*GOES_ON) ** np.arange(len(rungs))
            return random.choice(increments, size=count, p=shares / shares.sum())
        if study.complete_only:
            return np.full(count, rungs[-1])
        if study.sampler == "grid":
            return random.choice(rungs, size=count)
        return np.round(np.exp(random.uniform(np.log(rungs[0]), np.log(rungs[-1] + 1e-9), size=count)))

    def _ends(self, spent: np.ndarray, start: float, each: float) -> tuple[float, float]:
        """Return joules and trials at the first limit: ``spent`` are the joules by the end of each trial, ``each`` those of later ones."""
        if not each > 0 and self.trial_limit == math.inf:
            raise ValueError("a training must take more than 0 J to say how many a budget buys, got 0 J of every probe; give --trials")
        last, budget = float(spent[-1]), self.joules_limit
        whole = last + (self.trial_limit - len(spent)) * each
        if whole <= budget:
            return whole, self.trial_limit
        if last < budget:
            return budget, len(spent) + (budget - last) / each
        return budget, float(np.searchsorted(spent, budget)) + 1 if start < budget else 0.0


def roughly_needed(study: Study, probes: Sequence[Probe], start_joules: float) -> float:
    """Return about what a study needs, in joules, from its probes so far; 0 while nothing is known."""
    known = [one.epoch_joules for one in probes if one.epoch_joules is not None]
    return start_joules + float(np.sqrt(np.prod(NEEDED))) * float(np.median(known)) * study.rungs[-1] if known else 0.0


def probe_study(
    study: Study,
    *,
    count: int,
    meter: str = "auto",
    device: str = "auto",
    cpu_watts: float | None = None,
    whole_process: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[list[Probe], Overhead | None, float | None]:
    """Probe candidates of a study, half of them those that it begins with, else random ones; what it does is told in a line at a time.

    Fewer than so many are probed where more would take more than ``FRUGAL`` of what the study needs. Return them, the overhead (None when
    energy is unknown), and the joules of all of this.
    """
    refuse_wrong_types(probe_study, locals())
    with open_bench(SessionOptions(meter, cpu_watts, device, whole_process=whole_process)) as bench:
        tell("loading the data and warming up")
        with bench.metered() as (ledger, prelude):
            begin_ns = time.monotonic_ns()
            task = study.load_task()
            study = study.fitted_to(task)
            WarmUp(study.space, task, bench.device, study.seed).all(bench.threads)
        before = (prelude or {}).get("joules") or 0.0
        start, probing_ns = ledger.joules(begin_ns), time.monotonic_ns()
        probes: list[Probe] = []
        waits, cache = Hints(study.space).waits, FeatureCache.of_user()
        known = [NearestTrial(study.first[k]) for k in spaced(len(study.first), count // 2)]  # a study knows what it begins with
        for draw in [*known, *(RandomTrial(1000 * study.seed + index) for index in range(10 * count))]:
            left = FRUGAL * roughly_needed(study, probes, before + (start or 0.0)) - (ledger.joules(probing_ns) or 0.0)
            if len(probes) == count:
                break
            if len(probes) >= LEAST_PROBES and left < 0 < len([one for one in probes if one.failed is None]):
                tell(f"{len(probes)} candidates must do: more would cost over {FRUGAL:.0%} of what the study needs")
                break
            study.space.sample(draw)
            if not waits(draw.params):  # what waits for others may never begin
                tell(f"probing candidate {len(probes) + 1} of {count}")
                where: Any = dict(device=bench.device, threads=bench.threads, seed=study.seed, features=cache)
                probes.append(probe(draw.params, study.space, task, ledger, **where))
        tell("rehearsing decisions")
        decision = decision_joules(study, task, ledger, left)
        overhead = None if start is None or decision is None else Overhead(before + start, decision, ledger.hardware_id)
        joules = ledger.joules(begin_ns)
        return probes, overhead, None if joules is None else before + joules


def decision_joules(study: Study, task: Task, ledger: Ledger, most_joules: float = math.inf) -> float | None:
    """Return what asking for one trial and storing its result costs on this machine, or None when energy is unknown.

    Qualities and energies are made up: they decide what is proposed, not what proposing costs. Once it has taken the most that it may, it
    ends, but not before models have decided, which takes many times a random draw: these decisions stand for the rest.
    """
    random = np.random.default_rng(study.seed)
    with TemporaryDirectory() as folder:
        store = RunFolder.create(Path(folder) / "rehearsal", {"study": described(study), "sessions": [], "run_id": "rehearsal"})
        sampler = make_sampler(study.sampler, rungs=study.rungs, seed=study.seed, study=study, task=task)
        optuna_study = store.study(sampler, alone=True)
        begin_ns, spent, directed = time.monotonic_ns(), [0.0], list(zip(study.objectives, study.directions, strict=True))
        while len(spent) <= (TRIALS if spent[-1] <= most_joules else RANDOM + LEAST_DECISIONS) and not getattr(sampler, "exhausted", False):
            asked = optuna_study.ask()
            study.space.sample(asked)
            epochs = study.draw_epochs(asked)
            quality = float(random.uniform(0.2, 1.0)) * (1.0 - 0.5**epochs)
            values = {name: quality if direction == "maximize" else 1.0 / (1.0 + quality) for name, direction in directed}
            values |= {name: epochs * float(random.uniform(0.5, 2.0)) for name in study.objectives if "energy" in name or "co2" in name}
            asked.set_user_attr(EPOCHS_REACHED, epochs)
            optuna_study.tell(asked, [values[name] for name in study.objectives])
            spent.append(ledger.joules(begin_ns) or 0.0)
        known, each = ledger.joules(begin_ns) is not None, np.diff(spent)
    decided = each[RANDOM:]
    mean = (each[:RANDOM].sum() + (TRIALS - RANDOM) * decided.mean()) / TRIALS if len(decided) else each.sum() / max(1, len(each))
    return float(mean) if known and len(each) else None
