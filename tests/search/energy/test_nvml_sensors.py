"""What the sensors of each architecture measure, and when a counter is believed beside a sensor of power."""

from __future__ import annotations

import pytest
from helpers.nvml_records import GPU, part

from joulefront.search.energy.host import fingerprint
from joulefront.search.energy.sources.nvml import Nvml


@pytest.mark.parametrize(
    ("arch", "model", "averaged"), [(4, 0, False), (6, 0, False), (7, 0, True), (7, 5, False), (7, 6, False), (8, 0, True), (-1, 0, True)]
)
def test_the_plain_call_is_a_mean_by_architecture(driver, clock, arch, model, averaged):
    driver.set(counter=0, instant=0, arch=arch, model=model).follow(clock)
    (found,) = Nvml(clock=clock, environment={}).probe()
    assert (found.mean_seconds > 0) == averaged
    assert ("averaged by the driver" in found.reason) == averaged


@pytest.mark.parametrize(
    ("model", "arch", "sees", "counter", "text"),
    [
        (3, 7, 1.0, 1.0, None),
        (5, 7, 0.25, 0.25, "this GPU's sensor measures"),
        (4, 9, 0.25, 1.0, None),
        (6, 7, 0.25, 0.25, "nobody has published"),
        (0, 9, 0.25, 0.25, "nobody has published"),
        (0, -1, 0.25, 0.25, "nobody has published"),
    ],
)
def test_which_sensors_look_for_a_part_of_the_time_is_asked_word_by_word(driver, clock, model, arch, sees, counter, text):
    driver.set(model=model, arch=arch).follow(clock)
    (found,) = Nvml(clock=clock, environment={}).probe()
    assert (found.sees, found.counter_sees) == (sees, counter)
    assert text in found.reason if text else found.reason is None


@pytest.mark.parametrize("unscoped", [0, 1])
@pytest.mark.parametrize(("own", "joules", "boundary"), [(0, 3300, "GPU module: GPU, CPU and memory together"), (1, 900, "GPU board")])
def test_a_counter_beside_a_modules_power_is_named_by_whose_energy_it_counts_and_kept(bench, own, joules, boundary, unscoped):
    """Also where the module's power is told and the GPU's own as an average alone."""
    machine = bench(high=90, module=240, own=own, arch=9, unscoped=unscoped)
    machine.run(15)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(joules, rel=0.01)
    assert found.boundary == boundary
    assert found.cross_check == (None if own and unscoped else pytest.approx(1, rel=0.02))  # by a mean of a second it is not told
    assert "instead" not in (found.reason or "")


@pytest.mark.parametrize(
    ("sockets", "boundary", "watts"), [((0, 1), "GPU module", 330), ((0, 0), "GPU board", 90), ((-1, -1), "GPU board", 90)]
)
def test_gpus_of_one_module_are_not_each_billed_for_it(driver, clock, bench, sockets, boundary, watts):
    driver.reset(2)
    for device, socket in enumerate(sockets):
        driver.set(device, high=90, module=240, arch=9, socket=socket)
    machine = bench()
    machine.run(3)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    assert [part.joules / 10 for part in window.record.components] == pytest.approx([watts, watts], rel=0.01)
    assert all(part.boundary.startswith(boundary) for part in window.record.components)
    assert all(("its module's" in part.reason) == (watts == 90) for part in window.record.components)


def test_energies_of_a_module_are_those_of_other_hardware(driver, clock):
    ids = set()
    for own in (0, 1):
        driver.reset().set(module=240, own=own, arch=9).follow(clock)
        source = Nvml(clock=clock, environment={}, sleep=clock.advance)
        source.probe()
        ids.add(fingerprint({"devices": source.devices()}))
    assert len(ids) == 2


def test_the_power_of_the_memory_is_shown_at_the_edges_and_counted_nowhere(bench):
    machine = bench(memory=42)
    with machine.ledger.window("trial") as window:
        machine.run(3)
    record = window.record
    assert record.edges["begin"][GPU]["memory_watts"] == 42
    assert len(record.components) == 1
    assert record.joules == pytest.approx(600, rel=0.1)


@pytest.mark.parametrize("duty", [0.5, 0.8])
@pytest.mark.parametrize("start", [0.005, 0.095])
def test_a_counter_is_kept_beside_a_sensor_in_step_with_its_load_for_as_long_as_it_likes(bench, duty, start):
    machine = bench(kind="square", low=60, high=340, period=0.1, duty=duty, refresh=0.1, held_at=start, tick=0.1, phase=0.037)
    machine.run(60)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    machine.run(1)
    found = part(window.record)
    assert "instead" not in (found.reason or "")
    assert found.joules == pytest.approx(10 * (60 + duty * 280), rel=0.02)
    if found.cross_check > 2.5:  # the sensor has only ever met the low phase: nobody knows that it is the counter that is right
        assert found.u_systematic_joules > 0.3 * found.joules


def test_a_counter_that_agreed_once_is_believed_when_the_sensor_meets_one_phase_later(bench, driver):
    times, watts, now = [990.0, 1012.0], [60.0, 60.0], 1012.0
    for _ in range(400):  # a load that works for a tenth of the time, when the sensor looks
        times += [now + 1e-4, now + 0.01, now + 0.0101, now + 0.1]
        watts += [340.0, 340.0, 60.0, 60.0]
        now += 0.1
    driver.trace(times, watts)
    machine = bench(refresh=0.1, held_at=0.005, tick=0.1, phase=0.037)
    machine.run(45)
    with machine.ledger.window("trial") as window:
        machine.run(5)
    found = part(window.record)
    assert found.cross_check < 0.4
    assert "instead" not in (found.reason or "")
    assert found.joules == pytest.approx(5 * 88, rel=0.02)


def test_a_good_counter_is_kept_beside_a_sensor_that_sees_one_phase_of_the_load_for_seconds(bench):
    machine = bench(kind="square", low=60, high=350, period=0.099, duty=0.5, refresh=0.1, tick=0.1, phase=0.037)
    machine.run(40)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    machine.run(1)
    found = part(window.record)
    assert "instead" not in (found.reason or "")
    assert found.joules == pytest.approx(2050, rel=0.02)


def test_a_power_without_a_counter_is_looked_at_closely_at_first_until_its_hold_is_known(bench):
    reads = {}
    for held in (0.02, 1.0):
        machine = bench(counter=0, refresh=held, noise=0.002)
        for name, seconds in (("first", 3), ("later", 10)):
            with machine.ledger.window(name) as window:
                machine.run(seconds)
            reads[held, name] = part(window.record).reads
    assert 50 < reads[0.02, "first"] < 300
    assert reads[1.0, "first"] > 800  # nothing came to be seen, so it ends by itself
    assert reads[0.02, "later"] < 110
    assert reads[1.0, "later"] < 110
