import numpy as np
import pytest
import torch

from joulefront.search.training.optimizer import GAMMA, Average, decay


def test_the_average_is_the_power_function_profile():
    """After t steps the weight of step s goes with s ** gamma (Karras et al. 2024), whatever t is."""
    steps = 2000
    weights = np.zeros(steps)
    for step in range(1, steps + 1):
        weights *= decay(step)
        weights[step - 1] += 1 - decay(step)
    assert weights.sum() == pytest.approx(1)
    position = (np.arange(steps) + 0.5) / steps
    mean = (weights * position).sum()
    deviation = np.sqrt((weights * (position - mean) ** 2).sum())
    assert deviation == pytest.approx(0.10, abs=0.001)  # what gamma = 6.94 stands for
    assert mean == pytest.approx((GAMMA + 1) / (GAMMA + 2), abs=0.001)


def test_the_first_step_is_taken_as_it_is():
    assert decay(1) == 0


def test_update_equals_a_plain_loop_and_leaves_out_what_is_frozen():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2).double())
    model[2].bias.requires_grad_(False)
    average = Average(model, [p for p in model.parameters() if p.requires_grad])
    assert "2.bias" not in average.values
    assert "1.running_mean" in average.values
    assert "1.num_batches_tracked" not in average.values
    plain = {name: tensor.clone() for name, tensor in average.values.items()}
    for step in range(1, 6):
        with torch.no_grad():
            for tensor in (*model.parameters(), model[1].running_mean):
                tensor.add_(torch.randn_like(tensor))
        average.update(step)
        for name in plain:
            plain[name] = decay(step) * plain[name] + (1 - decay(step)) * model.state_dict()[name]
    for name, value in plain.items():
        torch.testing.assert_close(average.values[name], value)


def test_swap_twice_changes_nothing():
    model = torch.nn.Linear(2, 2)
    average = Average(model, model.parameters())
    with torch.no_grad():
        model.weight.add_(1)
    raw, averaged = model.weight.clone(), average.values["weight"].clone()
    average.swap()
    assert torch.equal(model.weight, averaged)
    average.swap()
    assert torch.equal(model.weight, raw)
    assert torch.equal(average.values["weight"], averaged)


def test_averages_of_another_model_are_refused():
    average = Average(model := torch.nn.Linear(2, 2), model.parameters())
    with pytest.raises(ValueError, match="another model"):
        average.load({"other": torch.zeros(1)})
