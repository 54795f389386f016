"""Freezes layers from the input side, from the start or during the run."""

from __future__ import annotations

from types import MethodType

from torch import nn

from .tactic import NoOp, head_parameters


class Freeze(NoOp):
    """Freezes the first ``share`` of the backbone's layers between two epochs; the head always learns.

    Frozen parameters have no gradient, so the backward pass stops at the first layer that learns, and an optimiser skips them: no
    update, no momentum, no weight decay. The optimiser must hold all parameters, frozen or not, so that layers can be thawed and a
    checkpoint fits. Layers are those modules that own parameters, in the order of ``named_modules`` (input first in the usual models).

    Source: freezing at run time as an energy lever: Domingo Reguero et al., Computer Standards & Interfaces 2024; head first, then
    fine-tuning: del Rey et al., arXiv 2307.05520.
    """

    def __init__(self, *, share: float = 0.5, from_epoch: int = 1, until_epoch: int | None = None, batchnorm_eval: bool = True) -> None:
        """Choose what is frozen and when; a setting that is out of range raises ValueError.

        Frozen is the ``share``, in [0, 1], of the backbone's layers from the input side, 1 leaving only the head, from one epoch (counted
        from 1) to another one, or None for all that follow. ``batchnorm_eval`` keeps frozen batch normalisation in evaluation mode, so that
        its running statistics stay as they are as well.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"freeze.share must be in [0, 1], got {share!r}; 1 freezes all but the head")
        if from_epoch < 1:
            raise ValueError(f"freeze.from_epoch must be >= 1 (epochs count from 1), got {from_epoch!r}")
        if until_epoch is not None and until_epoch < from_epoch:
            raise ValueError(f"freeze.until_epoch must be >= from_epoch ({from_epoch}) or None, got {until_epoch!r}")
        self.share, self.from_epoch, self.until_epoch, self.batchnorm_eval = share, from_epoch, until_epoch, batchnorm_eval
        self._model: nn.Module | None = None
        self._parameters: list[nn.Parameter] = []
        self._norms: list[nn.Module] = []
        self._total = 0
        self._epochs = 0
        self._is_frozen = False

    def attach(self, model: nn.Module) -> None:
        """Find the layers; freeze them now if epoch 1 is to be frozen."""
        layers = frozen_layers(model, self.share)
        kept = {id(parameter) for layer in _layers(model) if layer not in layers for parameter in layer.parameters(recurse=False)}
        # a parameter shared with a layer that learns keeps learning; one that the space froze itself must stay frozen
        own = [parameter for layer in layers for parameter in layer.parameters(recurse=False)]
        self._parameters = [parameter for parameter in own if parameter.requires_grad and id(parameter) not in kept]
        self._model = model
        modules = list(model.modules())
        before = modules[: modules.index(layers[-1]) + 1] if self.batchnorm_eval and layers else []
        self._norms = [module for module in before if isinstance(module, nn.modules.batchnorm._NormBase)]  # also those without parameters
        self._total = sum(parameter.numel() for parameter in model.parameters())
        if self.from_epoch == 1:
            self._freeze()

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Freeze or thaw for this epoch."""
        self._epochs, wanted = epoch, self._freezes(epoch)
        if wanted and not self._is_frozen:
            self._freeze()
        elif not wanted and self._is_frozen:
            self._thaw()

    def detach(self) -> dict[str, float]:
        """Thaw everything; return how many parameters were frozen, and in how many of all epochs of the model."""
        self._thaw()
        frozen = sum(parameter.numel() for parameter in self._parameters)
        self._parameters, self._norms, self._model = [], [], None
        return {
            "freeze_parameters": frozen,
            "freeze_parameter_share": frozen / self._total if self._total else 0.0,
            "freeze_epochs": sum(map(self._freezes, range(1, self._epochs + 1))),
        }

    def _freezes(self, epoch: int) -> bool:
        return self.from_epoch <= epoch and (self.until_epoch is None or epoch <= self.until_epoch)

    def _freeze(self) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(False)
            parameter.grad = None  # a left-over gradient would be applied once more
        for norm in self._norms:
            norm.__dict__["train"] = MethodType(lambda self, mode=True: type(self).train(self, False), norm)  # whatever model.train() says
            norm.eval()
        self._is_frozen = True

    def _thaw(self) -> None:
        if not self._is_frozen:
            return
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        for norm in self._norms:
            norm.__dict__.pop("train", None)
            norm.train(self._model is not None and self._model.training)
        self._is_frozen = False


def frozen_layers(model: nn.Module, share: float) -> list[nn.Module]:
    """The first ``share`` of the backbone's layers, the backbone being every layer in front of the head.

    The head is the one that has a learning rate of its own in a recipe (see ``tactic.head_parameters``), or else the last layer.
    """
    layers = _layers(model)
    try:
        head = {id(parameter) for parameter in head_parameters(model)}
    except ValueError:
        head = {id(parameter) for parameter in layers[-1].parameters(recurse=False)} if layers else set()
    backbone = [layer for layer in layers if not any(id(parameter) in head for parameter in layer.parameters(recurse=False))]
    return backbone[: round(share * len(backbone))]


def _layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
