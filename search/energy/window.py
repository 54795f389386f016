"""A window: two instants on the ledger, and what lies between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

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
        begin: Mapping[str, Any],
    ) -> None:
        self._ledger = ledger
        self.id, self.name, self.kind, self.parent = id, name, kind, parent
        self.t0_ns = t0_ns
        self.t1_ns: int | None = None
        self.state = "open"
        self.begin = begin
        self.end: Mapping[str, Any] = {}
        self.spent_ns = 0
        self._synchronize = synchronize
        self._final: Record | None = None

    def joules(self) -> float | None:
        """Return the energy so far without a new reading, or None when it is not known."""
        if self._final is not None:
            return self._final.joules
        return self._ledger.joules(self.t0_ns, self.t1_ns)

    @property
    def record(self) -> Record:
        """Return what the window cost; so far, while it is open.

        Asked again a refresh of the meters later, the answer is better: the last refresh before the end is then followed by one
        after it. From then on it stays.
        """
        if self._final is not None:
            return self._final
        record, settled = self._ledger.settle(self)
        if settled:
            self._final = record
        return record

    def close(self, state: str = "ok", *, settle: bool = False) -> Record:
        """End the window; the second call changes nothing and returns the record.

        Args:
            state: ``ok``, ``failed``, ``stopped``, ``killed`` or ``partial``.
            settle: Wait for the meters' next refresh (about 0.1 s) so that the record is final. The end is taken before.

        Raises:
            ValueError: If ``state`` is none of these.
        """
        if state not in STATES or state == "open":
            raise ValueError(f"state must be one of {', '.join(name for name in STATES if name != 'open')}, got {state!r}")
        if self.t1_ns is None:
            self._ledger.close(self, state, self._synchronize, settle=settle)
        return self.record

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
