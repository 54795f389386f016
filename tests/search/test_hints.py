"""What is taken of a space that says little, and that wrappers pass on all that the space inside says."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from joulefront.search.hints import Hints, Wrapper
from joulefront.search.space import Candidate, FixedTrial, FrozenPart, RandomTrial, Space
from joulefront.search.training.recipe import Recipe
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.union import Repeated, Union

ATTRIBUTES = ("epochs_are_passes", "after", "steps", "staged", "shares_features")


class Bare:
    """A space with what it must have alone."""

    name = "bare"

    def sample(self, trial: Any) -> Candidate:
        return Candidate({"family": self.name, "width": trial.suggest_int("width", 1, 4)}, Recipe())

    def build(self, candidate: Candidate, task: Any) -> Any:
        raise NotImplementedError

    def key(self, candidate: Candidate) -> str:
        return candidate.key


class Full(Bare):
    """A space that says all it may."""

    name, epochs_are_passes, after = "full", False, "bare"
    checked = 0

    def defaults(self) -> Mapping[str, Any]:
        return {"width": 2}

    def starts(self) -> tuple[Mapping[str, Any], ...]:
        return {"width": 2}, {}, {"width": 3}

    def frozen(self, candidate: Candidate) -> FrozenPart:
        return FrozenPart("features", 0.5, candidate.architecture["width"])

    def tuning(self, candidate: Candidate) -> tuple[FrozenPart, float]:
        return self.frozen(candidate), 2.0

    def waits(self, params: Mapping[str, Any]) -> bool:
        return bool(params["width"] > 2)

    def going_on(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"width": params["width"] + 1}

    def further(self, params: Mapping[str, Any], larger: bool) -> Mapping[str, Any] | None:
        return {"width": 4} if larger else None

    def shortened(self, params: Mapping[str, Any], times: float) -> Mapping[str, Any]:
        return {"width": params["width"] * times}

    def check(self, task: Any) -> None:
        self.checked += 1


def answers(space: Space) -> list[Any]:
    hints, candidate = Hints(space), space.sample(FixedTrial({"width": 3, "repeat": 1, "family": "full", "full.width": 3}))
    params = {"width": 3}
    asked = [hints.frozen(candidate), hints.tuning(candidate), hints.waits(params), hints.going_on(params)]
    further = [hints.further(params, larger) for larger in (False, True)]
    told = [*(getattr(hints, name) for name in ATTRIBUTES), hints.defaults(), hints.starts(), *asked, *further]
    return [*told, hints.shortened(params, 3)]


def test_a_space_that_says_nothing_is_taken_as_a_plain_network() -> None:
    assert answers(Bare()) == [True, None, False, False, False, {}, (), None, None, False, None, None, None, {"width": 3}]


def test_what_a_space_says_is_asked_for_by_its_name() -> None:
    part = FrozenPart("features", 0.5, 3)
    found = [False, "bare", True, True, True, {"width": 2}, ({"width": 2}, {"width": 3}), part, (part, 2.0), True, {"width": 4}]
    assert answers(Full()) == [*found, None, {"width": 4}, {"width": 9}]


def test_a_wrapper_passes_all_of_it_on() -> None:
    full = Full()
    with pytest.raises(AttributeError, match="Wrapper has no 'speed'"):
        Wrapper(full).speed  # type: ignore[abstract]  # noqa: B018
    assert pickle.loads(pickle.dumps(Wrapper(Mlp()))) == Wrapper(Mlp())  # type: ignore[abstract]
    assert answers(Wrapper(full)) == answers(full)  # type: ignore[abstract]
    Hints(Wrapper(full)).check(None)  # type: ignore[abstract, arg-type]
    assert full.checked == 1
    repeated = answers(Repeated(full, times=2))
    assert repeated[5:7] == [{"width": 2, "repeat": 1}, ({"width": 2, "repeat": 1}, {"width": 3, "repeat": 1})]
    assert [*repeated[:5], *repeated[7:10]] == [*answers(full)[:5], *answers(full)[7:10]]
    assert repeated[10:] == [{"width": 4, "repeat": 1}, None, {"width": 4, "repeat": 1}, {"width": 9}]


@pytest.mark.parametrize(("members", "staged"), [((Bare(), Mlp()), False), ((Bare(), Full()), True)])
def test_in_a_union_candidates_wait_where_those_of_a_member_do(members: tuple[Space, ...], staged: bool) -> None:
    hints = Hints(Union(*members))
    assert (hints.staged, hints.steps) == (staged, staged)
    assert hints.waits({"family": members[1].name}) is staged
    assert Hints(Union(*members)).frozen(members[0].sample(RandomTrial(0))) is None
