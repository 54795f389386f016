"""Scheduled sparse back-propagation: some epochs compute gradients from the strongest output channels only.

The tactic replaces the forward of wide layers; the two autograd functions at the end compute their sparse backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .tactic import NoOp

SCHEDULES = ("interleave", "constant", "linear", "cosine", "bar")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class SparseBackprop(NoOp):
    """Computes the backward pass of wide layers from the share ``keep`` of their output channels.

    Forward passes, narrow layers, grouped and depthwise convolutions, normalisation and the optimiser stay dense. With ``interleave`` the
    backward FLOPs of the layers concerned fall to ``(1 + keep) / 2``; forward FLOPs do not fall, and FLOPs saved are not joules saved:
    small layers gain nothing. The channels are chosen anew in every backward pass, that is in every micro-batch under gradient
    accumulation. A dropped channel has a gradient of zero, not none: Adam still moves it by its momentum and weight decay still shrinks it,
    as in the paper's own training. Under ``torch.compile`` every new share compiles the model once more: ``interleave``, ``constant`` and
    ``bar`` have two shares, ``linear`` and ``cosine`` one an epoch.

    Source: Zhong, Huang and Shi, ssProp, arXiv 2408.12561; written from the algorithm. Unlike there, dilation is respected and grouped
    convolutions are left alone instead of failing.
    """

    def __init__(
        self,
        *,
        keep: float = 0.2,
        schedule: str = "interleave",
        period: int = 10,
        warmup: int = 1,
        min_channels: int = 64,
        linear: bool = False,
    ) -> None:
        """Choose what is dropped and when; a setting that is out of range raises ValueError.

        - ``keep``: Share of the output channels that is kept in a sparse epoch, in (0, 1].
        - ``schedule``: ``interleave`` (dense, sparse, dense ...), ``constant``, ``linear`` or ``cosine`` (from 1 down to ``keep`` over
          ``period`` epochs, then again), or ``bar`` (first half of each period dense, second half sparse).
        - ``warmup``: Number of first epochs that are dense under every schedule.
        - ``min_channels``: Layers with fewer output channels stay dense.
        - ``linear``: Treat ``nn.Linear`` layers as well.
        """
        if not 0 < keep <= 1:
            raise ValueError(f"sparse_backprop.keep must be in (0, 1], got {keep!r}; 1 is dense, 0.2 is the paper's setting")
        if schedule not in SCHEDULES:
            raise ValueError(f"sparse_backprop.schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
        for name, value, low in (("period", period, 2), ("warmup", warmup, 0), ("min_channels", min_channels, 1)):
            if value < low:
                raise ValueError(f"sparse_backprop.{name} must be >= {low}, got {value!r}")
        self.keep, self.schedule, self.period, self.warmup = keep, schedule, period, warmup
        self.min_channels, self.linear = min_channels, linear
        self._patched: list[tuple[nn.Module, str]] = []
        self._left: dict[str, int] = {}
        self._epochs = 0

    def attach(self, model: nn.Module) -> None:
        """Replace the forward of eligible layers on the instance; parameters and ``state_dict`` keys stay."""
        self._left = {"grouped": 0, "narrow": 0, "other": 0}
        for module in model.modules():
            if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) and (self.linear or not isinstance(module, nn.Linear)):
                reason = self._why_dense(module)
                if reason is None:
                    self._patch(module)
                else:
                    self._left[reason] += 1

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set the share that is kept in this epoch."""
        self._epochs = epoch
        for module, _ in self._patched:
            module.__dict__["_keep"] = self._keep_at(epoch)

    def detach(self) -> dict[str, float]:
        """Restore the layers' own forward; return how many were treated, how many left dense and why, and the mean share of all epochs."""
        columns: dict[str, float] = {"sparse_backprop_layers": len(self._patched)}
        columns |= {f"sparse_backprop_{reason}_left_dense": count for reason, count in self._left.items()}
        if self._epochs:
            columns["sparse_backprop_mean_keep"] = sum(map(self._keep_at, range(1, self._epochs + 1))) / self._epochs
        for module, name in self._patched:
            for key in (name, "_keep"):
                module.__dict__.pop(key, None)
        self._patched, self._epochs = [], 0
        return columns

    def _keep_at(self, epoch: int) -> float:
        return keep_at(epoch, keep=self.keep, schedule=self.schedule, period=self.period, warmup=self.warmup)

    def _patch(self, module: nn.Module) -> None:
        # a bound method of a module-level function: a deep copy of the model (for averaging) is bound to the copy, not to the original
        name, function = ("forward", _linear_forward) if isinstance(module, nn.Linear) else ("_conv_forward", _conv_forward)
        module.__dict__.update({name: MethodType(function, module), "_keep": 1.0})
        self._patched.append((module, name))

    def _why_dense(self, module: nn.Module) -> str | None:
        if isinstance(module, nn.Linear):
            own_forward = type(module).forward is not nn.Linear.forward or type(module) is nn.modules.linear.NonDynamicallyQuantizableLinear
            return "other" if own_forward else "narrow" if module.out_features < self.min_channels else None
        kind = next((kind for kind in _CONVOLUTIONS if isinstance(module, kind)), None)
        if not isinstance(module, nn.modules.conv._ConvNd):
            return "other"
        if module.groups != 1:
            return "grouped"
        # a subclass with a forward of its own (weight standardisation, TensorFlow padding) computes something else
        if kind is None or type(module).forward is not kind.forward or type(module)._conv_forward is not kind._conv_forward:
            return "other"
        return "narrow" if module.out_channels < self.min_channels else None


