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


def study(
    data: str,
    seed: int = 0,
    smoke: bool = False,
    models: str | None = None,
    weights: str | None = None,
    resolution: int | None = None,
    skip_unreadable: bool = False,
) -> Study:
    """Which network sorts your images for the fewest joules?

    Args:
        data: Folder or zip of images.
        seed: Seed of splits and search.
        smoke: Fewer models, to see that everything works.
        models: Names or patterns of timm, separated by commas, in place of ``MODELS``: ``--set models=resnet18,convnext_*``.
        weights: Weights file for these models, which then compete with training from scratch: ``--set weights=resnet18.safetensors``.
        resolution: Side of the images in pixels, in place of the median of theirs: ``--set resolution=64``.
        skip_unreadable: Leave out images that cannot be read, with a warning: ``--set skip_unreadable=true``.

    Raises:
        ValueError: If there are weights and not one model that they belong to.
    """
    chosen = tuple(name.strip() for name in models.split(",")) if models else MODELS[:2] if smoke else MODELS
    if weights is not None and len(chosen) != 1:
        raise ValueError(f"--set weights={weights}: a weights file belongs to one model; name it with --set models=NAME")
    recipe = RecipeRanges(learning_rate=(1e-3, 2e-2), weight_decay=(1e-4, 1e-1), batch_size=(64, 128, 256), augment=("none", "flip_shift"))
    convnet = Convnet(depths=(2, 4), widths=(8, 64), kernels=(3,), poolings=("max", "stride"), recipe=recipe)
    zoo = TimmZoo(models=chosen, weights="none" if weights is None else ("none", weights), recipe=recipe)
    return Study(
        name="images",
        task=lambda: images(data, resolution=resolution, seed=seed, skip_unreadable=skip_unreadable),
        space=Union(convnet, zoo),
        rungs=(1, 3, 9, 27),
        budget=Budget.parse("5Wh"),
        seed=seed,
        description="Which network sorts these images for the fewest joules?",
    )
