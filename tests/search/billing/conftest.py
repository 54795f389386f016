"""An account over a ledger whose only source draws a constant power."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulefront.search.billing.account import Account
from joulefront.search.energy import Capability, Ledger, Reading
from joulefront.search.records.bill import SessionBill

WATTS = {"gpu:a": 50.0, "gpu:b": 30.0}


class Constant:
    """A counter that rises by its power, read at any instant."""

    name = "constant"

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.clock = clock

    def probe(self) -> tuple[Capability, ...]:
        return tuple(Capability(name, self.name, True, tick_seconds=1e-6, gain_u=0.0) for name in WATTS)

    def read(self) -> tuple[Reading, ...]:
        now = self.clock()
        return tuple(Reading(name, now, 0, counter_joules=watts * (now / 1e9 - 1.0)) for name, watts in WATTS.items())

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger([Constant()], interval_seconds=None) as running:
        yield running


@pytest.fixture
def account(ledger: Ledger, tmp_path: Path) -> Account:
    return Account(ledger, SessionBill("now"), [], None, tmp_path / "bill.json")
