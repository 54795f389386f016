import contextlib
import io
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from joulefront.search.training import loop
from joulefront.search.training.arrays import dataset
from joulefront.search.training.evaluate import evaluate, predict
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.results import TrainingFailed
from joulefront.spaces.classical import FidelityEstimator, make_sklearn

pytestmark = pytest.mark.slow
RECIPE = Recipe(batch_size=32, learning_rate=1e-2, weight_decay=1e-2, augment="shift", label_smoothing=0.05)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Failing(torch.nn.Module):
    """Raises in the given forward pass."""

    def __init__(self, error, at):
        super().__init__()
        self.layer, self.error, self.left = torch.nn.Linear(64, 3), error, at

    def forward(self, x):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.layer(x.flatten(1))


def test_a_network_learns_what_can_be_learnt(spots, net):
    fitted = fit(net(spots), spots, RECIPE, epochs=8)
    assert fitted.quality["accuracy"] > 0.9
    assert fitted.epochs == 8
    assert [point.epoch for point in fitted.curve] == list(range(1, 9))
    assert fitted.curve[-1].loss < fitted.curve[0].loss
    assert fitted.stopped is None
    assert not fitted.model.training


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"optimizer": "sgd", "schedule": "constant"},
        {"schedule": "constant", "averaging": False},
        {"accumulation": 2},
        {"precision": "bfloat16"},
        {"channels_last": True},
        {"tactics": {"freeze": {"share": 0.5, "from_epoch": 2, "until_epoch": 3}}},
        {"patience": 9},
    ],
    ids=str,
)
def test_going_on_from_a_checkpoint_equals_one_training_bit_for_bit(spots, net, change):
    recipe = Recipe(**(RECIPE.to_json() | change))
    whole = fit(net(spots), spots, recipe, epochs=4, seed=3)
    first = fit(net(spots), spots, recipe, epochs=1, seed=3)
    # Through a file, and into a model with other weights: everything that counts must be in the checkpoint.
    file = io.BytesIO()
    torch.save(dict(first.checkpoint), file)
    file.seek(0)
    second = fit(net(spots, seed=9), spots, recipe, epochs=3, seed=3, start=torch.load(file, weights_only=True))
    third = fit(net(spots, seed=8), spots, recipe, epochs=4, seed=3, start=second.checkpoint)
    assert equal(whole.model.state_dict(), third.model.state_dict())
    assert equal(whole.checkpoint["weights"], third.checkpoint["weights"])
    assert whole.quality == third.quality
    assert whole.curve[1:] == (*second.curve[:1], *_without_quality(second.curve[1:], recipe), *third.curve)


@pytest.mark.parametrize("kind", ["network", "forest"])
def test_one_checkpoint_can_be_continued_twice_and_what_it_is_of_stays_as_it_was(spots, net, kind):
    def build():
        if kind == "network":
            return net(spots)
        forest = make_sklearn("random_forest", "classification", {"max_depth": 4, "min_leaf": 1, "features": 0.5})
        return FidelityEstimator(forest, name="random_forest", per_epoch={"trees": 3}, full_epochs=27)

    first = fit(build(), spots, RECIPE, epochs=1, seed=3)
    before = predict(first.model, spots, spots.validation, recipe=RECIPE)
    fit(build(), spots, RECIPE, epochs=3, seed=3, start=first.checkpoint)
    again = fit(build(), spots, RECIPE, epochs=2, seed=3, start=first.checkpoint)
    assert np.array_equal(predict(first.model, spots, spots.validation, recipe=RECIPE), before)
    assert again.quality == fit(build(), spots, RECIPE, epochs=2, seed=3).quality


def test_examples_and_models_that_draw_from_any_generator_are_repeatable_and_the_callers_stay(net):
    class Noisy(torch.utils.data.Dataset):
        classes = ("a", "b")

        def __len__(self):
            return 40

        def __getitem__(self, k):
            return torch.full((1, 8, 8), k % 2 + random.random() + float(np.random.rand())), k % 2

    task = dataset(Noisy(), Noisy(), name="noisy")
    random.seed(5)
    np.random.seed(5)
    whole = fit(net(task), task, RECIPE, epochs=3)
    drawn = random.random(), float(np.random.rand())
    first = fit(net(task), task, RECIPE, epochs=1)
    again = fit(net(task), task, RECIPE, epochs=3, start=first.checkpoint)
    assert [point.loss for point in (*first.curve, *again.curve)] == [point.loss for point in whole.curve]
    assert drawn == (random.Random(5).random(), np.random.RandomState(5).rand())


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_schedule_with_a_horizon_ends_at_its_end_where_a_left_over_example_is_skipped(spots, monkeypatch, schedule):
    rates = []
    monkeypatch.setattr(loop, "set_rate", lambda group, rate: rates.append(rate / group["peak"]))
    fit(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), spots, Recipe(batch_size=128, schedule=schedule), epochs=12)
    assert len(rates) == 2 * 12  # a step an epoch, for each of two groups
    assert rates[-1] < 0.05


