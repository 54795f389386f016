"""Size of a model before any training: parameters, floating-point operations, and the device memory that its training will need."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from dataclasses import dataclass
from math import prod
from types import MethodType
from typing import Any

import torch

from .recipe import Recipe
from .tactics.tactic import evaluating
from .task import Task

#: Examples of the pass that counts activations; batch normalisation rejects a single one.
_COUNTED = 2
_BYTES_IN_HALF = 2
#: Parameters times positions of an input, a bound of the multiplications of a forward pass: up to here it takes 30 ms at most.
_SMALL = 2**27
#: Networks of so many parameters take less on a CPU for an image of 224 pixels than loading what tensors without values need.
_CHEAPER = 2**25
#: Their forward pass on a CPU is an operation of its own, of which PyTorch has no formula.
_FUSED = (torch.nn.RNNBase, torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer)


@dataclass(frozen=True)
class Cost:
    """Size of a model.

    Shared parameters count once; scikit-learn has None. ``flops`` are forward operations for one example (a multiplication and an addition
    are two), ``memory_bytes`` an estimate of what a training holds on its device, see ``training_bytes``; both are None when unknown, the
    latter also when not requested.
    """

    parameters: int | None
    flops: int | None
    memory_bytes: int | None = None


def count(model: Any, task: Task, recipe: Recipe, *, memory: bool = False) -> Cost:
    """Count without computing: the forward pass runs on tensors that have shapes but no values. The memory takes a second pass.

    A model whose forward pass depends on values cannot run like that; then one example of zeros goes through the real model. So does it
    through a small one: the first tensors without values load ``torch._dynamo``, 1.4 CPU-seconds of each process. Where that is not loaded
    and there is no GPU, one that is not small does, too: an epoch of its training takes hundreds of times as long.
    """
    if not isinstance(model, torch.nn.Module):
        return Cost(None, None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shape = task.shape_at(recipe.resolution)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    fused = any(isinstance(module, _FUSED) for module in model.modules())
    real = all(tensor.device.type == "cpu" for tensor in [*model.parameters(), *model.buffers()])
    bare = "torch._dynamo" not in sys.modules and not torch.cuda.is_available()
    small = real and not fused and (parameters * prod(shape[1:]) <= _SMALL or (bare and parameters <= _CHEAPER))
    with evaluating(model):
        flops = None if small else _flops(model, torch.device("meta"), shape)
        if flops is None:
            flops = _flops(model, device, shape)
    return Cost(parameters, flops, training_bytes(model, task, recipe) if memory else None)


def training_bytes(model: torch.nn.Module, task: Task, recipe: Recipe) -> int | None:
    """Estimate the bytes that a training holds at the end of the forward pass of a micro-batch, where it needs the most.

    Counted are weights and buffers, gradients, the state of the optimiser (two values for each trained weight with AdamW, one with SGD and
    momentum), the averaged weights, one micro-batch of inputs, and every tensor that autograd keeps for the backward pass. The last come
    from a forward pass on tensors that have shapes but no values; each storage counts once, and a frozen part keeps nothing. Floating
    point activations count as 2 bytes a value under half precisions.

    It is an estimate: the work space of convolutions, the fragments of the allocator, the CUDA context and the data set itself, where it
    lives on the device, come on top, and ``torch.compile`` or a tactic that freezes or skips layers needs less.
    None for a model whose forward pass depends on the values of its input.
    """
    kept = activation_bytes(model, task.shape_at(recipe.resolution), half=recipe.precision != "float32")
    if kept is None:
        return None
    batch = min(-(-recipe.batch_size // recipe.accumulation), len(task.train))
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    learning = sum(parameter.nbytes for parameter in trained)
    states = 2 if recipe.optimizer == "adamw" else 1 if recipe.momentum > 0 else 0
    averaged = 0
    if recipe.averaging or recipe.schedule == "anytime":
        averaged = learning + sum(buffer.nbytes for buffer in model.buffers() if buffer.is_floating_point())
    inputs = batch * prod(task.shape_at(recipe.resolution)) * torch.finfo(torch.float32).bits // 8
    return weights + learning * (1 + states) + averaged + inputs + round(kept * batch)


def activation_bytes(model: torch.nn.Module, shape: tuple[int, ...], *, half: bool = False) -> float | None:
    """Count what autograd keeps for the backward pass of one example of this shape, the weights and the input itself left out.

    The model stays unchanged. With ``half``, floating point activations are kept in 2 bytes a value. None for a model whose forward pass
    depends on the values of its input.
    """
    state = {name: tensor.detach().to("meta").requires_grad_(tensor.requires_grad) for name, tensor in model.named_parameters()}
    state |= {name: tensor.detach().to("meta") for name, tensor in model.named_buffers()}
    inputs = torch.zeros((_COUNTED, *shape), device="meta")
    seen = {_storage(tensor) for tensor in [*state.values(), inputs]}
    held: list[torch.Tensor] = []  # keeps each storage alive, since the next one could reuse its address

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in seen:
            seen.add(_storage(tensor))
            held.append(tensor)
        return tensor

    was_training = model.training
    model.train()
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
            outputs = torch.func.functional_call(model, state, (inputs,))
    except (Exception, SystemExit):  # a user's forward may raise anything; the training itself reports it with more context
        return None
    finally:
        model.train(was_training)
    del outputs
    return sum(_kept(tensor, half) for tensor in held) / _COUNTED


def _flop_counter() -> Any:
    """Return PyTorch's counter of FLOPs, loaded as where Triton is not installed: without a GPU there is nothing of Triton's to count."""
    name = "torch.utils.flop_counter"
    if name in sys.modules or "triton" in sys.modules or torch.cuda.is_available():
        return importlib.import_module(name).FlopCounterMode
    said, sys.modules["triton"] = logging.getLogger(name), None  # type: ignore[assignment]  # not to be found
    said.addFilter(silent := lambda record: False)
    try:
        return importlib.import_module(name).FlopCounterMode
    finally:
        said.removeFilter(silent)
        del sys.modules["triton"]


def _flops(model: torch.nn.Module, device: torch.device, shape: tuple[int, ...]) -> int | None:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = {name: tensor.detach().to(device, copy=True) for name, tensor in state.items()}
    counter = _flop_counter()(display=False)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), counter:
            mode: Any = counter.mode  # its method is wrapped for what is compiled, and so loads torch._dynamo, too
            mode.__torch_dispatch__ = MethodType(inspect.unwrap(type(mode).__torch_dispatch__), mode)
            torch.func.functional_call(model, state, (torch.zeros((1, *shape), device=device),))
    except (Exception, SystemExit):  # a user's forward may raise anything; the training itself reports it with more context
        return None
    return int(counter.get_total_flops())


def _kept(tensor: torch.Tensor, half: bool) -> int:
    size = tensor.untyped_storage().nbytes()
    return size // tensor.element_size() * _BYTES_IN_HALF if half and tensor.is_floating_point() else size


def _storage(tensor: torch.Tensor) -> Any:
    return tensor.untyped_storage()._cdata
