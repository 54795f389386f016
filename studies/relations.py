"""Perceptrons, convnets and transformers from small to large: do FLOPs, parameters and utilisation predict the energy?

Repeats the question of Douwes and Serizel (arXiv 2409.05080): is energy a function of operations, and is it the same function for every
family? The report holds rank correlations within each family and over all with their n, and what 10^9 operations cost in each family;
``joulefront plot runs/relations --of relations -o relations.png`` prints and draws them. Utilisation is the share of the time in which
a kernel ran (NVIDIA's driver), or on a CPU the CPU-seconds per second and thread.

What differs: their task is sound event detection with MLP, CNN, RNN and CRNN on a GPU. Here scikit-learn's digits, or with
``--data FOLDER`` images, are read by perceptrons, convnets, depthwise convnets and vision transformers; there is no recurrent family.

Sizes are drawn at random, not searched, and all other settings are fixed: a sampler that prefers cheap models would bend the relation.
"""

from __future__ import annotations

from ..search.study import Study
from ..spaces.convnet import Convnet
from ..spaces.mlp import Mlp
from ..spaces.recipes import RecipeRanges
from ..spaces.union import Union
from ..spaces.vit import Vit
from ._parts import pictures

#: All networks train alike; one thread, so that the number of cores does not come between work and energy.
RECIPE = RecipeRanges(learning_rate=3e-3, weight_decay=1e-2, batch_size=64, threads=1)


def study(data: str | None = None, seed: int = 0, smoke: bool = False, examples: int | None = None, side: int | None = None) -> Study:
    """Do FLOPs, parameters and utilisation predict the energy of a training? For ``data``, ``examples`` and ``side`` see ``pictures``."""
    most = 16 if smoke else 256

    def convnet(name: str, *, depthwise: bool) -> Convnet:
        return Convnet(
            depths=(1, 4),
            widths=(4, most // 2),
            kernels=3,
            depthwise=depthwise,
            poolings="max",
            norms="batch",
            activations="relu",
            recipe=RECIPE,
            name=name,
        )

    return Study(
        name="relations",
        task=lambda: pictures(data, seed=seed, examples=examples, side=side, smoke=smoke),
        space=Union(
            Mlp(depths=(1, 6), widths=(8, 8 * most), norms="none", activations="relu", dropouts=0.0, recipe=RECIPE),
            convnet("convnet", depthwise=False),
            convnet("depthwise", depthwise=True),
            Vit(patches=2, depths=(1, 6), heads=(1, 4), head_widths=8 if smoke else (8, 16, 32), ratios=2, recipe=RECIPE),
        ),
        rungs=(3,),
        default_trials=60,
        sampler="random",
        seed=seed,
        description="Do FLOPs, parameters and utilisation predict the energy of a training, within a family and across families "
        "(arXiv 2409.05080)?",
    )
