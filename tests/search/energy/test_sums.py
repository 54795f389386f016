"""One rule for sums of which a part may be unknown, and one for the quality of a sum."""

import pytest

from joulefront.search.energy.record import Component, Record, add, combined_quality, sum_known
from joulefront.search.records.bill import SessionBill, add_up


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([], None),
        ([None], None),
        ([None, None], None),
        ([1.0, None], None),
        ([None, 0.0], None),
        ([0.0], 0.0),
        ([1.5], 1.5),
        ([1.0, 2.0, 3.0], 6.0),
        ([1e16, 1.0, -1e16], 1.0),
    ],
)
def test_a_sum_is_known_when_it_has_parts_and_all_of_them_are(values, total):
    assert sum_known(values) == total
    assert sum_known(iter(values)) == total


@pytest.mark.parametrize(
    ("kinds", "quality"),
    [
        ([], "absent"),
        (["absent"], "absent"),
        (["measured"], "measured"),
        (["estimated"], "estimated"),
        (["mixed"], "mixed"),
        (["measured", "measured"], "measured"),
        (["estimated", "estimated"], "estimated"),
        (["measured", "estimated"], "mixed"),
        (["measured", "mixed"], "mixed"),
        (["estimated", "mixed"], "mixed"),
        (["measured", "absent"], "absent"),
        (["mixed", "absent"], "absent"),
        (["measured", "estimated", "absent"], "absent"),
    ],
)
def test_the_quality_of_a_sum_never_improves_by_adding(kinds, quality):
    assert combined_quality(kinds) == combined_quality(kinds[::-1]) == quality


def record(cpu: Component, gpu: Component) -> Record:
    return Record("1", "t", None, "trial", "ok", "2026-01-01T00:00:00+00:00", 0, 10, 1.0, (cpu, gpu), "h")


@pytest.mark.parametrize("joules", [2.0, None])
def test_a_device_that_counts_in_one_record_adds_nothing_from_another_in_which_it_does_not(joules):
    cpu = Component("cpu", 1.0, "rapl", u_random_joules=0.1, u_systematic_joules=0.1)
    held = Component("gpu:A", 2.0, "nvml", u_random_joules=0.2, u_systematic_joules=0.2)
    other = Component("gpu:A", joules, "nvml", counts=False, quality="measured" if joules else "absent", u_random_joules=joules)
    whole = add([record(cpu, held), record(cpu, other)])
    assert whole.joules == 3.0 + 1.0
    assert whole.quality == "measured"
    assert whole.component("gpu:A").u_random_joules == pytest.approx(0.2)


def test_a_part_of_unknown_uncertainty_makes_that_of_the_sum_unknown():
    sure = Component("cpu", 1.0, "rapl", u_random_joules=0.1, u_systematic_joules=0.1)
    unsure = Component("cpu", 1.0, "rapl")
    idle = Component("gpu:A", 0.0, "nvml", u_random_joules=0.0, u_systematic_joules=0.0)
    one, two = record(sure, idle), record(unsure, idle)
    assert add([one, two]).joules == 2.0
    assert add([one, two]).u_random_joules is None
    bills = [SessionBill("2026", {"complete": 1.0}, total=each).to_json() for each in (one, two)]
    assert (add_up(bills).total_joules, add_up(bills).u_joules) == (2.0, None)
    assert add_up(bills[:1] * 2).u_joules is not None
