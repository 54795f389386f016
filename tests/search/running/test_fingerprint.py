"""A fingerprint tells data and spaces apart, and nothing apart that is equal."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from joulefront.search import Study
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.running.fingerprint import differences, of_space, of_task
from joulefront.search.running.identity import refuse_other_data
from joulefront.search.training.arrays import arrays
from joulefront.search.training.splits_data import StreamData
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.union import Union


def task(change: Callable[[np.ndarray, np.ndarray], None] = lambda x, y: None) -> Any:
    x = np.random.default_rng(0).normal(size=(2000, 5)).astype("float32")
    y = (x[:, 0] > 0).astype("int64")
    change(x, y)
    return arrays(x, y, classes=["no", "yes"], seed=3)


def test_the_last_digits_of_normalised_inputs_are_no_difference() -> None:
    def shake(x: np.ndarray, y: np.ndarray) -> None:
        x *= 1 + 1e-7

    assert differences(of_task(task()), of_task(task(shake))) == []


@pytest.mark.parametrize("row", [0, 700, 1999])
def test_one_label_or_another_column_is_a_difference(row: int) -> None:
    def relabel(x: np.ndarray, y: np.ndarray) -> None:
        y[row] = 1 - y[row]

    def swap(x: np.ndarray, y: np.ndarray) -> None:
        x[:, 3] = x[:, 3] ** 2

    plain = of_task(task())
    assert differences(plain, of_task(task(swap)))
    # A turned label moves in the stratified split; of the test split nothing is looked at but its length.
    changed = [said for said in differences(plain, of_task(task(relabel)))]
    assert any(said.startswith("contents") for said in changed)


def test_folds_are_no_split_and_those_of_an_earlier_version_are_the_same(tmp_path: Path) -> None:
    now = of_task(replace(task(), folds=3))
    assert (set(now["examples"]), now["folds"]) == ({"train", "validation", "test"}, 3)
    rows = now["examples"]["train"] + now["examples"]["validation"]
    earlier = {**now, "examples": {**now["examples"], "cross_validated": rows, "folds": 3}}
    del earlier["folds"]
    store = RunFolder(tmp_path, {"fingerprint": {"data": earlier}})
    refuse_other_data(store, replace(task(), folds=3))
    with pytest.raises(StoreError, match="alike in size; how the columns are read, or the folds differ"):
        refuse_other_data(store, replace(task(), folds=4))


def test_streamed_data_is_looked_at_in_its_first_examples() -> None:
    def items(shift: float) -> StreamData:
        x = torch.arange(600.0).reshape(300, 2) + shift
        return StreamData(torch.utils.data.TensorDataset(x, torch.arange(300) % 2))

    def of(shift: float) -> dict[str, Any]:
        return of_task(replace(task(), train=items(shift)))

    assert differences(of(0.0), of(0.0)) == []
    assert differences(of(0.0), of(1.0))


def test_a_space_is_its_parameters_and_what_its_candidates_share() -> None:
    def union(**changes: Any) -> Union:
        return Union(Convnet(depths=(1, 3), **changes), Mlp())

    found = of_space(union())
    assert found == of_space(union())
    assert {"family", "learning_rate"} < set(found["parameters"])
    assert any("depth" in said for said in differences(found, of_space(Union(Convnet(depths=(1, 4)), Mlp()))))
    assert differences(found, of_space(union(kernels=(5,))))


def test_an_own_space_shows_what_its_function_draws(rings: Callable[..., Study]) -> None:
    space: Any = rings().space
    wider = replace(space, draw=lambda trial: {"width": trial.suggest_int("width", 4, 64, log=True)})
    (said,) = [one for one in differences(of_space(space), of_space(wider)) if not one.startswith("fixed")]
    assert said == "width: 4 to 32, logarithmic, now 4 to 64, logarithmic"


def test_how_a_file_is_written_is_no_difference() -> None:
    old = task()
    new = replace(old, preprocessing={**old.preprocessing, "file": {"encoding": "utf-16", "separator": ";"}})
    assert differences(of_task(old), of_task(new)) == []


def test_what_a_column_of_times_says_of_its_zone_is_no_difference() -> None:
    old = task()
    columns = [{"name": "when", "type": "numeric", "calendar": ["hour"]}]
    old, new = (replace(old, preprocessing={**old.preprocessing, "columns": one}) for one in (columns, [{**columns[0], "zone": False}]))
    assert differences(of_task(old), of_task(new)) == []
