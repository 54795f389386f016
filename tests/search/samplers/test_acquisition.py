import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.samplers.acquisition import added_volumes, boxes_above, dominated_volume, front_of
from joulefront.search.samplers.gaussian_process import BoundedLogNormal, Normal


def volume_by_counting(points: np.ndarray, reference: np.ndarray, cells: int) -> float:
    """Share of the cells of a grid over [0, 1]^d that some point dominates."""
    axes = [(np.arange(cells) + 0.5) / cells] * len(reference)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(reference))
    inside = (grid > reference).all(1)
    dominated = (points[None] >= grid[:, None]).all(2).any(1) if len(points) else np.zeros(len(grid), dtype=bool)
    return float((inside & dominated).mean())


grid_points = st.integers(2, 3).flatmap(
    lambda d: st.lists(st.tuples(*[st.integers(0, 10)] * d), min_size=0, max_size=8).map(
        lambda rows: np.array(rows, dtype=float).reshape(-1, d) / 10
    )
)


@pytest.mark.slow
@given(grid_points)
@settings(max_examples=60, deadline=None)
def test_hypervolume_is_the_counted_volume(points: np.ndarray) -> None:
    reference = np.full(points.shape[1], 0.1)
    assert dominated_volume(points, reference) == pytest.approx(volume_by_counting(points, reference, 10), abs=1e-9)


@pytest.mark.slow
@given(grid_points, st.tuples(*[st.integers(0, 10)] * 3))
@settings(max_examples=80, deadline=None)
def test_boxes_measure_what_a_certain_point_adds(points: np.ndarray, new: tuple[int, ...]) -> None:
    d = points.shape[1]
    reference, y = np.zeros(d), np.array(new[:d]) / 10 + 0.05
    boxes = boxes_above(points, reference)
    certain = [Normal(y[[j]], np.array([1e-9])) for j in range(d)]
    gain = dominated_volume(np.vstack([points, y]), reference) - dominated_volume(points, reference)
    assert boxes.expected_gain(certain)[0] == pytest.approx(gain, abs=1e-7)


@pytest.mark.slow
@given(grid_points)
@settings(max_examples=60, deadline=None)
def test_the_front_is_what_nothing_dominates(points: np.ndarray) -> None:
    slow = {tuple(p) for p in points if not any((q >= p).all() and (q > p).any() for q in points)}
    assert {tuple(p) for p in front_of(points)} == slow


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 3])
def test_expected_gain_is_the_mean_over_samples(d: int) -> None:
    rng = np.random.default_rng(0)
    points, reference = rng.random((5, d)), np.zeros(d)
    mean, sd = rng.random((3, d)), 0.1 + 0.3 * rng.random((3, d))
    exact = boxes_above(points, reference).expected_gain([Normal(mean[:, j], sd[:, j]) for j in range(d)])
    before = dominated_volume(points, reference)
    for i in range(3):
        samples = mean[i] + sd[i] * rng.normal(size=(3000, d))
        gains = np.array([dominated_volume(np.vstack([points, s]), reference) - before for s in samples])
        assert exact[i] == pytest.approx(gains.mean(), abs=4 * gains.std() / np.sqrt(len(gains)))


def test_a_bounded_quality_exceeds_a_level_by_the_mean_over_samples() -> None:
    belief = BoundedLogNormal(np.array([0.5, 2.0]), np.array([0.3, 1.0]), limit=1.0, scale=0.4)
    samples = 1.0 - 0.4 * np.exp(-(np.array([0.5, 2.0]) + np.array([0.3, 1.0]) * np.random.default_rng(0).normal(size=(400_000, 2))))
    levels = np.array([0.2, 0.8, 0.99, 1.0, 1.2])
    slow = np.maximum(samples[:, :, None] - levels, 0).mean(0)
    assert belief.expected_improvement(levels) == pytest.approx(slow, abs=2e-3)
    assert (belief.expected_improvement(np.array([1.0, 1.5])) == 0).all()


def test_many_objectives_keep_a_bounded_number_of_boxes() -> None:
    points = np.random.default_rng(0).random((200, 4))
    boxes = boxes_above(points, np.zeros(4))
    assert len(boxes.lower) < 24**3
    assert (boxes.lower < boxes.upper).all()


@pytest.mark.parametrize("objectives", [2, 3])
def test_what_each_point_adds_sums_up_to_the_volume_of_those_before_it(objectives):
    rng = np.random.default_rng(0)
    for count, digits in [(0, 1), (1, 1), (25, 1), (25, 6)]:  # with one digit many are equal
        points, reference = rng.normal(size=(count, objectives)).round(digits), np.full(objectives, -0.5)
        volumes = [dominated_volume(points[:end], reference) for end in range(count + 1)]
        assert added_volumes(points, reference) == pytest.approx(np.diff(volumes))
