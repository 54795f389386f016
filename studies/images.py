"""Any folder or zip of images: heads on a pretrained network beside small networks from scratch. Sub-folders are classes."""

from __future__ import annotations

from dataclasses import replace

from ..search.study import Budget, Study
from ..search.training.images import images, side_of
from ..search.training.task import Task
from ..spaces.convnet import Convnet
from ..spaces.finetune import FineTuning
from ..spaces.recipes import RecipeRanges
from ..spaces.timm_zoo import TimmZoo
from ..spaces.transfer import TransferFamily, sides_for
from ..spaces.union import Union
from ..spaces.weights import find, network, sentence

#: Families of timm by name, smallest first; networks that cannot take the images are refused before training.
MODELS = ("test_vit", "test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050", "resnet10t", "convnext_atto")

#: The trials to begin with, heads on a pretrained network: the side of its images, how often the training images are halved, epochs, of
#: which few images need more, and the head. A front stands within seconds; those that need new features take about as much as all before
#: them, so that a small budget is not spent at once. As many as the sampler would draw at random, of which each would pay for features.
FIRST = (
    (96, 5, 9, "linear"),
    (96, 2, 3, "linear"),
    (96, 0, 3, "linear"),
    (96, 0, 3, "256"),
    (64, 5, 9, "linear"),
    (128, 0, 3, "linear"),
    (128, 0, 3, "256"),
    (128, 2, 3, "256"),
    (160, 0, 9, "256"),
)
#: How these heads learn, as measured best on few and on many images.
FIRST_HEAD = {"transfer.features": "grid", "transfer.learning_rate": 1e-3, "transfer.weight_decay": 1e-1, "batch_size": 64}
#: What heads may be: ``linear``, or the width of a hidden layer.
HEADS = ("linear", "256", "1024")


def study(
    data: str,
    seed: int = 0,
    smoke: bool = False,
    models: str | None = None,
    weights: str | None = None,
    resolution: int | None = None,
    pretrained: str = "auto",
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
        pretrained: Where weights are that heads are put on: ``auto`` (what this machine has), ``hub``, a folder, a file, or ``no``.
        skip_unreadable: Leave out images that cannot be read, with a warning: ``--set skip_unreadable=true``.

    Raises:
        ValueError: If there are weights and not one model that they belong to.
        FileNotFoundError: If there are no weights at ``pretrained``.
        ConnectionError: If the hub is asked for some and does not answer.
    """
    chosen = tuple(name.strip() for name in models.split(",")) if models else MODELS[:2] if smoke else MODELS
    if weights is not None and len(chosen) != 1:
        raise ValueError(f"--set weights={weights}: a weights file belongs to one model; name it with --set models=NAME")
    recipe = RecipeRanges(learning_rate=(1e-3, 2e-2), weight_decay=(1e-4, 1e-1), batch_size=(64, 128, 256), augment=("none", "flip_shift"))
    convnet = Convnet(depths=(2, 4), widths=(8, 64), kernels=(3,), poolings=("max", "stride"), recipe=recipe)
    zoo = TimmZoo(models=chosen, weights="none" if weights is None else ("none", weights), recipe=recipe)
    found = find(pretrained, chosen if models else ())

    def task() -> Task:
        for one in found if weights is None else (*found, *find(weights, chosen)):
            network(one)  # loaded once, as part of the start; what does not fit is refused here
        return images(data, resolution=resolution, seed=seed, skip_unreadable=skip_unreadable)

    scratch, heads = Union(convnet, zoo), replace(recipe, learning_rate=(3e-4, 1e-2), weight_decay=(1e-2, 3.0), augment="none")
    heads = replace(heads, label_smoothing=(0.0, 0.2))
    sides = sides_for(resolution or (side_of(data) if found else None))
    few, tuned = found[:1] if smoke else found, replace(heads, weight_decay=1e-2)
    space = scratch
    if found:
        space = Union(TransferFamily(few, sides, heads=HEADS, recipe=heads), FineTuning(few, sides, heads=HEADS, recipe=tuned), scratch)
    first = [
        {"family": "transfer", "transfer.side": side, "transfer.images_halved": halved, "transfer.head": head, "epochs": epochs}
        | {**FIRST_HEAD, "transfer.label_smoothing": 0.0 if head == "linear" else 0.1}
        for side, halved, epochs, head in FIRST
        if not smoke and side <= sides.high
    ]
    return Study(
        name="images",
        task=task,
        space=space,
        budget=Budget.parse("5Wh"),
        seed=seed,
        description="Which network sorts these images for the fewest joules?",
        first=tuple(first) if found else (),
        weights=tuple(one.facts() for one in found),
        notice=sentence(found) if pretrained != "no" else "",
    )
