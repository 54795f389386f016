"""The seam to training tactics: what a tactic may do, how settings become tactics, how they are attached; and evaluation mode."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

#: Where each tactic of this package lives; imported only when a recipe names it.
TACTICS: Mapping[str, str] = {
    "sparse_backprop": ".sparse_backprop:SparseBackprop",
    "activation_sparsity": ".activation_sparsity:ActivationSparsity",
    "freeze": ".freeze:Freeze",
    "progressive_resizing": ".progressive_resizing:ProgressiveResizing",
    "power_limit": ".power_limit:PowerLimit",
}
#: Attributes under which torchvision and common networks keep their classifier.
HEADS = ("head", "heads", "fc", "classifier")


class Tactic(Protocol):
    """Changes how a model is trained, never what its ``state_dict`` holds.

    What the tactics of this package do in an epoch depends on the number of that epoch alone, not on the horizon: a training that
    continues from its checkpoint equals one long training.
    """

    def attach(self, model: torch.nn.Module) -> None:
        """Change ``model`` in place, once, before its optimiser is built and after weights are loaded."""
        return

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Prepare epoch number ``epoch`` (from 1) of ``epochs``."""
        return

    def penalty(self) -> torch.Tensor | None:
        """Return a scalar to add to the loss of the batch that was just passed forward, or None."""
        return None

    def resolution(self, epoch: int, epochs: int, full: int) -> int | None:
        """Return the side of the training images in this epoch in pixels, or None for ``full``."""
        return None

    def detach(self) -> dict[str, float]:
        """Undo every change of the model and return columns for the trial."""
        return {}


class NoOp(Tactic):
    """Does nothing in any step of a ``Tactic``; a tactic overrides what it needs."""


def make_tactics(settings: Mapping[str, Mapping[str, Any]]) -> tuple[Tactic, ...]:
    """Make the tactics of a recipe from settings by name, in their order, e.g. ``{"sparse_backprop": {"keep": 0.2}}``.

    A name with a colon, ``package.module:Class``, is imported, so a tactic of your own needs no change here.

    Raises:
        ValueError: If a tactic or one of its settings is unknown, missing or out of range.
    """
    return tuple(_make(name, dict(values)) for name, values in settings.items())


@contextmanager
def attached(tactics: Sequence[Tactic], model: torch.nn.Module) -> Iterator[dict[str, float]]:
    """Attach tactics to a model, and detach them whatever happens; the dictionary holds the columns of all tactics after the block."""
    columns: dict[str, float] = {}
    entered: list[Tactic] = []
    try:
        for tactic in tactics:
            entered.append(tactic)  # before attach, so that one that fails half-way is undone as well
            tactic.attach(model)
        yield columns
    finally:
        _detach_all(entered, columns)


def total_penalty(tactics: Sequence[Tactic]) -> torch.Tensor | None:
    """Sum of the penalties of the batch that was just passed forward, or None when there is none."""
    terms = [term for term in (tactic.penalty() for tactic in tactics) if term is not None]
    return sum(terms[1:], terms[0]) if terms else None


def training_resolution(tactics: Sequence[Tactic], epoch: int, epochs: int, full: int) -> int:
    """Side of the training images in this epoch in pixels: the smallest that a tactic returns, or ``full``."""
    sides = [tactic.resolution(epoch, epochs, full) for tactic in tactics]
    return min([full, *(side for side in sides if side is not None)])


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode and give each its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def head_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters of the classifier head.

    A method ``head_parameters()`` of the model comes first, then timm's ``get_classifier()``, then one of the usual attributes.

    Raises:
        ValueError: If the model has none of them.
    """
    import torch

    own = getattr(model, "head_parameters", None)
    if callable(own):
        return list(own())
    classifier = getattr(model, "get_classifier", None)
    heads = [classifier()] if callable(classifier) else [getattr(model, name, None) for name in HEADS]
    for head in heads:
        if isinstance(head, torch.nn.Module) and (found := list(head.parameters())):
            return found
    raise ValueError(
        f"recipe.head_learning_rate is set, but {type(model).__name__} has no head_parameters(), get_classifier() or "
        f"attribute {', '.join(HEADS)}; give it a method head_parameters() or leave head_learning_rate at None"
    )


def _factory(name: str) -> Callable[..., Tactic]:
    target = name if ":" in name else TACTICS.get(name)
    if target is None:
        raise ValueError(f"recipe.tactics must name one of {', '.join(TACTICS)} or package.module:Class, got {name!r}")
    module, _, attribute = target.partition(":")
    try:
        factory: Callable[..., Tactic] = getattr(importlib.import_module(module, __package__), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"recipe.tactics names {name!r}, which cannot be imported: {error}") from error
    return factory


def _make(name: str, values: dict[str, Any]) -> Tactic:
    factory = _factory(name)
    try:
        inspect.signature(factory).bind(**values)
    except TypeError as error:
        takes = ", ".join(inspect.signature(factory).parameters) or "no settings"
        raise ValueError(f"tactic {name!r} takes {takes}, got {values}: {error}") from None
    return factory(**values)


def _detach_all(tactics: list[Tactic], columns: dict[str, float]) -> None:
    """Detach the last first; a detach that fails does not keep the others from being undone."""
    if not tactics:
        return
    try:
        columns.update({name: _plain(value) for name, value in tactics[-1].detach().items()})
    finally:
        _detach_all(tactics[:-1], columns)


def _plain(value: Any) -> Any:
    """Return a column as a file may hold it: a number also where it is one of PyTorch or NumPy, None for NaN, and the rest as text."""
    one = value.item() if getattr(value, "ndim", 1) == 0 else value
    if isinstance(one, float) and not math.isfinite(one):
        return None
    return one if one is None or isinstance(one, str | float | int) else str(value)
