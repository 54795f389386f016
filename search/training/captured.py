"""The steps of an epoch as one CUDA graph, for networks whose kernels are computed faster than Python launches them.

A step of a small network is some hundred kernels of a few microseconds, each of which costs Python more to launch than the GPU to compute:
on an H100 it is idle for most of the time, and idle watts are billed as well. A graph launches all of them at once. For this nothing of a
step may come from the CPU: order and moves of the images, learning rates and weights of the average lie on the device for the whole epoch,
and the graph counts its own steps.

Source: PyTorch documentation, "CUDA semantics", section "CUDA Graphs".
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .optimizer import Average
from .splits_data import MemoryData

#: Fewer steps than this are not worth the capture, which takes the time of about five.
LEAST_STEPS = 32
#: Steps before the capture: the first ones choose kernels and allocate what stays, the last is timed.
WARM_UP_STEPS = 3
#: Where launching takes less than this share of a step the GPU is busy as it is, and a graph would only hold its memory.
LEAST_LAUNCHING = 0.5

#: Records what a function does, and returns what does it again. `cuda_graph` is the real one.
Capture = Callable[[Callable[[], None]], Callable[[], None]]
#: What a loop computes of a batch: adds up gradients in the network's parameters, returns the sum of the examples' losses, a scalar tensor.
Backward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Steps:
    """What the full batches of an epoch take from the schedule, one value for each.

    Attributes:
        factors: Factor of the peak learning rate.
        shares: Share of the new weights in the average, unused where nothing is averaged.
    """

    factors: Sequence[float]
    shares: Sequence[float]


class NotCapturableError(Exception):
    """Why a training goes on step by step; its text is for people."""


def cuda_graph(body: Callable[[], None]) -> Callable[[], None]:
    """Record a function on the present CUDA stream, which must not be the default one; see ``Capture``."""
    graph = torch.cuda.CUDAGraph()
    # Other threads may allocate meanwhile. `torch.cuda.graph` would collect garbage before, which takes longer than the capture.
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        body()
    except BaseException:
        with suppress(RuntimeError):  # the reason is the error before, not that the capture has failed
            graph.capture_end()
        raise
    graph.capture_end()
    return graph.replay


class CapturedEpoch:
    """All full batches of an epoch; the rest of the examples is the caller's."""

    def __init__(
        self,
        data: MemoryData,
        optimizer: torch.optim.Optimizer,
        average: Average | None,
        *,
        batch_size: int,
        resolution: int | None,
        augment: str,
        device: torch.device,
    ) -> None:
        self._data, self._optimizer, self._average = data, optimizer, average
        self._size, self._resolution, self._augment, self._device = batch_size, resolution, augment, device
        self._count = len(data) // batch_size
        self._range = torch.arange(batch_size, device=device)
        self._at, self._total = torch.zeros((), dtype=torch.int64, device=device), torch.zeros((), device=device)
        self._factors, self._shares = torch.ones(self._count, device=device), torch.ones(self._count, device=device)
        self._order, self._moves = data.drawn(batch_size, seed=0, augment=augment, device=device)

    def capture(self, model: torch.nn.Module, backward: Backward, record: Capture) -> None:
        """Record a step. Weights, statistics, optimiser, average and generators are afterwards what they were.

        Raises:
            NotCapturableError: If it is not worth it, or the network takes something from the CPU that a graph would repeat for ever.
        """

        def step() -> None:
            self._step(backward)

        groups = self._optimizer.param_groups
        plain = [dict(group) for group in groups]
        try:
            with _untouched(model, self._optimizer, self._average), _aside(self._device):
                for group in groups:
                    group["lr"] = torch.tensor(float(group["lr"]), device=self._device)
                    if "capturable" in group:
                        group["capturable"] = True
                before = _python_state(model)
                for _ in range(WARM_UP_STEPS):
                    self._at.zero_()
                    launching = _launching_share(step, self._device)
                with _never_waiting(self._device):
                    step()
                if _python_state(model) != before:
                    raise NotCapturableError("the network draws at random on the CPU, or counts its steps in Python")
                if launching < LEAST_LAUNCHING:
                    raise NotCapturableError(f"launching takes {launching:.0%} of a step: the GPU is busy")
                self._at.zero_()
                self._replay = record(step)
        except RuntimeError as error:  # a network that waits for the device within a step, or no memory for more activations
            raise _undone(groups, plain, NotCapturableError(str(error).splitlines()[0])) from error
        except NotCapturableError as reason:
            raise _undone(groups, plain, reason) from None

    def train(self, steps: Steps, seed: int) -> Iterator[torch.Tensor]:
        """Train on the full batches of the epoch of ``seed``; yield after each the sum of the losses so far, a scalar on the device."""
        order, moves = self._data.drawn(self._size, seed=seed, augment=self._augment, device=self._device)
        self._order.copy_(order)
        if moves is not None and self._moves is not None:
            self._moves.copy_(moves)
        self._factors.copy_(torch.tensor(steps.factors))
        self._shares.copy_(torch.tensor(steps.shares))
        self._at.zero_()
        self._total.zero_()
        for _ in range(self._count):
            self._replay()
            yield self._total

    def rest(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the last batch of the epoch that was trained, if the examples leave one."""
        first = self._count * self._size
        if first < len(self._data):
            moves = None if self._moves is None else self._moves[:, first:]
            yield self._data.chosen(self._order[first:], moves, self._resolution)

    def _step(self, backward: Backward) -> None:
        """Take one step with nothing that comes from the CPU."""
        index, here = self._at * self._size + self._range, self._at.view(1)
        moves = None if self._moves is None else self._moves.index_select(1, index)
        inputs, targets = self._data.chosen(self._order.index_select(0, index), moves, self._resolution)
        factor = self._factors.index_select(0, here).view(())
        for group in self._optimizer.param_groups:
            group["lr"].copy_(factor * group["peak"])
        self._total += backward(inputs, targets)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.include(self._shares.index_select(0, here).view(()))
        self._at += 1


def _undone(groups: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]], reason: NotCapturableError) -> NotCapturableError:
    """Make the groups of an optimiser what they were; return the reason."""
    for group, before in zip(groups, plain, strict=True):
        group.update(before)
    return reason


def _launching_share(step: Callable[[], None], device: torch.device) -> float:
    """Take a step; return the share of its time after which all of it was launched, 1 on a CPU."""
    if device.type != "cuda":
        step()
        return 1.0
    torch.cuda.synchronize(device)
    begin = time.perf_counter()
    step()
    launched = time.perf_counter()
    torch.cuda.synchronize(device)
    return (launched - begin) / (time.perf_counter() - begin)


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """Work on a stream of its own, as a capture must; the present one waits for it."""
    if device.type != "cuda":
        yield
        return
    present, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(present)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        present.wait_stream(stream)


@contextmanager
def _never_waiting(device: torch.device) -> Iterator[None]:
    """Make an error of what waits for the device: a capture that fails at it may leave a generator unusable."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _untouched(model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Average | None) -> Iterator[None]:
    """Put back in place what the steps within have changed; what the optimiser then keeps for the first time begins at zero."""
    places = [*model.parameters(), *model.buffers(), *(average.values.values() if average is not None else ())]
    held = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    kept = [(place, place.detach().clone()) for place in [*places, *held]]
    known = {id(value) for value in held}
    with torch.random.fork_rng(devices={place.device.index for place in places if place.device.type == "cuda"}):
        try:
            yield
        finally:
            optimizer.zero_grad(set_to_none=True)
            fresh = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
            with torch.no_grad():
                for place, value in kept:
                    place.copy_(value)
                for value in fresh:
                    if id(value) not in known:
                        value.zero_()


def _python_state(model: torch.nn.Module) -> Any:
    """Return what a step must not change on the CPU: the generators, and the plain attributes of all modules."""
    attributes = [_plain(vars(module)) for module in model.modules()]
    return attributes, random.getstate(), str(np.random.get_state(legacy=False)["state"]), torch.get_rng_state().numpy().tobytes()


def _plain(value: Any) -> Any:
    """Return of an attribute what can be compared later: numbers, texts, collections of them, the states of generators."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(one) for one in value]
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return str(value.get_state(legacy=False)["state"])
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, torch.Generator):
        return value.get_state().cpu().numpy().tobytes()
    return value if isinstance(value, (bool, int, float, str, np.generic)) else None
