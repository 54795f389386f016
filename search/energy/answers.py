"""Records made of the books: what a window cost, alone or as one of several in parallel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import hardware
from .attribution import Claim, Meter, Share, Split, attributed, split
from .books import Books
from .clock import NANO, Anchors, seconds_between
from .record import SCHEMA, Record
from .surroundings import Surroundings
from .troubles import Troubles

if TYPE_CHECKING:
    from .window import Window


class Answers:
    """Puts together what the books, the surroundings and the hardware say.

    Args:
        books: Accounts of the components.
        surroundings: Who else used the machine.
        anchors: Tells UTC.
        facts: What the machine is.
        troubles: What went wrong beside the readings.
    """

    def __init__(self, books: Books, surroundings: Surroundings, anchors: Anchors, facts: Mapping[str, Any], troubles: Troubles) -> None:
        self.books, self.surroundings, self.anchors, self.troubles = books, surroundings, anchors, troubles
        self.hardware = facts
        self.hardware_id = hardware.fingerprint(facts)

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

    def record(self, window: Window, t1_ns: int, claims: Sequence[Claim] | None) -> Record:
        """Return what a window cost.

        Args:
            window: The window.
            t1_ns: Its end, or now.
            claims: All windows in parallel with it, itself included, when it is to get its own part only.
        """
        components = self.books.components(window.t0_ns, t1_ns)
        if claims is not None:
            shares: Mapping[str, Share] = self.partition(window.t0_ns, t1_ns, claims).shares.get(window.id, {})
            components = tuple(attributed(part, shares.get(part.name)) if part.counts else part for part in components)
        contended = self.surroundings.contended(window.t0_ns, t1_ns) if claims is None else None
        own = window.cpu_seconds if window.claims else self.surroundings.cpu_seconds(window.t0_ns, t1_ns)[1]
        return replace(
            self.bare(window, t1_ns),
            components=components,
            contended=contended,
            cpu_seconds=own,
            utilisation=self.surroundings.utilisation.mean(window.t0_ns, t1_ns),
        )

    def partition(self, t0_ns: int, t1_ns: int, claims: Sequence[Claim]) -> Split:
        """Share out everything between two instants."""
        return split(claims, t0_ns, t1_ns, self.meters(), self.surroundings.cpu_seconds)

    def meters(self) -> tuple[Meter, ...]:
        """Return the counting components as the split sees them."""
        return tuple(
            Meter(
                name,
                lambda begin, end, name=name: self.books.energy(name, begin, end),  # type: ignore[misc]  # mypy infers no type for a default of a lambda
                account.idle_watts,
                tree=account.capability.quality == "estimated",
            )
            for name, account in self.books.accounts.items()
            if account.counts
        )
