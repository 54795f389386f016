"""A look at the models of a user's space before anything is paid: what could not be kept or used is refused, what misleads warned of."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from .space import Candidate, RandomTrial, Space, SpaceError, weightless
from .training.task import Task

#: Examples that a model sees which is only built to be looked at.
FEW = 128
#: A model of so many parameters predicts in less time than loading ``torch._dynamo`` takes, as tensors without values do: 1.4 CPU-seconds.
CHEAP = 2**20
#: Modules around a module, which could not be stored and exported as the one inside.
AROUND = ("ScriptModule", "RecursiveScriptModule", "TopLevelTracedModule", "OptimizedModule", "DataParallel", "DistributedDataParallel")


def check_models(space: Space, task: Task) -> None:
    """Build a model of a space and let it predict; what cannot be built or run here is found in its own trial.

    Raises:
        SpaceError: If it is no model, a network in a wrapper, or a model that no file of weights holds; if a network gives no tensor, gives
            another number of outputs than the task has, changes its inputs, or has trainable weights of another model.
    """
    import torch

    from .training.estimator import as_estimator
    from .training.splits_data import Excerpt

    try:
        candidate = space.sample(RandomTrial(0))
        few = [Excerpt(split, FEW, most=1, seed=0) for split in (task.train, task.validation)]
        small = replace(task, train=few[0], validation=few[1])
        with torch.random.fork_rng(devices=[]):
            model = weightless(space, candidate, small)
    except (Exception, SystemExit):
        return
    if not isinstance(model, torch.nn.Module):
        try:
            as_estimator(model)
        except ValueError as error:
            raise SpaceError(f"the space {space.name!r}: {error}") from None
        _check_estimator(space, candidate, small)
    elif (kind := type(model).__name__) in AROUND:
        said = f"the model of the space {space.name!r} must be a plain torch.nn.Module, got {kind}"
        raise SpaceError(f"{said}; leave out torch.jit, torch.compile and DataParallel, return the module inside")
    elif not torch.is_grad_enabled():
        said = "gradients must be on, got torch.set_grad_enabled(False), with which no network is trained"
        raise SpaceError(f"{said}; write `with torch.no_grad():` around what needs none")
    else:
        _check_network(space, candidate, small, model)


def _check_estimator(space: Space, candidate: Candidate, task: Task) -> None:
    """Refuse an estimator that, fitted on a few examples, is not the same when it is read back from a file."""
    import skops.io

    from .training.boosted import as_trees
    from .training.checkpoint import foreign_types, load_weights, types_of
    from .training.estimator import as_estimator

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            (inputs, targets), file = task.train.arrays(), Path(folder) / "model.weights"
            model = as_estimator(space.build(candidate, task))
            model.fit_epochs(inputs, targets, 0, 1, 0)
            model.sklearn = as_trees(model.sklearn, inputs)
            scores = model.predict_scores(inputs)
        except (Exception, SystemExit):  # maybe for the few examples alone
            return
        try:
            skops.io.dump({"sklearn": model.sklearn, "checkpoint": None}, file)
            if foreign := foreign_types(file, types_of(as_estimator(fresh := space.build(candidate, task)).sklearn)):
                raise ValueError(", ".join(foreign[:3]))
            again = load_weights(file, fresh).predict_scores(inputs)
            reason = None if np.allclose(scores, again, equal_nan=True) else "one that predicts otherwise when it is read back"
        except (Exception, SystemExit) as error:
            reason = " ".join(str(error).replace(str(file), "its file").split())[:300]
    if reason:
        said = f"the model {type(model.sklearn).__name__} of the space {space.name!r} must be one that a file can hold, got {reason}"
        raise SpaceError(f"{said}; use scikit-learn's classes, functions with a name, and boosted trees alone or in a GridSearchCV")


def _check_network(space: Space, candidate: Candidate, task: Task, model: Any) -> None:
    """Look at the weights and the outputs of a network, which is built twice more where it is small."""
    import torch

    outputs, shared, ran, changed, odd, unlike = None, set[int](), False, False, list[str](), False
    with suppress(Exception, SystemExit), torch.random.fork_rng(devices=[]), torch.no_grad():
        again = weightless(space, candidate, task)
        shared = {id(one) for one in model.parameters() if one.requires_grad} & {id(one) for one in again.parameters()}
        lazy = torch.nn.parameter.is_lazy
        odd = [name for name, one in model.named_parameters() if lazy(one) or one.dtype in (torch.float64, torch.float16)]
        unlike = [one.shape for one in model.parameters()] != [one.shape for one in again.parameters()]
        light = sum(one.numel() for one in model.parameters()) <= CHEAP
        if light:
            model, again = (space.build(candidate, task) for _ in range(2))
            odd += [name for name, one in model.named_parameters() if one.is_meta]
        inputs = torch.randn(4, *task.shape_at(candidate.recipe.resolution), device=next(model.parameters()).device)
        before = inputs.clone()
        outputs, ran = model.eval()(inputs), True
        changed = not inputs.is_meta and not torch.equal(inputs, before)
        if light and not changed:
            _warn_of_predictions(space.name, model, again, inputs)
    named = f"the model of the space {space.name!r}"
    if odd:
        said = f"{named} must have weights of float32 and of known sizes, got another {odd[0]!r}"
        raise SpaceError(f"{said}; leave out .double(), .half(), set_default_dtype and device='meta', give lazy layers sizes")
    if shared:
        raise SpaceError(f"the space {space.name!r} must build each model anew, got one with weights of another; make them in the function")
    if unlike:
        said = f"the space {space.name!r} must build one network from one architecture, got weights of other sizes the second time"
        raise SpaceError(f"{said}; make all that it is of from the architecture and the task, nothing that changes outside")
    if not ran:
        return
    if changed:
        raise SpaceError(f"{named} must leave its inputs as they are, got one that changes them in place; write x = x * 2, not x.mul_(2)")
    if not isinstance(outputs, torch.Tensor):
        said = f"{named} must return a tensor (examples, {task.outputs}), got {type(outputs).__name__}"
        raise SpaceError(f"{said}; return its logits alone, e.g. by a module around it")
    found = int(outputs.shape[-1]) if outputs.ndim > 1 else 1
    if found != task.outputs:
        classes = f" ({', '.join(task.classes[:5])}{', ...' if len(task.classes) > 5 else ''})" if task.classes else ""
        raise SpaceError(f"{named} gives {found} outputs, the task has {task.outputs}{classes}; build task.outputs")
    if task.kind == "classification" and not outputs.is_meta and bool((outputs >= 0).all() & ((outputs.sum(-1) - 1).abs() < 1e-5).all()):
        warnings.warn(f"{named} gives probabilities, of which the loss takes the softmax again; leave out its last softmax", stacklevel=2)


def _warn_of_predictions(name: str, model: Any, again: Any, inputs: Any) -> None:
    """Warn of a network that would predict otherwise when it is used: by chance, by its batch, or by what no file of its weights holds."""
    import torch

    model.train()(inputs)  # what a step leaves behind in it
    again.load_state_dict(model.state_dict())
    outputs = model.eval()(inputs)
    found = {
        "predicts otherwise each time": (model(inputs), "switch noise and dropout off where not self.training"),
        "predicts an example otherwise beside others": (torch.cat([model(inputs[:2]), model(inputs[2:])]), "compute within each example"),
        "holds what is not in its state_dict, and so is not stored": (again.eval()(inputs), "use register_buffer, Parameter or ModuleList"),
    }
    for what, (other, remedy) in found.items():
        if not torch.allclose(outputs, other, rtol=1e-3, atol=1e-3 * float(outputs.abs().max()), equal_nan=True):
            said = f"the model of the space {name!r} {what}: what is exported may differ from what was measured"
            return warnings.warn(f"{said}; {remedy}", stacklevel=4)
