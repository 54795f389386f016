"""Networks of repeated cells: operations and edges of a small graph are the parameters, as in NAS-Bench-101 and EC-NAS.

Source: Ying et al., NAS-Bench-101, arXiv 1902.09635, section 2 (skeleton, projections, channels); Bakhtiarifard et al., EC-NAS,
arXiv 2210.06015, for the spaces of 4 and 5 vertices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise, permutations
from typing import Annotated, Any

import torch
from torch import nn

from ..search.space import Candidate, Suggest
from ..search.training.task import Task
from .layers import BatchNorm, Headed, image_shape
from .recipes import ORDINARY, Counts, Family, RecipeRanges, suggest_int, words

OPERATIONS = ("conv3x3", "conv1x1", "maxpool3x3")
#: More inner vertices would make the exact search for the canonical form slow (120 orders at 5).
MAX_INNER = 5


@dataclass(frozen=True)
class Cell(Family):
    """A convolution, then stacks of equal cells; between the stacks the image is halved and the channels double.

    The candidate holds the canonical form of a labelled directed acyclic graph, so that isomorphic choices are one candidate and no graph
    is trained twice. ``vertices`` are the most that a cell has, 2 to 7, input and output included; one may also be absent. ``operations``
    are out of ``OPERATIONS``, ``widths`` the channels of the first stack, ``cells`` those in a stack.
    """

    vertices: Annotated[int, words(*range(2, MAX_INNER + 3))] = 5
    operations: Annotated[tuple[str, ...], words(*OPERATIONS)] = OPERATIONS
    widths: Counts = 16
    cells: Counts = 1
    stacks: Counts = 3
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "cell"

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw a graph, vertex by vertex, and the size of the network."""
        return {
            **to_json(canonical(self.sample_graph(trial))),
            "width": suggest_int(trial, "width", self.widths, log=True),
            "cells": suggest_int(trial, "cells", self.cells),
            "stacks": suggest_int(trial, "stacks", self.stacks),
        }

    def sample_graph(self, trial: Suggest) -> Graph:
        """Draw ``operation_j`` of every inner vertex and ``edge_i_j`` of every pair; all parameters exist in every trial."""
        inner = range(1, self.vertices - 1)
        drawn = [trial.suggest_categorical(f"operation_{vertex}", (*self.operations, "absent")) for vertex in inner]
        edges = [
            [source for source in range(vertex) if trial.suggest_categorical(f"edge_{source}_{vertex}", (False, True))]
            for vertex in range(1, self.vertices)
        ]
        return connect([None if operation == "absent" else operation for operation in drawn], edges)

    def defaults(self) -> Mapping[str, Any]:
        """Return two convolutions in a row beside a short cut, as in a residual network, or as many as the cell has place for."""
        output, found = self.vertices - 1, dict[str, Any]()
        chain = [0, *range(1, min(2, self.vertices - 2) + 1), output]
        for vertex in range(1, self.vertices):
            found |= {f"edge_{source}_{vertex}": (source, vertex) in [*pairwise(chain), (0, output)] for source in range(vertex)}
            found |= {f"operation_{vertex}": "conv3x3" if vertex in chain else "absent"} if vertex < output else {}
        return {**ORDINARY, **found, "width": 16, "cells": 1, "stacks": 3}

    def build(self, candidate: Candidate, task: Task) -> CellNetwork:
        """Build the untrained network; a task without images or a graph that is not a valid cell raises ValueError."""
        graph = canonical(from_json(candidate.architecture))
        sizes = {name: candidate.architecture[name] for name in ("width", "cells", "stacks")}
        return CellNetwork(image_shape(candidate, task), task.outputs, graph, **sizes)

    def key(self, candidate: Candidate) -> str:
        """Return canonical text, equal for every numbering of the graph."""
        graph = canonical(from_json(candidate.architecture))
        return Candidate({**candidate.architecture, **to_json(graph)}, candidate.recipe).key


@dataclass(frozen=True, order=True)
class Graph:
    """A cell: vertex 0 is the input, vertices 1 to n carry operations, vertex n + 1 is the output.

    ``inputs`` are the ascending predecessors of the vertices 1 to n + 1, each smaller than the vertex itself.
    """

    operations: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Raise ValueError if the numbers of vertices differ, edges go backwards, or a vertex lies on no path from input to output."""
        n = len(self.operations)
        if len(self.inputs) != n + 1:
            raise ValueError(f"a cell with {n} operations needs inputs for {n + 1} vertices, got {len(self.inputs)}")
        for vertex, sources in enumerate(self.inputs, start=1):
            if not sources or list(sources) != sorted(set(sources)) or not 0 <= sources[0] <= sources[-1] < vertex:
                raise ValueError(f"the inputs of vertex {vertex} must be ascending and in 0 to {vertex - 1}, at least one; got {sources}")
        idle = set(range(1, n + 1)) - {source for sources in self.inputs for source in sources}
        if idle:
            raise ValueError(f"every vertex must have a successor, got none for {sorted(idle)}; give them one or leave them out")


def connect(operations: Sequence[str | None], edges: Sequence[Sequence[int]]) -> Graph:
    """Make a valid cell from any choice of operations and edges.

    ``edges`` holds the chosen predecessors of the vertices 1 to n + 1. Vertices whose operation is None are left out with their edges. A
    vertex without predecessor reads the input; one without successor feeds the output. So random choices cover the graphs far more evenly
    than if loose vertices were pruned.
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


