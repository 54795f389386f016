"""Records of windows, put together from the meters and the host: what a window cost, alone or as one of several in parallel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import host
from .attribution import FINAL_NS, MeteredPart, PartitionCache, Share, Split, WindowSnapshot, split
from .background import Warnings
from .channel import MeterChannel, reach_seconds
from .host import HostMonitor
from .meters import MeterSet
from .record import NUMBERS, SCHEMA, Component, Record, at_once
from .sources.source import NANO
from .windows import Anchors, Window, WindowUsage

#: Relative standard uncertainty of a split by CPU-seconds: vector code draws more per second than waiting for memory does.
SPLIT_U = 0.15
#: The same for two trials on one GPU, where nothing tells them apart.
GPU_SPLIT_U = 0.30
#: No window gets a number where nothing tells whose more than this share of the work was that was done while it overlapped others.
MOST_UNTOLD = 0.2
UNTOLD_CPU = (
    "{:.0%} of the CPU work while windows of this process overlapped is told by no window's thread: a pool's threads did it, tasks of an "
    "event loop took turns, a window was closed by another thread than opened it, or it holds another thread's windows. Let each "
    "window's own thread work and close it (torch.set_num_threads(1), OMP_NUM_THREADS=1), or measure in processes; a window that lies "
    "inside of another thread's needs parent="
)
CROSSED = "shared(overlaps another window of its thread: each has the whole)"
UNTOLD_GPU = (
    "windows of several threads or tasks overlapped and nothing tells whose work it did: give each its devices=, or let one run at a time"
)


class RecordBuilder:
    """Puts together what the meters, the host and the hardware are known for in a window."""

    def __init__(self, meters: MeterSet, monitor: HostMonitor, anchors: Anchors, hardware: Mapping[str, Any], warnings: Warnings) -> None:
        self._meters, self._monitor, self._anchors, self._warnings = meters, monitor, anchors, warnings
        self.hardware = hardware
        self.hardware_id = host.fingerprint(hardware)
        self._partitions = PartitionCache()

    def opened(self, window: Window) -> dict[str, Any]:
        """Return what is known of a window as it opens, for the file: its record without the entries that are empty by then."""
        facts, t0_ns = window.facts, window.t0_ns
        known = {"id": facts.id, "name": facts.name, "parent": facts.parent, "kind": facts.kind, "state": window.state}
        times = {"t0_utc": self._anchors.iso(t0_ns), "t0_ns": t0_ns, "t1_ns": t0_ns, "seconds": 0.0, "hardware_id": self.hardware_id}
        return {**known, **times, "edges": {"begin": facts.opening.devices} if facts.opening.devices else {}}

    def record(self, window: Window, t1_ns: int, usages: Sequence[WindowUsage] | None) -> Record:
        """Return what a window cost by ``t1_ns``; its own part only, when ``usages`` names all windows in parallel with it and itself."""
        parts, shares = self._own(window, t1_ns, usages)
        parts = tuple(told(part, shares[part.name]) if part.name in shares else part for part in parts)
        if not window.parallel and (usages is not None or window.crossed):
            whole = CROSSED if window.crossed else "shared(the whole machine's)"
            parts = tuple(replace(part, attribution=whole) if part.attribution == "exclusive" else part for part in parts)
        busy, tree = self._monitor.cpu_seconds(window.t0_ns, t1_ns)
        own = window.cpu_seconds
        if usages is None:
            own = tree
        elif own is None:
            own = next((usage.cpu_between(window.t0_ns, t1_ns) for usage in usages if usage.id == window.id), None)
        facts, closing = window.facts, window.closing
        edges = {"begin": facts.opening.devices, "end": {} if closing is None else closing.devices}
        return at_once(
            Record,
            id=facts.id,
            name=facts.name,
            parent=facts.parent,
            kind=facts.kind,
            state=window.state,
            t0_utc=self._anchors.iso(window.t0_ns),
            t0_ns=window.t0_ns,
            t1_ns=t1_ns,
            seconds=(t1_ns - window.t0_ns) / NANO,
            components=parts,
            hardware_id=self.hardware_id,
            hardware=self.hardware,
            cpu_seconds=own,
            utilisation=self._monitor.utilisation.mean(window.t0_ns, t1_ns),
            contended=self._monitor.contended(window.t0_ns, t1_ns, busy, tree, facts.devices),
            edges=edges if any(edges.values()) else {},
            meter={
                "version": SCHEMA,
                "overhead_seconds": None if closing is None else (closing.spent_ns - facts.opening.spent_ns) / NANO,
                "troubles": self._warnings.during(window.t0_ns, t1_ns),
            },
        )

    def line(self, window: Window, t1_ns: int, usages: Sequence[WindowUsage] | None) -> dict[str, Any]:
        """Return what a window took as a plain dictionary, for the file: its own part where others run beside it.

        ``known_joules`` holds the part of a meter that was lost, too, until then.
        """
        parts, shares = self._own(window, t1_ns, usages)
        known = math.fsum(share.joules for share in shares.values())
        if usages is None:
            known = math.fsum(part.joules or 0.0 for part in parts if part.counts)
        facts = {"id": window.id, "cpu_seconds": window.cpu_seconds, "devices": window.facts.devices, "known_joules": known}
        return {**facts, "components": [vars(part) for part in parts]}

    def _own(self, window: Window, t1_ns: int, usages: Sequence[WindowUsage] | None) -> tuple[tuple[Component, ...], Mapping[str, Share]]:
        found = self._meters.components(window.t0_ns, t1_ns)
        own = next((usage for usage in usages or () if usage.id == window.id), None)
        if usages is None or own is None:
            return found, {}
        shares = self.partition(window.t0_ns, t1_ns, usages).shares.get(window.id, {})
        # A device that is held and that no meter reads is lost, not left out: without it the rest would pass for the whole.
        lost = {part.name for part in found if part.quality == "absent" and part.name in (own.devices or ())}
        parts = (attributed(part, shares.get(part.name), held=own.holds(part.name)) if part.counts else part for part in found)
        return tuple(replace(part, counts=True) if part.name in lost else part for part in parts), shares

    def partition(self, t0_ns: int, t1_ns: int, usages: Sequence[WindowUsage]) -> Split:
        """Share out everything between two instants."""
        return split(usages, t0_ns, t1_ns, self._parts(), self._monitor.cpu_seconds)

    def whole(self, t0_ns: int, t1_ns: int, snapshot: Callable[[int, int], WindowSnapshot]) -> Split:
        """Share out everything since the ledger's start; what cannot change any more is kept from the call before."""
        revision = tuple((channel.idle_watts, channel.revision) for channel in self._meters.channels.values())
        slow_ns = max((int(2 * reach_seconds(channel) * NANO) for channel in self._meters.channels.values()), default=0)
        cpu, final_ns = self._monitor.cpu_seconds, max(FINAL_NS, slow_ns)
        return self._partitions.split(t0_ns, t1_ns, snapshot, self._parts(), cpu, revision=revision, final_ns=final_ns)

    def _parts(self) -> tuple[MeteredPart, ...]:
        """Return the counting components as the split sees them."""
        return tuple(
            MeteredPart(
                name,
                lambda begin, end, name=name: self._meters.energy(name, begin, end),  # type: ignore[misc]  # mypy infers no type for a default of a lambda
                channel.idle_watts,
                tree=channel.capability.quality == "estimated",
                extent=_extent(channel),
            )
            for name, channel in self._meters.channels.items()
            if channel.counts
        )


