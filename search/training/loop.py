"""The steps of a training: a network, its optimiser and what belongs to both, from the set-up to the checkpoint.

Whatever is random in an epoch is drawn from ``(seed, epoch)``, and nothing carries over from one to the next but what the checkpoint holds.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from .captured import LEAST_STEPS, Capture, CapturedEpoch, NotCapturableError, Steps, cuda_graph
from .evaluate import answered, training_loss
from .optimizer import Average, Patience, decay, learning_rate_factor, make_optimizer, portable_state, set_rate, trainable
from .recipe import Recipe, autocast
from .results import TrainingFailed
from .splits_data import MemoryData, laid_out
from .tactics.tactic import Tactic, attached, total_penalty, training_resolution
from .task import Task

#: The loss is read this often (steps): each read waits for the device, and a diverged training should not cost a whole epoch.
CHECK_EVERY = 16


class Loop:
    """One training of a network, epoch by epoch; `fit` decides what happens between the epochs.

    Attributes:
        epoch: Epochs trained so far, those of the checkpoint included.
        average: The averaged weights, or None where the recipe has none.
        patience: Early stopping by the recipe.
        extra: What the tactics report; ``graph`` is 1 where the steps are taken into one, 0 where that was refused.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        task: Task,
        recipe: Recipe,
        tactics: Sequence[Tactic],
        undo: ExitStack,
        *,
        epochs: int,
        start: Mapping[str, Any] | None,
        seed: int,
        device: torch.device,
    ) -> None:
        """Set the network up for its training to ``epochs`` epochs; ``undo`` detaches the tactics from it."""
        self._model, self._task, self._recipe, self._tactics = model, task, recipe, tactics
        self._epochs, self._seed, self._device = epochs, seed, device
        _seed_all(epoch_seed(seed, 0))
        model.to(device).train()
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        if start is not None:
            model.load_state_dict(start["weights"])
        parameters = trainable(model)  # before the tactics: what they freeze for some epochs is trained in the others
        self.extra = undo.enter_context(attached(tactics, model))
        self._optimizer = make_optimizer(model, parameters, recipe)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.average = Average(model, parameters) if recipe.averaging or recipe.schedule == "anytime" else None
        self.patience = Patience(recipe.patience)
        self.epoch, self._step = 0, 0
        if start is not None:
            self._restore(start)
        self._forward: Any = model
        self._captured: CapturedEpoch | None = None
        full, rest = divmod(len(task.train), recipe.batch_size)
        self._steps_per_epoch = full + (rest > 1 or full == 0)  # a single left-over example is skipped, see `train_epoch`

    def compile(self) -> None:
        """Compile the network for every size of a batch to come.

        What this process has compiled before is forgotten: the kernels would depend on what was trained before, and after eight models of
        one class PyTorch compiles no more. Its cache of kernels stays, so the same architecture compiles for a twentieth the second time.
        """
        torch._dynamo.reset()
        self._forward = torch.compile(self._model)
        self.rehearse()

    def rehearse(self) -> None:
        """Compute a step for each size of a batch that the epochs have; weights and statistics stay as they are.

        What is compiled is compiled then, and kernels are loaded and chosen.
        """
        model, recipe = self._model, self._recipe
        kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
        rest = len(self._task.train) % recipe.batch_size
        for resolution in dict.fromkeys(self._pixels(later) for later in range(self.epoch + 1, self._epochs + 1)):
            batches = self._task.train.batches(recipe.batch_size, device=self._device, resolution=resolution)
            inputs, targets = next(iter(batches))
            for size in dict.fromkeys((len(inputs), rest if rest > 1 else len(inputs))):
                for part, wanted in self._parts(inputs[:size], targets[:size]):
                    torch.autograd.backward(self._loss(part, wanted)[1])
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(kept[name])

    def train_epoch(self) -> float:
        """Train one epoch and return its mean training loss.

        Raises:
            TrainingFailed: If the loss is not finite.
        """
        self.epoch += 1
        recipe, drawn = self._recipe, epoch_seed(self._seed, self.epoch)
        _seed_all(drawn)
        self._model.train()
        for tactic in self._tactics:
            tactic.start_epoch(self.epoch, self._epochs)
        if self._captured is not None:
            return self._captured_epoch(self._captured, drawn)
        total, examples = torch.zeros((), device=self._device), 0
        options: dict[str, Any] = {"seed": drawn, "resolution": self._pixels(self.epoch), "augment": recipe.augment}
        for inputs, targets in self._task.train.batches(recipe.batch_size, device=self._device, **options):
            if len(inputs) == 1 < min(recipe.batch_size, len(self._task.train)):
                continue  # a single left-over example has no batch statistics; the order differs in the next epoch
            total += self._train_step(inputs, targets)
            examples += len(inputs)
            if self._step % CHECK_EVERY == 0:
                _require_finite(total, self.epoch)
        _require_finite(total, self.epoch)
        return float(total) / max(1, examples)

    def capture(self, record: Capture = cuda_graph) -> str | None:
        """Take the steps of an epoch into a CUDA graph where that is possible and worth it; return why not, or None.

        Whether it is done is in ``extra``, too. ``record`` stands for the graph where there is no CUDA.
        """
        reason = self._capture(record)
        self.extra["graph"] = float(reason is None)
        return reason

    def _capture(self, record: Capture) -> str | None:
        data, recipe = self._task.train, self._recipe
        steps = (self._epochs - self.epoch) * (len(data) // recipe.batch_size)
        if not isinstance(data, MemoryData) or self._tactics or recipe.precision == "float16":
            return "data that is read from files, tactics and float16's scaler decide on the CPU"
        if steps < LEAST_STEPS:
            return f"{steps} full batches are fewer than {LEAST_STEPS}"
        try:
            captured = CapturedEpoch(
                data,
                self._optimizer,
                self.average,
                batch_size=recipe.batch_size,
                resolution=recipe.resolution,
                augment=recipe.augment,
                device=self._device,
            )
            captured.capture(self._model, self._backward, record)
        except NotCapturableError as reason:
            return str(reason)
        self._captured = captured
        return None

    def checkpoint(self) -> dict[str, Any]:
        """Return what another loop needs as its ``start`` to go on as this one would; copies."""
        return {
            "epochs": self.epoch,
            "steps": self._step,
            "weights": {name: tensor.detach().clone() for name, tensor in self._model.state_dict().items()},
            "averaged": None if self.average is None else {name: tensor.clone() for name, tensor in self.average.values.items()},
            "optimizer": portable_state(self._optimizer),
            "scaler": self._scaler.state_dict(),
            "patience": self.patience.state(),
        }

    def _restore(self, start: Mapping[str, Any]) -> None:
        self.epoch, self._step = int(start["epochs"]), int(start["steps"])
        self._optimizer.load_state_dict(copy.deepcopy(start["optimizer"]))  # it would train on in the tensors of the checkpoint
        self._scaler.load_state_dict(start["scaler"])
        self.patience.load(start["patience"])
        if self.average is not None:
            self.average.load(start["averaged"])

    def _train_step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Take one step of the optimiser; return the sum of the examples' losses, a scalar tensor."""
        factor = self._factor(self._step)
        for group in self._optimizer.param_groups:
            set_rate(group, group["peak"] * factor)
        total = self._backward(inputs, targets)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._step += 1
        if self.average is not None:
            self.average.update(self._step)
        return total

    def _backward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Add up the gradients of a batch; return the sum of the examples' losses, a scalar tensor."""
        total = torch.zeros((), device=self._device)
        for part, wanted in self._parts(inputs, targets):
            loss, penalised = self._loss(part, wanted)
            torch.autograd.backward(self._scaler.scale(penalised * (len(part) / len(inputs))))
            total += loss.detach() * len(part)
        return total

    def _captured_epoch(self, captured: CapturedEpoch, drawn: int) -> float:
        """Train the full batches of an epoch by a graph, and the rest as ever; see `train_epoch`."""
        size, count = self._recipe.batch_size, len(self._task.train) // self._recipe.batch_size
        first, total = self._step, torch.zeros((), device=self._device)
        steps = Steps([self._factor(first + k) for k in range(count)], [1.0 - decay(first + k + 1) for k in range(count)])
        for total in captured.train(steps, drawn):
            self._step += 1
            if self._step % CHECK_EVERY == 0:
                _require_finite(total, self.epoch)
        examples = count * size
        for inputs, targets in captured.rest():
            if len(inputs) > 1:
                total = total + self._train_step(inputs, targets)
                examples += len(inputs)
        _require_finite(total, self.epoch)
        return float(total) / max(1, examples)

    def _factor(self, step: int) -> float:
        """Return the factor of the peak learning rate at a step, counted over the whole lineage."""
        steps = self._steps_per_epoch
        return learning_rate_factor(self._recipe, step, steps_per_epoch=steps, total_steps=self._epochs * steps)

    def _parts(self, inputs: torch.Tensor, targets: torch.Tensor) -> Any:
        parts = max(1, min(self._recipe.accumulation, len(inputs) // 2))  # a single example has no batch statistics
        return zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True)

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss, without and with what the tactics add to it."""
        with autocast(self._recipe.precision, self._device):
            outputs = answered(self._forward(laid_out(inputs, self._recipe)), self._task, len(targets))
        loss = training_loss(self._task.kind, outputs, targets, label_smoothing=self._recipe.label_smoothing)
        penalty = total_penalty(self._tactics)
        return loss, loss if penalty is None else loss + penalty

    def _pixels(self, epoch: int) -> int | None:
        """Return the side to which images are resized in an epoch; None leaves them as they are: they need not be square."""
        *_, height, full = (1, *self._task.shape_at(self._recipe.resolution))
        side = training_resolution(self._tactics, epoch, self._epochs, full)
        if side != full and height != full:
            raise ValueError(f"smaller images at first need square ones, got {height} x {full}; drop the tactic, or set recipe.resolution")
        return self._recipe.resolution if side == full else side


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch (0: the set-up), so that an epoch is the same whether or not the ones before ran in this process."""
    return (seed * 1_000_003 + epoch) % 2**63


def _seed_all(seed: int) -> None:
    """Seed all generators that a model, or the transforms of a user's own data, may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _require_finite(total: torch.Tensor, epoch: int) -> None:
    value = float(total)
    if not math.isfinite(value):
        raise TrainingFailed(f"the training loss became {value} in epoch {epoch}; a lower learning rate may help, if the data are finite")
