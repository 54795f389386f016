"""What a space may say beside what it must, and what is taken of one that does not say it.

A search works with the four members of `Space`. What more a family knows makes it better: the ordinary choice, which candidates share
features of a frozen network, what is begun only after something else. Each of these is a method or an attribute that a space has or has
not; `Hints` is the one place that looks. `Wrapper` is a space around another one that passes all of them on. `check_outputs` looks, before
anything is paid, at what a model that a space builds gives, and warns where it would predict otherwise when it is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from .space import Candidate, FrozenPart, RandomTrial, Space, SpaceError, Suggest, weightless
from .training.task import Task

#: Examples that a model sees which is only built to be looked at.
FEW = 128
#: A model of so many parameters predicts in less time than loading ``torch._dynamo`` takes, as tensors without values do: 1.4 CPU-seconds.
CHEAP = 2**20


class Hints:
    """Asks a space for its hints; the attributes and methods here have the names that a family gives them."""

    def __init__(self, space: Space) -> None:
        self._space: Any = space

    @property
    def epochs_are_passes(self) -> bool:
        """Whether an epoch is a pass over the data; without the hint it is. It is not where epochs are trees, or shares of the data."""
        return bool(getattr(self._space, "epochs_are_passes", True))

    @property
    def after(self) -> str | None:
        """Name of the family whose candidates come first; without the hint there is none."""
        found: str | None = getattr(self._space, "after", None)
        return found

    @property
    def steps(self) -> bool:
        """Whether candidates on features with more work than any before are begun by `further` alone."""
        return bool(getattr(self._space, "steps", callable(getattr(self._space, "further", None))))

    @property
    def staged(self) -> bool:
        """Whether some candidates wait for others: for those of another family, or for the step before theirs."""
        return bool(getattr(self._space, "staged", self.steps or self.after is not None))

    @property
    def shares_features(self) -> bool:
        """Whether candidates may share features, see `frozen`."""
        return callable(getattr(self._space, "frozen", None))

    def defaults(self) -> Mapping[str, Any]:
        """Return the parameters that an expert would begin with, ``epochs`` among them where the family knows how many; or nothing."""
        found: Mapping[str, Any] = getattr(self._space, "defaults", dict)()
        return found

    def starts(self) -> tuple[Mapping[str, Any], ...]:
        """Return the ordinary choice of each family of the space; without the hint, the defaults."""
        own = getattr(self._space, "starts", None)
        return tuple(wanted for wanted in (own() if callable(own) else (self.defaults(),)) if wanted)

    def frozen(self, candidate: Candidate) -> FrozenPart | None:
        """Return which features of a frozen network a candidate needs; without the hint, none that it shares with others."""
        found: FrozenPart | None = getattr(self._space, "frozen", _none)(candidate)
        return found

    def tuning(self, candidate: Candidate) -> tuple[FrozenPart, float] | None:
        """Return the features that a fine-tuning begins on, and what an epoch costs in passes of the frozen network; None for others."""
        found: tuple[FrozenPart, float] | None = getattr(self._space, "tuning", _none)(candidate)
        return found

    def waits(self, params: Mapping[str, Any]) -> bool:
        """Whether parameters are of a family that is begun only after another."""
        return bool(getattr(self._space, "waits", lambda params: False)(params))

    def going_on(self, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the parameters of what goes on from a candidate with these, as a fine-tuning does from a head; or None."""
        found: Mapping[str, Any] | None = getattr(self._space, "going_on", _none)(params)
        return found

    def further(self, params: Mapping[str, Any], larger: bool) -> Mapping[str, Any] | None:
        """Return the parameters of a head on all images, or with ``larger`` on features with the next more work; or None."""
        own = getattr(self._space, "further", None)
        found: Mapping[str, Any] | None = None if own is None else own(params, larger)
        return found

    def shortened(self, params: Mapping[str, Any], times: float) -> Mapping[str, Any]:
        """Return the parameters that give about the same model in so many times fewer epochs; without the hint, the same."""
        found: Mapping[str, Any] = getattr(self._space, "shortened", lambda params, times: params)(params, times)
        return found

    def check(self, task: Task) -> None:
        """Check the models before anything is paid for: as the space says, else, where it is a user's, by `check_outputs`.

        Raises:
            SpaceError: If a model gives another number of outputs than the task has.
        """
        if (own := getattr(self._space, "check", None)) is not None:
            own(task)
        elif not type(self._space).__module__.startswith("joulefront."):
            check_outputs(self._space, task)


