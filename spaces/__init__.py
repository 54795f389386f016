"""Families of candidates, one family a file; import the one you need.

- ``convnet.Convnet``, ``cell.Cell``, ``vit.Vit``, ``mlp.Mlp``, ``energy_transformer.EnergyTransformer``, ``early_exit.EarlyExit``:
  networks of our own, from 8 x 8 digits to CIFAR-sized photographs (``Mlp`` for tables as well);
- ``timm_zoo.TimmZoo``, ``torchvision_zoo.TorchvisionZoo``: ready-made networks, from scratch or from weights, frozen up to a stage;
- ``classical.Classical``: scikit-learn's families and anomaly detectors;
- ``union.Union``: several of them in one study; ``union.Repeated``: each of them several times; ``own.Own``: yours, from two functions.

Each is a frozen dataclass whose fields are the ranges of the search (``ranges``), with the training in ``recipe`` (``recipes``).
"""

from ..search import threads as threads  # before a space imports torch
