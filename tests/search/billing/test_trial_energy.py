import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.trials import changed, make_trial

from joulefront.search.billing.trial_energy import trial_energy, with_energies
from joulefront.search.carbon.intensity import Intensity
from joulefront.search.energy import Component, Record
from joulefront.search.records.trial import ComponentEnergy, Trial, TrialEnergy


def record(
    kind: str, joules: float | None, *, quality: str = "measured", seconds: float = 1.0, u: float | None = 0.1, **parts: Any
) -> Record:
    """A window with the given energy on ``cpu``, or on the components named."""
    energies = parts or {"cpu": joules}
    components = tuple(
        Component(
            name.replace("_", ":"),
            value,
            "rapl",
            "absent" if value is None else quality,
            u_random_joules=u,
            u_systematic_joules=1.0,  # type: ignore[arg-type]
        )
        for name, value in energies.items()
    )
    return Record(kind, kind, None, kind, "ok", "", 0, int(seconds * 1e9), seconds, components, "abc")


def facts(
    whole: Record, *phases: Record, parent: Trial | None = None, predictions: int = 0, intensity: Intensity | None = None, pue: float = 1.0
) -> TrialEnergy:
    return trial_energy(whole, phases, parent=parent, predictions=predictions, intensity=intensity, pue=pue)


PHASES = (record("setup", 2.0), record("epoch", 10.0), record("eval", 3.0), record("epoch", 11.0), record("eval", 4.0))
PARENT = make_trial(
    0,
    "complete",
    {},
    2,
    (0.9, 23.0),
    train_joules=23.0,
    train_u_joules=0.3,
    train_seconds=3.0,
    increment_joules=35.0,
    components={"cpu": ComponentEnergy(23.0, "measured", "rapl")},
    energy_quality="measured",
)


def test_training_is_the_start_and_the_epochs_and_the_search_pays_for_the_rest() -> None:
    found = facts(record("trial", 35.0), *PHASES)
    assert found.train_joules == 23.0
    assert found.evaluation_joules == 7.0
    assert found.increment_joules == 35.0
    assert found.train_seconds == 3.0
    assert found.components == {"cpu": ComponentEnergy(23.0, "measured", "rapl")}
    assert found.quality == "measured"
    assert found.record["joules"] == 35.0


def test_a_continued_training_costs_its_whole_lineage_and_one_start() -> None:
    found = facts(record("trial", 20.0), record("setup", 2.0), record("epoch", 12.0), record("eval", 3.0), parent=PARENT)
    assert found.train_joules == 23.0 + 12.0
    assert found.increment_joules == 20.0
    assert found.components["cpu"].joules == 35.0
    assert found.train_seconds == 4.0
    assert found.train_u_joules == pytest.approx((0.3**2 + 0.1**2) ** 0.5)


def test_one_unknown_epoch_makes_the_training_unknown() -> None:
    found = facts(record("trial", 35.0), record("setup", 2.0), record("epoch", None), record("epoch", 5.0))
    assert found.train_joules is None
    assert found.grams_co2e is None
    assert found.quality == "absent"
    assert found.components["cpu"].joules is None


def test_an_unknown_parent_makes_the_lineage_unknown() -> None:

    found = facts(record("trial", 9.0), record("epoch", 5.0), parent=changed(PARENT, train_joules=None))
    assert found.train_joules is None


def test_a_training_without_an_epoch_has_no_energy_rather_than_none_at_all() -> None:
    found = facts(record("trial", 9.0))
    assert found.train_joules is None
    assert found.quality == "absent"
    assert found.increment_joules == 9.0
    assert found.evaluation_joules is None


@pytest.mark.parametrize(("first", "second", "worst"), [("measured", "estimated", "mixed"), ("estimated", "estimated", "estimated")])
def test_the_quality_of_a_sum_is_that_of_its_worst_part(first: str, second: str, worst: str) -> None:
    found = facts(record("trial", 9.0), record("setup", 1.0, quality=first), record("epoch", 5.0, quality=second))
    assert found.quality == worst
    assert found.components["cpu"].quality == worst


def test_components_are_kept_apart_and_cross_checks_left_out() -> None:
    epoch = record("epoch", None, cpu=4.0, gpu_a=6.0)
    wall = Component("wall", 99.0, "wall", counts=False)
    epoch = Record(**{**vars(epoch), "components": (*epoch.components, wall)})
    found = facts(record("trial", 20.0), record("setup", None, cpu=1.0, gpu_a=0.5), epoch)
    assert {name: part.joules for name, part in found.components.items()} == {"cpu": 5.0, "gpu:a": 6.5}
    assert found.train_joules == 11.5


def test_inference_is_told_per_thousand_predictions() -> None:
    found = facts(record("trial", 50.0), *PHASES, record("inference", 8.0, u=0.4), predictions=4000)
    assert found.inference_joules_per_1000 == 2.0
    assert found.inference_u_joules_per_1000 == pytest.approx(0.1)
    assert found.train_joules == 23.0
    assert facts(record("trial", 50.0), *PHASES).inference_joules_per_1000 is None