@dataclass(frozen=True)
class Wrapper(Space):
    """A space around another: the same, but for what a subclass changes. Candidates of its own become the other's by `inner`."""

    space: Space

    @property
    def name(self) -> str:
        """Name of the space inside."""
        return self.space.name

    @property
    def epochs_are_passes(self) -> bool:
        """As inside; so are all hints, see `Hints`."""
        return Hints(self.space).epochs_are_passes

    @property
    def after(self) -> str | None:
        """As inside."""
        return Hints(self.space).after

    @property
    def steps(self) -> bool:
        """As inside."""
        return Hints(self.space).steps

    @property
    def staged(self) -> bool:
        """As inside."""
        return Hints(self.space).staged

    def inner(self, candidate: Candidate) -> Candidate:
        """Return the candidate of the space inside."""
        return candidate

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a candidate."""
        return self.space.sample(trial)

    def build(self, candidate: Candidate, task: Task) -> Any:
        """Build the untrained model."""
        return self.space.build(self.inner(candidate), task)

    def key(self, candidate: Candidate) -> str:
        """Return the candidate's canonical text."""
        return self.space.key(self.inner(candidate))

    def defaults(self) -> Mapping[str, Any]:
        """As inside."""
        return Hints(self.space).defaults()

    def starts(self) -> tuple[Mapping[str, Any], ...]:
        """As inside."""
        return Hints(self.space).starts()

    def frozen(self, candidate: Candidate) -> FrozenPart | None:
        """As inside."""
        return Hints(self.space).frozen(self.inner(candidate))

    def tuning(self, candidate: Candidate) -> tuple[FrozenPart, float] | None:
        """As inside."""
        return Hints(self.space).tuning(self.inner(candidate))

    def waits(self, params: Mapping[str, Any]) -> bool:
        """As inside."""
        return Hints(self.space).waits(params)

    def going_on(self, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """As inside."""
        return Hints(self.space).going_on(params)

    def further(self, params: Mapping[str, Any], larger: bool) -> Mapping[str, Any] | None:
        """As inside."""
        return Hints(self.space).further(params, larger)

    def shortened(self, params: Mapping[str, Any], times: float) -> Mapping[str, Any]:
        """As inside."""
        return Hints(self.space).shortened(params, times)

    def check(self, task: Task) -> None:
        """Check the models of the space inside."""
        Hints(self.space).check(task)


def _none(_: Any) -> None:
    return None


def check_outputs(space: Space, task: Task) -> None:
    """Build a model and let it predict, before anything is paid for; what cannot be built or run here is found in its own trial.

    Raises:
        SpaceError: If it gives no tensor, or another number of outputs than the task has, or has trainable weights of another model.
    """
    import torch

    from .training.splits_data import Excerpt

    outputs, shared, ran, odd = None, set[int](), False, list[str]()
    with suppress(Exception, SystemExit):
        candidate = space.sample(RandomTrial(0))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            few = [Excerpt(split, FEW, most=1, seed=0) for split in (task.train, task.validation)]
            small = replace(task, train=few[0], validation=few[1])
            model, again = (weightless(space, candidate, small) for _ in range(2))
            shared = {id(one) for one in model.parameters() if one.requires_grad} & {id(one) for one in again.parameters()}
            lazy = torch.nn.parameter.is_lazy
            odd = [name for name, one in model.named_parameters() if lazy(one) or one.dtype in (torch.float64, torch.float16)]
            light = sum(one.numel() for one in model.parameters()) <= CHEAP
            if light:
                model, again = (space.build(candidate, small) for _ in range(2))
            inputs = torch.randn(4, *task.shape_at(candidate.recipe.resolution), device=next(model.parameters()).device)
            outputs = model.eval()(inputs)
            ran = True
            if light:
                _warn_of_predictions(space.name, model, again, inputs)
    if odd:
        said = f"the model of the space {space.name!r} must have weights of float32 and of known sizes, got another {odd[0]!r}"
        raise SpaceError(f"{said}; leave out .double(), .half() and set_default_dtype, give lazy layers sizes")
    if shared:
        raise SpaceError(f"the space {space.name!r} must build each model anew, got one with weights of another; make them in the function")
    if not ran:
        return
    if not isinstance(outputs, torch.Tensor):
        said = f"the model of the space {space.name!r} must return a tensor (examples, {task.outputs}), got {type(outputs).__name__}"
        raise SpaceError(f"{said}; return its logits alone, e.g. by a module around it")
    found = int(outputs.shape[-1]) if outputs.ndim > 1 else 1
    if found != task.outputs:
        named = f" ({', '.join(task.classes[:5])}{', ...' if len(task.classes) > 5 else ''})" if task.classes else ""
        raise SpaceError(
            f"the model of the space {space.name!r} gives {found} outputs, the task has {task.outputs}{named}; build task.outputs"
        )
    if task.kind == "classification" and not outputs.is_meta and bool((outputs >= 0).all() & ((outputs.sum(-1) - 1).abs() < 1e-5).all()):
        said = f"the model of the space {space.name!r} gives probabilities, of which the loss takes the softmax again"
        warnings.warn(f"{said}; leave out its last softmax", stacklevel=2)


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
            warnings.warn(
                f"the model of the space {name!r} {what}: what is exported may differ from what was measured; {remedy}", stacklevel=4
            )
            return
