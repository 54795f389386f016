"""The sparse backward pass against autograd of the dense layer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from joulefront.search.training.tactics.sparse_backprop import SparseConvolution, SparseLinear, kept_channels, strongest


def dense_gradients(forward, inputs, output_gradient):
    """Oracle: autograd of the ordinary layer for a given output gradient."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    forward(*leaves).backward(output_gradient)
    return [leaf.grad for leaf in leaves]


def masked(gradient, kept, channel_dim=1):
    """Oracle: the output gradient with all but its strongest channels set to zero, one channel at a time."""
    scores = [float(channel.abs().sum()) for channel in gradient.unbind(channel_dim)]
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[:kept]
    result = torch.zeros_like(gradient)
    for index in best:
        result.select(channel_dim, index).copy_(gradient.select(channel_dim, index))
    return result


@st.composite
def convolutions(draw):
    dims = draw(st.sampled_from([1, 2, 3]))
    per_dim = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dims))  # noqa: E731
    geometry = {"kernel": per_dim(1, 3), "stride": per_dim(1, 3), "padding": per_dim(0, 2), "dilation": per_dim(1, 2)}
    return geometry | {
        "batch": draw(st.integers(1, 3)),
        "inputs": draw(st.integers(1, 3)),
        "outputs": draw(st.integers(1, 7)),
        "keep": draw(st.floats(0.05, 1.0)),
        "bias": draw(st.booleans()),
        "seed": draw(st.integers(0, 10_000)),
    }


@pytest.mark.slow
@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_sparse_convolution_has_the_dense_gradient_of_the_masked_output_gradient(case):
    torch.manual_seed(case["seed"])
    sizes = [5 + kernel for kernel in case["kernel"]]
    x = torch.randn(case["batch"], case["inputs"], *sizes, dtype=torch.float64)
    weight = torch.randn(case["outputs"], case["inputs"], *case["kernel"], dtype=torch.float64)
    tensors = [x, weight] + ([torch.randn(case["outputs"], dtype=torch.float64)] if case["bias"] else [])
    geometry = (case["stride"], case["padding"], case["dilation"])
    kept = kept_channels(case["keep"], case["outputs"])

    def dense(x, weight, bias=None):
        return [F.conv1d, F.conv2d, F.conv3d][len(sizes) - 1](x, weight, bias, *geometry)

    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    y = SparseConvolution.apply(*(leaves if case["bias"] else [*leaves, None]), *geometry, kept)
    torch.testing.assert_close(y, dense(*tensors))
    gradient = torch.randn_like(y)
    y.backward(gradient)
    for leaf, expected in zip(leaves, dense_gradients(dense, tensors, masked(gradient, kept)), strict=True):
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@given(st.integers(1, 9), st.floats(0.05, 1.0), st.booleans(), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_sparse_linear_has_the_dense_gradient_of_the_masked_output_gradient(outputs, keep, has_bias, leading, seed):
    torch.manual_seed(seed)
    tensors = [torch.randn(*leading, 4, dtype=torch.float64), torch.randn(outputs, 4, dtype=torch.float64)]
    if has_bias:
        tensors.append(torch.randn(outputs, dtype=torch.float64))
    kept = kept_channels(keep, outputs)
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    y = SparseLinear.apply(*(leaves if has_bias else [*leaves, None]), kept)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected = dense_gradients(F.linear, tensors, masked(gradient, kept, channel_dim=-1))
    for leaf, want in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_all_channels_kept_equals_autograd_to_1e_5(stride, dilation):
    tensors = [torch.randn(4, 3, 12, 12), torch.randn(64, 3, 3, 3), torch.randn(64)]
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    geometry = ((stride, stride), (1, 1), (dilation, dilation))
    y = SparseConvolution.apply(*leaves, *geometry, 64)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected = dense_gradients(lambda x, w, b: F.conv2d(x, w, b, stride, 1, dilation), tensors, gradient)
    for leaf, want in zip(leaves, expected, strict=True):
        assert float((leaf.grad - want).abs().max()) <= 1e-5 * max(1.0, float(want.abs().max()))


def test_only_the_gradients_that_are_needed_are_computed():
    x, w = torch.randn(2, 3, 6, 6), torch.randn(8, 3, 3, 3)
    y = SparseConvolution.apply(x.requires_grad_(), w, None, (1, 1), (0, 0), (1, 1), 2)
    y.sum().backward()
    assert x.grad is not None
    assert w.grad is None


@pytest.mark.parametrize(("keep", "channels", "kept"), [(0.2, 64, 12), (0.2, 3, 1), (1.0, 7, 7), (0.01, 64, 1), (0.5, 5, 2)])
def test_the_number_of_kept_channels_is_rounded_down_and_at_least_one(keep, channels, kept):
    assert kept_channels(keep, channels) == kept


def test_a_channel_with_a_nan_is_kept_so_that_a_loss_scaler_sees_it():
    gradient = torch.rand(2, 6, 3, 3) * 100
    gradient[1, 4, 0, 0] = float("nan")
    assert 4 in strongest(gradient, 1, 1)


@pytest.mark.parametrize("best", range(4))
def test_half_precision_gradients_keep_their_order_where_their_sum_is_beyond_the_range_of_float16(best):
    gradient = torch.full((1, 4, 256, 256), 4.0, dtype=torch.float16)
    gradient[0, best] = 4.5
    assert strongest(gradient, 1, 1).tolist() == [best]


def test_a_second_derivative_is_refused_instead_of_being_wrong():
    x, w = torch.randn(1, 1, 4, 4, requires_grad=True), torch.randn(4, 1, 3, 3, requires_grad=True)
    y = SparseConvolution.apply(x, w, None, (1, 1), (0, 0), (1, 1), 1).square().sum()
    (first,) = torch.autograd.grad(y, w, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
