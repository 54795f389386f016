"""CIFAR-10 from scratch: convnets beside networks of timm, and how much accuracy each joule buys.

The data of Xu et al. (arXiv 2302.00967), who compared three networks for 50 epochs each. In their published runs VGG16 had 94 to 96 % of
its best accuracy after 5 of the 50 epochs; so the number of epochs is searched here together with the network. No pretrained weights: every
network is trained from scratch.

``--data FOLDER`` holds torchvision's own layout (``FOLDER/cifar-10-batches-py``); without it that of ``./data`` is used, and downloaded
when it is not there. For the same images as a folder or zip with a sub-folder for each class, take the study ``images``.
"""

from __future__ import annotations

from ..search.study import Budget, Study
from ..search.training.arrays import builtin
from ..search.training.task import Task
from ..spaces.convnet import Convnet
from ..spaces.recipes import RecipeRanges
from ..spaces.timm_zoo import TimmZoo
from ..spaces.union import Union
from ._parts import few

MODELS = ("mobilenetv3_small_100", "resnet10t", "resnet18", "convnext_atto", "efficientnet_b0")


def task(data: str | None = None, seed: int = 0) -> Task:
    """Load CIFAR-10; a tenth of its training images is for validation, its test images stay unseen."""
    return builtin("cifar10", data or "data", download=data is None, validation_share=0.1, seed=seed)


def study(data: str | None = None, seed: int = 0, smoke: bool = False) -> Study:
    """How much accuracy on CIFAR-10 does a joule buy?"""
    recipe = RecipeRanges(learning_rate=(1e-3, 2e-2), weight_decay=(1e-4, 1e-1), batch_size=(64, 128, 256), augment=("none", "flip_shift"))
    return Study(
        name="cifar10",
        task=lambda: few(task(data, seed)) if smoke else task(data, seed),
        space=Union(
            Convnet(depths=(2, 4), widths=(8, 128), kernels=3, recipe=recipe),
            TimmZoo(models=("test_resnet", "test_convnext") if smoke else MODELS, recipe=recipe),
        ),
        rungs=(1, 3, 9, 27),
        budget=Budget.parse("50Wh"),
        seed=seed,
        description="How much accuracy on CIFAR-10 does a joule buy, from scratch (data of arXiv 2302.00967)?",
    )
