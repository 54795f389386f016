"""What a run says of its meters when it begins."""

from __future__ import annotations

import time

import pytest

from joulefront.search.energy import Capability, Ledger, Reading
from joulefront.search.running.session import meters_text


class Meter:
    """A meter of one component that draws 50 W, or cannot be read."""

    name = "rapl"

    def __init__(self, component: str, error: str | None = None) -> None:
        self.component, self.error = component, error

    def probe(self) -> tuple[Capability, ...]:
        return (Capability(self.component, self.name, True, tick_seconds=1e-6, counts=self.component != "wall"),)

    def read(self) -> tuple[Reading, ...]:
        now = time.monotonic_ns()
        if self.error is not None:
            return (Reading(self.component, now, error=self.error),)
        return (Reading(self.component, now, counter_joules=50.0 * now / 1e9),)

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("meters", "said"),
    [
        ([Meter("cpu:pkg0")], "cpu:pkg0 measured by rapl"),
        ([Meter("cpu:pkg0"), Meter("wall")], "cpu:pkg0 measured by rapl, beside it the whole machine measured by rapl"),
        (
            [Meter("cpu:pkg0"), Meter("wall", "no route to the plug")],
            "cpu:pkg0 measured by rapl, beside it the whole machine not known yet (no route to the plug)",
        ),
    ],
)
def test_a_wall_meter_is_named_after_what_counts_and_a_wrong_address_is_seen_at_once(meters: list[Meter], said: str) -> None:
    with Ledger(meters, interval_seconds=None) as ledger:
        time.sleep(0.01)
        ledger.sample()
        assert meters_text(ledger) == said
