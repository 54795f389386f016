"""What a training returns, and the two callbacks through which a run observes and stops it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any


class TrainingFailed(Exception):  # noqa: N818 - it is a result of the trial, not an error of the program
    """The training cannot give a usable model; the text is the reason in one line."""


@dataclass(frozen=True)
class EpochPoint:
    """One epoch of a training, numbered over the whole lineage from 1.

    The loss is the epoch's mean, without the penalties of tactics; the validation quality is None when it was not evaluated.
    """

    epoch: int
    loss: float
    quality: Mapping[str, float] | None = None


#: Why a training ends that is complete after its first epoch.
SOLVED = "solved: more epochs change nothing"
#: Returns the context of one phase of a training, e.g. a window of the ledger, from its kind and index: ``setup`` or ``compile`` (index 0),
#: ``epoch``, ``eval`` or ``analysis`` (index: the epoch), or ``features`` (what a frozen backbone computes once for many trainings; index:
#: ``PASS``, ``WAY`` or ``SAMPLE``). A job opens ``overhead`` (loading a checkpoint, storing weights) and ``inference`` as well.
Phases = Callable[[str, int], AbstractContextManager[Any]]
#: A pass over images; finding the cheapest way for it, conversion included; a few images that tell the price of others' passes.
PASS, WAY, SAMPLE = 0, 1, 2
#: Called after every epoch; False stops the training there, and the model is measured as it is.
ShouldContinue = Callable[[EpochPoint], bool]


def no_phases(kind: str, index: int) -> AbstractContextManager[Any]:
    """Observe nothing."""
    return nullcontext()


def always(point: EpochPoint, /) -> bool:
    """Never stop early."""
    return True


@dataclass(frozen=True)
class FeaturesUsed:
    """The features that a model with a frozen backbone was trained on.

    Attributes:
        key: Entry of the cache with those of the training images; None when they were kept in memory alone.
        images: Training images that the model has learnt from: what it costs to make it again.
        computed: Images that were put through the backbone for this training, those for validation included: what was paid this time.
        part: The feature set, where the entry holds a larger one with a later cut: its price is another one. Empty where it is the entry's.
        sampled: How many of them were computed only to learn the price of this feature set here.
        slower: How many times as long the plain way of running the backbone takes as the one that was taken.
    """

    key: str | None
    images: int
    computed: int
    part: str = ""
    sampled: int = 0
    slower: float = 1.0

    @property
    def sentence(self) -> str:
        """What to add to the sentence about a training: whether its features had to be computed."""
        return f", features of {self.computed:,} images computed" if self.computed else ", features from the cache: nothing paid for them"


@dataclass(frozen=True)
class Fitted:
    """A trained and validated model.

    Attributes:
        model: The model in evaluation mode with the weights that were measured (averaged where the recipe has averaging).
        epochs: Epochs of training that the model has seen, those before ``start`` included; ``curve`` has only those of this call.
        quality: Validation quality by metric name, see ``evaluate.quality``.
        checkpoint: Everything that ``fit(start=...)`` needs to continue, or None when the recipe has a fixed horizon.
        stopped: Why the training ended before the requested epochs, or None.
        extra: Columns that tactics report, neither quality nor energy.
        features: The features that it was trained on, for a model with a frozen backbone.
        scores: Predictions and targets of the validation split, that ``quality`` was computed from; None when it was not kept.
    """

    model: Any
    epochs: int
    quality: Mapping[str, float]
    curve: tuple[EpochPoint, ...]
    checkpoint: Mapping[str, Any] | None
    stopped: str | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    features: FeaturesUsed | None = None
    scores: tuple[Any, Any] | None = None