def keep_at(epoch: int, *, keep: float, schedule: str, period: int = 10, warmup: int = 1) -> float:
    """Share of the output channels that is kept in epoch number ``epoch`` (from 1).

    >>> [keep_at(epoch, keep=0.2, schedule="interleave") for epoch in range(1, 5)]
    [1.0, 0.2, 1.0, 0.2]
    """
    step = epoch - 1
    if step < warmup:
        return 1.0
    phase = step % period / (period - 1)
    if schedule == "interleave":
        return keep if step % 2 else 1.0
    if schedule == "bar":
        return keep if step % period >= period / 2 else 1.0
    if schedule == "linear":
        return 1.0 - (1.0 - keep) * phase
    if schedule == "cosine":
        return keep + (1.0 - keep) * (1.0 + math.cos(math.pi * phase)) / 2.0
    return keep


def kept_channels(keep: float, channels: int) -> int:
    """Number of output channels that take part in the backward pass: ``max(floor(keep * channels), 1)``."""
    return max(int(keep * channels), 1)


def strongest(gradient: torch.Tensor, count: int, channel_dim: int) -> torch.Tensor:
    """Indices ``(count,)`` of the channels whose gradient has the largest sum of absolute values, ascending.

    A channel with a NaN counts as the strongest, so that a loss scaler still detects it. Source: score of Zhong, Huang and Shi, ssProp,
    arXiv 2408.12561; the mean there and the sum here give the same order.
    """
    dims = [dim for dim in range(gradient.dim()) if dim != channel_dim]
    # the sum over many half-precision numbers needs float32 to keep its order
    dtype = torch.float32 if gradient.dtype in (torch.float16, torch.bfloat16) else None
    score = torch.linalg.vector_norm(gradient, 1, dim=dims, dtype=dtype)
    channels: torch.Tensor = score.topk(count, sorted=False).indices.sort().values
    return channels


def _conv_forward(self: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    sizes = len(self.stride)
    if not torch.is_grad_enabled() or self._keep >= 1.0 or input.dim() != sizes + 2:
        dense: torch.Tensor = type(self)._conv_forward(self, input, weight, bias)
        return dense
    padding = self.padding
    if self.padding_mode != "zeros" or padding == "same":
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        input, padding = torch.nn.functional.pad(input, self._reversed_padding_repeated_twice, mode=mode), (0,) * sizes
    elif padding == "valid":
        padding = (0,) * sizes
    input, weight, bias = _as_autocast(input, weight, bias)
    kept = kept_channels(self._keep, self.out_channels)
    with torch.autocast(input.device.type, enabled=False):
        return SparseConvolution.apply(  # type: ignore[no-any-return]  # torch does not type apply
            input, weight, bias, self.stride, padding, self.dilation, kept
        )


def _linear_forward(self: Any, input: torch.Tensor) -> torch.Tensor:
    if not torch.is_grad_enabled() or self._keep >= 1.0:
        return nn.Linear.forward(self, input)
    input, weight, bias = _as_autocast(input, self.weight, self.bias)
    kept = kept_channels(self._keep, self.out_features)
    with torch.autocast(input.device.type, enabled=False):
        return SparseLinear.apply(input, weight, bias, kept)  # type: ignore[no-any-return]  # torch does not type apply


def _as_autocast(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Cast as autocast would, with casts that autograd records, since it does not look into an autograd function."""
    device = input.device.type
    if not torch.is_autocast_enabled(device):
        return input, weight, bias
    dtype = torch.get_autocast_dtype(device)
    return input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


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
    ) -> torch.Tensor:
        """Convolve ``x (b, c, *size)`` with ``weight (o, c, *kernel)``."""
        ctx.save_for_backward(x, weight)
        ctx.geometry = (tuple(stride), tuple(padding), tuple(dilation))
        ctx.kept, ctx.has_bias = kept, bias is not None
        return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Gradients of input, weight and bias from the kept channels of ``gradient (b, o, *out)``."""
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        channels = strongest(gradient, ctx.kept, 1)
        rows, filters = gradient.index_select(1, channels), weight.index_select(0, channels)
        grad_x = grad_weight = grad_bias = None
        if need_x or need_weight:
            grad_x, part, _ = _convolution_backward(rows, x, filters, ctx.geometry, need_x, need_weight)
            if need_weight:
                grad_weight = torch.zeros_like(weight).index_copy_(0, channels, part.to(weight.dtype))
        if ctx.has_bias and need_bias:
            dims = [dim for dim in range(rows.dim()) if dim != 1]
            grad_bias = gradient.new_zeros(gradient.shape[1]).index_copy_(0, channels, rows.sum(dims))
        return grad_x, grad_weight, grad_bias, None, None, None, None


class SparseLinear(torch.autograd.Function):
    """Ordinary linear map; gradients as if the output gradient were zero outside of its strongest features."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, kept: int) -> torch.Tensor:
        """Map ``x (..., i)`` by ``weight (o, i)`` to ``(..., o)``."""
        ctx.save_for_backward(x, weight)
        ctx.kept, ctx.has_bias = kept, bias is not None
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
            grad_x = (columns @ weight.index_select(0, features)).reshape(x.shape)
        if need_weight:
            part = columns.T @ x.reshape(-1, x.shape[-1])
            grad_weight = torch.zeros_like(weight).index_copy_(0, features, part)
        if ctx.has_bias and need_bias:
            grad_bias = gradient.new_zeros(gradient.shape[-1]).index_copy_(0, features, columns.sum(0))
        return grad_x, grad_weight, grad_bias, None


def _convolution_backward(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, geometry: tuple[tuple[int, ...], ...], need_x: bool, need_weight: bool
) -> tuple[Any, Any, Any]:
    # one call for both gradients, and the operator that torch.utils.flop_counter has a formula for
    stride, padding, dilation = geometry
    none = [0] * len(stride)
    result: tuple[Any, Any, Any] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, dilation, False, none, 1, [need_x, need_weight, False]
    )
    return result
