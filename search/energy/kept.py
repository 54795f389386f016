"""The split of a ledger's whole life, asked again and again: what cannot change any more is added up once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .attribution import Claim, CpuSeconds, Meter, Split, split
from .clock import NANO

#: What is older than this is final: a late reading of a meter that is refreshed in time reaches back less far. A meter that was lost, or
#: whose past is written anew, is asked again from the begin.
FINAL_NS = 30 * NANO


@dataclass(frozen=True)
class View:
    """The windows of a ledger as a split needs them.

    Attributes:
        claims: Those that end after the begin of the stretch.
        open_ns: Begin of the oldest open trial, whose CPU-seconds are not known yet; None when none is open.
        changed_ns: Begin of the oldest window that was entered after the fact since the last look; None for none.
    """

    claims: Sequence[Claim]
    open_ns: int | None
    changed_ns: int | None


class Kept:
    """Keeps the split up to an instant before which nothing is open, and adds the rest to it.

    The instant is always the begin or end of a window, where a split is cut anyway: kept or not, the sums are the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget(0, None)

    def _forget(self, t0_ns: int, revision: object) -> None:
        self._t0_ns = self._until_ns = t0_ns
        self._revision = revision
        self._sum = Split()
        self._lost: dict[str, int] = {}

    def split(
        self,
        t0_ns: int,
        t1_ns: int,
        view: Callable[[int, int], View],
        meters: Sequence[Meter],
        cpu: CpuSeconds,
        *,
        revision: object = None,
        final_ns: int = FINAL_NS,
    ) -> Split:
        """Return the split between two instants.

        Args:
            t0_ns: Begin, the same each time.
            t1_ns: End; an earlier one than the last time starts anew.
            view: The windows that end after its first argument, the open ones up to its second.
            meters: Components that count.
            cpu: CPU-seconds of the machine and of this process tree.
            revision: Changes when the meters' past does.
            final_ns: How old is final.
        """
        with self._lock:
            if t0_ns != self._t0_ns or t1_ns < self._until_ns or revision != self._revision or self._found(meters):
                self._forget(t0_ns, revision)
            seen = view(self._until_ns, t1_ns)
            if seen.changed_ns is not None and seen.changed_ns < self._until_ns:
                self._forget(t0_ns, revision)
                seen = view(self._until_ns, t1_ns)
            last = t1_ns - final_ns if seen.open_ns is None else min(t1_ns - final_ns, seen.open_ns)
            cuts = [t for claim in seen.claims for t in (claim.t0_ns, claim.t1_ns) if self._until_ns < t <= last]
            if cuts:
                until = max(cuts)
                self._sum = self._sum.plus(split(seen.claims, self._until_ns, until, meters, cpu))
                self._until_ns = until
                self._lost = {meter.name: meter.extent[1] for meter in meters if meter.extent and meter.extent[1] < until}
            return self._sum.plus(split(seen.claims, self._until_ns, t1_ns, meters, cpu))

    def _found(self, meters: Sequence[Meter]) -> bool:
        """Whether a meter that was lost reads again: what it missed is then known."""
        return any(meter.extent is not None and meter.extent[1] > self._lost.get(meter.name, meter.extent[1]) for meter in meters)
