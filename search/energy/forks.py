"""What happens in a forked child to things that belong to its parent."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any


class _Children:
    """The methods to call in a forked child.

    ``os.register_at_fork`` knows no way back, so one of its calls serves all objects of the process, and none is kept alive by it.
    """

    def __init__(self) -> None:
        self.methods: weakref.WeakKeyDictionary[Any, Callable[[Any], Any]] = weakref.WeakKeyDictionary()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.call)

    def add(self, method: Callable[[], Any]) -> None:
        self.methods[method.__self__] = method.__func__  # type: ignore[attr-defined]  # a bound method has both

    def call(self) -> None:
        for alive, method in tuple(self.methods.items()):
            method(alive)


_children = _Children()


def after_fork(method: Callable[[], Any]) -> None:
    """Call a method in every forked child for as long as its object lives, one method for each; the object is not kept alive for it."""
    _children.add(method)