def test_grams_follow_the_place_and_joules_do_not() -> None:
    place = Intensity(360.0, "XX")
    found = facts(record("trial", 35.0), *PHASES, intensity=place, pue=2.0)
    assert found.train_joules == 23.0
    assert found.grams_co2e == pytest.approx(23.0 / 3.6e6 * 360.0 * 2.0)


def test_analysis_is_paid_by_the_search_and_not_by_the_model() -> None:
    found = facts(record("trial", 40.0), *PHASES, record("analysis", 5.0))
    assert (found.train_joules, found.evaluation_joules, found.analysis_joules) == (23.0, 7.0, 5.0)
    assert facts(record("trial", 35.0), *PHASES).analysis_joules is None


def test_cpu_seconds_and_the_work_of_the_gpu_are_those_of_the_training_alone() -> None:
    def busy(kind: str, seconds: float, cpu_seconds: float | None, **shares: float) -> Record:
        return replace(record(kind, 1.0, seconds=seconds), cpu_seconds=cpu_seconds, utilisation=shares)

    phases = (busy("setup", 1.0, 0.5, gpu=0.0), busy("epoch", 3.0, 6.0, gpu=0.8, other=0.1), busy("eval", 5.0, 9.0, gpu=1.0))
    first = facts(record("trial", 5.0), *phases)
    assert first.cpu_seconds == 6.5
    assert first.gpu_utilisation == pytest.approx(0.6)
    on = facts(
        record("trial", 5.0),
        busy("epoch", 4.0, 1.0, gpu=1.0),
        parent=changed(PARENT, train_seconds=4.0, cpu_seconds=6.5, gpu_utilisation=0.6),
    )
    assert on.cpu_seconds == 7.5
    assert on.gpu_utilisation == pytest.approx(0.8)
    assert facts(record("trial", 5.0), busy("epoch", 4.0, None), parent=PARENT).gpu_utilisation is None
    assert facts(record("trial", 5.0), busy("epoch", 4.0, 1.0), parent=PARENT).cpu_seconds is None, "the parent's are unknown"


FOREIGN = {"foreign_cpu_seconds": 3.0}


def test_foreign_work_widens_the_energy_by_what_neighbours_were_measured_to_add() -> None:
    alone = facts(record("trial", 35.0), *PHASES)
    beside = facts(replace(record("trial", 35.0), contended=FOREIGN), *PHASES)
    assert not alone.contended
    assert beside.contended
    assert beside.train_joules == alone.train_joules
    assert alone.train_u_joules is not None
    assert beside.train_u_joules == pytest.approx((alone.train_u_joules**2 + (0.15 * 23.0) ** 2) ** 0.5)


def test_how_a_share_was_split_errs_alike_in_all_windows_of_a_trial() -> None:
    whole = record("trial", 35.0, u=5.25)  # 15 % of it
    split = replace(whole, components=tuple(replace(part, attribution="shared(by CPU-seconds), 50.0%") for part in whole.components))
    alone, beside = (facts(one, *PHASES).train_u_joules for one in (whole, split))
    assert alone == pytest.approx(0.3**0.5 * 0.1**0.5)
    assert beside == pytest.approx(0.15 * 23.0)
    later = facts(split, record("epoch", 12.0), parent=changed(PARENT, train_u_joules=3.45))
    assert later.train_u_joules == pytest.approx(3.45 + 0.15 * 12.0)


@pytest.mark.parametrize(
    ("quality", "own", "found", "relative"),
    [
        ("measured", 1.0, {"foreign_cpu_seconds": 9.0}, 0.9 / 12**0.5),  # a counter holds what the others took
        ("measured", 100.0, {"foreign_cpu_seconds": 9.0}, 0.15),
        ("estimated", 1.0, {"foreign_cpu_seconds": 9.0}, 0.15),  # CPU-seconds are our own
        ("measured", 1.0, {"foreign_gpu_pids": {"gpu:a": [7]}}, 0.15),  # on a GPU that is in no sum here
    ],
)
def test_a_counter_beside_much_foreign_work_may_hold_little_of_our_own(
    quality: str, own: float, found: dict[str, Any], relative: float
) -> None:
    whole = replace(record("trial", 35.0, quality=quality), contended=found, cpu_seconds=own)
    u = facts(whole, record("epoch", 20.0, quality=quality)).train_u_joules
    assert u == pytest.approx((0.1**2 + (relative * 20.0) ** 2) ** 0.5)


def test_a_gpu_beside_another_process_may_hold_little_of_our_own() -> None:
    whole = replace(record("trial", None, gpu_a=35.0), contended={"foreign_gpu_pids": {"gpu:a": [7]}})
    assert facts(whole, record("epoch", None, gpu_a=20.0)).train_u_joules == pytest.approx((0.1**2 + 20.0**2 / 12) ** 0.5)


