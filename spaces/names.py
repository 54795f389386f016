"""Names and patterns of a library of ready-made networks."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence


def expand(
    patterns: Sequence[str], find: Callable[[str], Sequence[str]], every: Callable[[], Sequence[str]], library: str
) -> tuple[str, ...]:
    """Return the names that the patterns mean, each once, in the order of the patterns.

    Args:
        patterns: Names or patterns such as ``resnet*``.
        find: Returns the names that one of them means; none where it is unknown.
        every: Returns all names; asked only for a pattern that is unknown.
        library: What the library is called.

    Raises:
        ValueError: If a pattern matches nothing; the message names similar models.
    """
    names: dict[str, None] = {}
    for pattern in patterns:
        found = find(pattern)
        if not found:
            similar = difflib.get_close_matches(pattern.split(".")[0], every(), n=3)
            raise ValueError(
                f"{library} has no model {pattern!r}; similar: {', '.join(similar) or 'none'}. {library}.list_models() gives all names"
            )
        names.update(dict.fromkeys(found))
    return tuple(names)
