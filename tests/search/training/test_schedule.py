import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.training.optimizer import learning_rate_factor
from joulefront.search.training.recipe import SCHEDULES, Recipe


def factors(schedule, total, per_epoch=10):
    recipe = Recipe(schedule=schedule)
    return [learning_rate_factor(recipe, step, steps_per_epoch=per_epoch, total_steps=total) for step in range(total)]


@given(st.sampled_from(SCHEDULES), st.integers(1, 200), st.integers(1, 50))
def test_every_factor_is_a_share_of_the_peak(schedule, total, per_epoch):
    assert all(0 <= factor <= 1 for factor in factors(schedule, total, per_epoch))


@given(st.sampled_from(["anytime", "constant"]), st.integers(1, 100), st.integers(101, 200))
def test_schedules_that_can_go_on_do_not_depend_on_the_horizon(schedule, short, long):
    assert factors(schedule, short) == factors(schedule, long)[:short]


def test_anytime_rises_for_three_tenths_of_an_epoch_and_stays():
    assert factors("anytime", 30)[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert set(factors("anytime", 30)[3:]) == {1.0}


def test_cosine_falls_to_almost_nothing():
    found = factors("cosine", 100)
    assert found[3] > 0.99
    assert found[-1] < 0.001
    assert found[3:] == sorted(found[3:], reverse=True)


def test_one_cycle_equals_pytorchs():
    import torch

    total = 50
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=total, cycle_momentum=False)
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # PyTorch puts the peak at 0.3 * total - 1, ours is at 0.3 * (total - 1): at most one step apart.
    found = factors("one_cycle", total)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 0.08
    assert found[0] == pytest.approx(expected[0])
    assert found[-1] == pytest.approx(expected[-1])
