"""The front against slow, obvious oracles, and which members its uncertainty leaves indistinguishable."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.trials import TWO, complete, make_trial
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.front import Front
from joulefront.search.pareto import Axis, make_box, normalised_hypervolume
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial


def front_of(*points: tuple[float, float | None], **options: Any) -> Front:
    return Front(tuple(complete(i, a, e) for i, (a, e) in enumerate(points)), *TWO, **options)


def dominates(one: tuple[float, ...], two: tuple[float, ...], directions: tuple[str, ...]) -> bool:
    signs = [1 if d == "maximize" else -1 for d in directions]
    pairs = [(s * a, s * b) for s, a, b in zip(signs, one, two, strict=True)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


coarse = st.integers(1, 6).map(float)  # few different values: many ties and duplicates


@st.composite
def values_in_any_direction(draw: st.DrawFn) -> tuple[tuple[str, ...], list[tuple[float, ...]]]:
    m = draw(st.integers(2, 4))
    directions = tuple(draw(st.lists(st.sampled_from(["maximize", "minimize"]), min_size=m, max_size=m)))
    return directions, draw(st.lists(st.tuples(*[coarse] * m), min_size=1, max_size=25))


@pytest.mark.slow
@given(values_in_any_direction())
@settings(max_examples=200, deadline=None)
def test_front_equals_the_quadratic_oracle_for_any_directions_and_number_of_objectives(
    case: tuple[tuple[str, ...], list[tuple[float, ...]]],
) -> None:
    directions, values = case
    trials = tuple(make_trial(i, "complete", {}, 1, values=v, train_joules=1.0) for i, v in enumerate(values))
    front = Front(trials, tuple("abcd"[: len(directions)]), directions)
    kept = {i for i, v in enumerate(values) if not any(dominates(w, v, directions) for w in values) and v not in values[:i]}
    assert {trial.number for trial in front} == kept
    assert len(front) == len(kept)


def test_front_does_not_depend_on_the_order_of_the_trials() -> None:
    points = [(0.9, 10.0), (0.8, 5.0), (0.9, 10.0), (0.7, 6.0), (0.95, 40.0)]
    trials = [complete(i, a, e) for i, (a, e) in enumerate(points)]
    numbers = [t.number for t in Front(tuple(trials), *TWO)]
    assert numbers == [1, 0, 4]
    assert [t.number for t in Front(tuple(reversed(trials)), *TWO)] == numbers


@pytest.mark.parametrize(
    ("phantom", "reason"),
    [
        (complete(1, 0.99, None), "a value is unknown"),
        (complete(1, 0.99, None, values=(0.99, 1.0)), "energy unknown"),
        (complete(1, math.nan, 1.0), "a value is unknown"),
        (complete(1, 0.99, math.inf), "a value is unknown"),
        (complete(1, 0.99, 0.0), "energy below the resolution of the meter"),
        (complete(1, 0.99, 0.0, values=(0.99, 1.0)), "energy below the resolution of the meter"),
        (complete(1, 0.99, -5.0), "energy below the resolution of the meter"),
        (complete(1, 0.99, 1.0, values=(0.99,)), "a value is unknown"),
        (make_trial(1, "failed", {}, 1, values=(0.99, 1.0), train_joules=1.0), "failed"),
        (Trial(1, "running", {}, 1), "running"),
    ],
)
def test_a_trial_without_measured_values_is_never_on_the_front(phantom: Trial, reason: str) -> None:
    front = Front((complete(0, 0.5, 100.0), phantom), *TWO)
    assert [trial.number for trial in front] == [0]
    assert front.why_not(phantom) == reason
    assert phantom not in front


def test_complete_only_leaves_out_models_that_were_stopped_early() -> None:
    trials = (complete(0, 0.8, 1.0), complete(1, 0.9, 9.0, complete_training=True))
    run = Run("s", Path(), *TWO, (1, 9), trials, Bill(), {"study": {"complete_only": True}})
    assert [t.number for t in Front.of(run)] == [1]
    assert [t.number for t in Front.of(run, complete_only=False)] == [0, 1]


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="'maximize' or 'minimize', got \\['up'\\]"):
        Front((), ("accuracy", "train_energy"), ("up", "minimize"))
    with pytest.raises(ValueError, match="one direction per objective"):
        Front((), ("accuracy", "train_energy"), ("maximize",))


@given(st.lists(st.tuples(*[st.integers(0, 8)] * 3), min_size=0, max_size=12))
@settings(max_examples=100, deadline=None)
def test_hypervolume_equals_the_share_of_grid_cells_that_are_dominated(points: list[tuple[int, int, int]]) -> None:
    box = tuple(Axis(name, 0.0, 8.0) for name in "abc")
    cells = [(x, y, z) for x in range(8) for y in range(8) for z in range(8)]
    covered = sum(any(x < p[0] and y < p[1] and z < p[2] for p in points) for x, y, z in cells)
    assert normalised_hypervolume(points, box) == pytest.approx(covered / 512, abs=1e-12)


def test_hypervolume_of_one_trial_is_its_quality_times_half_of_the_energy_axis() -> None:
    assert front_of((0.8, 123.0)).hypervolume() == pytest.approx(0.8 * 0.5)
    assert front_of((0.8, 123.0), quality_floor=0.6).hypervolume() == pytest.approx(0.5 * 0.5)


def test_a_factor_of_ten_in_energy_is_worth_a_sixth_of_the_axis() -> None:
    assert front_of((0.6, 100.0), (0.6, 10.0)).hypervolume() == pytest.approx(0.6 * (0.5 + 1 / 6))


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(1e-3, 1e9)), min_size=1, max_size=15))
@settings(max_examples=100, deadline=None)
def test_hypervolume_never_decreases_during_a_run(points: list[tuple[float, float]]) -> None:
    volumes = [front_of(*points[: n + 1]).hypervolume() for n in range(len(points))]
    assert all(0.0 <= v <= 1.0 for v in volumes)
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(volumes))


def test_hypervolume_of_an_empty_front_is_zero_and_an_error_axis_points_down() -> None:
    assert front_of().hypervolume() == 0.0
    box = make_box(("error", "parameters"), ("minimize", "minimize"), (0.2, 1000.0))
    assert box[0].score(0.2) == pytest.approx(0.8)
    assert box[1].score(100.0) == pytest.approx(0.5 + 1 / 6)
    assert box[1].score(0.0) == 1.0


def brute_knee(points: list[tuple[float, float]]) -> float:
    """Greatest perpendicular distance above the chord in the plane of log energy and log error, both scaled to the ends."""
    (e0, a0), (e1, a1) = points[0], points[-1]
    best = 0.0
    y0, y1 = (math.log(1.005 - a) for a in (a0, a1))
    for e, a in points:
        x, y = math.log(e / e0) / math.log(e1 / e0), (math.log(1.005 - a) - y0) / (y1 - y0)
        best = max(best, (y - x) / math.sqrt(2))
    return best


@st.composite
def true_fronts(draw: st.DrawFn) -> list[tuple[float, float]]:
    n = draw(st.integers(2, 12))
    steps = st.lists(st.integers(1, 1000), min_size=n, max_size=n)
    energies, gains, energy, gain = [], [], 1.0, 0
    for up, right in zip(draw(steps), draw(steps), strict=True):
        energy, gain = energy * (1 + right / 100), gain + up
        energies.append(energy)
        gains.append(gain / 1e5)
    return list(zip(energies, gains, strict=True))


@given(true_fronts(), st.sampled_from([1e-3, 1 / 3600, 3600.0, 3.6e6]))
@settings(max_examples=200, deadline=None)
def test_the_knee_is_farthest_from_the_chord_and_does_not_depend_on_the_unit_of_energy(
    points: list[tuple[float, float]], unit: float
) -> None:
    front = front_of(*[(a, e) for e, a in points])
    scaled = front_of(*[(a, e * unit) for e, a in points])
    knee = front.knee()
    distance = brute_knee(points)
    here = brute_knee([points[0], points[knee.number], points[-1]])
    assert here == pytest.approx(distance, abs=1e-8)
    assert brute_knee([points[0], points[scaled.knee().number], points[-1]]) == pytest.approx(distance, abs=1e-8)


@pytest.mark.parametrize(
    ("points", "knee"),
    [
        ([(0.8, 5.0)], 0),
        ([(0.8, 5.0), (0.9, 50.0)], 1),  # nothing lies above the chord: the best
        ([(0.8, 1.0), (0.81, 10.0), (0.9, 100.0)], 2),  # hollow
        ([(0.205, 1.0), (0.605, 10.0), (0.805, 100.0)], 2),  # straight: the error halves with every factor of ten
        ([(0.8, 1.0), (0.89, 10.0), (0.9, 100.0)], 1),
    ],
)
def test_the_knee_of_degenerate_fronts_is_defined(points: list[tuple[float, float]], knee: int) -> None:
    assert front_of(*points).knee().number == knee


def test_the_knee_weighs_accuracy_by_the_ratio_of_errors_so_a_useless_cheap_model_does_not_decide() -> None:
    accuracies = [0.1031, 0.2033, 0.5655, 0.7772, 0.8691, 0.9276, 0.9777, 0.9833, 0.9861]
    joules = [0.0986, 0.110, 0.130, 0.206, 0.371, 0.580, 1.06, 1.79, 5.53]  # a study of digits
    front = front_of(*zip(accuracies, joules, strict=True))
    assert front.knee().values[0] == 0.9777


def test_models_under_the_floor_of_the_study_do_not_count_for_the_knee() -> None:
    points = [(0.1, 1.0), (0.6, 2.0), (0.9, 10.0), (0.95, 15.0), (0.96, 1000.0)]
    assert front_of(*points, quality_floor=0.9).knee().number == 3
    assert front_of(*points, quality_floor=0.99).knee().number == front_of(*points).knee().number


def alike(front: Front) -> list[tuple[int, int]]:
    return [(a.number, b.number) for a, b in pairwise(front) if front.alike(a, b)]


def test_neighbours_within_two_standard_uncertainties_are_indistinguishable() -> None:
    def at(number: int, accuracy: float, joules: float, u: float | None) -> Trial:
        return complete(number, accuracy, joules, train_u_joules=u)

    front = Front((at(0, 0.7, 100.0, 3.0), at(1, 0.8, 109.9, 4.0), at(2, 0.9, 119.91, 3.0), at(3, 0.95, 120.0, None)), *TWO)
    pairs = alike(front)
    assert pairs == [(0, 1), (2, 3)]  # 9.9 < 2 * 5; 10.01 is not; one known uncertainty is enough
    assert alike(front_of((0.7, 100.0), (0.8, 100.0001))) == []  # without an uncertainty nothing is reported


def test_a_continuation_differs_from_its_ancestor_by_an_increment_that_was_measured_alone() -> None:
    def at(number: int, accuracy: float, joules: float, u: float | None, parent: int | None = None) -> Trial:
        return complete(number, accuracy, joules, train_u_joules=u, parent=parent)

    def pairs(*trials: Trial) -> list[tuple[int, int]]:
        return alike(Front(trials, *TWO))

    root = at(0, 0.7, 100.0, 10.0)
    assert pairs(root, at(1, 0.8, 115.0, math.hypot(10.0, 2.0), 0)) == []  # 15 +- 2 J more
    assert pairs(root, at(1, 0.8, 115.0, math.hypot(10.0, 2.0))) == [(0, 1)]  # the same numbers of an unrelated trial
    assert pairs(root, at(1, 0.8, 103.9, math.hypot(10.0, 2.0), 0)) == [(0, 1)]
    between = at(1, 0.6, 110.0, math.hypot(10.0, 2.0), 0)  # dominated, and yet on the way
    assert pairs(root, between, at(2, 0.8, 115.0, math.hypot(10.0, 2.0, 2.0), 1)) == []
    # Two continuations of one trial share what it cost.
    siblings = [at(1, 0.8, 110.0, math.hypot(10.0, 3.0), 0), at(2, 0.9, 121.0, math.hypot(10.0, 4.0), 0)]
    assert pairs(at(0, 0.5, 100.0, 10.0), *siblings) == []  # 11 J are more than 2 * 5
    assert pairs(root, at(1, 0.8, 115.0, None, 0)) == []  # without an uncertainty nothing is reported


def test_importing_the_front_loads_nothing_heavy() -> None:
    heavy = "('torch', 'optuna', 'pandas', 'plotly', 'matplotlib', 'sklearn', 'rich')"
    code = f"import sys, joulefront.search.front; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_front_is_described_in_one_line() -> None:
    assert "2 of 2 trials" in repr(front_of((0.8, 36.0), (0.9, 3600.0)))
    assert "empty" in repr(front_of())


def test_a_trial_of_other_hardware_is_said_to_be_there(tmp_path: Path) -> None:
    trials = tuple(complete(n, 0.8 + 0.01 * n, 10.0 + n, hardware_id="other" if n == 0 else "own") for n in range(3))
    facts = {"sessions": [{"hardware_id": "own"}]}
    run = Run("r", tmp_path, *TWO, (1,), trials, Bill(1.0, {}, {}, {}, 0.0, 1.0), facts)
    with pytest.raises(ValueError, match=r"trial 0 is not among those of this hardware .*--hardware other"):
        Front.of(run).pick("trial=0")
