"""VGG16, VGG19 and ResNet50 on frozen backbones with one and the same head: which is worth its energy?

Repeats the question of Xu, Martinez-Fernandez, Martinez and Franch (HICSS 2023, arXiv 2302.00967): how do architecture, data and place
change the energy and the carbon of a training, and do FLOPs predict them? Head (4096-4096), batch size and longest training are the
paper's, the optimiser is AdamW without decay, that is, its Adam.

What differs:

- No ImageNet weights: everything is trained from scratch, unless ``study(weights="hub")`` or a local file is given from Python. A frozen
  backbone of random weights is a poor reader of images but costs the same energy, so networks that train whole compete beside it.
- Without ``--data`` the images are scikit-learn's digits at 32 x 32 pixels in three channels, as the paper did with MNIST;
  ``--data FOLDER`` takes CIFAR-10 or any other images with a sub-folder for each class.
- The paper ranks by accuracy per kWh, one number in which a useless model that costs next to nothing wins. Here the answer is the front.
- The place: ``joulefront price runs/architectures --zones FR,US,TW`` prices the same joules elsewhere without a second training. Software
  against a wattmeter: ``joulefront doctor --compare-meters``.
"""

from __future__ import annotations

from ..search.study import Study
from ..spaces.recipes import RecipeRanges
from ..spaces.torchvision_zoo import PAPER, PAPER_HEAD, TorchvisionZoo
from ._parts import photographs


def study(data: str | None = None, seed: int = 0, smoke: bool = False, weights: str = "none") -> Study:
    """Which of the paper's three networks is worth its energy?"""
    recipe = RecipeRanges(
        learning_rate=(1e-4, 3e-3),  # the paper's 1e-3, which suits a head, is too much for some of the whole networks
        weight_decay=0.0,
        batch_size=32,
        augment="shift" if data is None else "flip_shift",  # a mirrored digit is another sign
    )
    return Study(
        name="architectures",
        task=lambda: photographs(data, seed=seed, smoke=smoke),
        space=TorchvisionZoo(
            models=("vgg11", "resnet18") if smoke else PAPER,
            heads="64-64" if smoke else PAPER_HEAD,
            weights=weights,
            freeze=("backbone", "none"),
            recipe=recipe,
        ),
        rungs=(1, 3, 9, 27, 50),
        default_trials=30,
        seed=seed,
        description="VGG16, VGG19 or ResNet50: which is worth its energy, frozen or trained whole (arXiv 2302.00967)? "
        + ("Trained from scratch: no pretrained weights were given." if weights == "none" else f"Weights: {weights}."),
    )
