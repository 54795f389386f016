"""Records made of the books: what a window cost, alone or as one of several in parallel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import host
from .attribution import FINAL_NS, Meter, PartitionCache, Share, Split, WindowSnapshot, WindowUsage, split
from .channel import MeterChannel, reach_seconds
from .host import HostMonitor
from .meters import MeterSet
from .record import SCHEMA, Component, Record
from .safety import Warnings
from .sources.clock import NANO, Anchors, seconds_between

if TYPE_CHECKING:
    from .windows import Window

#: Relative standard uncertainty of a split by CPU-seconds: vector code draws more per second than waiting for memory does.
SPLIT_U = 0.15
#: The same for two trials on one GPU, where nothing tells them apart.
GPU_SPLIT_U = 0.30


class RecordBuilder:
    """Puts together what the books, the surroundings and the hardware say.

    Args:
        books: Accounts of the components.
        surroundings: Who else used the machine.
        anchors: Tells UTC.
        facts: What the machine is.
        troubles: What went wrong beside the readings.
    """

    def __init__(self, books: MeterSet, surroundings: HostMonitor, anchors: Anchors, facts: Mapping[str, Any], troubles: Warnings) -> None:
        self.books, self.surroundings, self.anchors, self.troubles = books, surroundings, anchors, troubles
        self.hardware = facts
        self.hardware_id = host.fingerprint(facts)
        self._kept = PartitionCache()

    def bare(self, window: Window, t1_ns: int) -> Record:
        """Return a window's record without energy."""
        return Record(
            id=window.id,
            name=window.name,
            parent=window.parent,
            kind=window.kind,
            state=window.state,
            t0_utc=self.anchors.iso(window.t0_ns),
            t0_ns=window.t0_ns,
            t1_ns=t1_ns,
            seconds=seconds_between(window.t0_ns, t1_ns),
            hardware_id=self.hardware_id,
            hardware=self.hardware,
            edges={"begin": window.begin, "end": window.end} if window.begin or window.end else {},
            meter={
                "version": SCHEMA,
                "overhead_seconds": None if window.t1_ns is None else window.spent_ns / NANO,
                "troubles": self.troubles.during(window.t0_ns, t1_ns),
            },
        )

    def record(self, window: Window, t1_ns: int, claims: Sequence[WindowUsage] | None) -> Record:
        """Return what a window cost.

        Args:
            window: The window.
            t1_ns: Its end, or now.
            claims: All windows in parallel with it, itself included, when it is to get its own part only.
        """
        own = window.cpu_seconds if window.claims else self.surroundings.cpu_seconds(window.t0_ns, t1_ns)[1]
        return replace(
            self.bare(window, t1_ns),
            components=self.components(window, t1_ns, claims),
            contended=self.surroundings.contended(window.t0_ns, t1_ns),
            cpu_seconds=own,
            utilisation=self.surroundings.utilisation.mean(window.t0_ns, t1_ns),
        )

    def components(self, window: Window, t1_ns: int, claims: Sequence[WindowUsage] | None) -> tuple[Component, ...]:
        """Return what the components took in a window, or its own part of that; arguments as for ``record``."""
        return self._own(window, t1_ns, claims)[0]

    def line(self, window: Window, t1_ns: int, claims: Sequence[WindowUsage] | None) -> dict[str, Any]:
        """Return what a window took as a plain dictionary, for the file: its own part where others run beside it, as it would say.

        ``known_joules`` holds the part of a meter that was lost, too, until then.
        """
        parts, known = self._own(window, t1_ns, claims)
        said = {"id": window.id, "cpu_seconds": window.cpu_seconds, "devices": window.devices, "known_joules": known}
        return {**said, "components": [vars(part) for part in parts]}

    def _own(self, window: Window, t1_ns: int, claims: Sequence[WindowUsage] | None) -> tuple[tuple[Component, ...], float]:
        found = self.books.components(window.t0_ns, t1_ns)
        own = next((claim for claim in claims or () if claim.id == window.id), None)
        if claims is None or own is None:
            return found, math.fsum(part.joules or 0.0 for part in found if part.counts)
        shares: Mapping[str, Share] = self.partition(window.t0_ns, t1_ns, claims).shares.get(window.id, {})
        parts = (attributed(part, shares.get(part.name), held=own.holds(part.name)) if part.counts else part for part in found)
        return tuple(parts), math.fsum(share.joules for share in shares.values())

    def partition(self, t0_ns: int, t1_ns: int, claims: Sequence[WindowUsage]) -> Split:
        """Share out everything between two instants."""
        return split(claims, t0_ns, t1_ns, self.meters(), self.surroundings.cpu_seconds)

    def whole(self, t0_ns: int, t1_ns: int, view: Callable[[int, int], WindowSnapshot]) -> Split:
        """Share out everything since the ledger's start; what cannot change any more is kept from the last time.

        Args:
            t0_ns: The start.
            t1_ns: Until when.
            view: The windows between two instants.
        """
        revision = tuple((account.idle_watts, account.revision) for account in self.books.accounts.values())
        slow_ns = max((int(2 * reach_seconds(account) * NANO) for account in self.books.accounts.values()), default=0)
        cpu, final_ns = self.surroundings.cpu_seconds, max(FINAL_NS, slow_ns)
        return self._kept.split(t0_ns, t1_ns, view, self.meters(), cpu, revision=revision, final_ns=final_ns)

    def meters(self) -> tuple[Meter, ...]:
        """Return the counting components as the split sees them."""
        return tuple(
            Meter(
                name,
                lambda begin, end, name=name: self.books.energy(name, begin, end),  # type: ignore[misc]  # mypy infers no type for a default of a lambda
                account.idle_watts,
                tree=account.capability.quality == "estimated",
                extent=_extent(account),
            )
            for name, account in self.books.accounts.items()
            if account.counts
        )


