"""Weights and checkpoints on disk, in formats that run no code when they are read."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..whole_file import whole_file
from .backbone import Transfer
from .estimator import Estimator, as_estimator
from .results import Fitted
from .sklearn_files import is_sklearn_file, load_sklearn, types_of


class DamagedError(ValueError):
    """A weights file is not the one that was written."""


def save_weights(path: str | Path, fitted: Fitted, *, with_checkpoint: bool) -> str:
    """Write a model's measured weights, whole or not at all, and return the SHA-256 of the file in hexadecimal.

    PyTorch's format for a network, skops' for scikit-learn. Of a `Transfer` model the file holds the head and names the backbone, which its
    space builds from the origin of the weights. The checkpoint, what ``fit(start=...)`` needs to continue, makes the file three to four
    times as large.

    Raises:
        OSError: If it cannot be written, e.g. to a full disk; the error names the file.
    """
    path = Path(path)
    checkpoint = fitted.checkpoint if with_checkpoint else None
    with whole_file(path) as unfinished:
        if isinstance(fitted.model, torch.nn.Module):
            model, frozen = fitted.model, fitted.model if isinstance(fitted.model, Transfer) else None
            state = model.state_dict() if frozen is None else frozen.own_state()
            stored = {
                "weights": {name: tensor.detach().cpu() for name, tensor in state.items()},
                "checkpoint": None if checkpoint is None else dict(checkpoint),
                **({} if frozen is None else {"backbone": frozen.backbone.identity}),
            }
            with unfinished.open("wb") as opened:  # by its name, torch would not say why it cannot write
                torch.save(stored, opened)
        else:
            import skops.io

            going_on = None if checkpoint is None else {name: value for name, value in checkpoint.items() if name != "sklearn"}
            skops.io.dump({"sklearn": fitted.model.sklearn, "checkpoint": going_on}, unfinished)
        return _sha256(unfinished)


def check_weights(path: str | Path, sha256: str | None) -> None:
    """Find out whether a weights file is the one that was written; nothing in it is made.

    Without the ``sha256`` that `save_weights` returned, the parts are compared with the CRC-32 that a ZIP archive holds.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedError: If it is another one.
    """
    path = Path(path)
    _require(path)
    if sha256 is not None:
        if (found := _sha256(path)) != sha256:
            raise DamagedError(f"{path} is damaged: its SHA-256 must be {str(sha256)[:12]}..., got {found[:12]}...")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except Exception as error:  # zipfile raises its own, and those of struct, zlib and the operating system
        raise DamagedError(f"{path} is damaged, or no weights file: {error}") from error
    if bad is not None:
        raise DamagedError(f"{path} is damaged: the CRC-32 of its part {bad} is wrong")


def load_weights(path: str | Path, model: Any, sha256: str | None = None) -> Any:
    """Put stored weights into a freshly built model and return it, ready to predict; ``sha256`` is None where it was not kept.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedError: If it is not the file that was written.
        ValueError: If the file does not fit the model, or holds more than weights.
    """
    check_weights(path, sha256)
    stored = _read(Path(path), model)
    if isinstance(model, torch.nn.Module):
        try:
            (model.load_own_state if isinstance(model, Transfer) else model.load_state_dict)(stored["weights"])
        except (RuntimeError, TypeError, AttributeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} must fit the model {type(model).__name__}; has the space changed? {reason}") from error
        return model.eval()
    estimator: Estimator = as_estimator(model)
    estimator.sklearn = stored["sklearn"]
    return estimator


def load_checkpoint(path: str | Path, model: Any) -> Mapping[str, Any] | None:
    """Return what ``fit(start=...)`` needs, or None where the file was written without it.

    The freshly built model says which kind of file is read at all.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, is of a model of another kind, or holds more than weights.
    """
    stored = _read(Path(path), model)
    checkpoint: Mapping[str, Any] | None = stored["checkpoint"]
    if checkpoint is not None and "sklearn" in stored:
        return {**checkpoint, "sklearn": stored["sklearn"]}
    return checkpoint


def _read(path: Path, model: Any) -> dict[str, Any]:
    """Read a file of the model's kind: what the file claims to be decides nothing."""
    _require(path)
    network, sklearn = isinstance(model, torch.nn.Module), is_sklearn_file(path)
    if network and sklearn:
        raise ValueError(f"{path} must hold the weights of a network, got a scikit-learn model; the space built {type(model).__name__}")
    if not network and not sklearn:
        raise ValueError(f"{path} must hold a scikit-learn model, got the weights of a network; the space built {type(model).__name__}")
    if sklearn:
        stored = load_sklearn(path, types_of(as_estimator(model).sklearn))
    else:
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch, zipfile and pickle each have their own for a damaged or foreign file
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} must be a weights file of this project, got one that is damaged or foreign: {reason}") from error
    if not isinstance(stored, dict) or not {"checkpoint", "weights" if network else "sklearn"} <= stored.keys():
        raise ValueError(f"{path} must be a weights file of this project, got {type(stored).__name__} without its parts")
    backbone = model.backbone.identity if isinstance(model, Transfer) else None
    if stored.get("backbone") != backbone:
        raise ValueError(f"{path} must be of a model with the backbone {backbone}, got {stored.get('backbone')}; give the same weights")
    return stored


def _require(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; they are kept only for trials that can still matter")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
