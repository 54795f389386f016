"""Convolution and linear maps whose backward pass uses only the strongest output channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def kept_channels(keep: float, channels: int) -> int:
    """Number of output channels that take part in the backward pass: ``max(floor(keep * channels), 1)``."""
    return max(int(keep * channels), 1)


def strongest(gradient: torch.Tensor, count: int, channel_dim: int) -> torch.Tensor:
    """Indices ``(count,)`` of the channels whose gradient has the largest sum of absolute values, ascending.

    A channel with a NaN counts as the strongest, so that a loss scaler still sees it.

    Source: score of Zhong, Huang and Shi, ssProp, arXiv 2408.12561. The mean there and the sum here give the same order.
    """
    dims = [dim for dim in range(gradient.dim()) if dim != channel_dim]
    # the sum over many half-precision numbers needs float32 to keep its order
    dtype = torch.float32 if gradient.dtype in (torch.float16, torch.bfloat16) else None
    score = torch.linalg.vector_norm(gradient, 1, dim=dims, dtype=dtype)
    channels: torch.Tensor = score.topk(count, sorted=False).indices.sort().values
    return channels


class SparseConvolution(torch.autograd.Function):
    """Ordinary convolution; gradients as if the output gradient were zero outside of its strongest channels."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        kept: int,
        dense_input_gradient: bool,
    ) -> torch.Tensor:
        """Convolve ``x (b, c, *size)`` with ``weight (o, c, *kernel)``."""
        ctx.save_for_backward(x, weight)
        ctx.geometry = (tuple(stride), tuple(padding), tuple(dilation))
        ctx.kept, ctx.dense_input_gradient, ctx.has_bias = kept, dense_input_gradient, bias is not None
        return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Gradients of input, weight and bias from the kept channels of ``gradient (b, o, *out)``."""
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        channels = strongest(gradient, ctx.kept, 1)
        rows, filters = gradient.index_select(1, channels), weight.index_select(0, channels)
        sparse_x = need_x and not ctx.dense_input_gradient
        grad_x = grad_weight = grad_bias = None
        if sparse_x or need_weight:
            grad_x, part, _ = _convolution_backward(rows, x, filters, ctx.geometry, sparse_x, need_weight)
            if need_weight:
                grad_weight = torch.zeros_like(weight).index_copy_(0, channels, part.to(weight.dtype))
        if need_x and ctx.dense_input_gradient:
            grad_x, _, _ = _convolution_backward(gradient, x, weight, ctx.geometry, True, False)
        if ctx.has_bias and need_bias:
            dims = [dim for dim in range(rows.dim()) if dim != 1]
            grad_bias = gradient.new_zeros(gradient.shape[1]).index_copy_(0, channels, rows.sum(dims))
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


def _convolution_backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    geometry: tuple[tuple[int, ...], ...],
    need_x: bool,
    need_weight: bool,
) -> tuple[Any, Any, Any]:
    # one call for both gradients, and the operator that torch.utils.flop_counter has a formula for
    stride, padding, dilation = geometry
    none = [0] * len(stride)
    result: tuple[Any, Any, Any] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, dilation, False, none, 1, [need_x, need_weight, False]
    )
    return result


class SparseLinear(torch.autograd.Function):
    """Ordinary linear map; gradients as if the output gradient were zero outside of its strongest features."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, kept: int, dense_input_gradient: bool
    ) -> torch.Tensor:
        """Map ``x (..., i)`` by ``weight (o, i)`` to ``(..., o)``."""
        ctx.save_for_backward(x, weight)
        ctx.kept, ctx.dense_input_gradient, ctx.has_bias = kept, dense_input_gradient, bias is not None
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Gradients of input, weight and bias from the kept features of ``gradient (..., o)``."""
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        flat = gradient.reshape(-1, gradient.shape[-1])
        features = strongest(flat, ctx.kept, 1)
        columns = flat.index_select(1, features)
        grad_x = grad_weight = grad_bias = None
        if need_x:
            used = (flat @ weight) if ctx.dense_input_gradient else (columns @ weight.index_select(0, features))
            grad_x = used.reshape(x.shape)
        if need_weight:
            part = columns.T @ x.reshape(-1, x.shape[-1])
            grad_weight = torch.zeros_like(weight).index_copy_(0, features, part)
        if ctx.has_bias and need_bias:
            grad_bias = gradient.new_zeros(gradient.shape[-1]).index_copy_(0, features, columns.sum(0))
        return grad_x, grad_weight, grad_bias, None, None
