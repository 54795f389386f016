"""The sampler: an ordinary Optuna sampler that resumes ("thaws") the trainings worth continuing and leaves the others paused ("frozen").

Source: Swersky et al. 2014, "Freeze-thaw Bayesian optimization" (arXiv 1406.3896), for the idea; here with several objectives and a cost.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ..argument_types import refuse_wrong_types
from .acquisition import Decision, ScoredCandidates, SearchSettings, SearchState
from .encoding import Encoder, Encoding, Features, learn_encoding
from .history import CLAIM, RESUME_FROM, Comparable, History, Key, Observation, energy_second
from .planner import Planner
from .proposals import HALVING, MODEL, UNIFORM, Proposal, earnings, halving_decision, initial_design, mutation_decision, random_decision
from .surrogates import SurrogateModels
from .transfer import TransferModel, studies_of

#: One fit serves a decision, and another one for each so many measurements: where trainings are that many, they are cheap beside deciding.
_BATCH, _LARGEST_BATCH = 100, 4
#: Conditional parameters are learned from so many of the latest configurations.
_GATE_SAMPLE = 1000
#: Workers in step with each other give everything up: then they wait for a random time, so often at most.
_MOST_WAITS, _LONGEST_WAIT_SECONDS = 8, 0.2


@dataclass(frozen=True)
class Survey:
    """What a decision is made from."""

    planner: Planner
    state: SearchState
    candidates: ScoredCandidates


class FreezeThawSampler(BaseSampler):
    """Multi-objective, multi-fidelity Bayesian optimisation of configurations and epochs, paid in energy.

    Every trial is one measured point: a configuration trained to ``epochs``, one of ``rungs``. The sampler starts configurations at the
    lowest rung, and continues those whose expected hypervolume improvement per unit of energy is largest. A continuation is a new trial
    with the same parameters and more epochs; ``resume_from(trial)`` gives the number of the trial whose checkpoint it resumes.

    The objective suggests its parameters and, with ``trial.suggest_int("epochs", rungs[0], rungs[-1])``, the epochs. It returns the quality
    first, then the energy of training *that model from scratch* (for a continuation: of its whole lineage) in any unit, and further
    objectives (``energy`` is the index of the energy).

    Args:
        rungs: Ascending epochs at which models are measured, e.g. ``[4, 12, 36, 108]``.
        resume: Whether checkpoints can be resumed. True climbs rung by rung and pays increments; False trains every budget from scratch and
            may skip rungs.
        seed: Equal seeds and equal results give equal proposals of one sampler or its copies; None seeds from the operating system.
        min_accuracy: Quality from which a model is of use (in the user's unit and direction): the reference of the hypervolume. None
            estimates the 10th percentile of completely trained random configurations.
        features: Function of the parameters that returns numbers known without training (parameter count, FLOPs, ...); called hundreds
            of times per decision, so it should take well under a millisecond.
        key: Function of the parameters that returns the same JSON for configurations that are the same model; None compares parameters.
        complete_only: Whether only trainings to the last rung are points of the front.
        epochs_name: Name of the parameter that holds the epochs.
        energy: Index of the objective that is the energy.
        search_space: Distributions of the parameters, if they are known before the first trial. Without it the space is learned from the
            trials, and only the very first ones are drawn without knowing what other workers draw.
        prior_trials: Trials of earlier studies with the same parameters, one sequence per study (or the trials of a single one): they
            inform the models and are never points of the front.
        startup: Random configurations at the lowest rung before the models are used.
        ladders: Complete trainings, rung by rung, that follow them; none by default. A single one starts from the cheapest of the better
            half; of several, the first starts from the most accurate configuration.
        hedge: Share of the energy, at most 0.2, that each of two arms without a model is sure of; 0 leaves everything to the models.
        proposal: How fresh configurations are generated.
        paid: Function of all trials that returns a function of the parameters, or None: how much of the energy of a training from scratch
            is paid once for several configurations, and was. Gains are divided by what is still to pay.
        withheld: Function of all trials and of ``remaining`` that returns a function of the parameters, or None: whether a configuration
            must not be begun yet.

    Attributes:
        remaining: Energy left to spend, in the unit of the energy objective, or None. Trainings that cost more are not proposed.
        largest_step: Largest training proposed after the initial design, as a share of the energy of a median complete one, or None.
        last_decision: The latest proposal.
        comparable: Function that keeps of all trials those whose energies are comparable: those of one kind of hardware.
        exhausted: Whether nothing was left to train that was not trained before; ``Study.optimize`` then ends.
        lock: Held by who decides, or reads a `survey`: the next decision of another thread changes its models.

    Raises:
        ValueError: If an argument is not valid.
    """

    def __init__(
        self,
        rungs: Sequence[int],
        *,
        resume: bool = True,
        seed: int | None = 0,
        min_accuracy: float | None = None,
        features: Features | None = None,
        key: Key | None = None,
        complete_only: bool = False,
        epochs_name: str = "epochs",
        energy: int = 1,
        search_space: Mapping[str, BaseDistribution] | None = None,
        prior_trials: Sequence[Sequence[FrozenTrial]] | Sequence[FrozenTrial] = (),
        startup: int = 8,
        ladders: int = 0,
        hedge: float = 0.1,
        proposal: Proposal = UNIFORM,
        paid: Callable[[Sequence[FrozenTrial]], Callable[[Mapping[str, Any]], float] | None] | None = None,
        withheld: Callable[[Sequence[FrozenTrial], float | None], Callable[[Mapping[str, Any]], bool] | None] | None = None,
    ) -> None:
        if isinstance(rungs, Iterable):  # NumPy's whole numbers may be floats
            rungs = tuple(int(one) if isinstance(one, float) and one % 1 == 0 else one for one in rungs)
        refuse_wrong_types(FreezeThawSampler.__init__, locals(), rungs="write [4, 12, 36, 108]")
        if not len(rungs) or list(rungs) != sorted(set(rungs)) or rungs[0] < 1:
            raise ValueError(f"rungs must be ascending integers >= 1, got {list(rungs)}; for example [4, 12, 36, 108]")
        rules = {
            f"seed must be >= 0, got {seed}": seed is None or seed >= 0,
            f"min_accuracy must be a finite number, got {min_accuracy}": min_accuracy is None or math.isfinite(min_accuracy),
            f"energy must be >= 1, since objective 0 is the quality, got {energy}": energy >= 1,
            f"startup must be >= 2, got {startup}: a model needs two configurations to compare": startup >= 2,
            f"ladders must be >= 0, got {ladders}": ladders >= 0,
            f"hedge must be from 0 to 0.2, got {hedge}": 0 <= hedge <= 0.2,
        }
        if wrong := [said for said, right in rules.items() if not right]:
            raise ValueError(f"{wrong[0]}; leave it out for the default")
        self.rungs, self.resume, self.epochs_name, self._energy = tuple(int(r) for r in rungs), resume, epochs_name, energy
        self.remaining: float | None = None
        self.largest_step: float | None = None
        self.last_decision: Decision | None = None
        self.comparable: Comparable = tuple
        self.exhausted, self._without_epochs = False, 0
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._settings = SearchSettings(self.rungs, resume, (), complete_only, min_accuracy, startup, ladders, hedge)
        self._features, self._key, self._proposal = features, key, proposal
        self._paid, self._withheld = paid, withheld
        self._given_space = {n: d for n, d in (search_space or {}).items() if n != epochs_name}
        self._prior_trials = studies_of(prior_trials)
        self._history = History(key, epochs_name, energy)
        self.lock = threading.RLock()
        self._study_id: int | None = None
        self._storage: weakref.ref[Any] | None = None
        self._ahead: dict[int, tuple[Decision, Observation | None]] = {}
        self._minimized: tuple[bool, ...] = ()
        self._encoder: Encoder | None = None
        self._planner: Planner | None = None
        self._transfer: TransferModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lock"} | {"_storage": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = threading.RLock()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return every parameter seen so far and the epochs; `PartialFixedSampler`, or an objective without epochs, raises ValueError."""
        if isinstance(study.sampler, PartialFixedSampler):
            said = "FreezeThawSampler must decide on whole configurations, got PartialFixedSampler around it"
            raise ValueError(f"{said}; suggest what is fixed from one value, low = high")
        self.exhausted = False  # found anew for each trial: the study may be another one, or its space wider
        if trial.system_attrs.get("fixed_params"):
            return {}  # enqueued by the user: parameters that are not fixed are drawn at random
        with self.lock:
            self._update(study, exclude=trial.number)
            space, epochs = self._space(), self._history.epochs_distribution
            if epochs is None and self._without_epochs >= self._settings.startup:
                said = f"the objective must suggest {self.epochs_name!r} (epochs_name), got {self._without_epochs} trials without"
                raise ValueError(f'{said}; add trial.suggest_int("{self.epochs_name}", {self.rungs[0]}, {self.rungs[-1]})')
        if not space and not self._history.observations:
            return {}
        # How the objective asks for the epochs is known once it has: until then they are the lowest rung, drawn on their own.
        return space if epochs is None else {**space, self.epochs_name: epochs}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Decide what to train, claim it for this worker, and return its parameters."""
        if not search_space:
            return {}
        with self.lock:  # threads of one study share the sampler
            decision = self.last_decision = self._decide_and_claim(study, trial)
        if decision.parent is not None:
            study._storage.set_trial_user_attr(trial._trial_id, RESUME_FROM, decision.parent)
            trial.user_attrs[RESUME_FROM] = decision.parent  # the objective's own copy was made before this decision
        return {name: value for name, value in {**decision.params, self.epochs_name: decision.epochs}.items() if name in search_space}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Draw a parameter that no earlier trial has; epochs start at the lowest rung.

        Raises:
            ValueError: A rung is outside of the range of the epochs.
        """
        if param_name == self.epochs_name:
            require_rungs(self.rungs, param_distribution)
        if trial.user_attrs.get(RESUME_FROM) is not None and param_name in (trial.system_attrs.get(CLAIM) or {"params": {}})["params"]:
            # The space has just become narrower than what was decided on: another configuration, from scratch.
            study._storage.set_trial_user_attr(trial._trial_id, RESUME_FROM, None)
            trial.user_attrs[RESUME_FROM] = None
        if param_name == self.epochs_name:
            return param_distribution.to_external_repr(param_distribution.to_internal_repr(self.rungs[0]))
        alone = Encoding({param_name: param_distribution})
        return alone.params(alone.random(self._rng(trial, zlib.crc32(param_name.encode())), 1)[0])[param_name]

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """End ``Study.optimize`` when the space is exhausted; with ask and tell the caller reads ``exhausted``."""
        self._without_epochs += state == TrialState.COMPLETE and self.epochs_name not in trial.params
        earlier = (one for one in self._trials(study) if one.number < trial.number)
        if self.exhausted and all(one.distributions != trial.distributions for one in earlier):
            self.exhausted = False  # the objective has just asked for another space
        if self.exhausted:
            with suppress(RuntimeError):
                study.stop()

    def reseed_rng(self) -> None:
        """Do nothing: randomness depends on the seed and the number of the trial, so parallel copies of the sampler never coincide."""

    def decide(self, study: Study, number: int, *, excluded: frozenset[str] = frozenset()) -> Decision | None:
        """Return what a trial with this number, which seeds the decision, would train; None when nothing is left to train.

        Configurations whose keys are ``excluded`` are not chosen.
        """
        self._update(study, exclude=number)
        history, rng = self._history, np.random.default_rng([self._seed, number, len(excluded)])
        planner, encoder = self._prepared(study)
        decision = initial_design(planner.settings, history, encoder, rng, excluded, planner.warm_starts, planner.withheld)
        if (decision := decision or self._decided_before(number, excluded)) is not None:
            return decision
        state = planner.fit(history, encoder, rng)
        if (hedged := self._hedged(planner, state, rng, excluded)) is not None:
            return hedged
        several = min(_LARGEST_BATCH, 1 + len(state.table.values) // _BATCH) if self.largest_step is None else 1
        candidates = planner.score(state, rng, self.remaining, self.largest_step)
        found = planner.batch(state, candidates, excluded, several)
        if not excluded:
            self._ahead = {number + index: (later, history.longest(later.key)) for index, later in enumerate(found) if index}
        return found[0] if found else None

    def _decided_before(self, number: int, excluded: frozenset[str]) -> Decision | None:
        """Return what was decided for this trial together with an earlier one, if that still is possible."""
        found, longest = self._ahead.get(number, (None, None))
        taken = excluded | self._history.failed | {trial.key for trial in self._history.running}
        if found is None or found.key in taken or self._history.longest(found.key) != longest or self.largest_step is not None:
            return None
        return found if self.remaining is None or found.step_cost is None or found.step_cost <= self.remaining else None

    def _hedged(self, planner: Planner, state: SearchState, rng: np.random.Generator, excluded: frozenset[str]) -> Decision | None:
        """Return what an arm without a model proposes, if it is due and its training fits into what remains."""
        settings, history = planner.settings, self._history
        if not settings.hedge or settings.complete_only or self.largest_step is not None:
            return None
        due = earnings(state).due(settings.hedge)
        if due == MODEL:
            return None
        taken = {trial.key for trial in history.running} | history.failed | excluded
        arm = halving_decision if due == HALVING else mutation_decision
        found = arm(settings, state, rng, taken)
        if found is None or (planner.withheld is not None and found.parent is None and planner.withheld(found.params)):
            return None
        return planner.affordable(state, found, self.remaining)

    def survey(self, study: Study) -> Survey | None:
        """Return what the next decision would be made from; None during the initial design."""
        with self.lock:
            self._update(study, exclude=None)
            planner, encoder = self._prepared(study)
            rng = np.random.default_rng([self._seed, sum(len(points) for points in self._history.observations.values())])
            design = initial_design(planner.settings, self._history, encoder, rng, frozenset(), planner.warm_starts, planner.withheld)
            if design is not None:
                return None
            state = planner.fit(self._history, encoder, rng)
            candidates = planner.score(state, rng, self.remaining)
            return Survey(planner, state, candidates)

    def _decide_and_claim(self, study: Study, trial: FrozenTrial) -> Decision:
        """Choose a training that no other worker runs, and write the claim to the storage.

        Every worker writes its claim before it looks for others': of two that want the same configuration at least one sees the other and
        chooses again. If both see each other both choose again, after a random wait where in step they have given everything up. Where
        nothing else is left (all else failed or runs), the same is proposed again: the study's limit of failures ends that, not this loop.
        """
        excluded, waits = set[str](), iter(self._rng(trial, 2).uniform(0.0, _LONGEST_WAIT_SECONDS, _MOST_WAITS))
        while True:
            decision = self.decide(study, trial.number, excluded=frozenset(excluded))
            if decision is None and excluded and (seconds := next(waits, None)) is not None:
                time.sleep(seconds)
                excluded.clear()
                continue
            if decision is None:
                assert self._encoder is not None
                decision = random_decision(self.rungs[0], self._history, self._encoder, self._rng(trial, 1))
                known = self._history.observations.keys() | self._history.failed
                # Copies of what was measured may be under way in other threads: they lead to nothing new.
                self.exhausted = decision.key in known and all(self._trained(one.key, one.epochs) for one in self._history.running)
                return decision
            claim: Any = {"key": decision.key, "params": dict(decision.params), "epochs": decision.epochs, "arm": decision.arm}
            claim |= {} if decision.belief is None else {"belief": list(astuple(decision.belief))}
            study._storage.set_trial_system_attr(trial._trial_id, CLAIM, claim)
            self._update(study, exclude=trial.number)
            running = any(other.key == decision.key for other in self._history.running)
            if decision.key in excluded or not (running or self._trained(decision.key, decision.epochs)):
                return decision
            excluded.add(decision.key)

    def _trained(self, key: str, epochs: int) -> bool:
        return epochs in self._history.observations.get(key, {}) or key in self._history.failed

    def _update(self, study: Study, *, exclude: int | None) -> None:
        if self._storage is None and self._study_id == study._study_id:
            self._storage = weakref.ref(study._storage)  # a copy goes on with the study of its original
        # The first study of every storage has the same id.
        if self._storage is None or self._storage() is not study._storage or self._study_id != study._study_id:
            minimized = [direction.name == "MINIMIZE" for direction in study.directions]
            if self._energy >= len(minimized):
                said = f"FreezeThawSampler needs two or more objectives, got {len(minimized)} objectives and energy={self._energy}"
                raise ValueError(f'{said}; write directions=["maximize", "minimize"]')
            self._study_id, self._storage, self._planner, self._ahead = study._study_id, weakref.ref(study._storage), None, {}
            self._history = History(self._key, self.epochs_name, self._energy)
            self._minimized = energy_second(minimized, self._energy)
            facts = (self.rungs, self._minimized, self._key, self.epochs_name, self._energy)
            self._transfer = TransferModel(self._prior_trials, *facts) if self._prior_trials else None
            self._history.distributions.update(self._given_space)
        # All trials, without a copy, and not from a cache that other workers' claims have not reached.
        self._history.update(self._trials(study), exclude=exclude)

    def _trials(self, study: Study) -> Sequence[FrozenTrial]:
        return self.comparable(study._storage.get_all_trials(study._study_id, deepcopy=False))

    def _space(self) -> dict[str, BaseDistribution]:
        """Parameters seen in this study; during the initial design also those of earlier studies, if the spaces can be the same."""
        seen = self._history.distributions
        earlier = self._transfer.distributions() if self._transfer is not None else {}
        initial = len(self._history.observations) < self._settings.startup
        if self._transfer is None or not initial or not seen.keys() <= earlier.keys():
            return dict(seen)
        unknown = self._transfer.unknown_params(self._history.params.values())
        return {**{name: found for name, found in earlier.items() if name not in unknown}, **seen}

    def _prepared(self, study: Study) -> tuple[Planner, Encoder]:
        history = self._history
        encoding = learn_encoding(list(history.params.values())[-_GATE_SAMPLE:], self._space())
        if self._encoder is None or self._encoder.encoding != encoding:
            self._encoder = Encoder(encoding, self._features)
        if self._planner is None:
            settings = replace(self._settings, minimized=self._minimized)
            self._planner = Planner(settings, SurrogateModels(self.rungs), proposal=self._proposal)
        if self._transfer is not None:
            self._planner.models.trends = self._transfer.trends(self._encoder)
            self._planner.warm_starts = self._transfer.warm_starts if self._planner.models.trends else None
        if self._paid is not None or self._withheld is not None:
            trials = self._trials(study)
            self._planner.paid = None if self._paid is None else self._paid(trials)
            self._planner.withheld = None if self._withheld is None else self._withheld(trials, self.remaining)
        return self._planner, self._encoder

    def _rng(self, trial: FrozenTrial, salt: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, trial.number, salt])


def require_rungs(rungs: Sequence[int], epochs: BaseDistribution) -> None:
    """Raise ValueError unless the objective can suggest every rung as its number of epochs."""
    for rung in rungs:
        if (
            rung not in epochs.choices
            if isinstance(epochs, CategoricalDistribution)
            else not epochs._contains(epochs.to_internal_repr(rung))
        ):
            raise ValueError(f"rungs must be numbers of epochs that the objective can suggest, got {rung} and {epochs}; change one of them")
