"""A head on the backbone of the tests, and its recipe."""

import torch

from helpers.backbone import Bands
from joulefront.search.training.backbone import Transfer
from joulefront.search.training.recipe import Recipe


def model(spots, **options) -> Transfer:
    return Transfer(Bands(), "rows", torch.nn.Linear(8, spots.outputs), **options)


RECIPE = Recipe(batch_size=32, learning_rate=3e-2, threads=1)
