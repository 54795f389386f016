"""Which trainings a space allows: every field of ``Recipe`` as a range, a choice or a fixed value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..search.space import Suggest
from ..search.training.recipe import Recipe
from .ranges import Floats, Ints, Options, Range, number, one_of, whole

_WHOLE = ("batch_size",)
_NUMBERS = ("learning_rate", "weight_decay", "momentum", "label_smoothing", "head_learning_rate")
_LOG = frozenset({"learning_rate", "weight_decay", "batch_size", "head_learning_rate"})


@dataclass(frozen=True)
class RecipeRanges:
    """The open fields of a ``Recipe``; the parameters of the search have the names of the fields.

    Number fields (learning rates, weight decay, momentum, batch size, label smoothing) read ``(low, high)`` as a range, logarithmic
    except for momentum and label smoothing; in all other fields, and in the settings of tactics, a tuple lists choices.

    Attributes:
        optimizer: One of ``recipe.OPTIMIZERS``.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay.
        momentum: Momentum; a parameter only of trials with SGD.
        batch_size: Examples per step.
        schedule: One of ``recipe.SCHEDULES``.
        averaging: Evaluate with averaged weights.
        resolution: Side of the images in pixels, None for the task's own.
        augment: One of ``recipe.AUGMENTATIONS``.
        label_smoothing: Share of the target mass spread over all classes.
        precision: One of ``recipe.PRECISIONS``.
        accumulation: Micro-batches per optimiser step.
        channels_last: NHWC memory layout.
        compile: ``torch.compile``.
        threads: CPU threads, None for what the run gives.
        head_learning_rate: Learning rate of the head, None for ``learning_rate``.
        patience: Epochs without improvement before a stop, None for never.
        tactics: Settings by name of the tactic, each a range, choice or fixed value. A tactic is switched by the parameter
            ``tactic.<name>`` unless its setting ``on`` says ``True``; its settings are named ``tactic.<name>.<setting>``. The prefix
            keeps them apart from parameters of the architecture: the zoos have a ``freeze`` of their own.
    """

    optimizer: Options[str] = "adamw"
    learning_rate: Floats = (3e-4, 3e-2)
    weight_decay: Floats = (1e-4, 1e-1)
    momentum: Floats = 0.9
    batch_size: Ints = (32, 256)
    schedule: Options[str] = "anytime"
    averaging: Options[bool] = True
    resolution: Options[int | None] = None
    augment: Options[str] = "none"
    label_smoothing: Floats = 0.0
    precision: Options[str] = "float32"
    accumulation: Options[int] = 1
    channels_last: Options[bool] = False
    compile: Options[bool] = False
    threads: Options[int | None] = None
    head_learning_rate: Floats | None = None
    patience: Options[int | None] = None
    tactics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def sample(self, trial: Suggest) -> Recipe:
        """Draw a recipe.

        Raises:
            ValueError: If a value is outside the rules of ``Recipe``.
        """
        values: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            what = getattr(self, name)
            if name == "tactics":
                values[name] = {key: drawn for key, settings in what.items() if (drawn := _tactic(trial, key, settings)) is not None}
            elif name == "momentum" and values["optimizer"] != "sgd":
                continue
            elif name in _WHOLE:
                values[name] = whole(trial, name, what, log=name in _LOG)
            elif name in _NUMBERS and what is not None:
                values[name] = number(trial, name, what, log=name in _LOG)
            else:
                values[name] = one_of(trial, name, what)
        return Recipe(**values)


#: In front of every parameter of a tactic.
TACTIC = "tactic."
#: A training without any parameter of the search.
FIXED = RecipeRanges(learning_rate=1e-3, weight_decay=0.0, batch_size=128)


def _tactic(trial: Suggest, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Draw the settings of one tactic, or None when it is off in this trial."""
    if not one_of(trial, TACTIC + name, settings.get("on", (False, True))):
        return None
    drawn: dict[str, Any] = {}
    for key, what in settings.items():
        if key == "on":
            continue
        draw = one_of
        if isinstance(what, Range):
            draw = whole if isinstance(what.low, int) and isinstance(what.high, int) else number
        drawn[key] = draw(trial, f"{TACTIC}{name}.{key}", what)
    return drawn
