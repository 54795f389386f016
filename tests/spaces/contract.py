"""What every space has to keep: the checks, and small tasks to try them on."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import torch

from joulefront.search.space import Candidate, FixedTrial, FrozenPart, Space
from joulefront.search.training.task import Task


@dataclass(frozen=True)
class Arrays:
    """A split in memory, the smallest thing that keeps the seam of ``Data``."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(
        self, batch_size: int, *, device: Any = "cpu", seed: Any = None, resolution: Any = None, augment: str = "none"
    ) -> Iterator[Any]:
        order = torch.arange(len(self)) if seed is None else torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for rows in order.split(batch_size):
            inputs = self.inputs[rows]
            if resolution is not None:
                inputs = torch.nn.functional.interpolate(inputs, size=(resolution, resolution), mode="bilinear")
            yield inputs.to(device), self.targets[rows].to(device)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self.inputs.flatten(1).numpy(), self.targets.numpy()


def make_task(shape: tuple[int, ...], kind: str = "classification", *, classes: int = 3, n: int = 90) -> Task:
    """Classes (or values) that a line separates, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    inputs = 0.3 * torch.randn(n, *shape, generator=generator)
    inputs.flatten(1)[torch.arange(n), labels % inputs.flatten(1).shape[1]] += 3.0
    targets = {
        "classification": labels,
        "regression": inputs.flatten(1)[:, 0].clone(),
        "multilabel": torch.stack([labels == 0, labels == 1, labels != 2], dim=1).float(),
        "anomaly": torch.zeros(n, dtype=torch.int64),
    }[kind]
    if kind == "anomaly":
        targets[::10] = 1
        inputs[::10] += 6.0
    names = () if kind == "regression" else tuple("abcdefghijklmnop"[:classes])
    cut = 2 * n // 3
    split = [Arrays(inputs[:cut], targets[:cut]), Arrays(inputs[cut:], targets[cut:])]
    return Task("tiny", kind, split[0], split[1], None, shape, names)  # type: ignore[arg-type]


def trials(space: Space, count: int, seed: int = 0) -> list[tuple[Candidate, dict[str, Any]]]:
    """Candidates of real Optuna trials, with the parameters as they come back from JSON."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found = []
    for _ in range(count):
        trial = study.ask()
        candidate = space.sample(trial)
        found.append((candidate, json.loads(json.dumps(trial.params))))
        study.tell(trial, 0.0)
    return found


def build(space: Space, candidate: Candidate, task: Task, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return space.build(candidate, task)


def check_stored_parameters(space: Space, candidate: Candidate, params: dict[str, Any]) -> None:
    again = space.sample(FixedTrial(params))
    assert again == candidate
    assert space.key(again) == space.key(candidate)
    assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate, "the candidate must be JSON"
    assert candidate.architecture["family"]


def check_key(space: Space, candidate: Candidate) -> None:
    shuffled = Candidate(dict(reversed(candidate.architecture.items())), candidate.recipe)
    assert space.key(shuffled) == space.key(candidate)
    json.loads(space.key(candidate))


def seen_shape(candidate: Candidate, task: Task) -> tuple[int, ...]:
    side = candidate.recipe.resolution
    return task.input_shape if side is None else (task.input_shape[0], side, side)


def check_network(space: Space, candidate: Candidate, params: dict[str, Any], task: Task) -> None:
    """Same weights from the stored parameters, the shape of the output, a gradient for every trainable parameter."""
    model, again = build(space, candidate, task), build(space, space.sample(FixedTrial(params)), task)
    first, second = model.state_dict(), again.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    x = torch.randn(3, *seen_shape(candidate, task), generator=torch.Generator().manual_seed(1))
    model.eval(), again.eval()
    with torch.no_grad():
        assert model(x).shape == (3, task.outputs)
        assert torch.equal(model(x), again(x))
        assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-4), "an example must not depend on its batch in evaluation"
    model.train()
    out = model(x)
    assert out.shape == (3, task.outputs)
    out.square().sum().backward()
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable
    assert [name for name in trainable if model.get_parameter(name).grad is None] == []


