"""A study whose models have a frozen backbone: features are paid once, priced in every model, and shared by workers and later studies."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulefront.search import Study, run
from joulefront.search.cli.study_source import find_study
from joulefront.search.energy import Ledger, discover
from joulefront.search.execution.probe import Probe, probe
from joulefront.search.records.replicates import read_repeats
from joulefront.search.records.run_folder import Run, RunFolder
from joulefront.search.running.repeat import repeat
from joulefront.search.space import FixedTrial
from joulefront.search.training.feature_cache import FeatureCache
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe

pytestmark = pytest.mark.slow

STUDY = """
import json, os
from pathlib import Path
import numpy as np
import torch
from torch import nn
from joulefront.search.study import Study
from joulefront.search.training.arrays import arrays
from joulefront.search.training.backbone import Transfer
from joulefront.search.training.recipe import Recipe
from joulefront.search.space import Candidate


class Backbone(nn.Module):
    identity, preprocessing = "spectrum 00ff", {}

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(16, 400, generator=torch.Generator().manual_seed(0)) / 4)

    def feature_sets(self):
        return ("mixed",)

    def prepare(self, images):
        return images

    def embed(self, prepared, feature_set):
        if prepared.device.type != "meta":
            with open(os.environ["EMBEDDED"], "a") as file:
                file.write(f"{len(prepared)}\\n")
        mixed = torch.relu(prepared @ self.mix)
        for _ in range(40):
            mixed = torch.relu(mixed @ (self.mix.T @ self.mix) / 100)
        return mixed


class Space:
    name = "spectra"

    def sample(self, trial):
        rate = trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)
        images = trial.suggest_categorical("images", [200, None])
        return Candidate({"family": "spectra", "images": images}, Recipe(learning_rate=rate, batch_size=64, threads=1))

    def build(self, candidate, task):
        return Transfer(Backbone(), "mixed", nn.Linear(400, task.outputs), images=candidate.architecture["images"])

    def key(self, candidate):
        return candidate.key


def task():
    random = np.random.default_rng(0)
    rows = random.normal(size=(1500, 16)).astype("float32")
    return arrays(rows, (rows[:, 0] > 0).astype(int), name="spectra")


def study():
    return Study("spectra", task, Space(), rungs=(1, 2), trials=6, sampler="random")
