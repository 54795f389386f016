"""Small labelled directed acyclic graphs and their canonical form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

#: More inner vertices would make the exact search for the canonical form slow (120 orders at 5).
MAX_INNER = 5


@dataclass(frozen=True, order=True)
class Graph:
    """A cell: vertex 0 is the input, vertices 1 to n carry operations, vertex n + 1 is the output.

    Attributes:
        operations: Operation of the inner vertices 1 to n.
        inputs: Ascending predecessors of the vertices 1 to n + 1, each smaller than the vertex itself.
    """

    operations: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Refuse what is no cell.

        Raises:
            ValueError: If the numbers of vertices differ, edges go backwards, or a vertex lies on no way from input to output.
        """
        n = len(self.operations)
        if len(self.inputs) != n + 1:
            raise ValueError(f"a cell with {n} operations needs inputs for {n + 1} vertices, got {len(self.inputs)}")
        for vertex, sources in enumerate(self.inputs, start=1):
            if not sources or list(sources) != sorted(set(sources)) or not 0 <= sources[0] <= sources[-1] < vertex:
                raise ValueError(f"the inputs of vertex {vertex} must be ascending and in 0 to {vertex - 1}, at least one; got {sources}")
        idle = set(range(1, n + 1)) - {source for sources in self.inputs for source in sources}
        if idle:
            raise ValueError(f"the vertices {sorted(idle)} feed nothing; give them a successor or leave them out")


def connect(operations: Sequence[str | None], edges: Sequence[Sequence[int]]) -> Graph:
    """Make a cell of any choice of operations and edges, so that no choice is invalid.

    Vertices without operation are left out with their edges. A vertex without predecessor reads the input; a vertex without successor
    feeds the output. So a random choice is spread over the graphs far more evenly than where loose vertices are pruned away.

    Args:
        operations: Operation of the inner vertices 1 to n, None for a vertex that is left out.
        edges: Wished predecessors of the vertices 1 to n + 1.
    """
    present = [vertex for vertex, operation in enumerate(operations, start=1) if operation is not None]
    output = len(operations) + 1
    number = {0: 0, **{vertex: index for index, vertex in enumerate(present, start=1)}}
    inputs = []
    for vertex in (*present, output):
        sources = sorted(number[source] for source in set(edges[vertex - 1]) if source in number)
        inputs.append(sources or ([0] if vertex != output else []))
    fed = {source for sources in inputs for source in sources}
    loose = [index for index in range(1, len(present) + 1) if index not in fed]
    inputs[-1] = sorted({*inputs[-1], *loose}) or [0]
    return Graph(tuple(operation for operation in operations if operation is not None), tuple(map(tuple, inputs)))


def canonical(graph: Graph) -> Graph:
    """Return the smallest of all numberings of the graph: equal for isomorphic graphs, and only for them.

    Every topological order of the inner vertices is tried; they are few.

    Raises:
        ValueError: If the graph has more than ``MAX_INNER`` inner vertices.
    """
    n = len(graph.operations)
    if n > MAX_INNER:
        raise ValueError(f"a cell may have at most {MAX_INNER} inner vertices, got {n}")
    return min(found for order in permutations(range(1, n + 1)) if (found := _renumbered(graph, order)) is not None)


def _renumbered(graph: Graph, order: tuple[int, ...]) -> Graph | None:
    """Return the graph with its inner vertices in this order, or None if an edge would go backwards."""
    output = len(order) + 1
    number = {0: 0, **{vertex: index for index, vertex in enumerate(order, start=1)}}
    inputs = []
    for vertex in (*order, output):
        sources = sorted(number[source] for source in graph.inputs[vertex - 1])
        if sources[-1] >= number.get(vertex, output):
            return None
        inputs.append(tuple(sources))
    return Graph(tuple(graph.operations[vertex - 1] for vertex in order), tuple(inputs))
