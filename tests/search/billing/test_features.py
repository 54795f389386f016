"""What features cost: paid once by the study, priced in every model, with a ledger that was computed by hand."""

from dataclasses import replace
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from joulefront.search.billing.account import Account
from joulefront.search.billing.trial_energy import price_of_features, price_of_inputs, trial_energy
from joulefront.search.carbon.intensity import Intensity
from joulefront.search.energy import Capability, Component, Ledger, Reading, Record
from joulefront.search.records.bill import SessionBill
from joulefront.search.records.trial import Trial, TrialEnergy
from joulefront.search.samplers.frozen_features import features_paid
from joulefront.search.space import Candidate, FrozenPart
from joulefront.search.training.feature_cache import FORMAT, FeatureCache, Price
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.results import PASS, SAMPLE, WAY, FeaturesUsed


def record(
    kind: str, joules: float | None, *, seconds: float = 1.0, quality: str = "measured", begin: int = 0, index: int = PASS
) -> Record:
    part = Component(
        "cpu",
        joules,
        "rapl",
        "absent" if joules is None else quality,
        u_random_joules=None if joules is None else 0.1 * joules,  # type: ignore[arg-type]
    )
    return Record(
        kind,
        f"{kind} {index}",
        None,
        kind,
        "ok",
        "2026-01-01",
        begin,
        begin + int(seconds * 1e9),
        seconds,
        (part,),
        "abc",
        cpu_seconds=seconds,
    )


HEAD = (record("setup", 1.0), record("epoch", 2.0), record("eval", 0.5), record("epoch", 2.0), record("eval", 0.5))
WHOLE = record("trial", 106.0, seconds=60.0)


@pytest.fixture
def cache(tmp_path: Any) -> FeatureCache:
    """A cache with an entry whose features nobody looks at."""
    kept = FeatureCache(tmp_path, place="here")
    (tmp_path / "key").mkdir()
    kept._write_facts("key", {"rows": 800, "format": FORMAT})
    return kept


def priced(used: FeaturesUsed, phases: tuple[Record, ...], cache: FeatureCache | None, whole: Record = WHOLE, **more: Any) -> Any:
    return trial_energy(
        whole, phases, parent=None, predictions=0, intensity=None, shared=price_of_features(used, phases, cache, whole), **more
    )


def test_the_first_model_pays_all_images_and_costs_its_own(cache: FeatureCache) -> None:
    # 1,000 images for 100 J, of which 800 are for training and 200 for validation: 0.1 J an image
    found = priced(FeaturesUsed("key", 800, 1000), (record("features", 100.0, seconds=50.0), *HEAD), cache)
    assert found.features_joules == pytest.approx(80.0)
    assert found.train_joules == pytest.approx(80.0 + 1.0 + 2.0 + 2.0)
    assert found.increment_joules == 106.0
    assert found.evaluation_joules == 1.0
    assert found.components["cpu"].joules == pytest.approx(85.0)
    assert found.train_seconds == pytest.approx(40.0 + 3.0)
    assert found.cpu_seconds == pytest.approx(43.0)
    assert found.train_u_joules == pytest.approx((8.0**2 + 0.1**2 + 0.2**2 + 0.2**2) ** 0.5)


def test_the_second_model_costs_the_same_and_pays_its_head_alone(cache: FeatureCache) -> None:
    priced(FeaturesUsed("key", 800, 1000), (record("features", 100.0), *HEAD), cache)
    found = priced(FeaturesUsed("key", 800, 0), HEAD, cache, record("trial", 6.0))
    assert found.train_joules == pytest.approx(85.0)
    assert found.increment_joules == 6.0
    few = priced(FeaturesUsed("key", 50, 0), HEAD, cache, record("trial", 6.0))
    assert few.train_joules == pytest.approx(5.0 + 5.0)  # its own number of images


def test_the_price_is_the_one_of_most_images_and_each_place_has_its_own(cache: FeatureCache) -> None:
    priced(FeaturesUsed("key", 50, 100), (record("features", 30.0), *HEAD), cache)  # a small pass: 0.3 J an image
    priced(FeaturesUsed("key", 800, 900), (record("features", 90.0), *HEAD), cache)
    assert priced(FeaturesUsed("key", 100, 0), HEAD, cache).features_joules == pytest.approx(10.0)
    there = replace(cache, place="another machine")
    sample = (record("features", 50.0), *HEAD)  # measured on 100 images
    assert priced(FeaturesUsed("key", 800, 100), sample, there).features_joules == pytest.approx(400.0)
    assert priced(FeaturesUsed("key", 800, 0), HEAD, cache).features_joules == pytest.approx(80.0)


