"""A user's model that could not be kept or used is refused before anything is paid for."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from joulefront.search.model_check import check_models
from joulefront.search.space import SpaceError
from joulefront.search.training.arrays import arrays
from joulefront.search.training.boosted import BoostedTrees
from joulefront.search.training.checkpoint import load_weights, save_weights
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.spaces.own import Own

X = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
TASK = arrays(X, (X[:, 0] > 0).astype(int))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def space(make: Any) -> Own:
    return Own(lambda trial: {"w": trial.suggest_int("w", 1, 2)}, lambda architecture, task: make())


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.mul_(0.5))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.jit.script(net()), "must be a plain torch.nn.Module, got RecursiveScriptModule; leave out torch.jit"),
        (lambda: nn.DataParallel(net()), "got DataParallel; .*return the module inside"),
        (InPlace, "must leave its inputs as they are, got one that changes them in place"),
        (lambda: None, "must be a torch.nn.Module or have fit and predict .*got NoneType"),
        (lambda: net().state_dict(), "got OrderedDict"),
        (
            lambda: make_pipeline(FunctionTransformer(lambda x: 2 * x), GaussianNB()),
            "that a file can hold, got FunctionNode of .*lambda",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_could_not_be_kept_or_used_is_refused(make: Any, said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        check_models(space(make), TASK)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
        lambda: CalibratedClassifierCV(GaussianNB(), cv=2),
        lambda: VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=2))], voting="soft"),
        lambda: StackingClassifier([("a", GaussianNB())], cv=2),
        lambda: make_pipeline(FunctionTransformer(np.tanh), StandardScaler(), GaussianNB()),
    ],
)
def test_what_scikit_learn_puts_around_its_models_is_kept_and_read_back(make: Any, tmp_path: Any) -> None:
    check_models(space(make), TASK)
    fitted = fit(make(), TASK, Recipe(), epochs=1, seed=0)
    save_weights(tmp_path / "w", fitted, with_checkpoint=False)
    inputs = TASK.validation.arrays()[0]
    assert np.allclose(load_weights(tmp_path / "w", make()).predict_scores(inputs), fitted.model.predict_scores(inputs))


@pytest.mark.parametrize(("package", "name"), [("xgboost", "XGBClassifier"), ("lightgbm", "LGBMClassifier")])
def test_boosted_trees_with_the_methods_of_scikit_learn_are_kept_as_the_trees_of_the_family(package: str, name: str) -> None:
    library = pytest.importorskip(package)
    options = {"n_estimators": 3, "n_jobs": 1, **({"verbose": -1} if package == "lightgbm" else {})}

    def make() -> Any:
        return GridSearchCV(getattr(library, name)(**options), {"max_depth": [2, 3]}, cv=2)

    check_models(space(make), TASK)
    fitted = fit(make(), TASK, Recipe(), epochs=1, seed=0)
    assert isinstance(fitted.model.sklearn, BoostedTrees)
    with pytest.raises(SpaceError, match="boosted trees alone"):
        check_models(space(lambda: make_pipeline(StandardScaler(), make().estimator)), TASK)