"""


@pytest.fixture
def spectra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """The study; the images that its backbone has seen are counted in a file."""
    monkeypatch.setenv("EMBEDDED", str(tmp_path / "embedded"))
    monkeypatch.setenv("JOULEFRONT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "spectra.py").write_text(STUDY)
    return lambda **changes: replace(find_study(str(tmp_path / "spectra.py"), {}), **changes)


def ran(study: Study, out: Path, **options: Any) -> tuple[Run, list[str], int]:
    """Run a study; return the run, what it said, and how many inputs went through the backbone."""
    said: list[str] = []
    counter = out.parent / "embedded"
    counter.unlink(missing_ok=True)
    run(study, out=out, listener=lambda progress: said.append(progress.message), **options)
    return RunFolder.open(out).run(), said, sum(map(int, counter.read_text().split()))


def test_features_are_paid_once_and_priced_in_every_model(spectra: Callable[..., Study], tmp_path: Path) -> None:
    _, _, alone = ran(spectra(trials=1, seed=1), tmp_path / "alone")
    (tmp_path / "cache").rename(tmp_path / "other")
    found, said, embedded = ran(spectra(seed=1), tmp_path / "r")
    images = {trial.params["images"] for trial in found.trials}
    assert images == {200, None}
    # What is beyond the first trial's images, and nothing again but one example a trial, by which its operations are counted.
    assert embedded - alone <= 1050 - 200 + len(found.trials)
    bill, total = found.bill.by_state, found.bill.total_joules
    assert bill["features"] > 0
    assert sum(bill.values()) == pytest.approx(total, rel=1e-3)
    for trial in found.trials:
        assert trial.energy.features_joules is not None
        assert trial.train_joules is not None
        assert 0 < trial.energy.features_joules < trial.train_joules
        assert trial.extra["train_examples"] == (trial.params["images"] or 1050)
    whole, few = (next(trial for trial in reversed(found.trials) if trial.params["images"] == number) for number in (None, 200))
    ratio = (whole.energy.features_joules or 0.0) / (few.energy.features_joules or 1.0)
    assert ratio == pytest.approx(1050 / 200, rel=0.5)  # the price of an image, by their number
    paid = sum(trial.increment_joules or 0.0 for trial in found.trials)
    assert bill["features"] + bill["complete"] == pytest.approx(paid, rel=1e-3)
    trials = [line for line in said if line.startswith("trial ")]
    assert "images computed" in trials[0]
    assert sum("features from the cache: nothing paid for them" in line for line in trials) >= 4


def test_a_second_study_on_the_same_data_pays_no_features_and_says_so(spectra: Callable[..., Study], tmp_path: Path) -> None:
    first, told, _ = ran(spectra(), tmp_path / "first")
    assert any(line.startswith("features of frozen networks: ") and line.endswith("paid once for 6 trials") for line in told)
    second, said, _ = ran(spectra(seed=5), tmp_path / "second")
    assert "features" not in second.bill.by_state
    assert "features of frozen networks: all from the cache, nothing paid for 6 trials" in said
    trials = [line for line in said if line.startswith("trial ")]
    assert all(line.endswith("features from the cache: nothing paid for them") for line in trials)
    prices = [trial.energy.features_joules for trial in (*first.trials, *second.trials) if trial.params["images"] is None]
    assert prices[-1] == pytest.approx(prices[0], rel=1e-6)


def test_a_finalist_that_is_trained_again_has_the_price_of_its_features(spectra: Callable[..., Study], tmp_path: Path) -> None:
    found, _, before = ran(spectra(), tmp_path / "r")
    repeat(spectra(), tmp_path / "r", times=1, pick="knee", listener=lambda line: None)
    repeats = read_repeats(tmp_path / "r")
    (again,) = repeats.trainings
    member = found.trials[again.trial]
    assert again.failed is None
    # The price of an image is that of the longest pass: trials after that one state the price that counts by then.
    alike = [trial for trial in found.trials if trial.params["images"] == member.params["images"]]
    assert (again.train_joules or 0.0) > (alike[-1].energy.features_joules or 0.0) > 0
    assert sum(map(int, (tmp_path / "embedded").read_text().split())) - before < 1050  # a warm-up, and nothing again


def test_workers_share_the_features(spectra: Callable[..., Study], tmp_path: Path) -> None:
    found, said, _ = ran(spectra(), tmp_path / "r", workers=2)
    assert {trial.state for trial in found.trials} == {"complete"}
    assert sum(found.bill.by_state.values()) == pytest.approx(found.bill.total_joules, rel=1e-3)
    assert sum("from the cache" in line for line in said) >= 2
    assert all(0 < (trial.energy.features_joules or 0.0) < (trial.train_joules or 0.0) for trial in found.trials)


def test_an_estimate_knows_what_is_shared_and_what_is_kept(spectra: Callable[..., Study]) -> None:
    study = spectra()
    task, cache = study.load_task(), FeatureCache.of_user()

    def probes() -> list[Probe]:
        found = discover("cpu_time")
        how: dict[str, Any] = {"device": "cpu", "threads": 1, "seed": 0, "seconds": 0.0, "features": cache}
        with Ledger(found.sources, absent=found.absent) as ledger:
            return [probe({"learning_rate": 0.01, "images": number}, study.space, task, ledger, **how) for number in (200, None)]

    few, whole = (one.shared for one in probes())
    assert few is not None
    assert whole is not None
    assert (few.name, few.kept, few.share, whole.share) == (whole.name, 0.0, 200 / 1050, 1.0)
    assert whole.joules
    assert whole.beside_joules > 0
    model = study.space.build(study.space.sample(FixedTrial({"learning_rate": 0.01, "images": 200})), task)
    fit(model, task, Recipe(batch_size=64, threads=1), epochs=1, features=cache)
    assert {one.shared.kept for one in probes() if one.shared} == {200 / 1050}