def _without_quality(points, recipe):
    """The last epoch of a training is validated; in the longer training it is not the last."""
    from dataclasses import replace

    return tuple(point if recipe.patience else replace(point, quality=None) for point in points)


def test_an_interrupted_run_does_not_depend_on_the_callers_random_numbers(spots, net):
    model = net(spots)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fitted = fit(model, spots, RECIPE, epochs=1)
    assert torch.equal(torch.rand(3), expected)
    again = fit(net(spots), spots, RECIPE, epochs=1)
    assert equal(fitted.model.state_dict(), again.model.state_dict())
    other = fit(net(spots), spots, RECIPE, epochs=1, seed=1)
    assert not equal(fitted.model.state_dict(), other.model.state_dict())


def test_the_anytime_loop_equals_a_plain_one(spots, net):
    """The oracle is written with nothing but torch.optim and a dictionary of averages."""
    recipe = Recipe(batch_size=43, learning_rate=1e-2, weight_decay=0.1)  # 129 = 3 batches without a rest
    fitted = fit(net(spots, dropout=0.0), spots, recipe, epochs=2, seed=5)
    model = net(spots, dropout=0.0)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=1e-2, fused=True)
    averages = {}
    for step in range(1, 7):
        if step in (1, 4):
            rounds = spots.train.batches(43, seed=5 * 1_000_003 + (1 if step == 1 else 2))
        inputs, targets = next(rounds)
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1, step / max(1, 0.3 * 3))
        optimizer.step()
        optimizer.zero_grad()
        old = (1 - 1 / step) ** 7.94
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                averages[name] = value.clone() if step == 1 else averages[name] * old + value * (1 - old)
    for name, value in averages.items():
        torch.testing.assert_close(fitted.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_accumulation_gives_the_step_of_the_whole_batch(spots):
    def linear():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))

    settings = {"batch_size": 50, "optimizer": "sgd", "learning_rate": 0.1, "schedule": "constant"}
    whole = fit(linear(), spots, Recipe(**settings), epochs=2)
    parts = fit(linear(), spots, Recipe(**settings, accumulation=4), epochs=2)
    for first, second in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
    assert whole.curve[0].loss == pytest.approx(parts.curve[0].loss, rel=1e-5)


def test_a_diverged_training_names_epoch_and_loss(line):
    with pytest.raises(TrainingFailed, match=r"loss became (nan|inf) in epoch 1"):
        fit(torch.nn.Linear(2, 1), line, Recipe(batch_size=16, optimizer="sgd", learning_rate=1e8), epochs=3)


def test_a_broken_training_does_not_pay_for_the_rest_of_its_epoch(line):
    class Counts(torch.nn.Linear):
        calls = 0

        def forward(self, x):
            Counts.calls += 1
            return super().forward(x) * float("nan")

    with pytest.raises(TrainingFailed, match="nan"):
        fit(Counts(2, 1), line, Recipe(batch_size=2), epochs=1)
    assert Counts.calls == 16


def test_a_model_that_breaks_only_in_validation_fails_too(spots):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 3)

        def forward(self, x):
            out = self.layer(x.flatten(1))
            return out if self.training else out / 0

    with pytest.raises(TrainingFailed, match="non-finite outputs"):
        fit(Odd(), spots, RECIPE, epochs=1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.OutOfMemoryError("no memory"), RuntimeError("my layer")], ids=repr)
def test_ctrl_c_out_of_memory_and_user_errors_pass_through(spots, error):
    threads = torch.get_num_threads()
    closed = []

    @contextlib.contextmanager
    def phases(kind, index):
        try:
            yield
        finally:
            closed.append((kind, index))

    with pytest.raises(type(error)) as caught:
        fit(Failing(error, at=7), spots, Recipe(batch_size=32, threads=2), epochs=4, phases=phases)
    assert caught.value is error
    assert closed == [("setup", 0), ("epoch", 1), ("epoch", 2)]
    assert torch.get_num_threads() == threads


def test_a_training_that_is_stopped_is_a_measured_point_that_can_continue(spots, net):
    stopped = fit(net(spots), spots, RECIPE, epochs=5, should_continue=lambda point: point.epoch < 2)
    assert stopped.epochs == 2
    assert stopped.stopped == "stopped after epoch 2 of 5"
    assert stopped.quality == fit(net(spots), spots, RECIPE, epochs=2).quality
    resumed = fit(net(spots), spots, RECIPE, epochs=5, start=stopped.checkpoint)
    assert resumed.quality == fit(net(spots), spots, RECIPE, epochs=5).quality


def test_the_caller_decides_after_every_epoch_and_the_last_is_no_stop(spots, net):
    asked = []
    fitted = fit(net(spots), spots, RECIPE, epochs=3, should_continue=lambda point: asked.append(point.epoch) is None and point.epoch < 3)
    assert asked == [1, 2, 3]
    assert fitted.stopped is None


