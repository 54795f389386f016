"""Counts the floating-point operations of a backward pass."""

from __future__ import annotations

import torch
from torch import nn


def backward_flops(model: nn.Module, inputs: torch.Tensor) -> int:
    """Floating-point operations of one backward pass through ``model`` for ``inputs (b, ...)``.

    Counts matrix products and convolutions with the formulas of ``torch.utils.flop_counter``, 2 per multiply and add; choosing channels,
    element-wise work and memory traffic count nothing. The formula for the weight gradient of a grouped convolution counts it as a dense
    one, so compare models with such layers by other means. Gradients of the parameters are left as they were.
    """
    from torch.utils.flop_counter import FlopCounterMode

    held = [parameter.grad for parameter in model.parameters()]
    loss = model(inputs).float().square().sum()
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    for parameter, gradient in zip(model.parameters(), held, strict=True):
        parameter.grad = gradient
    return int(counter.get_total_flops())
