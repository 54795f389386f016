"""What no sampler knows by itself: what of a candidate's price is paid already by others, and what the study begins for it.

The price of a model is that from scratch. What a trial of it costs is less where an earlier trial, or an earlier study, has left features
of the same network. Heads on more pixels, fine-tuning, and less of what a study began with are begun where they promise to pay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple, TypeVar

from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial, TrialState

from ..hints import Hints
from ..records.trial import ATTRIBUTE, KEY
from ..space import Candidate, FixedTrial, FrozenPart, Space
from ..study import Study
from ..training.backbone import Transfer
from ..training.feature_cache import FeatureCache
from ..training.features import kept_features
from ..training.heads import probe_of
from ..training.task import Task
from .history import EPOCHS_REACHED

#: Fine-tuning waits for so many heads, and until its first rung costs at most this share of what is left.
HEADS, LARGEST_SHARE = 6, 0.1
#: Features with more work than any before cost at most this share of what is left.
LARGEST_STEP = 0.3
#: What the next step of 32 pixels gains in accuracy before anything is measured, with its spread, and what it has to promise.
#: Source: 96 to 128 to 160 pixels, three seeds of 30,000 images (studies/results/images.md): -0.001 to 0.014, 0.009 in the mean.
GAIN, SPREAD, WORTH = 0.01, 0.01, 0.005
#: The best of the first models is trained again at the rungs that have between these shares of its epochs.
SHORTER = (1 / 12, 2 / 5)

T = TypeVar("T")


class _Paid(NamedTuple):
    """What trials have paid for features: the largest share of the images, the joules of all images, and the work of one."""

    share: float = 0.0
    joules: float = 0.0
    work: float = 0.0


class StoredFeatures:
    """What an earlier study left in the cache, looked up once for each features; what this study adds to it is known from its trials."""

    def __init__(self, space: Space, task: Task, cache: FeatureCache) -> None:
        self._space, self._task, self._cache = space, task, cache
        self._found: dict[str, tuple[float, float | None]] = {}

    def __call__(self, part: FrozenPart, candidate: Candidate) -> tuple[float, float | None]:
        """Return of how many training images (a share) the features are there, and the joules of those of all images, None if unknown."""
        if part.features not in self._found:
            try:
                model = self._space.build(candidate, self._task)
            except Exception:  # its own trial says why
                model = None
            if isinstance(model, Transfer):
                model = probe_of(model) or model  # a fine-tuning shares what its head begins on
            kept = kept_features(model, self._task, self._cache) if isinstance(model, Transfer) else None
            self._found[part.features] = (0.0, None) if kept is None else (kept.share, kept.joules)
        return self._found[part.features]


def features_paid(
    space: Space, trials: Sequence[FrozenTrial], *, share: float = 0.0, stored: StoredFeatures | None = None
) -> Callable[[Mapping[str, Any]], float] | None:
    """Return what of a candidate's price is paid: features of its frozen backbone, for as many images; None where nothing is.

    Earlier trials have paid it, or an earlier study, whose features are ``stored``. The function takes the parameters of a candidate and
    returns joules. Features that nobody has computed yet cost more than their price: those of the validation images come on top,
    ``share`` of what all training images take; then it is negative. A space whose models have a frozen backbone has a method
    ``frozen(candidate)``, which returns a ``FrozenPart``, or None for a candidate without one: what its features cost is in the inputs
    of the task, and was paid as that was loaded.
    """
    known, inputs = _prices(space, trials)
    each = median(paid.joules / paid.work for paid in known.values()) if known else 0.0

    def paid(params: Mapping[str, Any]) -> float:
        found, kept, stated = _frozen(space, params, stored)
        if found is None:
            return inputs
        if found.features not in known and not kept:
            return -share * each * found.work
        price = known.get(found.features, _Paid(joules=each * found.work if stated is None else stated))
        return min(found.share, max(price.share, kept)) * price.joules

    return paid if known or inputs or stored is not None else None


def withheld(
    study: Study, trials: Sequence[FrozenTrial], remaining: float | None, *, stored: StoredFeatures | None = None
) -> Callable[[Mapping[str, Any]], bool]:
    """Return which parameters must not be begun yet.

    That is fine-tuning before `following` has begun it, and what the budget does not carry: a space with such families says by
    ``waits(params)`` whether parameters are of one, and by ``tuning(candidate)`` which features it begins on, a ``FrozenPart``, and what an
    epoch costs, in passes of the frozen network over its images. And it is heads on features with more work than any before, which
    `further` begins, unless an earlier study left them. ``remaining`` is what is left, in the unit of the energy; None for no limit.
    """
    space, hints = study.space, Hints(study.space)
    known, _ = _prices(space, trials)
    begun = any(trial.state == TrialState.COMPLETE and hints.waits(trial.params) for trial in trials)
    most = max((paid.work for paid in known.values()), default=math.inf) if hints.steps else math.inf

    def dear(params: Mapping[str, Any]) -> bool:
        if hints.waits(params):
            return not begun or not _carried(study, known, params, remaining)
        if most == math.inf:
            return False
        found, kept, _ = _frozen(space, params, stored)
        return found is not None and found.work > most and kept < found.share

    return dear


def scheduled(search: OptunaStudy, study: Study, task: Task, stored: StoredFeatures | None) -> Mapping[str, Any] | None:
    """Return the parameters of what no sampler begins by itself: more pixels, see `further`, or fine-tuning, see `following`; or None."""
    comparable, left = getattr(search.sampler, "comparable", tuple), getattr(search.sampler, "remaining", None)
    trials = comparable(search.get_trials(deepcopy=False))
    noise = 0.5 / math.sqrt(len(task.validation)) if study.objectives[0] in ("accuracy", "error") else 0.0  # a bound; of others unknown
    return further(study, trials, left, noise=noise, stored=stored) or following(study, trials, left)


def further(
    study: Study, trials: Sequence[FrozenTrial], remaining: float | None, *, noise: float = 0.0, stored: StoredFeatures | None = None
) -> Mapping[str, Any] | None:
    """Return the parameters of the next head on features with more work than those before; None where that does not pay, or costs too much.

    The dearest features so far have been tried on a part of the images. Where they promise a gain on the next cheaper ones, by what was
    gained on as many images, the best of their heads gets all images; where it does so also there, it is tried on the next dearer ones. Few
    validation examples say little: ``noise`` is the standard error of what was gained (0: it is taken as it is), and the rest is what such
    steps gain elsewhere. A space with such steps has a method ``further(params, larger)``.
    """
    space, hints = study.space, Hints(study.space)
    if not hints.steps or study.sampler != "freeze-thaw" or "train_energy" not in study.objectives:
        return None
    sign = 1.0 if study.directions[0] == "maximize" else -1.0
    tried = [(trial, found) for trial in trials if (found := _asked(space, hints.frozen, trial.params)) is not None]
    heads = [(one, part) for one, part in tried if one.state == TrialState.COMPLETE and hints.further(one.params, False) is not None]
    if len(heads) < max(HEADS, len(study.first)) or (step := _last_step(heads, sign)) is None:
        return None
    top, below, share = step
    gained = sign * (top.values[0] - below.values[0])
    trust = 1.0 / (1.0 + (noise / SPREAD) ** 2)
    if trust * gained + (1.0 - trust) * GAIN <= WORTH:
        return None
    own = {name: value for name, value in top.params.items() if name != "epochs"}
    params = hints.further(own, share == 1.0)
    if params is None:
        return None
    wanted, kept, _ = _frozen(space, params, stored)
    if wanted is None or any(part.features == wanted.features and part.share >= wanted.share for _, part in tried):
        return None
    known, _ = _prices(space, trials)
    new = max(0.0, wanted.share - max(kept, known.get(wanted.features, _Paid()).share))
    joules = median(paid.joules / paid.work for paid in known.values()) * wanted.work * new if known else 0.0
    epochs = max(top.user_attrs.get(EPOCHS_REACHED, 1), study.rungs[0])
    return {**params, "epochs": epochs} if remaining is None or joules <= LARGEST_STEP * remaining else None


def _last_step(heads: Sequence[tuple[FrozenTrial, FrozenPart]], sign: float) -> tuple[FrozenTrial, FrozenTrial, float] | None:
    """Return the best head on the dearest features, that on the next cheaper ones, and the largest share of images that both have."""
    best: dict[tuple[float, float], FrozenTrial] = {}
    for trial, part in sorted(heads, key=lambda head: sign * head[0].values[0]):
        best[part.work, part.share] = trial
    *_, cheaper, dearest = [math.nan, *sorted({work for work, _ in best})]
    share = max((share for work, share in best if work == dearest and (cheaper, share) in best), default=None)
    return None if share is None else (best[dearest, share], best[cheaper, share], share)


def following(study: Study, trials: Sequence[FrozenTrial], remaining: float | None) -> Mapping[str, Any] | None:
    """Return the parameters of the first fine-tuning, which goes on from the best head; None while it has to wait, or has begun."""
    space, hints = study.space, Hints(study.space)
    if study.sampler != "freeze-thaw" or not hints.staged or any(hints.waits(trial.params) for trial in trials):
        return None
    sign = 1.0 if study.directions[0] == "maximize" else -1.0
    heads = [trial for trial in trials if trial.state == TrialState.COMPLETE and hints.going_on(trial.params) is not None]
    if len(heads) < max(HEADS, len(study.first)):
        return None
    params = hints.going_on(max(heads, key=lambda trial: sign * trial.values[0]).params)
    return params if params is not None and _carried(study, _prices(space, trials)[0], params, remaining) else None


def shorter(study: Study, first: int, trials: Sequence[FrozenTrial]) -> Mapping[str, Any] | None:
    """Return the best of the ``first`` models for a part of its epochs, until its shorter trainings are measured, too; or None.

    What a study begins with at a higher rung was never measured below it, and the sampler only goes up: there a nearly equal model may lie
    that takes a fifth of the energy, with a learning rate that fits. Where epochs are passes over the data the first are short already.
    """
    if study.sampler != "freeze-thaw" or study.complete_only or Hints(study.space).epochs_are_passes:
        return None
    known = [trial for trial in trials[:first] if trial.state.name == "COMPLETE" and KEY in trial.user_attrs]
    if not known or not first <= len(trials) < first + len(study.rungs):
        return None
    sign = 1.0 if study.directions[0] == "maximize" else -1.0
    best = max(known, key=lambda trial: sign * trial.values[0])
    reached, params = best.user_attrs[EPOCHS_REACHED], {name: value for name, value in best.params.items() if name != "epochs"}
    wanted = [rung for rung in reversed(study.rungs) if SHORTER[0] <= rung / reached <= SHORTER[1]]
    plans = ({**Hints(study.space).shortened(params, reached / rung), "epochs": rung} for rung in wanted)
    return next((plan for plan in plans if all(trial.params != plan for trial in trials)), None)


def _carried(study: Study, known: Mapping[str, _Paid], params: Mapping[str, Any], remaining: float | None) -> bool:
    """Whether the first rung of a fine-tuning is a small part of what is left; not where nothing is known of its cost."""
    found: tuple[FrozenPart, float] | None = _asked(study.space, Hints(study.space).tuning, params)
    if found is None or found[0].features not in known:
        return False
    joules = known[found[0].features].joules * found[0].share * found[1] * study.rungs[0]
    return remaining is None or "train_energy" not in study.objectives or joules <= LARGEST_SHARE * remaining


def _prices(space: Space, trials: Sequence[FrozenTrial]) -> tuple[dict[str, _Paid], float]:
    """Return what was paid for features, and the joules of those of the inputs."""
    known: dict[str, _Paid] = {}
    inputs: list[float] = []
    for trial in trials:
        joules = trial.user_attrs.get(ATTRIBUTE, {}).get("features_joules") if trial.state == TrialState.COMPLETE else None
        found: FrozenPart | None = _asked(space, Hints(space).frozen, trial.params) if joules else None
        if joules and found is None:
            inputs.append(joules)
        elif joules and found is not None and found.share > known.get(found.features, _Paid()).share:
            known[found.features] = _Paid(found.share, joules / found.share, found.work)
    return known, min(inputs, default=0.0)


def _frozen(space: Space, params: Mapping[str, Any], stored: StoredFeatures | None) -> tuple[FrozenPart | None, float, float | None]:
    """Return what the candidate with these parameters needs of a frozen network, and what is stored of that: its share, its joules."""
    found = _asked(space, Hints(space).frozen, params)
    if found is None or stored is None:
        return found, 0.0, None
    return found, *stored(found, space.sample(FixedTrial(params)))


def _asked(space: Space, hint: Callable[[Candidate], T | None], params: Mapping[str, Any]) -> T | None:
    """Return a hint on the candidate with these parameters; None while some of them are not drawn yet."""
    try:
        return hint(space.sample(FixedTrial(params)))
    except ValueError:
        return None
