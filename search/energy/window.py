"""A window: two instants on the ledger, and what lies between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .attribution import Claim
from .record import STATES, Record

if TYPE_CHECKING:
    from .ledger import Ledger


class Window:
    """A stretch of time on a ledger, made by ``Ledger.open`` or ``Ledger.window``.

    A window holds no counters: it is a question to the ledger's curves. So windows nest, overlap and run in parallel
    freely, and a reading that arrives after the end makes the answer better.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        id: str,
        name: str,
        kind: str,
        parent: str | None,
        t0_ns: int,
        synchronize: Callable[[], object] | None,
    ) -> None:
        self._ledger = ledger
        self.id, self.name, self.kind, self.parent = id, name, kind, parent
        self.top = id  # the outermost window around it
        self.t0_ns = t0_ns
        self.t1_ns: int | None = None
        self.state = "open"
        self.begin: Mapping[str, Any] = {}
        self.end: Mapping[str, Any] = {}
        self.cpu_seconds: float | None = None
        self.devices: tuple[str, ...] | None = None
        self.spent_ns = 0
        self._synchronize = synchronize
        self._final: Record | None = None
        self._revision = 0

    def joules(self) -> float | None:
        """Return the energy so far without a new reading, or None when it is not known."""
        if self._final is not None and self._ledger.revision <= self._revision:
            return self._final.joules
        return self._ledger.joules(self.t0_ns, self.t1_ns)

    @property
    def record(self) -> Record:
        """Return what the window cost; so far, while it is open.

        Asked again a refresh of the meters later, the answer is better: the last refresh before the end is then followed by one
        after it. From then on it stays, unless a meter turns out to have been wrong all along and what it said is replaced.
        """
        revision = self._ledger.revision
        if self._final is not None and revision <= self._revision:
            return self._final
        record, settled = self._ledger.settle(self)
        if settled:
            self._final, self._revision = record, revision
        return record

    @property
    def claims(self) -> bool:
        """Whether it is one of several in parallel, and gets its own part of what they share."""
        return self.cpu_seconds is not None or self.devices is not None

    def claim(self, t1_ns: int) -> Claim:
        """Return what the window says about itself, up to ``t1_ns`` while it is open."""
        return Claim(self.id, self.kind, self.t0_ns, t1_ns if self.t1_ns is None else self.t1_ns, self.cpu_seconds, self.devices)

    def close(self, state: str = "ok", *, settle: bool = False, cpu_seconds: float | None = None) -> Record:
        """End the window; a second call changes nothing and returns the record.

        Args:
            state: ``ok``, ``failed``, ``stopped``, ``pruned`` (judged not worth going on), ``killed`` or ``partial``.
            settle: Wait until the record is final: for the meters' next refresh (a GPU's comes in about 0.1 s, a wall meter's in a few of
                its own intervals at most). The end is taken before. A second call waits, too.
            cpu_seconds: CPU-seconds of the window's own processes, when others run beside it; see ``Ledger.query``.

        Raises:
            ValueError: If ``state`` is none of these.
        """
        if state not in STATES or state == "open":
            raise ValueError(f"state must be one of {', '.join(name for name in STATES if name != 'open')}, got {state!r}")
        if self.t1_ns is not None:
            if settle:
                self._ledger.wait(self.t1_ns)
            return self.record
        self.cpu_seconds = cpu_seconds
        return self._ledger.close(self, state, self._synchronize, settle=settle)

    def __enter__(self) -> Window:
        """Return the window itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the window: ``ok``, ``failed`` after an exception, ``stopped`` after an interrupt."""
        if kind is None:
            self.close()
            return
        state = "failed" if issubclass(kind, Exception) else "stopped"
        try:
            self.close(state)
        except Exception as later:
            # The first error is the one to see: a device that failed usually fails to synchronise as well.
            if error is not None:
                error.add_note(f"closing the energy window failed too: {later!r}")
