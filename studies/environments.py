"""The same networks under different threads, precisions and batch sizes: how much energy is a matter of settings?

Repeats the question of del Rey et al., "Do DL models and training environments have an impact on energy consumption?" (SEAA 2023, arXiv
2307.05520): does the environment change what a network costs, and does the best environment depend on the network? In their data small
networks cost more on the larger GPU and large ones less, so settings and architecture are searched together here.

What differs:

- Their environments were three machines. One study stays on one machine, because joules of two machines do not belong on one front;
  run it on each and put the runs side by side with ``joulefront compare``. Within a machine the settings are the environment.
- MobileNetV2, ResNet50, Xception and VGG16 are timm's, from scratch (they fine-tuned ImageNet weights); NASNetMobile is not in timm.
- Their images are private: without ``--data FOLDER`` scikit-learn's digits at 32 x 32 pixels in three channels take their place.
- GPU power limits need the right to set them, so they are searched only on request: ``--set power_limits_watts=200,300``.
"""

from __future__ import annotations

import torch

from ..search.study import Study
from ..search.training.recipe import available_precisions, thread_choices
from ..spaces.recipes import RecipeRanges, TacticRanges
from ..spaces.timm_zoo import TimmZoo
from ._parts import photographs

NETWORKS = ("mobilenetv2_100", "resnet50", "legacy_xception", "vgg16")


def study(data: str | None = None, seed: int = 0, smoke: bool = False, power_limits_watts: tuple[float, ...] = ()) -> Study:
    """How much of a training's energy is a matter of settings?"""
    on_gpu = torch.cuda.is_available()
    recipe = RecipeRanges(
        learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=16 if smoke else (16, 32, 64, 128),  # four numbers are choices; two would be a range
        augment="shift" if data is None else "flip_shift",
        precision=available_precisions("cuda" if on_gpu else "cpu"),
        threads=None if on_gpu else thread_choices(),  # on a GPU the processor only hands out the work
        tactics=TacticRanges(power_limits_watts=power_limits_watts).settings(),
    )
    return Study(
        name="environments",
        task=lambda: photographs(data, seed=seed, smoke=smoke),
        space=TimmZoo(models=("test_resnet", "test_efficientnet") if smoke else NETWORKS, recipe=recipe),
        rungs=(1, 3, 9, 27),
        default_trials=40,
        seed=seed,
        description="How do threads, precision, batch size and power limit change what a network costs, and is the best setting the same "
        "for all networks (arXiv 2307.05520)?",
    )
