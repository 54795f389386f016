"""Foundation models of tables, TabICL or TabPFN, from a local folder of weights: nothing is trained, the rows are their context."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..search.space import Candidate, Suggest
from ..search.training.estimator import Estimator, SklearnLike, drawn_rows, thirds
from ..search.training.recipe import Recipe
from ..search.training.task import Task
from .recipes import Bounded, Count, Sizes, suggest_categorical

#: Library -> its classes for classes and for values, and the arguments that keep it to the file.
LIBRARIES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "tabicl": ("TabICLClassifier", "TabICLRegressor", {"allow_auto_download": False}),
    "tabpfn": ("TabPFNClassifier", "TabPFNRegressor", {"ignore_pretraining_limits": True}),
}


@dataclass(frozen=True)
class Foundation(Bounded):
    """In-context learning with downloaded weights; an epoch is a share of the rows that are put into the context.

    Attributes:
        folder: Where the weights lie, as their makers name them: ``tabicl-classifier-v2-20260212.ckpt``, ``tabpfn-v2-regressor.ckpt``.
        members: Passes over differently arranged rows whose answers are averaged.
        full_epochs: All rows from so many epochs on, a third from a third of it, and so on.
    """

    folder: str = ""
    members: Sizes = (1, 4, 8)
    full_epochs: Count = 27
    name: str = "foundation"

    #: An epoch is a share of the data.
    epochs_are_passes: ClassVar[bool] = False

    def sample(self, trial: Suggest) -> Candidate:
        """Draw the number of passes."""
        return Candidate({"family": self.name, "members": suggest_categorical(trial, "members", self.members)}, Recipe())

    def defaults(self) -> Mapping[str, Any]:
        """Return the ordinary number of passes."""
        return {"members": 4}

    def build(self, candidate: Candidate, task: Task) -> InContextEstimator:
        """Find the weights for the kind of task; ValueError or ImportError says what is missing."""
        library, file = find_weights(self.folder, regression=task.kind == "regression")
        members = int(candidate.architecture["members"])
        return InContextEstimator(InContext(library, 0 if task.kind == "regression" else task.outputs, members), file, self.full_epochs)


def find_weights(folder: str | Path, *, regression: bool) -> tuple[str, Path]:
    """Return the library and the weights file in a folder, the last by name where there are several.

    Raises:
        ValueError: If there is no such folder or no such file.
        ImportError: If the library of the file is not installed.
    """
    kind, path = "regressor" if regression else "classifier", Path(folder).expanduser()
    if not path.is_dir():
        raise ValueError(
            f"--set foundation= must be a folder with weights of {' or '.join(LIBRARIES)}, got {str(folder)!r}; download them first"
        )
    files = sorted(file for file in path.glob("*.ckpt") if kind in file.name.lower())
    found = [(library, file) for file in files for library in LIBRARIES if file.name.lower().startswith(library)]
    if not found:
        there = ", ".join(sorted(one.name for one in path.iterdir())[:5]) or "nothing"
        raise ValueError(
            f"the folder {path} of --set foundation= must hold a file like tabicl-{kind}-*.ckpt or tabpfn-*{kind}*.ckpt, it holds {there}"
        )
    library, file = found[-1]
    if find_spec(library) is None:
        raise ImportError(f"{library} must be installed for the weights {file.name}, got none; do pip install 'joulefront[{library}]'")
    return library, file


class InContext(SklearnLike):
    """Rows as the context of a foundation model, behind scikit-learn's names: the rows are stored, the weights stay in their file.

    ``classes`` is the number of classes, 0 for values. ``file`` comes from the space alone, never from what was stored: a folder from
    somebody else must not choose what is loaded.
    """

    _params = ("library", "classes", "members", "random_state")
    #: Why no format of an export holds it.
    not_exportable = "it predicts with its library and a file of weights, which no exported file holds; pick another trial"

    def __init__(self, library: str, classes: int, members: int) -> None:
        self.library, self.classes, self.members, self.random_state = library, classes, members, 0
        self.file: Path | None = None
        self.sha256 = ""
        self._rows: tuple[np.ndarray, np.ndarray] | None = None
        self._model: Any = None
        self._ready()

    def _ready(self) -> None:
        super()._ready()
        if self.classes and self._rows is not None:
            self.classes_ = np.unique(self._rows[1]).astype(int)

    def __getstate__(self) -> dict[str, Any]:
        X, y = self._rows or (np.zeros((0, 0), np.float32), np.zeros(0))
        return {**self.get_params(), "sha256": self.sha256, "X": X, "y": y}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.library, self.classes, self.members = str(state["library"]), int(state["classes"]), int(state["members"])
        self.random_state, self.sha256, self.file, self._model = int(state["random_state"]), str(state["sha256"]), None, None
        self._rows = (state["X"], state["y"]) if len(state["y"]) else None
        self._ready()

    def set_params(self, random_state: int) -> InContext:
        """Set the seed of the arrangements."""
        self.random_state = random_state
        return self

    def fit(self, X: np.ndarray, y: np.ndarray) -> InContext:
        """Keep the rows, load the weights and let the library prepare its context: what this model costs before it predicts."""
        self._rows, self._model, self.sha256 = (np.asarray(X, dtype=np.float32), np.asarray(y)), None, ""
        self._ready()
        self._loaded()
        return self

    def _values(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self._loaded().predict(np.asarray(X, dtype=np.float32)), dtype=np.float64).reshape(-1)

    def _probabilities(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self._loaded().predict_proba(np.asarray(X, dtype=np.float32)), dtype=np.float64)

    def _loaded(self) -> Any:
        if self._model is None:
            if self.file is None or self._rows is None:
                raise ValueError(
                    f"a model of {self.library} needs its rows and weights; give the study their folder: --set foundation=FOLDER"
                )
            with self.file.open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
            if self.sha256 not in ("", found):
                raise ValueError(f"{self.file} must be the weights that the search used ({self.sha256[:12]}...), got {found[:12]}...")
            self.sha256 = found
            os.environ.setdefault("TABPFN_DISABLE_TELEMETRY", "1")  # nothing of a user's table is reported anywhere
            classifier, regressor, options = LIBRARIES[self.library]
            make = getattr(import_module(self.library), classifier if self.classes else regressor)
            seed = self.random_state % 2**32
            model = make(model_path=str(self.file), device="cpu", n_estimators=self.members, random_state=seed, **options)
            self._model = model.fit(*self._rows)
        return self._model


class InContextEstimator(Estimator):
    """An ``Estimator`` whose epochs are a growing share of the rows, 1/27, 1/9, 1/3, all; each step is prepared anew.

    ``file`` holds the weights; an ``InContext`` that is put in its place, e.g. one that was read from a run folder, gets it, too.
    """

    def __init__(self, model: InContext, file: Path, full_epochs: int) -> None:
        self._file, self.full_epochs = file, full_epochs
        self.sklearn = model

    @property
    def sklearn(self) -> InContext:
        """What is stored: the rows."""
        return self._model

    @sklearn.setter
    def sklearn(self, model: InContext) -> None:
        self._model = model
        model.file = self._file

    def fit_epochs(self, X: np.ndarray, y: np.ndarray, epochs_from: int, epochs_to: int, seed: int) -> None:
        """Put the share of the rows that ``epochs_to`` stands for into the context; inputs ``(n, features)``, targets ``(n,)``."""
        before, rows = (min(len(X), max(16, -(-len(X) // thirds(epochs, self.full_epochs)))) for epochs in (epochs_from, epochs_to))
        if epochs_to <= epochs_from or (epochs_from and before == rows):
            return
        chosen = drawn_rows(len(X), rows, seed)
        self.sklearn.set_params(random_state=seed % 2**32).fit(X[chosen], np.asarray(y)[chosen])
