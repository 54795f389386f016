"""What a space may say beside what it must, what is taken of one that does not say it, and what its random candidates show.

A search works with the four members of `Space`. What more a family knows makes it better: the ordinary choice, which candidates share
features of a frozen network, what is begun only after something else. Each of these is a method or an attribute that a space has or has
not; `Hints` is the one place that looks. `Wrapper` is a space around another one that passes all of them on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from .space import Candidate, FrozenPart, RandomTrial, Space, Suggest
from .training.task import Task

#: A family and an estimator, None where there is none.
Kind = tuple[str | None, str | None]
#: A kind that so many random candidates in a row do not show is too rare to look for.
ENOUGH_DRAWS = 200


class Hints:
    """Asks a space for its hints; the attributes and methods here have the names that a family gives them."""

    def __init__(self, space: Space) -> None:
        self._space: Any = space

    @property
    def epochs_are_passes(self) -> bool:
        """Whether an epoch is a pass over the data; without the hint it is. It is not where epochs are trees, or shares of the data."""
        return bool(getattr(self._space, "epochs_are_passes", True))

    @property
    def after(self) -> str | None:
        """Name of the family whose candidates come first; without the hint there is none."""
        return cast("str | None", getattr(self._space, "after", None))

    @property
    def steps(self) -> bool:
        """Whether candidates on features with more work than any before are begun by `further` alone."""
        return bool(getattr(self._space, "steps", callable(getattr(self._space, "further", None))))

    @property
    def staged(self) -> bool:
        """Whether some candidates wait for others: for those of another family, or for the step before theirs."""
        return bool(getattr(self._space, "staged", self.steps or self.after is not None))

    @property
    def shares_features(self) -> bool:
        """Whether candidates may share features, see `frozen`."""
        return bool(getattr(self._space, "shares_features", callable(getattr(self._space, "frozen", None))))

    def defaults(self) -> Mapping[str, Any]:
        """Return the parameters that an expert would begin with, ``epochs`` among them where the family knows how many; or nothing."""
        return cast("Mapping[str, Any]", getattr(self._space, "defaults", dict)())

    def starts(self) -> tuple[Mapping[str, Any], ...]:
        """Return the ordinary choice of each family of the space; without the hint, the defaults."""
        own = getattr(self._space, "starts", None)
        return tuple(wanted for wanted in (own() if callable(own) else (self.defaults(),)) if wanted)

    def frozen(self, candidate: Candidate) -> FrozenPart | None:
        """Return which features of a frozen network a candidate needs; without the hint, none that it shares with others."""
        return cast("FrozenPart | None", getattr(self._space, "frozen", lambda one: None)(candidate))

    def tuning(self, candidate: Candidate) -> tuple[FrozenPart, float] | None:
        """Return the features that a fine-tuning begins on, and what an epoch costs in passes of the frozen network; None for others."""
        return cast("tuple[FrozenPart, float] | None", getattr(self._space, "tuning", lambda one: None)(candidate))

    def waits(self, params: Mapping[str, Any]) -> bool:
        """Whether parameters are of a family that is begun only after another."""
        return bool(getattr(self._space, "waits", lambda params: False)(params))

    def going_on(self, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the parameters of what goes on from a candidate with these, as a fine-tuning does from a head; or None."""
        return cast("Mapping[str, Any] | None", getattr(self._space, "going_on", lambda one: None)(params))

    def further(self, params: Mapping[str, Any], larger: bool) -> Mapping[str, Any] | None:
        """Return the parameters of a head on all images, or with ``larger`` on features with the next more work; or None."""
        own = getattr(self._space, "further", None)
        return None if own is None else cast("Mapping[str, Any] | None", own(params, larger))

    def shortened(self, params: Mapping[str, Any], times: float) -> Mapping[str, Any]:
        """Return the parameters that give about the same model in so many times fewer epochs; without the hint, the same."""
        return cast("Mapping[str, Any]", getattr(self._space, "shortened", lambda params, times: params)(params, times))

    def fitted_to(self, task: Task) -> Space:
        """Return the space without the models that cannot take the data; without the hint, all of it."""
        return cast("Space", getattr(self._space, "fitted_to", lambda task: self._space)(task))

    def check(self, task: Task) -> None:
        """Check the models before anything is paid for: as the space says, else, where it is a user's, by `check_models`.

        Raises:
            SpaceError: If a model cannot be trained, kept or used.
        """
        if (own := getattr(self._space, "check", None)) is not None:
            own(task)
        elif not type(self._space).__module__.startswith("joulefront."):
            from .model_check import check_models

            check_models(self._space, task)


@dataclass(frozen=True)
class Wrapper(Space):
    """A space around another: the same, but for what a subclass changes. Candidates of its own become the other's by `inner`."""

    space: Space

    def __getattr__(self, name: str) -> Any:
        """Return a hint as the space inside gives it."""
        if name not in vars(Hints) or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return getattr(Hints(self.space), name)

    @property
    def name(self) -> str:
        """Name of the space inside."""
        return self.space.name

    def inner(self, candidate: Candidate) -> Candidate:
        """Return the candidate of the space inside."""
        return candidate

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a candidate."""
        return self.space.sample(trial)

    def build(self, candidate: Candidate, task: Task) -> Any:
        """Build the untrained model."""
        return self.space.build(self.inner(candidate), task)

    def fitted_to(self, task: Task) -> Space:
        """Return the same around what is fitted inside."""
        return replace(self, space=Hints(self.space).fitted_to(task))

    def key(self, candidate: Candidate) -> str:
        """Return the candidate's canonical text."""
        return self.space.key(self.inner(candidate))

    def frozen(self, candidate: Candidate) -> FrozenPart | None:
        """As inside."""
        return Hints(self.space).frozen(self.inner(candidate))

    def tuning(self, candidate: Candidate) -> tuple[FrozenPart, float] | None:
        """As inside."""
        return Hints(self.space).tuning(self.inner(candidate))


def may_compile(space: Space, seed: int = 0) -> bool:
    """Whether candidates of a space ask for ``torch.compile``, as far as random ones show."""
    return any(space.sample(RandomTrial(seed + draw)).recipe.compile for draw in range(ENOUGH_DRAWS))


def kinds_of(candidate: Candidate) -> list[Kind]:
    """Return what has libraries of its own to load: the family of a candidate, and within it the estimator.

    What a model of the user's own loads by a text of its architecture nobody knows: each text is a kind.
    """
    family, estimator = (candidate.architecture.get(name) for name in ("family", "estimator"))
    texts = [value for value in candidate.architecture.values() if isinstance(value, str) and value != family]
    return [(family, text) for text in texts if family in (None, "own")] or [(family, estimator)]


def one_of_each_kind(space: Space, seed: int) -> dict[Kind, Mapping[str, Any]]:
    """Return the parameters of a random candidate of each kind, see `kinds_of`; the first is that of ``RandomTrial(seed)``."""
    found: dict[Kind, Mapping[str, Any]] = {}
    without = 0
    while without < ENOUGH_DRAWS:
        kinds = kinds_of(space.sample(draw := RandomTrial(seed)))
        without = without + 1 if found.keys() >= {*kinds} else 0
        found |= {kind: draw.params for kind in kinds if kind not in found}
        seed += 1
    return found
