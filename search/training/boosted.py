"""Gradient boosting by LightGBM, XGBoost or CatBoost: rounds that go on where they stopped, and the trees as plain bytes.

``BoostedTrees`` is what is stored, exported and predicts; ``BoostedEstimator`` trains it, a number of rounds an epoch. Each library is
imported only by the model that needs it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .estimator import Estimator, SklearnLike, drawn_rows, plain_scores
from .task import Kind

#: Library -> what to install for it.
LIBRARIES = {"lightgbm": "lightgbm", "xgboost": "joulefront[xgboost]", "catboost": "joulefront[catboost]"}
#: Our names of settings -> theirs.
NAMES: Mapping[str, Mapping[str, str]] = {
    "lightgbm": {
        "shrinkage": "learning_rate",
        "leaves": "num_leaves",
        "min_leaf": "min_data_in_leaf",
        "features": "feature_fraction",
        "l2": "lambda_l2",
    },
    "xgboost": {"shrinkage": "eta", "depth": "max_depth", "min_leaf": "min_child_weight", "features": "colsample_bytree", "l2": "lambda"},
    "catboost": {"shrinkage": "learning_rate", "depth": "depth", "l2": "l2_leaf_reg"},
}
_OBJECTIVES = {
    "lightgbm": ("regression", "binary", "multiclass"),
    "xgboost": ("reg:squarederror", "binary:logistic", "multi:softprob"),
    "catboost": ("RMSE", "Logloss", "MultiClass"),
}


def installed(library: str) -> bool:
    """Whether one of the ``LIBRARIES`` is here, without importing it."""
    return find_spec(library) is not None


class BoostedTrees(SklearnLike):
    """Trees of one library behind the method names of scikit-learn, stored as the bytes in which the library writes its models.

    ``library`` is one of ``LIBRARIES``, ``classes`` the number of classes, 0 for values, and ``threads`` those of a prediction.
    """

    _params = ("library", "classes", "threads")

    def __init__(self, library: str, classes: int, threads: int = 1) -> None:
        self.library, self.classes, self.threads = library, classes, threads
        self._model: Any = None
        self._bytes: np.ndarray | None = None
        self._ready()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.get_params(), "model": self.to_bytes()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.library, self.classes, self.threads = str(state["library"]), int(state["classes"]), int(state["threads"])
        self._model, self._bytes = None, state["model"]
        self._ready()

    @property
    def model(self) -> Any:
        """The library's own object, or None while nothing is trained.

        Raises:
            ImportError: If the library is not installed; the message says what to install.
        """
        if self._model is None and self._bytes is not None:
            self._model = _load(self.library, self._bytes.tobytes())
        return self._model

    def put(self, model: Any) -> None:
        """Take over a trained object of the library."""
        self._model, self._bytes = model, None

    def to_bytes(self) -> np.ndarray | None:
        """Return the model as the library writes it, ``(n,)`` uint8: LightGBM's text, XGBoost's UBJSON, CatBoost's own; None untrained."""
        if self._bytes is None and self._model is not None:
            self._bytes = np.frombuffer(_dump(self.library, self._model), dtype=np.uint8)
        return self._bytes

    def _values(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self._raw(X), dtype=np.float64).reshape(-1)

    def _probabilities(self, X: np.ndarray) -> np.ndarray:
        raw = np.asarray(self._raw(X), dtype=np.float64)
        return np.stack([1.0 - raw, raw], axis=1) if raw.ndim == 1 else raw

    def _raw(self, X: np.ndarray) -> Any:
        if self.library == "lightgbm":
            return self.model.predict(X, num_threads=self.threads)
        if self.library == "xgboost":
            self.model.set_param({"nthread": self.threads})
            return self.model.inplace_predict(np.asarray(X, dtype=np.float32))
        kind = "Probability" if self.classes else "RawFormulaVal"
        return self.model.predict(np.asarray(X, dtype=np.float32), prediction_type=kind, thread_count=self.threads)


def as_trees(fitted: Any, X: np.ndarray) -> Any:
    """Return an object with scikit-learn's methods of one of the ``LIBRARIES`` as ``BoostedTrees``; anything else as it is.

    As it is stays also what would predict otherwise for rows ``X`` (n, features), as with an objective that is a function.
    """
    library = type(fitted).__module__.partition(".")[0]
    if library not in LIBRARIES or not hasattr(fitted, "fit"):
        return fitted
    X, classes = X[:128], list(getattr(fitted, "classes_", ()))
    trees = BoostedTrees(library, len(classes))
    trees.put(fitted.get_booster() if library == "xgboost" else getattr(fitted, "booster_", fitted))
    same = classes == list(range(len(classes))) and np.allclose(plain_scores(trees, X), plain_scores(fitted, X), atol=1e-6)
    return trees if same else fitted