def test_what_continues_a_training_beside_foreign_work_stays_marked_and_wide() -> None:
    parent = changed(PARENT, train_u_joules=3.5, contended=True)
    child = facts(record("trial", 20.0), record("epoch", 12.0), parent=parent)
    assert child.contended
    assert child.train_u_joules == pytest.approx((3.5**2 + 0.1**2) ** 0.5)
    unknown = facts(replace(record("trial", 20.0), contended=FOREIGN), record("epoch", 12.0, u=None))
    assert unknown.train_u_joules is None
    assert facts(record("trial", 20.0), record("epoch", 12.0), parent=changed(PARENT, train_u_joules=None)).train_u_joules is None
    assert facts(record("trial", 20.0), record("epoch", 12.0), parent=changed(PARENT, train_seconds=None)).train_seconds is None


def test_predictions_beside_foreign_work_are_less_sure_too() -> None:
    phases = (record("epoch", 10.0), record("inference", 2.0))
    found = facts(replace(record("trial", 35.0), contended=FOREIGN), *phases, predictions=1000)
    assert found.inference_joules_per_1000 == 2.0
    assert found.inference_u_joules_per_1000 == pytest.approx((0.1**2 + 0.3**2) ** 0.5)


def idling(kind: str, joules: float, idle: float | None) -> Record:
    part = Component("gpu:a", joules, "nvml", u_random_joules=0.1, net_joules=None if idle is None else joules - idle)
    return replace(record(kind, joules), components=(part,))


def test_what_a_device_draws_without_any_work_is_told_of_the_training_where_it_is_known() -> None:
    known = facts(record("trial", 35.0), idling("setup", 4.0, 3.0), idling("epoch", 10.0, 2.0))
    assert known.components["gpu:a"].idle_joules == pytest.approx(5.0)
    some = facts(record("trial", 35.0), idling("setup", 4.0, None), idling("epoch", 10.0, 2.0))
    assert some.components["gpu:a"].idle_joules is None
    assert some.components["gpu:a"].joules == 14.0


def test_compiling_is_part_of_the_price_from_scratch_and_kernels_from_a_cache_cost_what_they_cost_first() -> None:
    phases = (record("setup", 2.0), record("compile", 8.0), record("epoch", 10.0))
    first = facts(record("trial", 35.0), *phases)
    assert first.train_joules == 20.0
    assert first.compiled["joules"] == 8.0
    paid = [changed(PARENT, compiled=first.compiled), changed(PARENT, compiled={})]
    cached = (record("setup", 2.0), record("compile", 0.5), record("epoch", 10.0))
    later = trial_energy(record("trial", 35.0), cached, parent=None, predictions=0, intensity=None, compiled=paid)
    assert later.train_joules == 20.0
    assert later.components["cpu"].joules == 20.0
    assert later.increment_joules == 35.0
    assert later.compiled == first.compiled
    eager = trial_energy(record("trial", 35.0), (record("epoch", 10.0),), parent=None, predictions=0, intensity=None, compiled=paid)
    assert (eager.train_joules, eager.compiled) == (10.0, {})


def test_kernels_of_an_earlier_session_are_priced_as_if_they_were_compiled_now_and_own_ones_by_their_time() -> None:
    whole = replace(record("trial", 35.0), t0_ns=50, t1_ns=60)
    phases = [replace(record(kind, 2.0), t0_ns=at, t1_ns=at + 1) for kind, at in (("compile", 51), ("epoch", 55))]
    old = replace(record("compile", 8.0), t0_ns=1, t1_ns=2, hardware={}).to_json()
    covered: list[int] = []

    def since_now(one: Record) -> Intensity | None:
        covered.append(one.t0_ns)
        return Intensity(100.0) if one.t0_ns >= 50 else None

    def price(*compiled: Trial) -> TrialEnergy:
        return trial_energy(whole, phases, parent=None, predictions=0, intensity=since_now, compiled=compiled)

    found = price(changed(PARENT, compiled=old))
    assert found.grams_co2e == pytest.approx(10.0 / 3.6e6 * 100.0)
    assert found.compiled == old
    covered.clear()
    assert price().grams_co2e is not None
    assert covered == [51, 55]


def test_a_lineage_pays_for_compiling_once() -> None:
    parent = changed(PARENT, compiled=replace(record("compile", 8.0), hardware={}).to_json())
    child = facts(record("trial", 20.0), record("setup", 2.0), record("compile", 8.0), record("epoch", 12.0), parent=parent)
    assert child.train_joules == 35.0
    assert child.compiled == parent.energy.compiled


def test_epochs_get_the_joules_of_their_windows_and_unknown_ones_stay_without():
    phases = [
        SimpleNamespace(kind="setup", name="setup 0", joules=9.0),
        SimpleNamespace(kind="epoch", name="epoch 4", joules=2.0),
        SimpleNamespace(kind="epoch", name="epoch 5", joules=None),
    ]
    found = with_energies(({"epoch": 4, "loss": 1.0}, {"epoch": 5, "loss": 0.5}), phases)
    assert json.loads(json.dumps(found)) == [{"epoch": 4, "loss": 1.0, "joules": 2.0}, {"epoch": 5, "loss": 0.5}]