def test_phases_are_opened_in_order(spots, net):
    seen = []

    def phases(kind, index):
        seen.append((kind, index))
        return contextlib.nullcontext()

    fit(net(spots), spots, RECIPE, epochs=2, phases=phases)
    assert seen == [("setup", 0), ("epoch", 1), ("epoch", 2), ("eval", 2)]
    seen.clear()
    fit(net(spots), spots, Recipe(batch_size=32, patience=5), epochs=2, phases=phases)
    assert seen == [("setup", 0), ("epoch", 1), ("eval", 1), ("epoch", 2), ("eval", 2)]


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_fixed_horizon_gives_no_checkpoint_and_takes_none(spots, net, schedule):
    recipe = Recipe(batch_size=32, learning_rate=1e-2, schedule=schedule)
    fitted = fit(net(spots), spots, recipe, epochs=6)
    assert fitted.checkpoint is None
    assert fitted.quality["accuracy"] > 0.8
    start = fit(net(spots), spots, RECIPE, epochs=1).checkpoint
    with pytest.raises(ValueError, match="fixed horizon"):
        fit(net(spots), spots, recipe, epochs=2, start=start)


def test_epochs_that_are_trained_already_are_refused(spots, net):
    start = fit(net(spots), spots, RECIPE, epochs=2).checkpoint
    with pytest.raises(ValueError, match="epochs must be > 2"):
        fit(net(spots), spots, RECIPE, epochs=2, start=start)


def test_only_parameters_that_want_a_gradient_are_trained(spots, net):
    model = net(spots)
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    before, head = model[0].weight.clone(), model[6].weight.clone()
    fitted = fit(model, spots, RECIPE, epochs=1)
    assert torch.equal(fitted.model[0].weight, before)
    assert not torch.equal(fitted.model[6].weight, head)
    assert fitted.model[0].weight.requires_grad is False


def test_the_head_has_its_own_learning_rate(spots, net):
    model = net(spots)
    model.head_parameters = lambda: model[6].parameters()
    body = model[0].weight.clone()
    head = model[6].weight.clone()
    recipe = Recipe(batch_size=32, learning_rate=1e-9, head_learning_rate=1e-2, optimizer="sgd", schedule="constant", averaging=False)
    fitted = fit(model, spots, recipe, epochs=1)
    assert float((fitted.model[0].weight - body).detach().abs().max()) < 1e-6
    assert float((fitted.model[6].weight - head).detach().abs().max()) > 1e-3


def test_one_left_over_example_does_not_break_batch_normalisation(spots):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    assert len(spots.train) % 32 == 1
    assert fit(model, spots, RECIPE, epochs=1).epochs == 1


def test_batches_of_one_example_are_trained(spots):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    before = model[1].weight.clone()
    fitted = fit(model, spots, Recipe(batch_size=1, learning_rate=1e-3, schedule="constant", averaging=False), epochs=1)
    assert fitted.curve[0].loss > 0
    assert not torch.equal(fitted.model[1].weight, before)


def test_a_compiled_model_is_stored_under_its_own_names(spots, net, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: torch._dynamo.optimize("eager")(model))
    names = list(net(spots).state_dict())
    fitted = fit(net(spots), spots, Recipe(batch_size=32, compile=True), epochs=1)
    assert list(fitted.model.state_dict()) == names


def test_progressive_sizes_and_other_resolutions_reach_the_model(spots):
    seen = []

    class Sizes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 3)

        def forward(self, x):
            seen.append((self.training, x.shape[-2:]))
            return self.layer(x.mean(dim=(2, 3)))

    fit(Sizes(), spots, Recipe(batch_size=64, resolution=12), epochs=1)
    assert set(seen) == {(True, (12, 12)), (False, (12, 12))}


def test_evaluate_leaves_the_model_in_its_mode(spots, net):
    model = net(spots).train()
    first = evaluate(model, spots, spots.validation, recipe=RECIPE)
    assert model.training
    assert first == evaluate(model.eval(), spots, spots.validation, recipe=RECIPE)
    assert not model.training


def test_a_model_is_compiled_in_a_phase_of_its_own_for_all_batches_to_come_and_trains_as_without(spots, net, monkeypatch):
    seen, phase = {}, ["none"]

    @contextlib.contextmanager
    def phases(kind, index):
        phase.append(kind)
        yield
        phase.pop()

    def compile_(model):
        assert phase[-1] == "compile"

        def forward(x):
            seen.setdefault(phase[-1], set()).add((*x.shape, x.is_contiguous()))
            return model(x)

        return forward

    changes = {"batch_size": 48, "accumulation": 2, "tactics": {"progressive_resizing": {"start": 0.5, "ramp_epochs": 2}}}
    recipe = Recipe(**(RECIPE.to_json() | changes))
    plain = fit(net(spots), spots, recipe, epochs=3, seed=3)
    monkeypatch.setattr(torch, "compile", compile_)
    compiled = fit(net(spots), spots, replace(recipe, compile=True), epochs=3, seed=3, phases=phases)
    assert len(spots.train) % 48 > 1
    assert len(seen["epoch"]) >= 4
    assert seen["compile"] == seen["epoch"]
    assert equal(plain.model.state_dict(), compiled.model.state_dict())
    assert equal(plain.checkpoint["weights"], compiled.checkpoint["weights"])