class BoostedEstimator(Estimator):
    """An ``Estimator`` of boosted trees: an epoch is ``rounds_per_epoch`` rounds, and more epochs add rounds to those there are.

    ``settings`` have our names, see ``NAMES``. ``share`` of the training rows is used, drawn once; ``balanced`` weights each class alike.
    Going on from a checkpoint gives what an uninterrupted training gives, up to rounding, where no columns are drawn at random.

    Raises:
        ImportError: If the library is not installed.
        ValueError: If it cannot serve the kind of task.
    """

    #: Patience looks at the loss: the accuracy of skewed classes rises only after many rounds.
    stops_by_loss = True

    def __init__(
        self,
        library: str,
        settings: Mapping[str, Any],
        *,
        kind: Kind,
        classes: int,
        rounds_per_epoch: int,
        share: float = 1.0,
        balanced: bool = False,
        threads: int | None = None,
    ) -> None:
        if not installed(library):
            raise ImportError(f"{library} must be installed for this family, got none; do pip install '{LIBRARIES[library]}'")
        if kind == "multilabel":
            raise ValueError(f"{library} learns one target at a time, got a multilabel task; leave it out of the space")
        self.library, self.rounds, self.share, self.balanced, self.threads = library, rounds_per_epoch, share, balanced, threads or 1
        self.sklearn = BoostedTrees(library, 0 if kind == "regression" else max(2, classes), self.threads)
        goal = 0 if kind == "regression" else 1 if self.sklearn.classes == 2 else 2
        self._params = {theirs: settings[ours] for ours, theirs in NAMES[library].items() if ours in settings}
        self._params["loss_function" if library == "catboost" else "objective"] = _OBJECTIVES[library][goal]
        if goal == 2:
            self._params["classes_count" if library == "catboost" else "num_class"] = self.sklearn.classes
        self._data: Any = None

    def fit_epochs(self, X: np.ndarray, y: np.ndarray, epochs_from: int, epochs_to: int, seed: int) -> None:
        """Add the rounds of the epochs after ``epochs_from``; inputs ``(n, features)``, targets ``(n,)``."""
        if epochs_to <= epochs_from:
            return
        ways = {"lightgbm": self._lightgbm, "xgboost": self._xgboost, "catboost": self._catboost}
        if epochs_from == 0 or self._data is None:
            self._data = self._rows(X, np.asarray(y), seed)
        self.sklearn.put(ways[self.library](epochs_from * self.rounds, epochs_to * self.rounds, seed % 2**31))

    def _rows(self, X: np.ndarray, y: np.ndarray, seed: int) -> Any:
        """Put the rows that are learnt from into the form of the library, which divides their values into bins once."""
        if self.share < 1:
            chosen = drawn_rows(len(X), max(2, round(self.share * len(X))), seed)
            X, y = X[chosen], y[chosen]
        weights = None
        if self.balanced and self.sklearn.classes:
            counts = np.bincount(y.astype(int), minlength=self.sklearn.classes)
            weights = (len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[y.astype(int)]
        if self.library == "lightgbm":
            import lightgbm

            options = {"verbosity": -1, "num_threads": self.threads, "force_row_wise": True}
            # Few rows: LightGBM's own limit of 20 in a leaf would leave no split at all.
            return lightgbm.Dataset(X, y, weight=weights, params=options, free_raw_data=False)
        if self.library == "xgboost":
            import xgboost

            return xgboost.QuantileDMatrix(X, y, weight=weights, nthread=self.threads)
        import catboost

        self._inputs = np.asarray(X, dtype=np.float32)  # to predict by the pool would add the baseline that is set on it
        return catboost.Pool(self._inputs, y, weight=weights, thread_count=self.threads)

    def _lightgbm(self, done: int, wanted: int, seed: int) -> Any:
        import lightgbm

        options = {
            **self._params,
            "verbosity": -1,
            "num_threads": self.threads,
            "force_row_wise": True,
            "deterministic": True,
            "seed": seed,
        }
        known: Any = self.sklearn.model if done else None
        if getattr(known, "train_set", None) is None:  # one from a checkpoint has no rows: it gives the scores to begin with
            return lightgbm.train(options, self._data, wanted - done, init_model=known, keep_training_booster=True)
        for _ in range(wanted - done):
            if known.update():
                break  # no leaf can be split any more
        return known

    def _xgboost(self, done: int, wanted: int, seed: int) -> Any:
        import xgboost

        options = {**self._params, "nthread": self.threads, "tree_method": "hist", "seed": seed, "seed_per_iteration": True, "verbosity": 0}
        model = self.sklearn.model if done else xgboost.Booster(options, [self._data])
        model.set_param(options)
        for one in range(done, wanted):
            model.update(self._data, one)
        return model

    def _catboost(self, done: int, wanted: int, seed: int) -> Any:
        import catboost

        quiet = {"verbose": False, "allow_writing_files": False, "thread_count": self.threads}
        quiet |= {"boost_from_average": False} if self.sklearn.classes < 3 else {}
        model = catboost.CatBoost({**self._params, **quiet, "iterations": wanted - done, "random_seed": seed + done})
        known = self.sklearn.model if done else None
        if known is None:
            return model.fit(self._data)
        # CatBoost's own way of going on, init_model, counts trees twice once a model has been stored and read.
        self._data.set_baseline(known.predict(self._inputs, prediction_type="RawFormulaVal", thread_count=self.threads))
        model.fit(self._data)
        return catboost.sum_models([known, model])


def _dump(library: str, model: Any) -> bytes:
    if library == "lightgbm":
        return str(model.model_to_string(num_iteration=-1)).encode()
    if library == "xgboost":
        return bytes(model.save_raw("ubj"))
    with tempfile.TemporaryDirectory() as folder:
        model.save_model(str(file := Path(folder) / "model.cbm"), format="cbm")
        return file.read_bytes()


def _load(library: str, data: bytes) -> Any:
    if not installed(library):
        raise ImportError(f"{library} must be installed for this model, got none; do pip install '{LIBRARIES[library]}'")
    if library == "lightgbm":
        import lightgbm

        return lightgbm.Booster(model_str=data.decode())
    if library == "xgboost":
        import xgboost

        model = xgboost.Booster()
        model.load_model(bytearray(data))
        return model
    import catboost

    return catboost.CatBoost().load_model(blob=data)
