"""What every kind of split owes to the training loop: in memory, streamed, and an excerpt against the split that it is cut from."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from joulefront.search.training.arrays import arrays
from joulefront.search.training.splits_data import Excerpt, MemoryData, StreamData
from joulefront.search.training.task import Data

COUNT = 23
PIXELS = torch.randint(0, 256, (COUNT, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(COUNT)
NORM = {"mean": [0.4, 0.5, 0.6], "deviation": [0.2, 0.3, 0.4]}


class Items(torch.utils.data.Dataset):
    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return PIXELS[index], int(LABELS[index])


@pytest.fixture(params=["memory", "stream", pytest.param("stream with workers", marks=pytest.mark.slow)])
def data(request):
    if request.param == "memory":
        return MemoryData(PIXELS, LABELS, **NORM)
    return StreamData(Items(), workers=2 if "workers" in request.param else 0, **NORM)


def test_every_example_comes_once_and_in_order_without_a_seed(data):
    batches = list(data.batches(5))
    assert [len(targets) for _, targets in batches] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([targets for _, targets in batches]), LABELS)
    expected = (PIXELS.float() / 255 - torch.tensor(NORM["mean"])[:, None, None]) / torch.tensor(NORM["deviation"])[:, None, None]
    torch.testing.assert_close(torch.cat([inputs for inputs, _ in batches]), expected)


@pytest.mark.slow
def test_a_seed_shuffles_always_in_the_same_way(data):
    def order(seed):
        return torch.cat([targets for _, targets in data.batches(5, seed=seed)])

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))
    assert torch.equal(order(1).sort().values, LABELS)


def test_where_the_data_lies_does_not_change_a_batch(data):
    memory = MemoryData(PIXELS, LABELS, **NORM)
    for options in ({"seed": 4, "augment": "flip_shift"}, {"seed": 4, "augment": "shift", "resolution": 4}, {"resolution": 9}):
        for ours, theirs in zip(data.batches(7, **options), memory.batches(7, **options), strict=True):
            assert torch.equal(ours[0], theirs[0])
            assert torch.equal(ours[1], theirs[1])
            assert ours[0].dtype == torch.float32
            assert ours[1].dtype == torch.int64


def test_arrays_are_flat_and_normalised(data):
    inputs, targets = data.arrays()
    assert inputs.shape == (COUNT, 108)
    assert inputs.dtype == np.float32
    assert (targets == LABELS.numpy()).all()
    torch.testing.assert_close(torch.from_numpy(inputs), next(iter(data.batches(COUNT)))[0].flatten(1))


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="same length, got 23 and 2"):
        MemoryData(PIXELS, LABELS[:2])


def test_ctrl_c_in_a_dataset_reaches_the_caller():
    class Interrupts(Items):
        def __getitem__(self, index):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(iter(StreamData(Interrupts()).batches(2)))


@pytest.fixture
def split() -> Data:
    x = np.arange(100, dtype=np.float32).reshape(50, 2)
    return arrays(x, np.arange(50) // 25, name="rows").train


@pytest.mark.parametrize(("size", "batch_size", "lengths"), [(20, 8, [8, 8, 4]), (8, 8, [8]), (3, 8, [3]), (1, 1, [1])])
def test_batches_are_of_the_real_size_and_hold_so_many_examples(split: Data, size: int, batch_size: int, lengths: list[int]) -> None:
    batches = list(Excerpt(split, size).batches(batch_size))
    assert [len(inputs) for inputs, _ in batches] == lengths
    assert [len(targets) for _, targets in batches] == lengths


def test_a_split_with_fewer_examples_is_given_whole(split: Data) -> None:
    excerpt = Excerpt(split, 1000)
    assert len(excerpt) == len(split)
    seen = torch.cat([inputs for inputs, _ in excerpt.batches(7)])
    everything = torch.cat([inputs for inputs, _ in split.batches(7)])
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, everything.tolist()))


def test_the_examples_are_the_first_of_the_shuffled_epoch(split: Data) -> None:
    mine = torch.cat([inputs for inputs, _ in Excerpt(split, 12).batches(4, seed=5)])
    whole = torch.cat([inputs for inputs, _ in split.batches(4, seed=5)])
    assert torch.equal(mine, whole[:12])


def test_an_epoch_that_asks_for_no_order_has_the_split_s_unless_the_excerpt_has_a_seed(split: Data) -> None:
    kept, _ = next(Excerpt(split, 20).batches(20))
    whole, _ = next(split.batches(50))
    assert torch.equal(kept, whole[:20])
    shuffled, _ = next(Excerpt(split, 20, seed=0).batches(20))
    assert not torch.equal(shuffled, kept)


def test_a_seed_shows_more_than_one_class_of_a_sorted_file() -> None:
    x, y = np.zeros((100, 2), dtype=np.float32), np.arange(100) // 50
    by_class = arrays(x, y, validation=(x, y)).validation
    assert set(Excerpt(by_class, 20).arrays()[1]) == {0}
    assert set(Excerpt(by_class, 20, seed=0).arrays()[1]) == {0, 1}


def test_no_more_batches_are_read_than_are_needed(split: Data) -> None:
    read: list[int] = []

    class Watched:
        def __len__(self) -> int:
            return len(split)

        def batches(self, *args: object, **options: object) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            batches: Callable[..., Iterator[tuple[torch.Tensor, torch.Tensor]]] = split.batches
            for batch in batches(*args, **options):
                read.append(len(batch[0]))
                yield batch

        def arrays(self) -> tuple[np.ndarray, np.ndarray]:
            raise AssertionError("the whole split was read")

    list(Excerpt(Watched(), 20).batches(8))
    assert read == [8, 8, 8]
    read.clear()
    list(Excerpt(Watched(), 40, most=1).batches(8))
    assert read == [8]
    read.clear()
    inputs, targets = Excerpt(Watched(), 20).arrays()
    assert inputs.shape == (20, 2)
    assert targets.shape == (20,)
    assert read == [20]
