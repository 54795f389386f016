"""The sampler: an ordinary Optuna sampler that thaws what is worth continuing and freezes the rest.

The first trainings, before there is anything to learn from.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from .decisions import Decision, Options, Rules, Situation
from .encoding import Array, Encoding, learn_encoding
from .history import CLAIM, RESUME_FROM, History, Key, energy_second
from .observations import Encoder, Features
from .planner import Planner
from .proposals import UNIFORM, Proposal
from .surrogates import Models
from .transfer import Prior, studies_of

if TYPE_CHECKING:
    from optuna.study import Study

#: A configuration is drawn so many times at most before the space counts as exhausted.
_DRAWS = 64


def start(
    rules: Rules,
    history: History,
    encoder: Encoder,
    rng: np.random.Generator,
    refused: frozenset[str],
    seeds: Callable[[Encoder], Array] | None,
) -> Decision | None:
    """Return the next training of the initial design; None when the models can take over.

    Random configurations at the lowest rung, those of earlier studies first; then a complete training of the cheapest of the better half,
    rung by rung. With more ladders than one the most accurate is trained first, then the cheapest of the better half of the others.
    Trainings that run count as done, those that failed are replaced.
    """
    busy = {claim.key for claim in history.running}
    alive = history.points.keys() - history.failed
    attempts = len(history.points.keys() | busy | history.failed)
    wanted = rules.startup if seeds is None else max(2, rules.startup // 2)
    taken = history.points.keys() | busy | history.failed | refused
    if (len(alive | busy) < wanted and attempts < 8 * wanted) or len(alive) < 2:
        drawn = encoder.encoding.random(rng, _DRAWS)
        for genes in drawn if seeds is None else np.vstack([seeds(encoder), drawn]):
            params = encoder.encoding.params(genes)
            key = history.proposed(params)
            if key not in taken:
                return Decision(params, key, rules.rungs[0], None)
        if len(alive) < 2:
            return None if len(alive) else _lowest(rules, history, encoder, rng)
    return _ladder(rules, history, busy | refused)


def _lowest(rules: Rules, history: History, encoder: Encoder, rng: np.random.Generator) -> Decision:
    """Nothing has succeeded and nothing else can be drawn: try something again."""
    params = encoder.encoding.params(encoder.encoding.random(rng, 1)[0])
    return Decision(params, history.proposed(params), rules.rungs[0], None)


def _ladder(rules: Rules, history: History, busy: set[str] | frozenset[str]) -> Decision | None:
    """Continue one of the first complete trainings, or start one."""
    last, first = rules.rungs[-1], rules.rungs[0]
    alive = [key for key in history.points if key not in history.failed and any(p.feasible for p in history.points[key].values())]
    running_up = {claim.key for claim in history.running if claim.epochs > first}
    climbed = {key for key in alive if max(history.points[key]) > first} | running_up
    reached = {key: history.trained_to(key, resume=rules.resume) for key in alive}
    complete = {key for key in alive if reached[key] >= last or key in history.finished}
    if len(complete) >= rules.ladders:
        return None
    on_the_way = [key for key in alive if key in climbed and key not in complete and key not in busy]
    if len(climbed) < rules.ladders:
        sign = -1.0 if rules.minimized[0] else 1.0
        cheap = 1.0 if rules.minimized[1] else -1.0
        fresh = [key for key in alive if key not in climbed | complete | busy and first in history.points[key]]
        fresh.sort(key=lambda key: -sign * history.points[key][first].values[0])
        if fresh and (climbed or rules.ladders == 1):
            fresh = sorted(fresh[: max(1, len(fresh) // 2)], key=lambda key: cheap * history.points[key][first].values[1])
        on_the_way += fresh[:1]
    if not on_the_way:
        return None
    key = on_the_way[0]
    point = history.longest(key)
    assert point is not None
    epochs = next(rung for rung in rules.rungs if rung > reached[key])
    return Decision(history.params[key], key, epochs, point.number if history.goes_on(key, resume=rules.resume) else None)


_GATE_SAMPLE = 1000


@dataclass(frozen=True)
class Survey:
    """What a decision is made from.

    Attributes:
        planner: Rules and models.
        history: What was measured, and what runs.
        encoder: Inputs of the models.
        situation: Where the study stands.
        options: What could be trained.
    """

    planner: Planner
    history: History
    encoder: Encoder
    situation: Situation
    options: Options


class FreezeThawSampler(BaseSampler):
    """Multi-objective search over configurations and epochs, paid in energy.

    Every trial is one measured point: a configuration trained to ``epochs``, one of ``rungs``. The sampler starts configurations at the
    lowest rung, and continues those whose expected hypervolume gain per unit of energy is largest. A continuation is a new trial with
    the same parameters and more epochs; ``resume_from(trial)`` gives the number of the trial whose checkpoint it continues.

    The objective suggests its parameters and, with ``trial.suggest_int("epochs", rungs[0], rungs[-1])``, the epochs. It returns the quality
    first, then the energy of training *that model from scratch* (for a continuation: of its whole lineage) in any unit, and further
    objectives (``energy`` says which is the energy).

    Args:
        rungs: Ascending epochs at which models are measured, e.g. ``[4, 12, 36, 108]``.
        resume: Whether a checkpoint can go on. True climbs rung by rung and pays increments; False trains every budget from scratch and
            jumps.
        seed: Equal seeds and equal results give equal proposals; None for other ones every time.
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
        prior_trials: Trials of earlier studies with the same parameters, one sequence per study (or the trials of a single one):
            knowledge, never points of the front.
        startup: Random configurations at the lowest rung before the models are trusted.
        ladders: Complete trainings that follow them: one of the cheapest of the better half, or of the best of them and of that one.
        per_joule: Exponent of the energy by which expected gains are divided; 0 ignores energy.
        warp: Whether quality is modelled as approaching a limit, and the scales of parameters are learned.
        estimate_floor: Whether a missing ``min_accuracy`` is estimated; False takes the worst quality seen.
        look_ahead: Whether a plan is valued with the option to stop at its next rung; False values it as if it were carried out
            whatever is seen.
        proposal: How fresh configurations are looked for; ``LocalEdits()`` learns which changes of good ones help.

    Attributes:
        remaining: Energy left to spend, in the unit of the energy objective, or None. Trainings that do not fit are not proposed.
        largest_step: Largest training that is proposed once there are models, as a share of the energy of a median complete one, or None.
        last_decision: The latest proposal.

    Raises:
        ValueError: If an argument breaks its rule.
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
        ladders: int = 1,
        per_joule: float = 1.0,
        warp: bool = True,
        estimate_floor: bool = True,
        look_ahead: bool = True,
        proposal: Proposal = UNIFORM,
    ) -> None:
        if not rungs or list(rungs) != sorted(set(rungs)) or rungs[0] < 1:
            raise ValueError(f"rungs must be ascending whole numbers >= 1, got {list(rungs)}; for example [4, 12, 36, 108]")
        if startup < 2:
            raise ValueError(f"startup must be >= 2, got {startup}: a model needs two configurations to compare")
        if per_joule < 0:
            raise ValueError(f"per_joule must be >= 0, got {per_joule}; 1 divides gains by energy, 0 ignores energy")
        self.rungs, self.resume, self.epochs_name, self._energy = tuple(int(r) for r in rungs), resume, epochs_name, energy
        self.remaining: float | None = None
        self.largest_step: float | None = None
        self.last_decision: Decision | None = None
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._settings: dict[str, Any] = dict(
            complete_only=complete_only,
            floor=min_accuracy,
            per_joule=per_joule,
            startup=startup,
            ladders=ladders,
            estimate_floor=estimate_floor,
            look_ahead=look_ahead,
        )
        self._features, self._key, self._warp, self._proposal = features, key, warp, proposal
        self._given_space = {n: d for n, d in (search_space or {}).items() if n != epochs_name}
        self._prior_trials = studies_of(prior_trials)
        self._history = History(key, epochs_name, energy)
        self._lock = threading.RLock()
        self._study: int | None = None
        self._encoder: Encoder | None = None
        self._planner: Planner | None = None
        self._prior: Prior | None = None
        self._minimized: tuple[bool, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return every parameter that was seen, conditional ones included, and the epochs."""
        if trial.system_attrs.get("fixed_params"):
            return {}  # enqueued by the user: what it does not fix is drawn at random
        with self._lock:
            self._read(study, but=trial.number)
            space = self._space()
        if not space:
            return {}
        return {**space, self.epochs_name: self._history.epochs_distribution or IntDistribution(self.rungs[0], self.rungs[-1])}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Decide what to train, claim it, and return its parameters."""
        if not search_space:
            return {}
        with self._lock:  # threads of one study share the sampler
            decision = self._claimed(study, trial)
            self.last_decision = decision
        if decision.parent is not None:
            study._storage.set_trial_user_attr(trial._trial_id, RESUME_FROM, decision.parent)
            trial.user_attrs[RESUME_FROM] = decision.parent  # the objective's own copy was made before this decision
        return {**decision.params, self.epochs_name: decision.epochs}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Draw a parameter that no trial has had yet; epochs start at the lowest rung."""
        if param_name == self.epochs_name and isinstance(param_distribution, IntDistribution | FloatDistribution):
            return type(param_distribution.low)(min(max(self.rungs[0], param_distribution.low), param_distribution.high))
        if isinstance(param_distribution, CategoricalDistribution) and param_name == self.epochs_name:
            return min(c for c in param_distribution.choices if isinstance(c, int | float))
        rng = self._rng(trial, zlib.crc32(param_name.encode()))
        encoding = Encoding({param_name: param_distribution})
        return encoding.params(encoding.random(rng, 1)[0])[param_name]

    def reseed_rng(self) -> None:
        """Do nothing: randomness depends on the seed and the number of the trial, so copies of the sampler never draw the same."""

    def decide(self, study: Study, number: int, *, refused: frozenset[str] = frozenset()) -> Decision | None:
        """Return what a trial with this number would train; None when everything has been trained.

        Args:
            study: The study.
            number: Number of the trial, which seeds the decision.
            refused: Keys of configurations that must not be chosen.
        """
        self._read(study, but=number)
        history, rng = self._history, np.random.default_rng([self._seed, number, len(refused)])
        planner, encoder = self._prepared(study)
        decision = start(planner.rules, history, encoder, rng, refused, planner.seeds)
        if decision is not None:
            return decision
        survey = self._survey(planner, encoder, rng, self.largest_step)
        ranked = planner.ranked(survey.situation, survey.options, history, encoder)
        return next((found for found in ranked if found.key not in refused), None)

    def survey(self, study: Study) -> Survey | None:
        """Return what the next decision would be made from; None while the initial design is not finished."""
        with self._lock:
            self._read(study, but=None)
            planner, encoder = self._prepared(study)
            rng = np.random.default_rng([self._seed, sum(len(points) for points in self._history.points.values())])
            if start(planner.rules, self._history, encoder, rng, frozenset(), planner.seeds) is not None:
                return None
            return self._survey(planner, encoder, rng)

    def _survey(self, planner: Planner, encoder: Encoder, rng: np.random.Generator, largest_step: float | None = None) -> Survey:
        situation = planner.situation(self._history, encoder, rng)
        options = planner.options(situation, self._history, encoder, rng, self.remaining, largest_step)
        return Survey(planner, self._history, encoder, situation, options)

    def _claimed(self, study: Study, trial: FrozenTrial) -> Decision:
        """Decide and claim.

        Every worker writes its claim before it looks for others': of two that want the same configuration at least one sees the other and
        chooses again. If both see each other both choose again, which costs nothing.
        """
        refused: set[str] = set()
        while True:
            decision = self.decide(study, trial.number, refused=frozenset(refused))
            if decision is None:
                return self._anything(trial)
            claim: Any = {"key": decision.key, "params": dict(decision.params), "epochs": decision.epochs}
            study._storage.set_trial_system_attr(trial._trial_id, CLAIM, claim)
            self._read(study, but=trial.number)
            running = any(other.key == decision.key for other in self._history.running)
            trained = decision.epochs in self._history.points.get(decision.key, {}) or decision.key in self._history.failed
            if not running and not trained:
                return decision
            refused.add(decision.key)

    def _anything(self, trial: FrozenTrial) -> Decision:
        """Everything that could be found has been trained, or nothing fits the remaining energy: draw from the cheapest that there is."""
        assert self._encoder is not None
        params = self._encoder.encoding.params(self._encoder.encoding.random(self._rng(trial, 1), 1)[0])
        return Decision(params, self._history.proposed(params), self.rungs[0], None)

    def _read(self, study: Study, *, but: int | None) -> None:
        if self._study != study._study_id:
            minimized = [direction.name == "MINIMIZE" for direction in study.directions]
            if not 1 <= self._energy < len(minimized):
                raise ValueError(
                    "FreezeThawSampler needs two or more objectives, quality first, then energy; the study has "
                    f"{len(minimized)}, and the energy is said to be the one with index {self._energy}"
                )
            self._study, self._history, self._planner = study._study_id, History(self._key, self.epochs_name, self._energy), None
            self._minimized = energy_second(minimized, self._energy)
            told = (self.rungs, self._minimized, self._key, self.epochs_name, self._energy)
            self._prior = Prior(self._prior_trials, *told) if self._prior_trials else None
            self._history.distributions.update(self._given_space)
        # All trials, neither copied nor from a cache that other workers' claims have not reached.
        self._history.update(study._storage.get_all_trials(study._study_id, deepcopy=False), but=but)

    def _space(self) -> dict[str, BaseDistribution]:
        """Parameters that were seen here, at first also those of earlier studies if it can be the same space."""
        seen = self._history.distributions
        earlier = self._prior.distributions() if self._prior is not None else {}
        young = len(self._history.points) < self._settings["startup"]
        if self._prior is None or not young or not seen.keys() <= earlier.keys():
            return dict(seen)
        strange = self._prior.strangers(self._history.params.values())
        return {**{name: found for name, found in earlier.items() if name not in strange}, **seen}

    def _prepared(self, study: Study) -> tuple[Planner, Encoder]:
        """Bring the encoding up to date; the planner is made once per study."""
        history = self._history
        encoding = learn_encoding(list(history.params.values())[-_GATE_SAMPLE:], self._space())
        if self._encoder is None or self._encoder.encoding != encoding:
            self._encoder = Encoder(encoding, self._features)
        if self._planner is None:
            rules = Rules(self.rungs, self.resume, self._minimized, **self._settings)
            self._planner = Planner(rules, Models(self.rungs, self._warp, self._warp), proposal=self._proposal)
        if self._prior is not None:
            self._planner.models.trends = self._prior.trends(self._encoder)
            self._planner.seeds = self._prior.seeds if self._planner.models.trends else None
        return self._planner, self._encoder

    def _rng(self, trial: FrozenTrial, salt: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, trial.number, salt])
