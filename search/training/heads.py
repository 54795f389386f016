"""Heads of pretrained networks beyond a layer that is trained in epochs: solved at once, or trained with a part of the network.

Ridge, logistic regression and nearest neighbours are solved on the features of a frozen network. Each is a plain module afterwards, whose
outputs are logits (values in a regression), so it is exported like any other; one epoch is all, a longer training ends by itself after it.

In fine-tuning a part of the network is trained as well, at rates of its own. `Tuned` is that part with the head. As the head of a
`Transfer` model it gets maps at a cut, which are computed once and kept as features are; behind a backbone that only prepares images
(`PREPARED`) the whole network is trained. Either way the head alone is trained first: a random or empty head would destroy, in its first
steps, what the network knows.

Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", arXiv:2202.10054 (LP-FT).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from .backbone import Backbone, Transfer
from .feature_cache import statistics
from .features import ORDER
from .optimizer import Lbfgs
from .recipe import Recipe
from .splits_data import Excerpt, MemoryData
from .task import Data, Task

#: Steps of L-BFGS at most: an optimum of the training loss is none of the validation loss.
STEPS = 20
#: L-BFGS ends where no derivative is above the one, or the loss moves less than the other.
LEAST_DERIVATIVE, LEAST_CHANGE = 1e-4, 1e-6
#: Examples by which the scale of the logits of a ridge is found.
SCALED_BY = 512
#: Scales that are tried: from hardly any confidence to nearly full.
SCALES = torch.logspace(-0.5, 2.0, 40)
#: Sharpness of the weights of neighbours by their cosine. Source: Wu et al. 2018, arXiv:1805.01978, section 3.
TEMPERATURE = 0.07


class SolvedHead(nn.Module):
    """A head that `solve` finds from all features at once; until then its outputs are zero."""

    def solve(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """Find the head from batches of features ``(b, d)`` and targets ``(b,)`` or ``(b, outputs)``; return its loss on them.

        Targets of a whole-number type are classes.
        """
        raise NotImplementedError


class _Linear(SolvedHead):
    """A linear layer that starts at zero, with a penalty on its squared weights."""

    def __init__(self, features: int, outputs: int, penalty: float) -> None:
        super().__init__()
        self.outputs, self.penalty = outputs, penalty
        self.linear = nn.Linear(features, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits ``(b, outputs)``."""
        found: torch.Tensor = self.linear(features)
        return found


