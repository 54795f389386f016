"""Sparse back-propagation, activation sparsity, freezing and early stopping against plain training of one and the same network.

Asks of four papers at once whether their tactic saves measured energy at equal quality: ssProp (Zhong, Huang and Shi, arXiv 2408.12561,
40 % fewer backward FLOPs), energy-aware training (Lazzaro et al., arXiv 2307.00368, fewer active neurons), freezing and early stopping
(Domingo Reguero et al., Computer Standards & Interfaces 2024).

Every tactic is a family of its own, with one architecture and one recipe for all. The study is a comparison first: each setting is trained
to each rung from several seeds (``sampler="grid"``), since a sampler that drops a setting after a few trials proves nothing about it.
``--sampler freeze-thaw --set repeats=1`` searches the same space instead. ``joulefront plot runs/tactics --of tactics -o tactics.png``
holds each setting against plain training at equal quality.

The work that a tactic adds is inside its measured energy. What activation sparsity could save on hardware that skips zeros is modelled,
is a column of its own, and never an objective.

What differs from the papers: minutes instead of hundreds of epochs. Without ``--data FOLDER`` of images the task is scikit-learn's digits.
"""

from __future__ import annotations

from dataclasses import replace

from ..search.study import Study
from ..spaces.convnet import Convnet
from ..spaces.recipes import RecipeRanges, TacticRanges
from ..spaces.union import Repeated, Union
from ._parts import pictures

#: Settings of all families together; ``test_the_grid_of_the_tactics_is_complete`` counts them.
SETTINGS = 11


def study(
    data: str | None = None, seed: int = 0, smoke: bool = False, examples: int | None = None, side: int | None = None, repeats: int = 3
) -> Study:
    """Which training tactic saves energy at equal quality? For ``data``, ``examples`` and ``side`` see ``pictures``."""
    # One thread, so that the number of cores does not come between work and energy.
    plain = RecipeRanges(learning_rate=3e-3, weight_decay=1e-2, batch_size=64, threads=1)
    sparse = {"keep": 0.2, "schedule": ("interleave", "constant")}
    freeze = {"share": (0.34, 0.67), "from_epoch": 2}  # the first and the first two of three blocks

    def family(name: str, recipe: RecipeRanges) -> Convnet:
        # 64 channels and more: narrower layers are left dense by sparse back-propagation.
        return Convnet(
            depths=3, widths=64, kernels=3, depthwise=False, poolings="max", norms="batch", activations="relu", recipe=recipe, name=name
        )

    def using(tactics: TacticRanges) -> RecipeRanges:
        return replace(plain, tactics=tactics.settings())

    together = TacticRanges(sparse_backprop={**sparse, "schedule": "interleave"}, freeze={**freeze, "share": 0.34}, always=True)
    space = Union(
        family("plain", plain),
        family("sparse_backprop", using(TacticRanges(sparse_backprop=sparse, always=True))),
        family("activation_sparsity", using(TacticRanges(activation_sparsity={"weight": (0.1, 1.0)}, always=True))),
        family("freeze", using(TacticRanges(freeze=freeze, always=True))),
        family("early_stopping", replace(plain, patience=(1, 2))),
        family("combined", replace(using(together), patience=(None, 2))),
    )
    rungs = (9, 18, 36) if data is None else (2, 4, 8)

    return Study(
        name="tactics",
        task=lambda: pictures(data, seed=seed, examples=examples, side=side, smoke=smoke),
        space=Repeated(space, times=repeats),
        rungs=rungs,
        trials=SETTINGS * len(rungs) * repeats,
        sampler="grid",
        seed=seed,
        description="Which training tactic saves measured energy at equal quality, against plain training of the same network "
        "(arXiv 2408.12561, 2307.00368)?",
    )
