"""What every kind of data owes to the loop, held for the ones in memory and the streamed ones alike."""

import numpy as np
import pytest
import torch

from joulefront.search.training.splits_data import MemoryData, StreamData

COUNT = 23
PIXELS = torch.randint(0, 256, (COUNT, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(COUNT)
NORM = {"mean": [0.4, 0.5, 0.6], "deviation": [0.2, 0.3, 0.4]}


class Items(torch.utils.data.Dataset):
    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return PIXELS[index], int(LABELS[index])


@pytest.fixture(params=["memory", "stream", "stream with workers"])
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
