"""What happens to a batch on the device: augmentation, normalisation, size, memory layout."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .recipe import Recipe

#: Share of the side by which an image is shifted at most in each direction: 4 of 32 pixels, the usual for CIFAR.
SHIFT = 1 / 8


def augmented(images: torch.Tensor, augment: str, generator: torch.Generator) -> torch.Tensor:
    """Flip and shift each image of a batch on its own; their size stays.

    Args:
        images: ``(b, c, h, w)``, any dtype.
        augment: ``none``, ``shift``, or ``flip_shift``; a shift mirrors the border inwards.
        generator: Draws the flips and shifts, on the CPU so that every device gets the same ones.
    """
    if augment == "none" or images.ndim != 4:
        return images
    count, channels, height, width = images.shape
    top, left = max(1, round(height * SHIFT)) if height > 1 else 0, max(1, round(width * SHIFT)) if width > 1 else 0
    down = torch.randint(-top, top + 1, (count, 1), generator=generator)
    right = torch.randint(-left, left + 1, (count, 1), generator=generator)
    rows = _mirrored(torch.arange(height) + down, height)
    columns = _mirrored(torch.arange(width) + right, width)
    if augment == "flip_shift":
        flips = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(flips, columns.flip(1), columns)
    # Flip and both shifts are one gather over the pixels, the same for every channel.
    pixels = (rows[:, :, None] * width + columns[:, None, :]).reshape(count, 1, height * width).to(images.device, non_blocking=True)
    flat = images.reshape(count, channels, height * width)
    return flat.gather(2, pixels.expand(-1, channels, -1)).reshape(images.shape)


def _mirrored(index: torch.Tensor, size: int) -> torch.Tensor:
    """Reflect positions outside ``[0, size)`` at the border, without repeating the border itself."""
    if size == 1:
        return torch.zeros_like(index)
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


def normalised(inputs: torch.Tensor, mean: torch.Tensor | None, deviation: torch.Tensor | None) -> torch.Tensor:
    """Return float32 inputs with ``(x - mean) / deviation`` per channel or feature; uint8 inputs are first divided by 255.

    Inputs are ``(b, c, h, w)`` or ``(b, features)``; ``mean`` and ``deviation``, in the units of the scaled inputs, may be None.
    """
    scale = 1 / 255 if inputs.dtype == torch.uint8 else 1.0
    values = inputs.to(torch.float32)
    fresh = values.data_ptr() != inputs.data_ptr()
    if mean is None or deviation is None:
        return values * scale if scale != 1.0 else values
    shape = (1, -1) + (1,) * (inputs.ndim - 2)
    factor, offset = (scale / deviation).view(shape), (mean / deviation).view(shape)
    # In place where the float copy is ours: a second and third pass over fresh memory cost more than the arithmetic.
    return values.mul_(factor).sub_(offset) if fresh else values * factor - offset


def resized(images: torch.Tensor, resolution: int | None) -> torch.Tensor:
    """Return float images at ``resolution`` x ``resolution`` pixels (bilinear, antialiased); None or the same size changes nothing."""
    if resolution is None or images.ndim != 4 or images.shape[-2:] == (resolution, resolution):
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)


def laid_out(inputs: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Return images in the memory layout of the recipe."""
    if recipe.channels_last and inputs.ndim == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs
