"""A meter of one component whose power never varies, on a clock that the test moves."""

from joulefront.search.energy import Capability, Reading

SECOND = 10**9


class Steady:
    """A counter of 10 W that follows the test's clock."""

    name = "steady"

    def __init__(self, clock: list[int]) -> None:
        self.clock = clock

    def probe(self) -> tuple[Capability, ...]:
        return (Capability("cpu:pkg0", "steady", True, tick_seconds=0.0, gain_u=0.0),)

    def read(self) -> tuple[Reading, ...]:
        return (Reading("cpu:pkg0", self.clock[0], counter_joules=10.0 * self.clock[0] / SECOND),)

    def close(self) -> None: ...