def check_cost(space: Space, candidate: Candidate, task: Task) -> None:
    """Parameters and FLOPs are known before training, and without the memory of the weights."""
    from joulefront.search.training.cost import count

    model = build(space, candidate, task)
    cost = count(model, task, candidate.recipe)
    with torch.device("meta"):
        assert count(build(space, candidate, task), task, candidate.recipe) == cost
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.flops is not None
    assert cost.flops > 0


def check_traced(space: Space, candidate: Candidate, task: Task) -> None:
    """One graph serves batches of any size and answers like the model, so that it can be exported."""
    model = build(space, candidate, task).eval()
    shape = seen_shape(candidate, task)
    with torch.no_grad():
        traced = torch.export.export(model, (torch.zeros(2, *shape),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)).module()
        for batch in (1, 5):
            x = torch.randn(batch, *shape)
            assert torch.allclose(traced(x), model(x), atol=1e-4)


def check_estimator(space: Space, candidate: Candidate, params: dict[str, Any], task: Task) -> None:
    """Same scores from the stored parameters, of the right shape, and more epochs are more work, not other results."""
    X, y = task.train.arrays()
    Xv, _ = task.validation.arrays()
    scores = []
    for source in (candidate, space.sample(FixedTrial(params))):
        model = build(space, source, task)
        model.fit_epochs(X, y, 0, 1, seed=3)
        model.fit_epochs(X, y, 1, 3, seed=3)
        scores.append(model.predict_scores(Xv))
        assert model.sklearn.get_params()
    assert np.array_equal(*scores)
    assert np.isfinite(scores[0]).all()
    flat = task.kind == "regression" or scores[0].ndim == 1
    assert scores[0].shape == ((len(Xv),) if flat else (len(Xv), task.outputs))
    if task.kind in ("classification", "multilabel", "anomaly"):
        assert scores[0].min() >= 0
        assert scores[0].max() <= 1


def fixed() -> Any:
    """A recipe without parameters."""
    from joulefront.spaces.recipes import FIXED

    return FIXED


def load(folder: Path, name: str, source: str) -> ModuleType:
    """Write a file and import it, as a user's own would be."""
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def check_frozen(space: Space, candidate: Candidate) -> None:
    """What a space says of a candidate's frozen network is what the sampler prices by."""
    found = getattr(space, "frozen", lambda candidate: None)(candidate)
    assert found is None or (isinstance(found, FrozenPart) and 0 < found.share <= 1 and found.work > 0)


def check_equal_models(space: Space, task: Task, count: int = 6) -> None:
    """Two candidates with equal models and recipes have equal keys: nothing is drawn, or named, that changes nothing."""
    random = np.random.default_rng(0)
    for candidate, params in trials(space, count):
        network = describe(space, candidate, task)
        others = [one for _, one in trials(space, count, seed=1)]
        for name in params:
            values = [one[name] for one in others if name in one and one[name] != params[name]]
            if not values:
                continue
            try:
                other = space.sample(FixedTrial({**params, name: values[random.integers(len(values))]}))
            except ValueError:  # the value opens parameters that are not drawn
                continue
            if other.recipe == candidate.recipe and describe(space, other, task) == network:
                assert space.key(other) == space.key(candidate), f"{name} changes nothing and must not change the key"


def describe(space: Space, candidate: Candidate, task: Task) -> tuple[str, list[float]]:
    """What a network is made of, and what it answers in training."""
    model = build(space, candidate, task).train()
    torch.manual_seed(0)
    x = torch.randn(8, *seen_shape(candidate, task))
    return str(model), [round(value, 5) for value in model(x).flatten().tolist()]


def check(space: Space, task: Task, count: int = 3, *, cost: bool = True) -> None:
    """All of the above, for a number of random candidates."""
    for candidate, params in trials(space, count):
        check_stored_parameters(space, candidate, params)
        check_key(space, candidate)
        check_frozen(space, candidate)
        if hasattr(build(space, candidate, task), "fit_epochs"):
            check_estimator(space, candidate, params, task)
        else:
            check_network(space, candidate, params, task)
            if cost:
                check_cost(space, candidate, task)