def test_finding_a_faster_way_is_paid_once_and_few_images_are_cheaper_without_it(cache: FeatureCache) -> None:
    # 20 J to find and convert, then 0.1 J an image in place of 0.3 J the plain way
    phases = (record("features", 20.0, index=WAY), record("features", 100.0), *HEAD)
    assert priced(FeaturesUsed("key", 800, 1000, slower=3.0), phases, cache).features_joules == pytest.approx(20.0 + 80.0)
    again = (record("features", 0.1, index=WAY), record("features", 10.0), *HEAD)  # found before in this process: still its price
    assert priced(FeaturesUsed("key", 800, 100, slower=3.0), again, cache).features_joules == pytest.approx(100.0)
    assert priced(FeaturesUsed("key", 50, 0), HEAD, cache).features_joules == pytest.approx(50 * 0.3)  # 15 J instead of 25 J
    assert priced(FeaturesUsed("key", 200, 0), HEAD, cache).features_joules == pytest.approx(20.0 + 20.0)


def test_a_part_with_an_earlier_cut_has_the_price_of_a_sample_of_its_own(cache: FeatureCache) -> None:
    priced(FeaturesUsed("key", 800, 1000), (record("features", 100.0), *HEAD), cache)
    sample = (record("features", 15.0, index=SAMPLE), *HEAD)  # 0.06 J an image
    assert priced(FeaturesUsed("key", 800, 250, part="early", sampled=250), sample, cache).features_joules == pytest.approx(48.0)
    assert priced(FeaturesUsed("key", 100, 0, part="early"), HEAD, cache).features_joules == pytest.approx(6.0)
    assert priced(FeaturesUsed("key", 800, 0), HEAD, cache).features_joules == pytest.approx(80.0)
    both = (record("features", 40.0), record("features", 15.0, index=SAMPLE), *HEAD)  # the whole was missing as well
    anew = replace(cache, place="there")
    assert priced(FeaturesUsed("key", 100, 650, part="early", sampled=250), both, anew).features_joules == pytest.approx(6.0)
    assert priced(FeaturesUsed("key", 100, 0), HEAD, anew).features_joules == pytest.approx(10.0)


def test_a_price_that_nobody_measured_makes_the_energy_unknown(cache: FeatureCache) -> None:
    assert priced(FeaturesUsed("key", 800, 0), HEAD, cache).train_joules is None
    lost = priced(FeaturesUsed("key", 800, 1000), (record("features", None), *HEAD), cache)
    assert lost.train_joules is None
    assert cache.price("key") is None


def test_a_damaged_price_is_unknown_and_not_free(cache: FeatureCache) -> None:
    cache.keep_price("key", Price(1000, record("features", 100.0)))
    facts = cache.folder / "key" / "facts.json"
    facts.write_text(facts.read_text().replace('"joules": 100.0', '"joules": "many"'))
    assert cache.price("key") is None
    assert priced(FeaturesUsed("key", 800, 0), HEAD, cache).train_joules is None


def test_without_a_cache_a_training_prices_itself() -> None:
    found = priced(FeaturesUsed(None, 300, 400), (record("features", 40.0), *HEAD), None)
    assert found.features_joules == pytest.approx(30.0)
    assert priced(FeaturesUsed(None, 300, 400), HEAD, None).train_joules is None


def test_a_continued_model_has_its_features_in_its_lineage_once(cache: FeatureCache) -> None:
    first = priced(FeaturesUsed("key", 800, 1000), (record("features", 100.0), *HEAD), cache)
    parent = Trial(0, "complete", {}, 2, energy=first)
    phases = (record("features", 100.0), record("setup", 1.0), record("epoch", 2.0))  # computed again: the cache was cleared
    shared = price_of_features(FeaturesUsed("key", 800, 1000), phases, cache, WHOLE)
    found = trial_energy(WHOLE, phases, parent=parent, predictions=0, intensity=None, shared=shared)
    assert found.train_joules == pytest.approx(85.0 + 2.0)
    assert found.features_joules == pytest.approx(80.0)


def test_grams_take_the_hour_of_the_model_and_not_that_of_the_first_pass(cache: FeatureCache) -> None:
    priced(FeaturesUsed("key", 800, 1000), (record("features", 100.0, begin=5), *HEAD), cache)
    late = replace(WHOLE, t0_ns=10**12, t1_ns=10**12 + 10**9)
    asked = []

    def intensity(one: Record) -> Intensity:
        asked.append(one.t0_ns)
        return Intensity(1000.0, "test")

    found = trial_energy(
        late,
        HEAD,
        parent=None,
        predictions=0,
        intensity=intensity,
        shared=price_of_features(FeaturesUsed("key", 800, 0), HEAD, cache, late),
    )
    assert asked[0] == 10**12
    assert found.grams_co2e == pytest.approx(85.0 / 3600)


def test_a_model_without_features_costs_what_it_did(cache: FeatureCache) -> None:
    assert price_of_features(None, HEAD, cache, WHOLE) == ()
    found = trial_energy(WHOLE, HEAD, parent=None, predictions=0, intensity=None)
    assert (found.train_joules, found.features_joules) == (5.0, None)


