"""Heads that are solved at once are what scikit-learn and slow loops find, and are trained, kept and continued as other heads are."""

import numpy as np
import pytest
import torch
from helpers.backbone import Bands
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge

from joulefront.search.training import heads as module
from joulefront.search.training.backbone import Transfer
from joulefront.search.training.feature_cache import FeatureCache
from joulefront.search.training.fit import fit
from joulefront.search.training.heads import SCALES, Logistic, Neighbours, Ridge, SolvedHead
from joulefront.search.training.recipe import Recipe


def drawn(count: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of three classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    centres = torch.randn(3, width, generator=torch.Generator().manual_seed(9))
    return 0.7 * centres[targets] + torch.randn(count, width, generator=generator), targets


def batches(inputs: torch.Tensor, targets: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(inputs.split(7), targets.split(7), strict=True))


@pytest.mark.parametrize(("count", "width"), [(60, 8), (20, 40), (30, 30)])
def test_a_ridge_is_that_of_scikit_learn_with_more_or_fewer_examples_than_features(count: int, width: int) -> None:
    inputs, targets = drawn(count, width)
    values = inputs @ torch.ones(width) + 3.0
    ridge = Ridge(width, 1, 0.3)
    ridge.solve(batches(inputs, values))
    slow = SklearnRidge(alpha=0.3 * width).fit(inputs.double().numpy(), values.double().numpy())
    assert ridge.linear.weight[0].detach().numpy() == pytest.approx(slow.coef_, abs=1e-3)
    assert float(ridge.linear.bias.detach()) == pytest.approx(float(slow.intercept_), abs=1e-3)
    one_hot = np.eye(3)[targets.numpy()]
    classes = Ridge(width, 3, 0.3)
    classes.solve(batches(inputs, targets))
    scores = SklearnRidge(alpha=0.3 * width).fit(inputs.double().numpy(), one_hot).predict(inputs.double().numpy())
    scale = float((classes(inputs).detach() / torch.from_numpy(scores).float()).median())
    assert classes(inputs).detach().numpy() == pytest.approx(scale * scores, abs=1e-2 * scale)


@pytest.mark.parametrize(("count", "width"), [(60, 8), (20, 40)])
def test_its_logits_are_scaled_by_what_examples_get_that_were_left_out(count: int, width: int) -> None:
    inputs, targets = drawn(count, width)
    ridge = Ridge(width, 3, 0.3)
    ridge.solve(batches(inputs, targets))
    left_out = []
    for k in range(count):
        rest = [i for i in range(count) if i != k]
        slow = SklearnRidge(alpha=0.3 * width).fit(inputs[rest].double().numpy(), np.eye(3)[targets[rest].numpy()])
        left_out.append(slow.predict(inputs[k : k + 1].double().numpy())[0])
    scores = torch.from_numpy(np.stack(left_out))
    losses = [float(torch.nn.functional.cross_entropy(float(scale) * scores, targets)) for scale in SCALES]
    best = int(np.argmin(losses))
    scale = float((ridge(inputs).detach() / _plain(ridge, inputs, targets)).median())
    assert float(SCALES[max(0, best - 1)]) * 0.99 <= scale <= float(SCALES[min(len(SCALES) - 1, best + 1)]) * 1.01


def _plain(ridge: Ridge, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    alpha = ridge.penalty * inputs.shape[1]
    slow = SklearnRidge(alpha=alpha).fit(inputs.double().numpy(), np.eye(3)[targets.numpy()])
    return torch.from_numpy(slow.predict(inputs.double().numpy())).float()


def test_logistic_regression_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 200)
    inputs, targets = drawn(90, 6)
    head = Logistic(6, 3, 0.05)
    loss = head.solve(batches(inputs, targets))
    slow = LogisticRegression(C=1.0 / (0.05 * 90), tol=1e-8, max_iter=1000).fit(inputs.numpy(), targets.numpy())
    assert head(inputs).softmax(1).detach().numpy() == pytest.approx(slow.predict_proba(inputs.numpy()), abs=2e-3)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(head(inputs), targets).item(), rel=1e-5)
    assert all(parameter.grad is None for parameter in head.parameters())


def test_neighbours_are_those_of_a_slow_loop() -> None:
    inputs, targets = drawn(40, 5)
    others, _ = drawn(9, 5, seed=1)
    head = Neighbours(5, 3, 4)
    head.solve(batches(inputs, targets))
    for row, logits in zip(others, head(others), strict=True):
        alike = torch.nn.functional.cosine_similarity(row[None], inputs)
        votes = torch.zeros(3)
        for index in alike.argsort(descending=True)[:4]:
            votes[targets[index]] += torch.exp(alike[index] / 0.07)
        assert (logits.exp() - 1e-3).numpy() == pytest.approx((votes / votes.sum()).numpy(), abs=1e-4)
    with pytest.raises(ValueError, match="needs classes, got values"):
        Neighbours(5, 1, 4).solve(batches(inputs, targets.float()))


def heads(outputs: int) -> list[SolvedHead]:
    return [Ridge(16, outputs, 1.0), Logistic(16, outputs, 0.01), Neighbours(16, outputs, 5)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(3))
def test_a_solved_head_is_trained_in_one_epoch_and_the_whole_network_says_the_same(spots, tmp_path, kind: int) -> None:  # type: ignore[no-untyped-def]
    cache = FeatureCache(tmp_path)
    seen = []
    model = Transfer(Bands(), "both", heads(spots.outputs)[kind])
    fitted = fit(model, spots, Recipe(threads=1), epochs=9, features=cache, should_continue=lambda point: bool(seen.append(point)))
    assert (fitted.epochs, fitted.stopped, fitted.checkpoint) == (1, "solved: more epochs change nothing", None)
    assert [point.epoch for point in seen] == [1]
    assert fitted.quality["accuracy"] > 0.9
    assert fitted.quality["loss"] < 0.6, "its logits are probabilities that mean something"
    again = fit(Transfer(Bands(), "both", heads(spots.outputs)[kind]), spots, Recipe(threads=1), epochs=1, features=cache)
    assert again.stopped == fitted.stopped
    assert again.quality == fitted.quality
    fresh = Transfer(Bands(), "both", heads(spots.outputs)[kind])
    fresh.load_own_state(fitted.model.own_state())
    inputs, targets = next(spots.validation.batches(71))
    assert torch.equal(fresh.eval()(inputs), fitted.model(inputs))
    found = float((fitted.model(inputs).argmax(1) == targets).float().mean())
    assert found == pytest.approx(fitted.quality["accuracy"], abs=1e-6)
    exported = torch.export.export(fitted.model, (inputs[:2],)).module()
    assert torch.allclose(exported(inputs[:2]), fitted.model(inputs[:2]), atol=1e-5)


def test_neighbours_are_counted_as_many_as_there_will_be_and_their_loss_needs_no_square_of_them() -> None:
    head = Neighbours(16, 3, 5, images=900)
    assert head.keys.shape == (900, 16)
    seen: list[int] = []
    head.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    head.solve(batches(*drawn(900, 16)))
    assert seen == [module.SCALED_BY]


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_classes_and_values_of_any_width_are_taken(dtype: torch.dtype) -> None:
    inputs, targets = drawn(30, 4)
    for head in (Ridge(4, 3, 1.0), Logistic(4, 3, 0.1), Neighbours(4, 3, 2)):
        assert np.isfinite(head.solve([(inputs.half(), targets.to(dtype))]))
    assert np.isfinite(Ridge(4, 1, 1.0).solve([(inputs, inputs.sum(1).double())]))
