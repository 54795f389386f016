"""Search models that are worth their energy: run a study, look at its front, export the model that you pick.

Beside the names below, ``joulefront.search.running.estimate`` estimates what a study will cost, ``joulefront.search.export`` exports a
model, and ``joulefront.spaces`` has the families of candidates; ``joulefront.spaces.own.Own`` holds yours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import threads as threads  # first of all: its settings must stand before torch loads
from .argument_types import lazily

if TYPE_CHECKING:
    from .cli.study_source import find_study as find_study
    from .front import Front as Front
    from .records.run_folder import StoreError as StoreError
    from .report.front_view import FrontView as FrontView
    from .running.baselines import MeasurementProtocol as MeasurementProtocol
    from .running.repeat import repeat as repeat
    from .running.run import load as load
    from .running.run import run as run
    from .samplers import FreezeThawSampler as FreezeThawSampler
    from .space import Candidate as Candidate
    from .space import Space as Space
    from .study import Budget as Budget
    from .study import Study as Study
    from .training.arrays import arrays as arrays
    from .training.arrays import dataset as dataset
    from .training.audio import audio as audio
    from .training.images import images as images
    from .training.recipe import Recipe as Recipe
    from .training.table import prepare as prepare
    from .training.table import table as table
    from .training.task import Task as Task

__version__ = "0.1.0"

#: Where each public name lives; imported at first use, so that `joulefront --help` stays quick.
_HOMES = {
    "Budget": ".study",
    "Candidate": ".space",
    "MeasurementProtocol": ".running.baselines",
    "FreezeThawSampler": ".samplers",
    "Front": ".front",
    "FrontView": ".report.front_view",
    "Recipe": ".training.recipe",
    "Space": ".space",
    "StoreError": ".records.run_folder",
    "Study": ".study",
    "Task": ".training.task",
    "arrays": ".training.arrays",
    "audio": ".training.audio",
    "dataset": ".training.arrays",
    "find_study": ".cli.study_source",
    "images": ".training.images",
    "load": ".running.run",
    "prepare": ".training.table",
    "repeat": ".running.repeat",
    "run": ".running.run",
    "table": ".training.table",
}
__all__ = [*sorted(_HOMES), "__version__"]
__getattr__ = lazily(__name__, _HOMES)
