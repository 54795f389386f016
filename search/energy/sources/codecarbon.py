"""CodeCarbon's offline tracker as a cross-check and as a fallback: one tracker, no files, no network."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from .source import JOULES_PER_KWH, Capability, Reading, Source

#: CodeCarbon's own parts -> our component, whether it may enter a sum, and the share of error that its method may have.
#: Its memory is a constant per guessed module and its GPU is NVML again: neither belongs into a sum of ours.
PARTS = {
    "cpu_energy": ("cpu:codecarbon", True, 0.5),
    "ram_energy": ("ram:codecarbon", False, 1.0),
    "gpu_energy": ("gpu:codecarbon", False, 0.1),
}


class CodeCarbon:
    """Runs one ``OfflineEmissionsTracker`` from `probe` to `close` and takes its totals after each of its measurements.

    Only ``start`` and ``stop`` are used: a tracker that also runs tasks loses energy. Its totals arrive through the output handler
    that CodeCarbon offers to its users, so no private name of it is touched.

    Args:
        country: Three-letter ISO code; only CodeCarbon's CO2 needs it, which is not used here. None switches its CO2 off.
        poll_seconds: CodeCarbon's own measuring period; below 1 s it loses accuracy.
    """

    name = "codecarbon"

    def __init__(self, country: str | None = None, *, poll_seconds: float = 1.0) -> None:
        if poll_seconds < 1:
            raise ValueError(f"poll_seconds must be >= 1, got {poll_seconds}: CodeCarbon loses up to a fifth of the energy at 50 ms")
        self.country, self.poll_seconds = country, poll_seconds
        self.pending: deque[Reading] = deque(maxlen=100_000)
        self.pid = os.getpid()
        self.tracker: Any = None
        self.found: tuple[Capability, ...] = ()
        self.last: dict[str, Reading] = {}

    def probe(self) -> tuple[Capability, ...]:
        """Start the tracker (about one second) and return what it knows; probed again, it continues. After ``close`` it begins anew."""
        if self.found:
            return self.found
        self.pending.clear()
        self.last.clear()
        absent = Capability("cpu:codecarbon", self.name, False, "estimated", remedy="pip install 'codecarbon>=3,<4'")
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError as error:
            return (replace(absent, reason=f"codecarbon cannot be imported: {error}"),)
        # It logs its first lines before it looks at its own log_level.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        # Every option that a stray configuration file or environment variable could turn into a file or a connection is set here.
        place: dict[str, Any] = {"country_iso_code": self.country} if self.country else {"force_carbon_intensity_g_co2e_kwh": 0.0}
        # What it calls after each measurement and at its end; tasks are never started here.
        handler = SimpleNamespace(live_out=self._take, out=self._take, task_out=lambda *_: None, exit=lambda: None)
        self.tracker = OfflineEmissionsTracker(
            **place,
            measure_power_secs=self.poll_seconds,
            api_call_interval=1,
            output_methods=[],
            output_handlers=[handler],
            emissions_endpoint=None,
            electricitymaps_api_token=None,
            cloud_provider=None,
            cloud_region=None,
            region=None,
            tracking_mode="machine",
            allow_multiple_runs=True,
            pue=1.0,
            log_level="critical",
        )
        self.tracker.start()
        # CodeCarbon swallows its own exceptions: that it runs shows only in what arrives.
        if not self.pending:
            self.close()
            reason = "CodeCarbon's tracker gave no totals after its start; it logs the cause with CODECARBON_LOG_LEVEL=debug"
            return (replace(absent, reason=reason),)
        seen = {reading.component for reading in self.pending}
        boundary = "whole machine as CodeCarbon models it"
        self.found = tuple(
            Capability(component, self.name, True, "estimated", boundary, tick_seconds=self.poll_seconds, gain_u=gain_u, counts=counts)
            for component, counts, gain_u in PARTS.values()
            if component in seen
        )
        return self.found

    def read(self) -> tuple[Reading, ...]:
        """Return the totals that CodeCarbon took since the last time, or its last ones again: it measures less often than it is polled."""
        if os.getpid() != self.pid:
            return ()
        found = [self.pending.popleft() for _ in range(len(self.pending))]
        self.last.update({reading.component: reading for reading in found})
        return tuple(found) or tuple(self.last.values())

    def close(self) -> None:
        """Stop the tracker; its last totals can still be read."""
        tracker, self.tracker, self.found = self.tracker, None, ()
        if tracker is not None and os.getpid() == self.pid:  # in a forked child its threads are gone and its locks may be held
            tracker.stop()

    def _take(self, totals: Any, _: object = None) -> None:
        now = time.monotonic_ns()
        has_gpu = bool(getattr(totals, "gpu_count", None))
        for field, (component, _, _) in PARTS.items():
            if component.startswith("gpu") and not has_gpu:
                continue  # its 0.0 means "no GPU seen"
            value = getattr(totals, field, None)
            if value is None:
                self.pending.append(Reading(component, now, error=f"CodeCarbon's totals have no {field}: an untested version?"))
            else:
                self.pending.append(Reading(component, now, counter_joules=float(value) * JOULES_PER_KWH))


def from_spec(argument: str | None) -> Source:
    """Return the meter of ``codecarbon`` or ``codecarbon=FRA`` in ``--meter``."""
    return CodeCarbon(argument)
