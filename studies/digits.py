"""Handwritten digits: small convnets and perceptrons on scikit-learn's 1,797 real images of 8 x 8 pixels."""

from __future__ import annotations

from ..search.study import Study
from ..search.training.arrays import arrays
from ..search.training.task import Task
from ..spaces.convnet import Convnet
from ..spaces.mlp import Mlp
from ..spaces.recipes import RecipeRanges
from ..spaces.union import Union
from ._parts import digit_levels


def task(seed: int = 0) -> Task:
    """Load the digits: 60 % train, 20 % validation, 20 % test, stratified."""
    levels, labels = digit_levels()
    images = (levels / 16.0).astype("float32")
    return arrays(images, labels, name="digits", classes=[str(n) for n in range(10)], validation_share=0.2, test_share=0.2, seed=seed)


def study(seed: int = 0) -> Study:
    """Which small network reads digits for the fewest joules?"""
    recipe = RecipeRanges(
        learning_rate=(1e-3, 3e-2), weight_decay=(1e-4, 1e-1), batch_size=(32, 64, 128), augment=("none", "shift"), threads=1
    )
    return Study(
        name="digits",
        task=lambda: task(seed),
        space=Union(Convnet(depths=(1, 3), widths=(8, 48), kernels=(3,), poolings=("max", "stride"), recipe=recipe), Mlp(recipe=recipe)),
        rungs=(1, 3, 9, 27),
        default_trials=40,
        seed=seed,
        description="Which small network reads digits for the fewest joules?",
    )
