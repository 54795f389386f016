"""Who works in this process: its threads, with what they use while they have no window, and the tasks of its event loops."""

from __future__ import annotations

import sys
import threading
import weakref
from bisect import bisect_right
from operator import itemgetter
from typing import Any

from .sources.cpu_time import thread_clock
from .windows import THREAD, Window, WindowOwner, WindowUsage

#: The threads of this process that have had windows, by their native ids.
measured: weakref.WeakValueDictionary[int, threading.Thread] = weakref.WeakValueDictionary()
#: Tasks of event loops that have opened windows, by their numbers.
_tasks: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class ThreadClocks:
    """What the threads that have windows at other times used while they had none: it is no work of the windows that others have then.

    The clocks of all threads of Python are asked, since one may prepare its work before its first window.
    """

    def __init__(self, owner: WindowOwner) -> None:
        self._owner = owner
        #: The thread of each open window that takes its part, by the window's id; and those that have had windows.
        self.busy: dict[str, int] = {}
        self.known: set[int] = set()
        self._last: dict[int, float] = {}
        self._nodes: dict[int, list[tuple[int, float]]] = {}
        self._looked_ns = self._edge_ns = 0

    def enter(self, id: str, thread: int, t_ns: int) -> None:
        """Note that a window begins, whose thread works for it from now on."""
        t_ns = max(t_ns, self._looked_ns)
        if self.busy or len(measured) > 1:
            self.note(t_ns, edge=True)
        else:  # most windows have no other thread's beside them, and should not pay for it
            self._looked_ns, self._last = t_ns, self._clocks(without=thread)
        self.busy[id] = thread

    def leave(self, id: str, t_ns: int) -> None:
        """Note that a window has ended."""
        if len(self.known) > 1:
            self.note(t_ns, edge=True)
        self.busy.pop(id, None)

    def note(self, t_ns: int, *, edge: bool = False) -> None:
        """Ask the clocks; between two edges the last answer is kept. A thread that was not there at the last look has begun since."""
        self.known.update(thread for thread, one in measured.items() if one.is_alive())
        working = set(self.busy.values())
        if not working:
            self._nodes = {thread: nodes for thread, nodes in self._nodes.items() if thread in self.known}
        for thread, seconds in self._clocks().items():
            nodes = self._nodes.setdefault(thread, [(self._looked_ns if working else t_ns, 0.0)])
            gained = 0.0 if thread in working else max(seconds - self._last.get(thread, 0.0 if working else seconds), 0.0)
            self._last[thread] = seconds
            kept = 1 if thread not in self.known else len(nodes) - (len(nodes) > 1 and nodes[-1][0] > self._edge_ns)
            nodes[kept:] = [(t_ns, nodes[-1][1] + gained)]
        self._looked_ns, self._edge_ns = t_ns, t_ns if edge else self._edge_ns

    def _clocks(self, without: int | None = None) -> dict[int, float]:
        """Return what each thread of Python has used; of others than this one on Linux alone."""
        found = {}
        for thread in [one.native_id or 0 for one in threading.enumerate()]:
            own = None if thread == without else thread_clock(thread)
            if own is not None and (seconds := self._owner.thread_seconds(thread, own)) is not None:
                found[thread] = seconds
        return found

    def usages(self, t0_ns: int, t1_ns: int) -> list[WindowUsage]:
        """Return each thread's work without a window between two instants as a usage that takes no part."""
        known = [(thread, nodes) for thread, nodes in tuple(self._nodes.items()) if thread in self.known and nodes[-1][0] > t0_ns]
        since = {thread: tuple(nodes[max(bisect_right(nodes, t0_ns, key=itemgetter(0)) - 1, 0) :]) for thread, nodes in known}
        return [WindowUsage(f"{THREAD} {id}", THREAD, t0_ns, t1_ns, opener=id, nodes=nodes) for id, nodes in since.items()]


def task_here() -> int | None:
    """Return a number of the task that runs here, which is no thread's; None outside of event loops."""
    asyncio = sys.modules.get("asyncio")  # who has tasks has loaded it
    loop = None if asyncio is None else asyncio._get_running_loop()
    task = None if asyncio is None or loop is None else asyncio.current_task(loop)
    if task is None:
        return None
    _tasks[-id(task)] = task
    return -id(task)


def is_over(window: Window) -> bool:
    """Whether a window was opened by a task that has ended, as a notebook's cell is one, so that what comes later lies inside of it."""
    return window.opener is not None and window.opener < 0 and ((task := _tasks.get(window.opener)) is None or task.done())
