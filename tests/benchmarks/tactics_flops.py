"""Sparse back-propagation: counted FLOPs against CPU time, where it pays and where it does not.

Run: python tests/benchmarks/tactics_flops.py [--threads N] [--repeats N]

Every number is a ratio of interleaved sparse training (keep 0.2) to dense training in the same run. CPU time of a whole training step
(forward, backward, SGD) is the median over pairs of a dense and a sparse step, one right after the other, so that a busy machine slows
both. With several threads it includes the waiting of idle threads. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from joulefront.search.training.tactics.sparse_backprop import SparseBackprop
from joulefront.search.training.tactics.tactic import attached

sys.path.append(str(Path(__file__).resolve().parents[1]))
from helpers.backward_flops import backward_flops

KEEP = 0.2


def stack(*channels: int, groups: int = 1) -> nn.Sequential:
    """Return 3 x 3 convolutions with normalisation and ReLU."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def separable(channels: int) -> nn.Sequential:
    """Return a depthwise and a pointwise convolution: the first is left dense by the tactic."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1),
    )


CASES = {
    "16 -> 32 channels, 32 x 32": (stack(16, 32, 32), (16, 32, 32)),
    "64 channels, 32 x 32": (stack(64, 64, 64), (64, 32, 32)),
    "64 channels, 8 x 8 (digits)": (stack(64, 64, 64), (64, 8, 8)),
    "128 channels, 16 x 16": (stack(128, 128, 128), (128, 16, 16)),
    "256 channels, 8 x 8": (stack(256, 256, 256), (256, 8, 8)),
    "512 channels, 4 x 4": (stack(512, 512, 512), (512, 4, 4)),
    "depthwise + pointwise, 128 channels, 16 x 16": (separable(128), (128, 16, 16)),
}


def step_seconds(model: nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer) -> float:
    """CPU seconds of one training step, all threads added."""
    begin = time.process_time()
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.process_time() - begin


def measure(model: nn.Module, shape: tuple[int, ...], batch: int, repeats: int) -> dict[str, float]:
    """Ratios of interleaved sparse training to dense training for one model."""
    x = torch.randn(batch, *shape, requires_grad=True)  # the layer stands inside of a network
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    forward = counter.get_total_flops()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    tactic = SparseBackprop(keep=KEEP, min_channels=1)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with attached([tactic], model) as columns:
        flops = {}
        for epoch in (1, 2):  # 1 is dense, 2 is sparse
            tactic.start_epoch(epoch, 2)
            flops[epoch] = backward_flops(model, x)
            step_seconds(model, x, optimizer)
        for _ in range(repeats):
            for epoch in (1, 2):
                tactic.start_epoch(epoch, 2)
                seconds[epoch].append(step_seconds(model, x, optimizer))
    paired = sorted((1 + sparse / dense) / 2 for dense, sparse in zip(seconds[1], seconds[2], strict=True))
    interleaved = (flops[1] + flops[2]) / 2
    return {
        "backward FLOPs": interleaved / flops[1],
        "training FLOPs": (forward + interleaved) / (forward + flops[1]),
        "CPU time": statistics.median(paired),
        "lower quartile": paired[len(paired) // 4],
        "upper quartile": paired[-1 - len(paired) // 4],
        "left dense": columns["sparse_backprop_grouped_left_dense"],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    machine = f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads"
    print(f"{machine}, batch {arguments.batch}, n = {arguments.repeats}, keep {KEEP} interleaved, ratios to dense training")
    for name, (model, shape) in CASES.items():
        row = measure(model, shape, arguments.batch, arguments.repeats)
        verdict = "cheaper" if row["upper quartile"] < 1.0 else "NOT cheaper"
        print(f"{name:<45}" + "  ".join(f"{key} {value:.2f}" for key, value in row.items()) + f"  {verdict}")
    print("torch counts the weight gradient of a grouped convolution as if it were dense: the FLOP ratio of the depthwise row says little.")


if __name__ == "__main__":
    main()
