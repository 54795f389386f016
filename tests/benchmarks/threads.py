"""CPU-seconds of small networks by how their threads wait: ratios to one thread, in one run, every setting in a process of its own.

python tests/benchmarks/threads.py [--rounds 3]
"""

import argparse
import os
import statistics
import subprocess
import sys

CHILD = """
import sys, time
import torch
from torch import nn

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
dense = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
tiny = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 2))
convolutions = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
)
for model, inputs, steps in (
    (tiny, torch.randn(64, 8), 600), (dense, torch.randn(128, 64), 300), (convolutions, torch.randn(64, 3, 32, 32), 30)
):
    targets = torch.zeros(len(inputs), dtype=torch.long)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(5 + steps):
        if step == 5:
            began = time.process_time()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    print(time.process_time() - began)
"""
MODELS = ("200 weights", "85,000 weights", "convolutions")
SETTINGS = {
    "one thread": ("1", {}),
    "two threads that spin": ("2", {}),
    "the same, OMP_NUM_THREADS=1 and set_num_threads(2)": ("2", {"OMP_NUM_THREADS": "1"}),
    "two threads that sleep": ("2", {"OMP_WAIT_POLICY": "PASSIVE"}),
}


def cpu_seconds(threads: str, environment: dict[str, str]) -> list[float]:
    """CPU-seconds of each model in a fresh process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", CHILD, threads], env={**clean, **environment}, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="every setting so often, in turns")
    rounds = parser.parse_args().rounds
    found: dict[str, list[list[float]]] = {name: [] for name in SETTINGS}
    for _ in range(rounds):
        for name, (threads, environment) in SETTINGS.items():
            found[name].append(cpu_seconds(threads, environment))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    print(f"{'CPU-seconds against one thread':52} {'  '.join(MODELS)}")
    for name, values in medians.items():
        ratios = [f"{value / one:.1f}" for value, one in zip(values, medians["one thread"], strict=True)]
        print(f"{name:52} {'  '.join(f'{ratio:>{len(model)}}' for ratio, model in zip(ratios, MODELS, strict=True))}")


if __name__ == "__main__":
    main()