class Scripted:
    """A counter of joules that the test turns, beside a clock that it turns."""

    name = "scripted"

    def __init__(self) -> None:
        self.joules, self.now_ns = 0.0, 10**12

    def probe(self) -> tuple[Capability, ...]:
        return (Capability("cpu", self.name, True, tick_seconds=1e-6, gain_u=0.0),)

    def read(self) -> tuple[Reading, ...]:
        return (Reading("cpu", self.now_ns, 0, counter_joules=self.joules),)

    def close(self) -> None:
        """Nothing is held."""

    def take(self, joules: float) -> None:
        """Let a second pass in which the machine takes so much."""
        self.now_ns += 10**9
        self.joules += joules


class Heads:
    """Heads on one set of features, from all images or a quarter of them."""

    name = "heads"

    def sample(self, trial: Any) -> Candidate:
        return Candidate({"halved": trial.suggest_categorical("halved", [0, 2])}, Recipe())

    def frozen(self, candidate: Candidate) -> FrozenPart:
        return FrozenPart("96 px", 0.5 ** candidate.architecture["halved"])


@pytest.mark.slow
def test_a_hundred_heads_on_one_cache_by_hand(cache: FeatureCache, tmp_path: Any) -> None:
    # 1,000 images at 0.4 J: 400 J for all features, 800 of the images for training (320 J, a quarter of them 80 J); a head takes
    # 1 J to set up, 2 J of training and 0.5 J of validation; 0.25 J between two trials.
    meters = Scripted()
    trials: list[TrialEnergy] = []
    marginal = []
    with Ledger([meters], interval_seconds=None, clock=lambda: meters.now_ns) as ledger:
        account = Account(ledger, SessionBill("now"), [], None, tmp_path / "bill.json")
        for number in range(100):
            done = [finished(k, energy) for k, energy in enumerate(trials[-3:])]
            paid = features_paid(Heads(), done, share=0.25)  # type: ignore[arg-type]
            marginal.append(None if paid is None else (323.0 - paid({"halved": 0}), 83.0 - paid({"halved": 2})))
            meter = account.open(number, None)
            phases = [*([("features", 400.0)] if number == 0 else []), ("setup", 1.0), ("epoch", 2.0), ("eval", 0.5)]
            for kind, joules in phases:
                with meter.phase(kind, 0):
                    meters.take(joules)
            whole = account.close(meter, state="ok", cpu_seconds=None)
            used = FeaturesUsed("key", 200 if number % 2 else 800, 0 if number else 1000)
            shared = price_of_features(used, meter.phases, cache, whole)
            trials.append(trial_energy(whole, meter.phases, parent=None, predictions=0, intensity=None, shared=shared))
            meters.take(0.25)
        account.save()
    assert [one.train_joules for one in trials[:4]] == pytest.approx([323.0, 83.0, 323.0, 83.0])
    assert [one.train_joules for one in trials[::2]] == pytest.approx([323.0] * 50), "who comes first is no dearer"
    assert [one.features_joules for one in trials[1::2]] == pytest.approx([80.0] * 50)
    assert [one.increment_joules for one in trials[:3]] == pytest.approx([403.5, 3.5, 3.5])
    assert marginal[0] is None, "nothing is known before the first trial"
    assert marginal[1] == pytest.approx((3.0, 3.0), rel=1e-4), "a further head costs itself alone, from all images or some"
    bill = account.session.by_state
    assert bill["features"] == pytest.approx(400.0)
    assert bill["complete"] == pytest.approx(100 * 3.5)
    assert sum(joules for name, joules in bill.items() if name not in ("features", "complete")) == pytest.approx(25.0, abs=1e-3)
    assert account.session.total is not None
    assert sum(bill.values()) == pytest.approx(account.session.total.joules)
    assert sum(one.increment_joules or 0.0 for one in trials) <= 1.5 * (400.0 + 100 * 3.0), "a hundred heads for little more than one"
    assert sum(one.train_joules or 0.0 for one in trials) == pytest.approx(50 * 323.0 + 50 * 83.0), "what they cost one by one"


def test_texts_in_a_tables_inputs_cost_every_model_what_those_of_its_training_rows_take() -> None:
    meters = Scripted()

    class Texts:
        times = 2.5

        def compute(self) -> None:
            meters.take(4.0)

    with Ledger([meters], interval_seconds=None, clock=lambda: meters.now_ns) as ledger:
        shared = price_of_inputs(Texts(), ledger)  # type: ignore[arg-type]
        assert price_of_inputs(None, ledger) == ()
    found = trial_energy(WHOLE, HEAD, parent=None, predictions=0, intensity=None, shared=shared)
    assert found.features_joules == pytest.approx(10.0)
    assert found.train_joules == pytest.approx(15.0)


def finished(number: int, energy: TrialEnergy) -> Any:
    """A trial of the sampler with this energy; those of even numbers had all images."""
    halved = 0 if (energy.features_joules or 0.0) > 100 else 2
    return create_trial(
        values=[0.5, energy.train_joules or 0.0],
        params={"halved": halved},
        distributions={"halved": CategoricalDistribution([0, 2])},
        user_attrs={"joulefront": {"features_joules": energy.features_joules}},
    )
