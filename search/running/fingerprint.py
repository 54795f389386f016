"""What a space and data are in a few numbers: equal ones give equal fingerprints, wherever they lie, and what differs can be said."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..space import Candidate, RandomTrial, Space
from ..training.recipe import Recipe
from ..training.task import Data, Task

if TYPE_CHECKING:
    import numpy as np

#: Random candidates that show the parameters of a space; enough to meet the rarer of nested choices.
DRAWS = 64
#: Examples of a split that enter its fingerprint; of a split in memory all targets do.
EXAMPLES = 256
#: Other versions of numerical libraries may change the last digits of normalised inputs.
TOLERANCE = 1e-4


class RangeRecorder(RandomTrial):
    """Draws at random and writes down the range or choices of every parameter that is drawn, as JSON."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.ranges: dict[str, Any] = {}

    def _range(self, name: str, low: float, high: float, step: float | None, log: bool, *, whole: bool) -> None:
        self.ranges[name] = f"{low:g} to {high:g}" + ("" if step is None else f" by {step:g}") + (", logarithmic" if log else "")

    def _choices(self, name: str, choices: Sequence[Any]) -> None:
        self.ranges[name] = f"one of {', '.join(map(str, choices))}"


def of_space(space: Space) -> dict[str, Any]:
    """Return the parameters of a space with their ranges, and a check sum of what its candidates have in common.

    The same random numbers are drawn from every space, so that equal spaces give equal answers; a space of functions
    (``joulefront.spaces.own``) shows what it draws, which no comparison of its fields could.
    """
    ranges: dict[str, str] = {}
    fixed = 0
    for seed in range(DRAWS):
        draw = RangeRecorder(seed)
        candidate = space.sample(draw)
        ranges |= draw.ranges
        fixed = zlib.crc32(_own_text(candidate).encode(), fixed)
    return {"parameters": dict(sorted(ranges.items())), "fixed": f"{fixed:08x}"}


def of_task(task: Task) -> dict[str, Any]:
    """Return sizes, shapes, classes and check numbers of a task; the test split is counted and never read.

    Where the data lies, what its file is called and how it is written does not matter: data may move.
    """
    learnt = {name: value for name, value in task.preprocessing.items() if name != "file"}
    splits: dict[str, Data | None] = {"train": task.train, "validation": task.validation}
    return {
        "kind": task.kind,
        "examples": {name: 0 if data is None else len(data) for name, data in {**splits, "test": task.test}.items()},
        **({"folds": task.folds} if task.folds else {}),
        "input_shape": list(task.input_shape),
        "classes": list(task.classes),
        "preprocessing": f"{zlib.crc32(json.dumps(_words(learnt), sort_keys=True, default=str).encode()):08x}",
        "contents": {name: _contents(data) for name, data in splits.items() if data is not None},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any], name: str = "") -> list[str]:
    """Say what differs between two fingerprints, each difference in a few words."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        label, old, new = f"{name} {key}".strip(), before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, "" if key == "parameters" else label)
        elif not alike(old, new):
            found.append(f"{label}: {_short(old)}, now {_short(new)}")
    return found


def _own_text(candidate: Candidate) -> str:
    """The candidate without what a recipe leaves at its default: a field that a later version adds changes nothing."""
    plain = Recipe().to_json()
    recipe = {name: value for name, value in candidate.recipe.to_json().items() if value != plain[name]}
    return json.dumps({"architecture": dict(candidate.architecture), "recipe": recipe}, sort_keys=True, default=str)


def _contents(data: Data) -> list[float]:
    """Two numbers that change when an input or a target does."""
    inputs, targets = next(iter(data.batches(EXAMPLES)))
    whole = getattr(data, "targets", targets)  # in memory
    return [_projection(part.detach().cpu().numpy()) for part in (inputs, whole)]


def _projection(values: np.ndarray) -> float:
    """Weighted sum of all values, each with a weight of its own; of the size of the values themselves."""
    import numpy as np

    flat = np.nan_to_num(values.astype(np.float64).ravel(), posinf=0.0, neginf=0.0)  # a model of one's own may take what is missing
    return round(float(flat @ np.cos(np.arange(1, flat.size + 1)) / np.sqrt(flat.size)), 9)


def _words(value: Any) -> Any:
    """What preprocessing is made of, without means and deviations, which are seen in the normalised inputs, and what only warns."""
    if isinstance(value, Mapping):
        return {str(key): _words(one) for key, one in value.items() if key != "zone"}
    if isinstance(value, list | tuple):
        return [_words(one) for one in value]
    return "a number" if isinstance(value, float) else value


def alike(old: Any, new: Any) -> bool:
    """Whether two values of fingerprints are the same, numbers to what libraries may change."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(alike(a, b) for a, b in zip(old, new, strict=True))
    if isinstance(old, float) and isinstance(new, float):
        return abs(old - new) <= TOLERANCE * (1.0 + abs(old))
    return bool(old == new)


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
