"""The sparse_backprop tactic on whole models: which layers, when, how many FLOPs, and that it leaves no trace."""

import copy

import pytest
import torch
from helpers.backward_flops import backward_flops
from torch import nn

from joulefront.search.training.tactics.sparse_backprop import SCHEDULES, SparseBackprop, keep_at
from joulefront.search.training.tactics.tactic import attached


def gradients(model, x, precision=None):
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
        y = model(x)
    y.float().square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def zero_rows(gradient):
    return int((gradient.flatten(1).abs().sum(1) == 0).sum())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_first_epoch_is_dense_under_every_schedule_and_shares_stay_between_keep_and_one(schedule):
    shares = [keep_at(epoch, keep=0.2, schedule=schedule, period=4) for epoch in range(1, 30)]
    assert shares[0] == 1.0
    assert all(0.2 - 1e-12 <= share <= 1.0 for share in shares)
    assert min(shares) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("interleave", 0, [1, 0.2, 1, 0.2, 1, 0.2]),
        ("interleave", 3, [1, 1, 1, 0.2, 1, 0.2]),
        ("constant", 1, [1, 0.2, 0.2, 0.2, 0.2, 0.2]),
        ("constant", 0, [0.2] * 6),
        ("bar", 0, [1, 1, 0.2, 0.2, 1, 1]),
        ("linear", 0, [1, 1 - 0.8 / 3, 1 - 1.6 / 3, 0.2, 1, 1 - 0.8 / 3]),
        ("cosine", 0, [1, 0.8, 0.4, 0.2, 1, 0.8]),
    ],
)
def test_each_schedule_gives_its_shares(schedule, warmup, expected):
    shares = [keep_at(epoch, keep=0.2, schedule=schedule, period=4, warmup=warmup) for epoch in range(1, 7)]
    assert shares == pytest.approx(expected)


def test_counted_backward_flops_are_0_60_of_dense_with_keep_0_2_interleaved():
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1)
    )
    x = torch.randn(2, 3, 16, 16)
    dense = backward_flops(model, x)
    multiplications = 2 * (64 * 3 * 9 * 256 + 2 * 128 * 64 * 9 * 64 + 2 * 128 * 128 * 9 * 64)  # the first layer has no input gradient
    assert dense == 2 * multiplications
    tactic = SparseBackprop(keep=0.2)
    counted = []
    with attached([tactic], model):
        for epoch in range(1, 5):
            tactic.start_epoch(epoch, 4)
            counted.append(backward_flops(model, x))
    assert counted[0] == counted[2] == dense
    assert sum(counted) / len(counted) / dense == pytest.approx(0.60, abs=0.02)


def test_a_dense_epoch_and_keep_1_give_the_gradients_of_plain_training(wide_net):
    model, x = wide_net(), torch.randn(8, 1, 8, 8)
    plain = gradients(model, x)
    for keep, epoch in ((0.2, 1), (0.2, 3), (1.0, 2)):
        tactic = SparseBackprop(keep=keep)
        with attached([tactic], model):
            tactic.start_epoch(epoch, 4)
            for name, gradient in gradients(model, x).items():
                torch.testing.assert_close(gradient, plain[name], rtol=1e-5, atol=1e-5)


def test_a_sparse_epoch_leaves_the_share_1_minus_keep_of_the_filters_without_gradient(wide_net):
    model, x = wide_net(), torch.randn(8, 1, 8, 8)
    assert zero_rows(gradients(model, x)["3.weight"]) == 0
    tactic = SparseBackprop(keep=0.25)
    with attached([tactic], model):
        tactic.start_epoch(2, 4)
        sparse = gradients(model, x)
    assert zero_rows(sparse["0.weight"]) == zero_rows(sparse["3.weight"]) == 48
    assert zero_rows(sparse["8.weight"]) == 0


def test_state_dict_keys_stay_and_detach_leaves_no_trace(wide_net):
    model = wide_net()
    keys, attributes = list(model.state_dict()), [set(vars(module)) for module in model.modules()]
    tactic = SparseBackprop()
    with attached([tactic], model):
        tactic.start_epoch(2, 2)
        assert list(model.state_dict()) == keys
    assert [set(vars(module)) for module in model.modules()] == attributes


def test_depthwise_narrow_and_special_convolutions_are_left_dense_and_counted():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean()
            return nn.functional.conv2d(x, weight, self.bias, padding=1)

    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        Standardised(64, 64, 3),
        nn.ConvTranspose2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 16, 1),
    )
    x = torch.randn(2, 3, 8, 8)
    plain = gradients(model, x)
    tactic = SparseBackprop(schedule="constant", warmup=0)
    with attached([tactic], model) as columns:
        tactic.start_epoch(1, 1)
        sparse = gradients(model, x)
    for name in ("1.weight", "2.weight", "3.weight", "4.weight", "5.weight"):
        torch.testing.assert_close(sparse[name], plain[name])
    assert zero_rows(sparse["0.weight"]) == 52
    assert columns == {
        "sparse_backprop_layers": 1,
        "sparse_backprop_grouped_left_dense": 2,
        "sparse_backprop_narrow_left_dense": 1,
        "sparse_backprop_other_left_dense": 2,
        "sparse_backprop_mean_keep": 0.2,
    }


