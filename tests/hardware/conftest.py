"""The fake driver of the meter's tests, and a load that works when the driver's curve says so."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardware.context import Context

_FAKES = Path(__file__).resolve().parents[1] / "search" / "energy" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("hardware_fakes", _FAKES)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
sys.modules["hardware_fakes"] = _MODULE  # its dataclasses look their module up
_SPEC.loader.exec_module(_MODULE)

driver_path, driver = _MODULE.driver_path, _MODULE.driver


#: The fake GPU's one pulse of work, in seconds of its clock; it rests before and after.
PULSE = (2.0, 3.0)
REST_WATTS, WORK_WATTS = 70.0, 600.0


class CurveLoad:
    """Does nothing but wait for the pulse of the fake driver's curve, and says when it was.

    Args:
        driver: The running fake driver.
        early: Seconds by which the instants it gives are too early: as if the sensors lagged by so much.
    """

    def __init__(self, driver: Any, early: float = 0.0) -> None:
        self.driver, self.early = driver, early

    def steady(self, kind: str, seconds: float) -> tuple[int, int]:
        origin = time.monotonic() - self.driver.library.fake_clock()
        begin, end = (origin + at for at in PULSE)
        if time.monotonic() > begin:
            time.sleep(seconds)
        else:
            time.sleep(end - time.monotonic())
        return round((begin - self.early) * 1e9), round((end - self.early) * 1e9)

    def pulsed(self, seconds: float, period_seconds: float, duty: float = 0.5) -> None:
        time.sleep(seconds)

    def synchronize(self) -> None:
        pass

    def enqueue(self, steps: int) -> None:
        time.sleep(0.02)


@pytest.fixture
def faked(driver: Any, tmp_path: Path) -> Callable[..., Context]:
    """Make the context of a part over the fake driver in real time: one pulse of work, or what the driver's knobs say."""

    def make(scale: float = 0.1, early: float = 0.0, may_set: bool = False, **knobs: float | str) -> Context:
        (on, off), low, high = PULSE, REST_WATTS, WORK_WATTS
        driver.trace([0.0, on, on + 1e-3, off, off + 1e-3, 60.0], [low, low, high, high, low, low])
        driver.set(**{"tick": 0.02, "refresh": 0.02} | knobs).run(1.0)
        return Context(tmp_path, "cpu", scale, None, may_set, make_load=lambda device: CurveLoad(driver, early))

    return make