def to_json(graph: Graph) -> dict[str, Any]:
    """Return the graph as two JSON lists."""
    return {"operations": list(graph.operations), "inputs": [list(sources) for sources in graph.inputs]}


def from_json(data: Any) -> Graph:
    """Read what ``to_json`` wrote."""
    return Graph(tuple(data["operations"]), tuple(tuple(sources) for sources in data["inputs"]))


class CellNetwork(Headed):
    """A convolution, stacks of cells, a global average and one linear layer; see ``Cell`` for the arguments."""

    def __init__(self, shape: tuple[int, int, int], outputs: int, graph: Graph, *, width: int, cells: int, stacks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(shape[0], width, 3)]
        side, channels = min(shape[1:]), width
        for stack in range(stacks):
            if stack > 0:
                width *= 2
                if side >= 2:
                    layers.append(nn.MaxPool2d(2))
                    side //= 2
            for _ in range(cells):
                layers.append(CellModule(graph, channels, width))
                channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, channels, height, width)`` to ``(b, outputs)``."""
        logits: torch.Tensor = self.head(self.layers(x).mean(dim=(2, 3)))
        return logits


class CellModule(nn.Module):
    """One cell: vertices add up their inputs, the output joins its inputs and adds the projected input of the cell."""

    def __init__(self, graph: Graph, inputs: int, outputs: int) -> None:
        super().__init__()
        self.sources = graph.inputs
        self.channels = channels_of(graph, inputs, outputs)
        self.projections = nn.ModuleDict(
            {str(v): _convolution(inputs, self.channels[v], 1) for v, sources in enumerate(graph.inputs, start=1) if 0 in sources}
        )
        self.operations = nn.ModuleList(_operation(kind, self.channels[vertex]) for vertex, kind in enumerate(graph.operations, start=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, inputs, h, w)`` to ``(b, outputs, h, w)``."""
        values = [x]
        for vertex, operation in enumerate(self.operations, start=1):
            # A later vertex may have fewer channels than one that feeds it; the surplus is cut off.
            parts = [values[source][:, : self.channels[vertex]] for source in self.sources[vertex - 1] if source > 0]
            values.append(operation(self._with_input(vertex, x, parts)))
        joined = [values[source] for source in self.sources[-1] if source > 0]
        return self._with_input(len(self.sources), x, [torch.cat(joined, dim=1)] if joined else [])

    def _with_input(self, vertex: int, x: torch.Tensor, parts: list[torch.Tensor]) -> torch.Tensor:
        """Add up the inputs of a vertex, the projected input of the cell among them where there is an edge from it."""
        if str(vertex) in self.projections:
            parts = [*parts, self.projections[str(vertex)](x)]
        return reduce(torch.add, parts)


def channels_of(graph: Graph, inputs: int, outputs: int) -> list[int]:
    """Return the channels of every vertex: those that feed the output share its channels, others have the most of their successors.

    Source: ``compute_vertex_channels`` of NAS-Bench-101, section 2.3 of the paper.
    """
    n = len(graph.operations)
    channels = [inputs, *[0] * n, outputs]
    feeding = [source for source in graph.inputs[n] if source > 0]
    for rank, vertex in enumerate(feeding):
        # The first vertices get one channel more where the division leaves a remainder.
        channels[vertex] = outputs // len(feeding) + (rank < outputs % len(feeding))
    for vertex in range(n, 0, -1):
        if vertex not in feeding:
            channels[vertex] = max(channels[after] for after in range(vertex + 1, n + 1) if vertex in graph.inputs[after - 1])
    if min(channels) < 1:
        raise ValueError(f"a cell whose output has {outputs} channels cannot join {len(feeding)} vertices; use a greater width")
    return channels


def _convolution(channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False), BatchNorm(width), nn.ReLU())


def _operation(kind: str, channels: int) -> nn.Module:
    if kind == "maxpool3x3":
        return nn.MaxPool2d(3, stride=1, padding=1)
    return _convolution(channels, channels, 3 if kind == "conv3x3" else 1)
