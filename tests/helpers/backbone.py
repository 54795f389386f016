"""A tiny frozen network that keeps the seam of ``Backbone`` and counts what it computes."""

from collections.abc import Mapping
from typing import Any

import torch


class Bands(torch.nn.Module):
    """Means of the rows, of the columns, or of both, of grey images at 8 x 8 pixels, scaled by a weight.

    ``embedded`` are the images that went through it, by feature set; shapes without values (the count of operations) are left out.
    """

    def __init__(self, identity: str = "bands 00ff", scale: float = 2.0) -> None:
        super().__init__()
        self.identity = identity
        self.preprocessing: Mapping[str, Any] = {"size": 8}
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.embedded: dict[str, int] = dict.fromkeys(self.feature_sets(), 0)

    def feature_sets(self) -> tuple[str, ...]:
        return ("rows", "columns", "both")

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(images, size=(8, 8), mode="bilinear") if images.shape[-1] != 8 else images

    def embed(self, prepared: torch.Tensor, feature_set: str) -> torch.Tensor:
        assert not self.training
        if prepared.device.type != "meta":
            self.embedded[feature_set] += len(prepared)
        parts = [prepared.mean(dim=axes) for name, axes in (("rows", (1, 3)), ("columns", (1, 2))) if feature_set in (name, "both")]
        return self.scale * torch.cat(parts, dim=1)
