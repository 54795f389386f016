"""The data and the metric: splits, shapes, classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

Kind = Literal["classification", "multilabel", "regression", "anomaly"]
KINDS: tuple[Kind, ...] = ("classification", "multilabel", "regression", "anomaly")


class Data(Protocol):
    """One split: examples with their targets, in memory or streamed."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        resolution: int | None = None,
        augment: str = "none",
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield ``(inputs, targets)`` on ``device``: normalised float32 inputs ``(b, *input_shape)``, targets ``(b,)`` or ``(b, k)``.

        With a ``seed`` the order is shuffled (and the augmentation drawn) from it; with None the order is that of the data, and
        nothing is augmented. Every example comes once; the last batch may be smaller.
        """
        ...

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(n, features)`` float32 inputs (flattened and normalised) and ``(n,)`` targets, for scikit-learn."""
        ...


@dataclass(frozen=True)
class Task:
    """What the models have to learn.

    Attributes:
        name: Short name, used in file names and cards.
        kind: One of ``KINDS``. Targets are int64 class numbers (classification), float32 0/1 rows ``(n, k)`` (multilabel), float32 values
            (regression; standardised by the training split when ``target_scale`` says so), or int64 with 1 for an anomaly.
        train: Training split.
        validation: The split that the search optimises.
        test: Held-out split, never seen by the search; None when the user has none.
        input_shape: Shape of one example: ``(channels, height, width)`` or ``(features,)``.
        classes: Class names in the order of their numbers; empty for regression.
        preprocessing: How raw data becomes model input, as JSON: written beside every exported model.
        target_scale: ``(mean, standard deviation)`` that turns a regression model's output back into the user's unit.
    """

    name: str
    kind: Kind
    train: Data
    validation: Data
    test: Data | None
    input_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    target_scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse a task that nothing can be learnt from.

        Raises:
            ValueError: If the kind is unknown, a split is empty or there are fewer than two classes.
        """
        if self.kind not in KINDS:
            raise ValueError(f"task.kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "classification" and len(self.classes) < 2:
            raise ValueError(f"a classification task needs at least 2 classes, got {len(self.classes)}: {list(self.classes)}")
        for name in ("train", "validation"):
            if len(getattr(self, name)) == 0:
                raise ValueError(f"task.{name} must not be empty; give more data or a smaller share to the other splits")

    @property
    def outputs(self) -> int:
        """Number of outputs of a network for this task: classes, labels, 2 for anomalies, or 1 for regression."""
        return {"regression": 1, "anomaly": 2}.get(self.kind, len(self.classes))

    @property
    def metric(self) -> str:
        """Name of the default quality objective: ``accuracy``, ``r2``, ``macro_f1`` (multilabel) or ``auc`` (anomaly)."""
        return {"regression": "r2", "multilabel": "macro_f1", "anomaly": "auc"}.get(self.kind, "accuracy")