class Ridge(_Linear):
    """Least squares onto 1 for the class and 0 for the others; values in a regression.

    A squared weight costs ``penalty`` times the number of features, beside the sum of the squared errors.

    The scale that makes its scores logits is found on examples that were left out one by one, which has a closed form.

    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, sections 3.4.1, 4.2 and 7.10 (the hat matrix).
    """

    @torch.no_grad()
    def solve(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """Solve the smaller of the two systems: one equation for each feature, or for each example."""
        inputs, targets = _joined(batches)
        classes = not targets.is_floating_point()
        wanted = nn.functional.one_hot(targets, self.outputs).to(inputs.dtype) if classes else targets.reshape(len(targets), -1)
        mean, centre = wanted.mean(dim=0), inputs.mean(dim=0)
        inputs, residual = inputs - centre, wanted - mean
        count, width = inputs.shape
        ridge = self.penalty * width
        checked = slice(0, min(count, SCALED_BY))
        gram = inputs @ inputs.T if count <= width else inputs.T @ inputs
        gram.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(gram)
        if count <= width:
            weights = inputs.T @ torch.cholesky_solve(residual, factor)
            units = torch.eye(count, dtype=inputs.dtype, device=inputs.device)[:, checked]
            leverage = 1.0 - ridge * torch.cholesky_solve(units, factor)[checked].diagonal()
        else:
            weights = torch.cholesky_solve(inputs.T @ residual, factor)
            leverage = (inputs[checked] * torch.cholesky_solve(inputs[checked].T, factor).T).sum(dim=1)
        scale = 1.0
        if classes:
            fitted = (inputs[checked] @ weights + mean).double()
            share = (leverage + 1.0 / count).clamp(max=0.999)[:, None].double()
            left_out = (fitted - share * wanted[checked]) / (1.0 - share)
            losses = [nn.functional.cross_entropy(float(one) * left_out, targets[checked]) for one in SCALES]
            scale = float(SCALES[int(torch.stack(losses).argmin())])  # which makes logits of scores
        self.linear.weight.copy_(scale * weights.T)
        self.linear.bias.copy_(scale * (mean - centre @ weights))
        return float(_loss(scale * (inputs @ weights + mean), targets))


class Logistic(_Linear):
    """Multinomial logistic regression by L-BFGS from zero; half a squared weight costs ``penalty``, beside the mean cross-entropy."""

    def solve(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """Minimise the loss of all examples at once."""
        inputs, targets = _joined(batches)
        optimizer = Lbfgs(
            self.linear.parameters(),
            max_iter=STEPS,
            line_search_fn="strong_wolfe",
            tolerance_grad=LEAST_DERIVATIVE,
            tolerance_change=LEAST_CHANGE,
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = _loss(self.linear(inputs), targets) + 0.5 * self.penalty * self.linear.weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch's own annotation
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]  # L-BFGS takes the tensor
        optimizer.zero_grad()
        with torch.no_grad():
            return float(_loss(self.linear(inputs), targets))


class Neighbours(SolvedHead):
    """The classes of the most similar training images, weighted by their cosine: the features of all of them are the head."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, features: int, outputs: int, neighbours: int, images: int = 1) -> None:
        """Ask so many of the nearest of so many training images, whose number the count of operations needs before they are known."""
        super().__init__()
        self.outputs, self.neighbours = outputs, neighbours
        self.register_buffer("keys", torch.zeros(images, features))
        self.register_buffer("values", torch.full((images, outputs), 1.0 / outputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits ``(b, outputs)``: the logarithm of the share of the neighbours' weight that each class has."""
        alike = nn.functional.normalize(features, dim=1) @ self.keys.T
        nearest = alike.topk(min(self.neighbours, len(self.keys)), dim=1).values
        weights = torch.exp((alike - nearest[:, :1]) / TEMPERATURE) * (alike >= nearest[:, -1:])
        shares = weights @ self.values
        return torch.log(shares / shares.sum(dim=1, keepdim=True) + 1e-3)

    @torch.no_grad()
    def solve(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """Keep the features, of length one, and their classes."""
        inputs, targets = _joined(batches)
        if targets.is_floating_point():
            raise ValueError("the head of nearest neighbours needs classes, got values; take ridge")
        self.keys = nn.functional.normalize(inputs, dim=1)
        self.values = nn.functional.one_hot(targets, self.outputs).to(inputs.dtype)
        return float(_loss(self(inputs[:SCALED_BY]), targets[:SCALED_BY]))  # all against all would take the memory of their square

    def _load_from_state_dict(self, state: Mapping[str, torch.Tensor], prefix: str, *rest: Any) -> None:
        for name in {"keys", "values"} & {key.removeprefix(prefix) for key in state}:  # as many as there were training images
            setattr(self, name, torch.zeros_like(state[prefix + name], device=self.keys.device))
        super()._load_from_state_dict(state, prefix, *rest)


def _joined(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return inputs.float(), targets.float() if targets.is_floating_point() else targets.long()


def _loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if targets.is_floating_point():
        return nn.functional.mse_loss(outputs.reshape(targets.shape), targets)
    return nn.functional.cross_entropy(outputs, targets)


# -- fine-tuning ---------------------------------------------------------------------------------------------------------------------------

#: Feature set of a backbone that freezes nothing: images at the network's scale and size, never kept.
PREPARED = "prepared"
#: How the head alone is trained first: what the search begins its heads with, and as long as suffices for a few thousand images.
HEAD_RECIPE, HEAD_EPOCHS = Recipe(learning_rate=1e-3, weight_decay=1e-2, batch_size=64), 5


class Tuned(nn.Module):
    """The trained part of a network and its head: inputs -> body -> standardised features -> head -> outputs.

    Attributes:
        body: Inputs ``(b, ...)`` -> features ``(b, width)``, pretrained.
        head: Features -> ``(b, outputs)``.
        rates: Factors of the learning rate for groups of the body's parameters; all others have the full rate.
        probe: A frozen backbone and its feature set with the features that the untrained body gives, so that the head is begun on features
            that heads share; None where the body computes them.
        norms: Whether batch norms learn and count on; else their statistics stay.
        mean: Of each feature at the start of the fine-tuning, ``(width,)``, and ``deviation``.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        body: nn.Module,
        head: nn.Module,
        width: int,
        *,
        rates: Sequence[tuple[Sequence[nn.Parameter], float]] = (),
        probe: tuple[Backbone, str] | None = None,
        norms: bool = False,
    ) -> None:
        super().__init__()
        self.body, self.norms, self.rates, self.probe = body, norms, rates, probe  # a tuple: the probe is no part of the model
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.head = head
        if not norms:
            for layer in self._norms():
                layer.requires_grad_(False)
        self.train(self.training)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs ``(b, outputs)`` for the body's inputs."""
        outputs: torch.Tensor = self.head((self.body(inputs) - self.mean) / self.deviation)
        return outputs

    def train(self, mode: bool = True) -> Tuned:
        """Put it into training mode, but for batch norms that are frozen."""
        super().train(mode)
        if not self.norms:
            for layer in self._norms():
                layer.eval()
        return self

    def rate_factors(self) -> Sequence[tuple[Sequence[nn.Parameter], float]]:
        """Return groups of parameters with the factors of their learning rates."""
        return self.rates

    def _norms(self) -> list[nn.Module]:
        return [layer for layer in self.body.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]

    def standardise_by(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Take mean and deviation ``(width,)`` of the features at the start."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def head_task(self, task: Task, recipe: Recipe, device: torch.device) -> Task:
        """Return the task of the head alone: features of the training inputs by the untrained body, standardised, which it remembers."""
        self.eval()
        found, targets = [], []
        with torch.no_grad():
            for inputs, wanted in task.train.batches(2 * recipe.batch_size, device=device):
                found.append(self.body(inputs).float())
                targets.append(wanted)
        features = torch.cat(found)
        mean, deviation = map(torch.from_numpy, statistics(features.cpu().numpy()))
        self.standardise_by(mean.to(device), deviation.to(device))
        return head_task(replace(task, train=MemoryData((features - self.mean) / self.deviation, torch.cat(targets)), preprocessing={}))


def head_task(task: Task) -> Task:
    """Return a task of features that is not validated but for a few training examples: its head is only where a training begins."""
    train = task.train
    assert isinstance(train, MemoryData)
    few = train.only(np.arange(min(64, len(train))))
    return replace(task, validation=few, test=None, input_shape=tuple(train.inputs.shape[1:]))


def probe_of(model: Transfer) -> Transfer | None:
    """Return a model whose features the head of a fine-tuned model begins on, or None where its body computes them."""
    probe = model.head.probe if isinstance(model.head, Tuned) else None
    return None if probe is None else Transfer(*probe, nn.Identity(), images=model.images)


def first_images(task: Task, images: int | None) -> Task:
    """Return the task with so many training images, those on which heads with as many are trained; None for all of them.

    Raises:
        ValueError: If the split cannot be divided.
    """
    train: Data = task.train
    if images is None or images >= len(train) or isinstance(train, Excerpt):
        return task
    only: Any = getattr(train, "only", None)
    if not callable(only):
        raise ValueError(f"fine-tuning on {images} of {len(train)} images needs data with a method only(indices); use all of them")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(ORDER))
    return replace(task, train=only(np.sort(order[:images].numpy())))
