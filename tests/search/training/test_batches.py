import pytest
import torch

from joulefront.search.training.splits_data import augmented, normalised, resized


def slow_augmented(images, augment, generator):
    """Pixel by pixel, with the same draws."""
    count, _, height, width = images.shape
    top, left = max(1, round(height / 8)), max(1, round(width / 8))
    down = torch.randint(-top, top + 1, (count, 1), generator=generator)
    right = torch.randint(-left, left + 1, (count, 1), generator=generator)
    flips = torch.rand(count, 1, generator=generator) < 0.5 if augment == "flip_shift" else torch.zeros(count, 1, dtype=torch.bool)
    out = torch.empty_like(images)
    for k in range(count):
        padded = torch.nn.functional.pad(images[k].float()[None], (left, left, top, top), mode="reflect")[0]
        image = padded[:, top + int(down[k]) :, left + int(right[k]) :][:, :height, :width]
        out[k] = (image.flip(-1) if flips[k] else image).to(images.dtype)
    return out


@pytest.mark.parametrize("augment", ["shift", "flip_shift"])
@pytest.mark.parametrize("size", [(8, 8), (32, 20), (5, 3)])
def test_augmentation_equals_the_slow_way(augment, size):
    images = torch.randint(0, 256, (16, 3, *size), dtype=torch.uint8)
    fast = augmented(images, augment, torch.Generator().manual_seed(3))
    assert torch.equal(fast, slow_augmented(images, augment, torch.Generator().manual_seed(3)))
    assert not torch.equal(fast, images)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2)])
def test_images_of_one_pixel_can_be_augmented(size):
    images = torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8)
    out = augmented(images, "flip_shift", torch.Generator().manual_seed(0))
    assert out.shape == images.shape
    assert size != (1, 1) or torch.equal(out, images)


def test_rows_of_a_table_are_left_alone():
    rows = torch.rand(4, 3)
    assert augmented(rows, "flip_shift", torch.Generator()) is rows
    assert resized(rows, 16) is rows


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalisation_equals_the_formula_and_keeps_its_input(dtype):
    images = torch.randint(0, 256, (5, 2, 3, 3)).to(dtype)
    before = images.clone()
    mean, deviation = torch.tensor([0.4, 0.6]), torch.tensor([0.2, 0.5])
    scaled = images.float() / 255 if dtype == torch.uint8 else images
    expected = (scaled - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(normalised(images, mean, deviation), expected)
    torch.testing.assert_close(normalised(images, None, None), scaled)
    assert torch.equal(images, before)


def test_resizing_keeps_the_mean_and_the_same_size_costs_nothing():
    images = torch.rand(2, 3, 16, 16)
    assert resized(images, 16) is images
    assert resized(images, None) is images
    assert resized(images, 4).shape == (2, 3, 4, 4)
    torch.testing.assert_close(resized(images, 4).mean(), images.mean(), atol=0.02, rtol=0)
