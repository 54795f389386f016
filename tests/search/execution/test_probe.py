"""A probe measures a candidate as a trial would train it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from joulefront.search import Study
from joulefront.search.energy import Ledger, discover
from joulefront.search.execution.probe import probe
from joulefront.search.space import RandomTrial

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("own", "used"), [(1, 1), (None, 2)])
def test_a_probe_has_the_threads_of_the_recipe_or_of_the_run(rings: Callable[..., Study], own: int | None, used: int) -> None:
    seen: set[int] = set()
    before = torch.get_num_threads()
    study = rings()
    made = study.space.make  # type: ignore[attr-defined]

    def make(architecture: object, task: object) -> torch.nn.Module:
        seen.add(torch.get_num_threads())
        model: torch.nn.Module = made(architecture, task)
        return model

    recipe = replace(study.space.recipe, threads=own)  # type: ignore[attr-defined]
    space = replace(study.space, make=make, recipe=recipe)  # type: ignore[type-var]
    draw = RandomTrial(0)
    space.sample(draw)
    found = discover("cpu_time")
    try:
        with Ledger(found.sources, absent=found.absent) as ledger:
            probe(draw.params, space, study.load_task(), ledger, device="cpu", threads=2, seed=0, seconds=0.0)
    finally:
        torch.set_num_threads(before)
    assert seen == {used}
