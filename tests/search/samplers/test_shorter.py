"""The best of the first models is trained for less, too, where that may be nearly as good."""

from dataclasses import replace

import optuna
import pytest

from joulefront.search.records.trial import KEY
from joulefront.search.samplers.frozen_features import shorter
from joulefront.search.samplers.history import EPOCHS_REACHED
from joulefront.search.study import Study
from joulefront.spaces.boosting import Boosting
from joulefront.spaces.classical import Classical
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.union import Union

STUDY = Study("t", lambda: None, Classical(), rungs=(1, 3, 9, 27, 81))


def trial(number, accuracy, epochs, asked=None, estimator="linear"):
    params = {"estimator": estimator, "epochs": asked or epochs}
    space = {name: optuna.distributions.CategoricalDistribution([value]) for name, value in params.items()}
    attributes = {KEY: estimator, EPOCHS_REACHED: epochs}
    made = optuna.trial.create_trial(params=params, distributions=space, values=[accuracy, 1.0], user_attrs=attributes)
    made.number = number
    return made


def test_the_best_of_the_first_models_is_measured_for_less_once():
    begun = [trial(0, 0.7, 9), trial(1, 0.9, 20, asked=27, estimator="random_forest"), trial(2, 0.8, 81, estimator="extra_trees")]
    assert shorter(STUDY, 3, begun[:2]) is None  # not all of the first have begun
    assert shorter(STUDY, 3, begun) == {"estimator": "random_forest", "epochs": 3}
    begun += [trial(3, 0.88, 3, estimator="random_forest")]
    assert shorter(STUDY, 3, begun) is None
    begun[1] = trial(1, 0.9, 9, estimator="random_forest")
    assert shorter(STUDY, 3, begun)["epochs"] == 1
    begun[0] = trial(0, 0.95, 1)
    assert shorter(STUDY, 3, begun) is None  # nothing is shorter than the lowest rung


def test_a_model_of_fewer_rounds_learns_faster_and_is_measured_once():
    study = replace(STUDY, space=Union(Boosting(), Classical()))
    begun = [trial(0, 0.7, 9), trial(1, 0.9, 26, asked=27)]
    begun[1].params = {"family": "lightgbm", "lightgbm.shrinkage": 0.05, "lightgbm.leaves": 31, "epochs": 27}
    begun += [trial(2, 0.89, 9), trial(3, 0.88, 3)]
    begun[2].params = shorter(study, 2, begun[:2])
    assert begun[2].params == {**begun[1].params, "epochs": 9, "lightgbm.shrinkage": pytest.approx(0.05 * 26 / 9)}
    begun[3].params = shorter(study, 2, begun[:3])
    assert begun[3].params == {**begun[1].params, "epochs": 3, "lightgbm.shrinkage": 0.3}
    assert shorter(study, 2, begun) is None
    for range_, fastest in (((0.02, 0.2), 0.2), (0.05, 0.05)):
        narrow = replace(study, space=Union(Boosting(shrinkage=range_), Classical()))
        assert shorter(narrow, 2, [begun[0], begun[1], begun[2]])["lightgbm.shrinkage"] <= fastest


@pytest.mark.parametrize(
    "change", [{"sampler": "random"}, {"complete_only": True}, {"space": Mlp()}, {"directions": ("minimize", "minimize")}]
)
def test_other_studies_begin_nothing_again(change):
    begun = [trial(0, 0.9, 27), trial(1, 0.2, 1, estimator="random_forest")]
    study = STUDY if "directions" in change else replace(STUDY, **change)
    study = replace(STUDY, objectives=("error", "train_energy")) if "directions" in change else study
    assert shorter(study, 2, begun) is None
