import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from joulefront.search import Study
from joulefront.search.execution import job as trainer
from joulefront.search.execution.job import Job, Outcome, _finite, reason_of, seed_of, train
from joulefront.search.space import FixedTrial
from joulefront.search.training.checkpoint import load_checkpoint, load_weights
from joulefront.search.training.recipe import KERNEL_FOLDERS
from joulefront.search.training.results import TrainingFailed

PARAMS = {"width": 8, "learning_rate": 0.03}


class Notes:
    """Phases that remember their order."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.open = 0

    @contextmanager
    def __call__(self, kind: str, index: int) -> Iterator[None]:
        self.kinds.append(kind)
        self.open += 1
        assert self.open == 1, "phases of a training do not nest"
        try:
            yield
        finally:
            self.open -= 1


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(0, PARAMS, 2, seed=7, device="cpu", threads=1, start=None, weights=tmp_path / "w")


def go(
    study: Study, job: Job, *, notes: Notes | None = None, should_continue: Callable[[Mapping[str, Any]], bool] = lambda _: True
) -> Outcome:
    notes = notes or Notes()
    outcome = train(job, study.space, study.load_task(), phases=notes, should_continue=should_continue)
    assert notes.open == 0
    return outcome


@pytest.mark.slow
def test_what_is_compiled_finds_the_kernels_of_its_like_alone(
    rings: Callable[..., Study], job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[tuple[str | None, ...]] = []

    def noted(*args: Any, **options: Any) -> None:
        places.append(tuple(map(os.environ.get, KERNEL_FOLDERS)))
        raise TrainingFailed("enough")

    monkeypatch.setattr("joulefront.search.training.fit.fit", noted)
    monkeypatch.setenv(KERNEL_FOLDERS[0], str(tmp_path))
    monkeypatch.delenv(KERNEL_FOLDERS[1], raising=False)
    plain = rings().space
    trained = ((8, 0.03, True, 64), (8, 0.3, True, 64), (9, 0.03, True, 64), (8, 0.03, True, 32), (8, 0.03, False, 64))
    for width, rate, compiled, size in trained:
        recipe = replace(plain.sample(FixedTrial(PARAMS)).recipe, compile=compiled, batch_size=size)
        sample = lambda draw, recipe=recipe: replace(plain.sample(draw), recipe=recipe)  # noqa: E731
        space = cast(Any, SimpleNamespace(sample=sample, build=plain.build))
        one = replace(job, params={"width": width, "learning_rate": rate})
        assert train(one, space, rings().load_task(), phases=Notes(), should_continue=lambda _: True).failed == "enough"
    first, like, wider, smaller, eager = places
    assert first == like
    assert len({first, wider, smaller, eager}) == 4
    assert eager == (str(tmp_path), None) == tuple(map(os.environ.get, KERNEL_FOLDERS))
    assert {str(Path(str(one)).parent) for one, _ in (first, wider, smaller)} == {str(tmp_path)}


@pytest.mark.slow
def test_a_training_reaches_its_epochs_and_leaves_its_weights(rings: Callable[..., Study], job: Job) -> None:
    notes, study = Notes(), rings()
    outcome = go(study, job, notes=notes)
    assert (outcome.epochs, outcome.failed, outcome.stopped) == (2, None, None)
    assert notes.kinds[:2] == ["setup", "overhead"]
    assert notes.kinds.count("epoch") == 2
    assert notes.kinds[-1] in ("eval", "overhead")
    assert [entry["epoch"] for entry in outcome.curve] == [1, 2]
    assert outcome.curve[-1]["accuracy"] == outcome.quality["accuracy"]  # validated after the last epoch was reported
    assert outcome.parameters == 2 * 8 + 8 + 8 * 2 + 2
    assert outcome.flops is not None
    assert outcome.threads == 1
    assert 0.0 <= outcome.quality["accuracy"] <= 1.0
    assert job.weights.exists()


def test_equal_seeds_give_equal_models_and_others_do_not(rings: Callable[..., Study], job: Job, tmp_path: Path) -> None:
    study = rings()
    one, two = go(study, job), go(study, replace(job, weights=tmp_path / "again"))
    other = go(study, replace(job, seed=8, weights=tmp_path / "other"))
    assert one.curve == two.curve
    assert one.curve != other.curve


def test_a_continued_training_is_the_one_that_was_not_interrupted(rings: Callable[..., Study], job: Job, tmp_path: Path) -> None:
    study = rings()
    go(study, job)
    on = go(study, replace(job, epochs=4, start=job.weights, weights=tmp_path / "on"))
    straight = go(study, replace(job, epochs=4, weights=tmp_path / "straight"))
    assert on.epochs == straight.epochs == 4
    assert on.quality == straight.quality
    assert [entry["epoch"] for entry in on.curve] == [3, 4]
    task = study.load_task()
    from joulefront.search.space import FixedTrial

    models = [
        load_weights(tmp_path / name, study.space.build(study.space.sample(FixedTrial(PARAMS)), task)).state_dict()
        for name in ("on", "straight")
    ]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_a_training_says_whether_it_went_on_from_a_checkpoint(rings: Callable[..., Study], job: Job, tmp_path: Path) -> None:
    study = rings()
    assert not go(study, job).resumed
    assert go(study, replace(job, epochs=3, start=job.weights, weights=tmp_path / "on", checkpoint_below=3)).resumed
    assert load_checkpoint(tmp_path / "on", torch.nn.Identity()) is None
    again = go(study, replace(job, epochs=4, start=tmp_path / "on", weights=tmp_path / "again", checkpoint_below=5))
    assert not again.resumed
    assert [entry["epoch"] for entry in again.curve] == [1, 2, 3, 4]
    assert load_checkpoint(tmp_path / "again", torch.nn.Identity()) is not None


def test_ctrl_c_is_not_the_fault_of_the_candidate(rings: Callable[..., Study], job: Job) -> None:
    def ctrl_c(entry: Mapping[str, Any]) -> bool:
        raise KeyboardInterrupt

    outcome = go(rings(), job, should_continue=ctrl_c)
    assert (outcome.epochs, outcome.failed, outcome.excused) == (1, "interrupted by the user", True)
    assert not go(rings("raises"), job).excused


def test_asked_to_stop_it_is_a_measured_point(rings: Callable[..., Study], job: Job) -> None:
    outcome = go(rings(), replace(job, epochs=9), should_continue=lambda entry: entry["epoch"] < 3)
    assert outcome.epochs == 3
    assert outcome.failed is None
    assert outcome.stopped
    assert "accuracy" in outcome.quality
    assert job.weights.exists()


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("nan", "nan"), ("raises", "RuntimeError: my layer is broken"), ("hungry", "out of memory"), ("exits", "SystemExit: 3")],
)
def test_what_fails_is_an_outcome_and_leaves_no_weights(rings: Callable[..., Study], job: Job, mode: str, reason: str) -> None:
    outcome = go(rings(mode), job)
    assert reason in str(outcome.failed)
    assert "\n" not in str(outcome.failed)
    assert outcome.quality == {}
    assert not job.weights.exists()


@pytest.mark.parametrize("patience", [True, False])
def test_a_training_gets_the_quality_of_the_study_and_patience_where_it_may_end(
    rings: Callable[..., Study], job: Job, monkeypatch: pytest.MonkeyPatch, *, patience: bool
) -> None:
    study, asked = rings(), list[tuple[str, int | None]]()
    impatient = replace(study, space=replace(study.space, recipe=replace(study.space.recipe, patience=7)))  # type: ignore
    monkeypatch.setattr(
        "joulefront.search.training.fit.fit", lambda model, task, recipe, **how: asked.append((how["metric"], recipe.patience)) or 1 / 0
    )
    go(impatient, replace(job, metric="error", patience=patience))
    assert asked == [("error", 7 if patience else None)]


def test_inference_has_a_phase_of_its_own_after_the_training(
    rings: Callable[..., Study], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "INFERENCE_SECONDS", 0.02)
    notes, study = Notes(), rings()
    outcome = go(study, replace(job, measure_inference=True), notes=notes)
    examples = len(study.load_task().validation)
    assert notes.kinds[-1] == "inference"
    assert outcome.predictions >= examples
    assert outcome.predictions % examples == 0
    assert go(study, job).predictions == 0


def test_a_candidate_has_one_seed_on_all_its_rungs() -> None:
    assert seed_of(0, "a") == seed_of(0, "a")
    assert len({seed_of(study, key) for study in range(20) for key in "abcdefgh"}) == 160


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), "out of memory: CUDA"),
        (ValueError("bad\nshape"), "ValueError: bad shape"),
        (KeyError("width"), "KeyError: 'width'"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_reasons_are_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error).startswith(reason)
    assert not reason_of(error).endswith(": ")
    assert "\n" not in reason_of(error)
    assert len(reason_of(type(error)("x" * 5000))) <= 320


@pytest.mark.parametrize(("given", "kept"), [(float("nan"), None), (float("-inf"), None), (1e150, None), (1e-150, 0.0), (-0.25, -0.25)])
def test_a_number_that_no_file_holds_is_unknown(given: float, kept: float | None) -> None:
    assert _finite(given) == kept


def test_weights_that_cannot_be_written_end_the_study_and_are_no_failure_of_the_model(
    rings: Callable[..., Study], job: Job, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    outcome = go(rings(), replace(job, weights=tmp_path / "file" / "w"))
    assert outcome.ends_study
    assert outcome.excused
    assert (
        outcome.failed == f"cannot write '{tmp_path}/file/w': not a directory; see that it can be written, then run the same command again"
    )
