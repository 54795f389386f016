"""The ramp of image sizes."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from joulefront.search.training.tactics.progressive_resizing import ProgressiveResizing, side_at
from joulefront.search.training.tactics.tactic import attached


@example(full=6, start=0.3, ramp_epochs=3, multiple=4)  # 0.3 + 0.7 * 3 / 3 is less than 1 in floating point
@given(st.integers(1, 300), st.floats(0.05, 1.0), st.integers(1, 20), st.integers(1, 32))
def test_sides_never_shrink_end_at_full_size_and_fit_their_multiple(full, start, ramp_epochs, multiple):
    sides = [side_at(epoch, full, start=start, ramp_epochs=ramp_epochs, multiple=multiple) for epoch in range(1, ramp_epochs + 3)]
    assert sides == sorted(sides)
    assert sides[ramp_epochs:] == [full, full]
    assert all(side == full or (side % multiple == 0 and side >= multiple) for side in sides)


def test_the_ramp_depends_on_the_epoch_and_not_on_the_horizon():
    tactic = ProgressiveResizing(start=0.5, ramp_epochs=2, multiple=4)
    assert [tactic.resolution(epoch, epochs, 32) for epoch, epochs in ((1, 3), (1, 27), (2, 3), (2, 27), (3, 3))] == [16, 16, 24, 24, None]


def test_a_model_that_pools_globally_is_taken_and_its_mode_restored(wide_net):
    model = wide_net()
    tactic = ProgressiveResizing(start=0.5, ramp_epochs=1)
    statistics = model[1].running_mean.clone()
    with attached([tactic], model) as columns:
        assert [tactic.resolution(epoch, 2, 16) for epoch in (1, 2)] == [8, None]
        assert all(module.training for module in model.modules())
        assert torch.equal(model[1].running_mean, statistics)
        tactic.start_epoch(2, 2)
    assert columns == {"progressive_resizing_mean_side": 0.75}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), "fails at 4 pixels"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), "convolutional model"),
    ],
)
def test_a_model_of_one_fixed_size_is_refused_before_its_first_step(model, says):
    tactic = ProgressiveResizing()
    with attached([tactic], model), pytest.raises(ValueError, match=says):
        tactic.resolution(1, 2, 8)


def test_a_model_of_one_fixed_size_is_fine_at_full_size():
    tactic = ProgressiveResizing(start=1.0)
    with attached([tactic], nn.Linear(64, 2)):
        assert tactic.resolution(1, 2, 8) is None


@pytest.mark.parametrize("settings", [{"start": 0.0}, {"start": 1.1}, {"ramp_epochs": 0}, {"multiple": 0}])
def test_a_setting_outside_its_rule_is_refused(settings):
    with pytest.raises(ValueError, match=f"progressive_resizing.{next(iter(settings))} must be"):
        ProgressiveResizing(**settings)