def _extent(account: MeterChannel) -> tuple[int, int] | None:
    """Return the instants between which a curve has values: its nodes, and what its power is taken to go on for beyond them."""
    ends, reach = account.curve.t[:1] + account.curve.t[-1:], int(reach_seconds(account) * NANO)
    return (ends[0] - reach, ends[-1] + reach) if ends else None


def attributed(part: Component, share: Share | None, *, held: bool = True) -> Component:
    """Return a component of the whole machine's window as one claim's share of it.

    Args:
        part: The component over the claim's window.
        share: What the claim got of it; None for nothing.
        held: Whether it is a device of the claim's own, or one that is shared.
    """
    device = part.name.startswith("gpu:")
    if device and not held:
        # A device that another trial holds is no part of this one: out of the sum, so that it adds neither energy nor doubt, nor
        # makes this trial's energy unknown when it is lost.
        return replace(
            part,
            joules=None,
            quality="absent",
            counts=False,
            net_joules=None,
            u_net_joules=None,
            u_random_joules=None,
            u_systematic_joules=None,
            reason="held by another trial, or by none",
        )
    if part.joules is None or part.u_random_joules is None or part.u_systematic_joules is None:
        return part
    share = share or Share()
    ratio = share.joules / part.joules if part.joules > 0 else 0.0
    if share.contested == 0.0 and ratio > 1 - 1e-9:
        return part
    method = "shared(equal parts)" if device else "shared(idle by wall time, the rest by CPU-seconds)"
    split_u = (GPU_SPLIT_U if device else SPLIT_U) * share.contested
    return replace(
        part,
        joules=share.joules,
        u_random_joules=math.hypot(part.u_random_joules * ratio, split_u),
        u_systematic_joules=part.u_systematic_joules * ratio,
        net_joules=None if part.idle_watts is None else share.dynamic,
        u_net_joules=None if part.u_net_joules is None else math.hypot(part.u_net_joules * ratio, split_u),
        attribution=f"{method}, {ratio:.1%} of the window's" if share.contested else "exclusive",
    )