def _extent(channel: MeterChannel) -> tuple[int, int] | None:
    """Return the instants between which a curve has values: its nodes, and their reach beyond them."""
    ends, reach = channel.curve.t[:1] + channel.curve.t[-1:], int(reach_seconds(channel) * NANO)
    return (ends[0] - reach, ends[-1] + reach) if ends else None


def attributed(part: Component, share: Share | None, *, held: bool = True) -> Component:
    """Return a component of the whole machine's window as one usage's share of it; ``held`` if a device is the usage's own."""
    device = part.name.startswith("gpu:")
    if device and not held:
        # A device that another trial holds is no part of this one: out of the sum, so that it adds neither energy nor doubt, nor
        # makes this trial's energy unknown when it is lost.
        return replace(_unknown(part, "held by another trial, or by none"), counts=False)
    if part.joules is None or part.u_random_joules is None or part.u_systematic_joules is None:
        return part
    share = share or Share()
    ratio = share.joules / part.joules if part.joules > 0 else 0.0
    if share.contested == share.beside == 0.0 and ratio > 1 - 1e-9:
        return part
    method = "shared(equal parts)" if device else "shared(idle by wall time, the rest by CPU-seconds)"
    # An estimate from CPU-seconds is split as it is made. Anything between nothing and all of what nobody can tell: the half-width of a
    # uniform distribution (GUM 4.3.7).
    relative_u = GPU_SPLIT_U if device else 0.0 if part.quality == "estimated" else SPLIT_U
    split_u = math.hypot(relative_u * share.contested, share.doubt / math.sqrt(3))
    return replace(
        part,
        joules=share.joules,
        u_random_joules=math.hypot(part.u_random_joules * ratio, split_u),
        u_systematic_joules=part.u_systematic_joules * ratio,
        net_joules=None if part.idle_watts is None else share.dynamic,
        u_net_joules=None if part.u_net_joules is None else math.hypot(part.u_net_joules * ratio, split_u),
        attribution=f"{method}, {ratio:.1%} of the window's" if share.contested or share.beside else "exclusive",
    )


def told(part: Component, share: Share) -> Component:
    """Return a window's part as its record shows it: without a number where too much of it may as well be another window's."""
    if part.joules is None or share.untold <= MOST_UNTOLD * share.beside:
        return part
    remedy = UNTOLD_GPU if part.name.startswith("gpu:") else UNTOLD_CPU.format(share.untold / share.beside)
    reason = f"shared: {remedy}" if part.reason is None else f"shared: {remedy}; {part.reason}"
    return replace(_unknown(part, reason), attribution="shared(nothing tells whose it was)")


def _unknown(part: Component, reason: str) -> Component:
    unknown: dict[str, Any] = dict.fromkeys(NUMBERS)
    return replace(part, quality="absent", reason=reason, **unknown)
