from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.space import RandomTrial


@given(st.integers(0, 10**6), st.integers(1, 50), st.integers(0, 50), st.booleans())
def test_whole_numbers_stay_within_their_bounds(seed: int, low: int, width: int, log: bool) -> None:
    draw = RandomTrial(seed)
    value = draw.suggest_int("a", low, low + width, log=log)
    assert low <= value <= low + width
    assert draw.suggest_int("a", low, low + width, log=log) == value
    assert draw.params == {"a": value}


@given(st.integers(0, 10**6), st.floats(1e-6, 1.0), st.floats(1.0, 100.0), st.booleans())
def test_numbers_stay_within_their_bounds(seed: int, low: float, factor: float, log: bool) -> None:
    assert low <= RandomTrial(seed).suggest_float("a", low, low * factor, log=log) <= low * factor


def test_steps_are_kept_and_choices_are_all_drawn() -> None:
    assert {RandomTrial(seed).suggest_float("a", 0.0, 1.0, step=0.25) for seed in range(60)} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {RandomTrial(seed).suggest_int("a", 2, 8, step=3) for seed in range(60)} == {2, 5, 8}
    assert {RandomTrial(seed).suggest_categorical("a", ("x", None, 3)) for seed in range(60)} == {"x", None, 3}


def test_equal_seeds_draw_equal_candidates() -> None:
    assert RandomTrial(3).suggest_float("a", 0, 1) == RandomTrial(3).suggest_float("a", 0, 1) != RandomTrial(4).suggest_float("a", 0, 1)
