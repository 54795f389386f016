"""Weights and checkpoints on disk, in formats that run no code when they are read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .estimator import Estimator, as_estimator
from .results import Fitted

#: Packages whose types a scikit-learn file may hold.
TRUSTED = ("sklearn.", "numpy.", "scipy.")


def save_weights(path: str | Path, fitted: Fitted, *, with_checkpoint: bool) -> None:
    """Write a model's measured weights, whole or not at all.

    Args:
        path: File to write; PyTorch's format for a network, skops' for scikit-learn.
        fitted: The trained model.
        with_checkpoint: Whether to add what ``fit(start=...)`` needs to go on; it makes the file three to four times as large.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    checkpoint = fitted.checkpoint if with_checkpoint else None
    try:
        if isinstance(fitted.model, torch.nn.Module):
            weights = {name: tensor.detach().cpu() for name, tensor in fitted.model.state_dict().items()}
            torch.save({"weights": weights, "checkpoint": None if checkpoint is None else dict(checkpoint)}, unfinished)
        else:
            import skops.io

            going_on = None if checkpoint is None else {name: value for name, value in checkpoint.items() if name != "sklearn"}
            skops.io.dump({"sklearn": fitted.model.sklearn, "checkpoint": going_on}, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_weights(path: str | Path, model: Any) -> Any:
    """Put stored weights into a freshly built model and return it, ready to predict.

    Raises:
        ValueError: If the file does not fit the model.
    """
    stored = _read(Path(path))
    if isinstance(model, torch.nn.Module):
        if "weights" not in stored:
            raise ValueError(f"{path} holds a scikit-learn model, but the space built {type(model).__name__}")
        try:
            model.load_state_dict(stored["weights"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} does not fit the model {type(model).__name__}; has the space changed? {reason}") from error
        return model.eval()
    if "sklearn" not in stored:
        raise ValueError(f"{path} holds the weights of a network, but the space built {type(model).__name__}")
    estimator: Estimator = as_estimator(model)
    estimator.sklearn = stored["sklearn"]
    return estimator


def load_checkpoint(path: str | Path) -> Mapping[str, Any] | None:
    """Return what ``fit(start=...)`` needs, or None where the file was written without it."""
    stored = _read(Path(path))
    checkpoint: Mapping[str, Any] | None = stored["checkpoint"]
    if checkpoint is not None and "sklearn" in stored:
        return {**checkpoint, "sklearn": stored["sklearn"]}
    return checkpoint


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; they are kept only for trials that can still matter")
    try:
        with zipfile.ZipFile(path) as archive:
            is_skops = "schema.json" in archive.namelist()
    except zipfile.BadZipFile:
        raise ValueError(f"{path} is no weights file of this project, or it was cut off while it was written") from None
    if not is_skops:
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return stored
    import skops.io

    unknown = skops.io.get_untrusted_types(file=path)
    foreign = [name for name in unknown if not name.startswith(TRUSTED)]
    if foreign:
        raise ValueError(f"{path} holds types that are not scikit-learn's and is not read: {', '.join(foreign)}")
    return dict(skops.io.load(path, trusted=unknown))
