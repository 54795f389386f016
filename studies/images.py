"""Any folder or zip of images: heads on a pretrained network beside small networks from scratch. Sub-folders are classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..search.study import Budget, Study
from ..search.training.images import images, look_at
from ..search.training.task import Task
from ..spaces.convnet import Convnet
from ..spaces.finetune import FineTuning
from ..spaces.pretrained import weights_file
from ..spaces.recipes import Range, RecipeRanges
from ..spaces.timm_zoo import TimmZoo
from ..spaces.transfer import HALVINGS, ORDINARY_HEAD, SOLVED, TransferFamily, halvings_for, sides_for
from ..spaces.union import Union
from ..spaces.weights import Weights, find, network, sentence

#: Families of timm by name, smallest first; networks that cannot take the images are refused before training.
MODELS = ("test_vit", "test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050", "resnet10t", "convnext_atto")

#: The trials to begin with, heads on a pretrained network: the side of its images, how often the training images are halved, epochs, of
#: which few images need more, and the head. A front stands within seconds. All images are seen at the middle side alone; the smaller and
#: the larger one are tried on a quarter, which tells the sampler whether more pixels pay. The last ones are for sets that are too small to
#: be halved: in all as many as the sampler would draw at random, of which each would pay for features.
FIRST = (
    (96, 5, 9, "linear"),
    (96, 2, 3, "linear"),
    (96, 0, 3, "linear"),
    (96, 0, 3, "256"),
    (64, 5, 9, "linear"),
    (96, 2, 3, "256"),
    (64, 2, 3, "256"),
    (128, 2, 3, "256"),
    (64, 0, 3, "linear"),
    (128, 0, 3, "linear"),
    (96, 0, 3, "1024"),
)
STARTED = 8
#: What heads may be, see ``TransferFamily``.
HEADS = "linear,256,1024"


def study(
    data: str,
    seed: int = 0,
    smoke: bool = False,
    models: str | None = None,
    weights: str | None = None,
    resolution: int | None = None,
    pretrained: str = "auto",
    skip_unreadable: bool = False,
    heads: str = HEADS,
) -> Study:
    """Which network sorts your images for the fewest joules?

    Args:
        data: Folder or zip of images.
        seed: Seed of splits and search.
        smoke: Fewer models, to see that everything works.
        models: Names or patterns of timm, separated by commas, in place of ``MODELS``: ``--set models=resnet18,convnext_*``.
        weights: File of weights, or ``hub``, for the one model: as ``pretrained``, and before what that finds:
            ``--set models=resnet18 --set weights=resnet18.safetensors``.
        resolution: Side of the images in pixels, in place of the median of theirs: ``--set resolution=64``.
        pretrained: Where weights are that heads are put on: ``auto`` (what this machine has), ``hub``, a folder, a file, or ``no``.
        skip_unreadable: Leave out images that cannot be read, with a warning: ``--set skip_unreadable=true``.
        heads: What heads on pretrained weights may be, separated by commas: ``linear``, the width of a hidden layer, or what is solved at
            once: ``ridge``, ``logistic``, ``neighbours``: ``--set heads=linear,ridge``.

    Raises:
        ValueError: If there are weights and not one model that they belong to.
        FileNotFoundError: If there are no weights at ``pretrained`` or ``weights``.
        ConnectionError: If the hub is asked for some and does not answer.
    """
    chosen = tuple(name.strip() for name in models.split(",")) if models else MODELS[:2] if smoke else MODELS
    if weights is not None and len(chosen) != 1:
        raise ValueError(f"--set weights={weights}: a weights file belongs to one model; name it with --set models=NAME")
    recipe = RecipeRanges(learning_rate=(1e-3, 2e-2), weight_decay=(1e-4, 1e-1), batch_size=(64, 128, 256), augment=("none", "flip_shift"))
    convnet = Convnet(depths=(2, 4), widths=(8, 64), kernels=(3,), poolings=("max", "stride"), recipe=recipe)
    zoo = TimmZoo(models=chosen, recipe=recipe)
    own = () if weights in (None, "none") else find("hub" if weights == "hub" else str(weights_file(str(weights))), chosen)
    found = (*own, *(one for one in find(pretrained, chosen if models else ()) if one not in own))

    def task() -> Task:
        for one in found:
            network(one)  # loaded once, as part of the start; what does not fit is refused here
        return images(data, resolution=resolution, seed=seed, skip_unreadable=skip_unreadable)

    scratch, gentle = Union(convnet, zoo), replace(recipe, learning_rate=(3e-4, 1e-2), weight_decay=(1e-2, 3.0), augment="none")
    gentle = replace(gentle, label_smoothing=(0.0, 0.2))
    wanted = heads_of(heads)
    seen = look_at(data) if found else None
    sides, most = (
        sides_for(resolution or (seen and seen.side)),
        int(HALVINGS.high) if seen is None else halvings_for(seen.train, seen.classes),
    )
    few, tuned = found[:1] if smoke else found, replace(gentle, weight_decay=1e-2)
    space = scratch
    if found:
        halved = Range(0, most) if most else 0
        transfer = TransferFamily(few, sides, halved, heads=wanted, recipe=gentle)
        space = Union(
            transfer,
            FineTuning(few, sides, halved, heads=tuple(head for head in wanted if head not in SOLVED) or "linear", recipe=tuned),
            scratch,
        )
    return Study(
        name="images",
        task=task,
        space=space,
        budget=Budget.parse("5Wh"),
        seed=seed,
        description="Which network sorts these images for the fewest joules?",
        first=beginning(int(sides.high), most, few, wanted) if found and not smoke else (),
        weights=tuple(one.facts() for one in found),
        notice=sentence(found) if pretrained != "no" else "",
    )


def heads_of(text: str) -> tuple[str, ...]:
    """Return the heads that a text names.

    Raises:
        ValueError: If there is no such head.
    """
    found = tuple(dict.fromkeys(head.strip() for head in text.split(",") if head.strip()))
    for head in found:
        if head != "linear" and head not in SOLVED and not (head.isdigit() and int(head) > 0):
            raise ValueError(
                f"--set heads must be linear, the width of a hidden layer, {', '.join(SOLVED)}, got {head!r}; separate by commas"
            )
    if not found:
        raise ValueError(f"--set heads must name at least one head, got {text!r}; {HEADS} is the default")
    return found


def beginning(largest: int, halvings: int, weights: Sequence[Weights], heads: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    """Return the parameters of the trials to begin with, for images up to a side in pixels that can be halved so often in number.

    What has another head than the study searches gets its first.
    """
    wanted: dict[tuple[int, int, str], int] = {}
    for side, halved, epochs, head in FIRST:
        if side <= largest:
            wanted.setdefault((side, min(halved, halvings), head if head in heads else heads[0]), epochs)
    drawn: dict[str, Any] = {"model": weights[0].identity} if len(weights) > 1 else {}
    drawn |= {"features": "grid"}
    found = []
    for (side, halved, head), epochs in list(wanted.items())[:STARTED]:
        own = {**drawn, "side": side, "head": head, **({"images_halved": halved} if halvings else {})}
        shared: dict[str, Any] = {"family": "transfer", "epochs": epochs}
        if head in SOLVED:
            own |= {f"{head}.setting": (SOLVED[head].low * SOLVED[head].high) ** 0.5}
        else:
            own |= {
                "label_smoothing": 0.0 if head == "linear" else 0.1,
                **{name: ORDINARY_HEAD[name] for name in ("learning_rate", "weight_decay")},
            }
            shared |= {"batch_size": ORDINARY_HEAD["batch_size"]}
        found.append(shared | {f"transfer.{name}": value for name, value in own.items()})
    return tuple(found)