@pytest.mark.parametrize(
    ("padding", "mode"), [("same", "zeros"), ("valid", "zeros"), (2, "reflect"), ("same", "circular"), (1, "replicate")]
)
def test_every_kind_of_padding_gives_the_dense_output_and_gradient_for_the_kept_filters(padding, mode):
    model = nn.Conv2d(2, 64, (3, 2), padding=padding, padding_mode=mode, dilation=2)
    x = torch.randn(3, 2, 9, 9)
    dense_y, plain = model(x), gradients(model, x)
    tactic = SparseBackprop(schedule="constant", warmup=0, keep=0.5)
    with attached([tactic], model):
        tactic.start_epoch(1, 1)
        torch.testing.assert_close(model(x), dense_y)
        sparse = gradients(model, x)["weight"]
    kept = sparse.flatten(1).abs().sum(1) > 0
    assert int(kept.sum()) == 32
    torch.testing.assert_close(sparse[kept], plain["weight"][kept], rtol=1e-4, atol=1e-6)


def test_linear_layers_are_treated_when_requested_and_attention_is_not():
    model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), nn.Linear(64, 10))
    x = torch.randn(4, 5, 8)
    for linear, layers, narrow, other in ((False, 0, 0, 0), (True, 3, 1, 1)):
        tactic = SparseBackprop(linear=linear, schedule="constant", warmup=0, keep=0.25)
        with attached([tactic], model) as columns:
            tactic.start_epoch(1, 1)
            sparse = gradients(model, x)
        assert columns["sparse_backprop_layers"] == layers
        assert (columns["sparse_backprop_narrow_left_dense"], columns["sparse_backprop_other_left_dense"]) == (narrow, other)
        assert zero_rows(sparse["0.weight"]) == (48 if linear else 0)
        assert zero_rows(sparse["3.weight"]) == 0


def test_bfloat16_autocast_keeps_float32_weights_and_stays_close_to_the_float32_gradient(wide_net):
    model, x = wide_net(), torch.randn(8, 1, 8, 8)
    tactic = SparseBackprop(schedule="constant", warmup=0, keep=0.5, linear=True, min_channels=10)
    with attached([tactic], model):
        tactic.start_epoch(1, 1)
        half = gradients(model, x, precision=torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model[0](x).dtype == torch.bfloat16
            assert model[8](torch.randn(2, 64)).dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in half.values())
    assert zero_rows(half["3.weight"]) == 32
    # which channels are strongest may differ at the margin; the ones chosen must agree with the dense bfloat16 pass up to its rounding
    dense = gradients(model, x, precision=torch.bfloat16)["8.weight"]
    kept = half["8.weight"].abs().sum(1) > 0
    torch.testing.assert_close(half["8.weight"][kept], dense[kept], rtol=0.05, atol=1e-3)


def test_a_copy_of_the_model_computes_with_its_own_weights(wide_net):
    model, x = wide_net(), torch.randn(4, 1, 8, 8)
    tactic = SparseBackprop(schedule="constant", warmup=0, linear=True, min_channels=10)
    with attached([tactic], model):
        tactic.start_epoch(1, 1)
        twin = copy.deepcopy(model).eval()
        expected = model.eval()(x).detach()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        torch.testing.assert_close(twin(x).detach(), expected)
        twin(x).sum().backward()
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(parameter.grad is not None for parameter in twin.parameters())


def test_evaluation_and_unbatched_inputs_take_the_plain_path(wide_net):
    model = nn.Conv2d(1, 64, 3)
    tactic = SparseBackprop(schedule="constant", warmup=0)
    with attached([tactic], model):
        tactic.start_epoch(1, 1)
        with torch.no_grad():
            assert model(torch.randn(2, 1, 5, 5)).grad_fn is None
        assert zero_rows(gradients(model, torch.randn(1, 5, 5))["weight"]) == 0


@pytest.mark.slow
def test_a_compiled_model_gets_the_same_sparse_gradients(wide_net):
    model, x = wide_net(), torch.randn(4, 1, 8, 8)
    tactic = SparseBackprop(keep=0.5)
    with attached([tactic], model):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        for epoch in (1, 2, 3):
            tactic.start_epoch(epoch, 3)
            plain = gradients(model, x)
            model.zero_grad(set_to_none=True)
            compiled(x).square().mean().backward()
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-4, atol=1e-6)


def test_adam_still_moves_dropped_channels_by_their_momentum_and_plain_sgd_does_not(wide_net):
    moved = {}
    for optimizer_type, options in ((torch.optim.AdamW, {"weight_decay": 0.0}), (torch.optim.SGD, {})):
        model, x = wide_net(), torch.randn(8, 1, 8, 8)
        optimizer = optimizer_type(model.parameters(), lr=1e-2, **options)
        tactic = SparseBackprop(keep=0.25)
        with attached([tactic], model):
            for epoch in (1, 2):
                tactic.start_epoch(epoch, 2)
                before = model[3].weight.detach().clone()
                dropped = gradients(model, x)["3.weight"].flatten(1).abs().sum(1) == 0
                optimizer.step()
        change = (model[3].weight.detach() - before).flatten(1).abs().sum(1)
        assert int(dropped.sum()) == 48
        moved[optimizer_type.__name__] = int((change[dropped] > 0).sum())
    assert moved == {"AdamW": 48, "SGD": 0}


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("keep", 0, "keep must be in"),
        ("keep", 1.2, "got 1.2"),
        ("schedule", "zigzag", "interleave"),
        ("period", 1, "period must be >= 2"),
        ("warmup", -1, "warmup must be >= 0"),
        ("min_channels", 0, "min_channels must be >= 1"),
    ],
)
def test_a_setting_outside_its_rule_is_refused_with_rule_and_value(setting, value, says):
    with pytest.raises(ValueError, match=says):
        SparseBackprop(**{setting: value})
