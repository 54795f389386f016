"""Seeded, stratified splits."""

from __future__ import annotations

import numpy as np


def split_indices(
    labels: np.ndarray, *, validation_share: float, test_share: float, seed: int, stratified: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deal examples out to training, validation and test.

    Args:
        labels: ``(n,)`` class numbers; only their equality counts.
        validation_share: Share of the validation split.
        test_share: Share of the test split.
        seed: Draws who goes where.
        stratified: Whether each class keeps its share; a class of fewer than three examples stays in the training split as a whole.

    Returns:
        Three ascending arrays of indices that together are ``0 .. n-1``.

    Raises:
        ValueError: If a share is negative or nothing is left to train on.
    """
    for name, share in (("validation_share", validation_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} must be in [0, 1), got {share}")
    if validation_share + test_share >= 1:
        raise ValueError(f"validation_share + test_share must be < 1, got {validation_share} + {test_share}")
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)] if stratified else [np.arange(len(labels))]
    parts: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
    for group in groups:
        order = random.permutation(group)
        validation, test = (_portion(len(group), share) for share in (validation_share, test_share))
        if validation + test >= len(group):
            validation = test = 0
        for part, chosen in zip(parts, np.split(order, [len(order) - validation - test, len(order) - test]), strict=True):
            part.append(chosen)
    train, validation_part, test_part = (np.sort(np.concatenate(part)) for part in parts)
    return train, validation_part, test_part


def _portion(count: int, share: float) -> int:
    """Round to the nearest, but at least one of any share that is not zero."""
    return 0 if share == 0 else max(1, round(count * share))
