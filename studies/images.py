"""Any folder or zip of images: small convnets beside timm's networks, from scratch. Sub-folders are classes."""

from __future__ import annotations

from ..search.study import Budget, Study
from ..search.training.images import images
from ..spaces.convnet import Convnet
from ..spaces.recipes import RecipeRanges
from ..spaces.timm_zoo import TimmZoo
from ..spaces.union import Union

#: Families of timm by name, smallest first; networks that cannot take the images are refused before training.
MODELS = ("test_vit", "test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050", "resnet10t", "convnext_atto")


def study(data: str, seed: int = 0, smoke: bool = False) -> Study:
    """Which network sorts your images for the fewest joules?"""
    recipe = RecipeRanges(learning_rate=(1e-3, 2e-2), weight_decay=(1e-4, 1e-1), batch_size=(64, 128, 256), augment=("none", "flip_shift"))
    convnet = Convnet(depths=(2, 4), widths=(8, 64), kernels=(3,), poolings=("max", "stride"), recipe=recipe)
    zoo = TimmZoo(models=MODELS[:2] if smoke else MODELS, recipe=recipe)
    return Study(
        name="images",
        task=lambda: images(data, seed=seed),
        space=Union(convnet, zoo),
        rungs=(1, 3, 9, 27),
        budget=Budget.parse("5Wh"),
        seed=seed,
        description="Which network sorts these images for the fewest joules?",
    )
