"""Sparse back-propagation, activation sparsity, freezing and early stopping against plain training of one and the same network.

Asks of four papers at once whether their tactic saves measured energy at equal quality: ssProp (Zhong, Huang and Shi, arXiv 2408.12561,
40 % fewer backward FLOPs), energy-aware training (Lazzaro et al., arXiv 2307.00368, fewer active neurons), freezing and early stopping
(Domingo Reguero et al., Computer Standards & Interfaces 2024).

Every tactic is a family of its own, with one architecture and one learning rate for all, so that the front says which tactic is worth it:
``plain`` has none, ``combined`` may use any of them. The work that a tactic adds is inside its measured energy. What activation sparsity
could save on hardware that skips zeros is modelled, is a column of its own, and never an objective.

What differs from the papers: minutes instead of hundreds of epochs. Without ``--data FOLDER`` of images the task is scikit-learn's digits.
"""

from __future__ import annotations

from dataclasses import replace

from ..search.study import Study
from ..search.training.arrays import arrays
from ..search.training.task import Task
from ..spaces.convnet import Convnet
from ..spaces.recipes import RecipeRanges
from ..spaces.tactics import TacticRanges
from ..spaces.union import Union
from ._parts import digit_images, few


def task(data: str | None, seed: int = 0) -> Task:
    """Load the images, or the digits at their own 8 x 8 pixels."""
    if data is not None:
        from ..search.training.images import images

        return images(data, seed=seed)
    return arrays(*digit_images(), name="digits", validation_share=0.2, test_share=0.2, seed=seed)


def study(data: str | None = None, seed: int = 0, smoke: bool = False) -> Study:
    """Which training tactic saves energy at equal quality?"""
    plain = RecipeRanges(learning_rate=3e-3, weight_decay=(1e-3, 1e-1), batch_size=(32, 64, 128))

    def family(name: str, recipe: RecipeRanges) -> Convnet:
        # 64 channels and more: narrower layers are left dense by sparse back-propagation.
        return Convnet(
            depths=3, widths=64, kernels=3, depthwise=False, poolings="max", norms="batch", activations="relu", recipe=recipe, name=name
        )

    def using(tactics: TacticRanges) -> RecipeRanges:
        return replace(plain, tactics=tactics.settings())

    anything = replace(using(TacticRanges(sparse_backprop=True, activation_sparsity=True, freeze=True)), patience=(None, 2))
    return Study(
        name="tactics",
        task=lambda: few(task(data, seed)) if smoke else task(data, seed),
        space=Union(
            family("plain", plain),
            family("sparse_backprop", using(TacticRanges(sparse_backprop=True, always=True))),
            family("activation_sparsity", using(TacticRanges(activation_sparsity=True, always=True))),
            family("freeze", using(TacticRanges(freeze=True, always=True))),
            family("early_stopping", replace(plain, patience=(1, 2, 4))),
            family("combined", anything),
        ),
        rungs=(1, 3, 9, 27),
        trials=60,
        seed=seed,
        description="Which training tactic saves measured energy at equal quality, against plain training of the same network "
        "(arXiv 2408.12561, 2307.00368)?",
    )
