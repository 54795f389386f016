"""One rule for sums of which a part may be unknown, and one for the quality of a sum."""

import pytest

from joulefront.search.energy.record import combined_quality, sum_known


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
