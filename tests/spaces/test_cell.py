from pathlib import Path

import pytest
import torch

from joulefront.search.space import Candidate, FixedTrial
from joulefront.spaces.cell import Cell, CellNetwork, Graph, canonical, channels_of, to_json
from joulefront.spaces.recipes import FIXED

ECNAS = Path("../shared/data/ecnas/ecnas_4v.csv.gz")
NAMES = {"conv3x3-bn-relu": "conv3x3", "conv1x1-bn-relu": "conv1x1", "maxpool3x3": "maxpool3x3"}


def test_isomorphic_choices_are_one_candidate_with_one_key(contract):
    space = Cell(recipe=FIXED)
    edges = {f"edge_{source}_{vertex}": False for vertex in range(1, 5) for source in range(vertex)}
    chain = {"operation_3": "absent", **edges, "edge_0_1": True, "edge_1_2": True}
    one = space.sample(FixedTrial({**chain, "operation_1": "conv1x1", "operation_2": "maxpool3x3"}))
    late = {**edges, "edge_2_3": True, "operation_1": "absent", "operation_2": "conv1x1", "operation_3": "maxpool3x3"}
    assert one == space.sample(FixedTrial(late))
    other = space.sample(FixedTrial({**chain, "operation_1": "maxpool3x3", "operation_2": "conv1x1"}))
    assert space.key(one) != space.key(other)


def test_a_graph_with_another_numbering_has_the_same_key_and_the_same_weights(contract):
    space, task = Cell(recipe=FIXED), contract.make_task((3, 8, 8))
    a = Graph(("conv3x3", "maxpool3x3"), ((0,), (0,), (1, 2)))
    b = Graph(("maxpool3x3", "conv3x3"), ((0,), (0,), (1, 2)))
    rest = {"width": 8, "cells": 1, "stacks": 2}
    candidates = [Candidate({"family": "cell", **to_json(graph), **rest}, FIXED.sample(FixedTrial({}))) for graph in (a, b)]
    assert space.key(candidates[0]) == space.key(candidates[1])
    x = torch.randn(2, 3, 8, 8)
    first, second = (contract.build(space, candidate, task).eval() for candidate in candidates)
    assert torch.equal(first(x), second(x))


def test_channels_are_shared_at_the_output_and_handed_back():
    graph = Graph(("a", "b", "c"), ((0,), (1,), (0, 1), (0, 2, 3)))
    assert channels_of(graph, 16, 33) == [16, 17, 17, 16, 33]


def test_a_cell_computes_what_its_graph_says():
    torch.manual_seed(0)
    graph = Graph(("conv1x1", "maxpool3x3"), ((0,), (0, 1), (0, 2)))
    network = CellNetwork((3, 8, 8), 2, graph, width=4, cells=1, stacks=1).eval()
    cell = network.layers[1]
    x = torch.randn(2, 4, 8, 8)
    into = {name: projection(x) for name, projection in cell.projections.items()}
    first = cell.operations[0](into["1"])
    second = torch.nn.functional.max_pool2d(first + into["2"], 3, stride=1, padding=1)
    assert torch.allclose(cell(x), second + into["3"], atol=1e-6)


def test_networks_have_the_number_of_parameters_that_ec_nas_measured():
    """The full skeleton of NAS-Bench-101 (128 channels, 3 stacks of 3 cells) on the table's 91 cells."""
    if not ECNAS.exists():
        pytest.skip(f"{ECNAS} is not there")
    import pandas as pd

    table = pd.read_csv(ECNAS, dtype={"adjacency": str}).drop_duplicates("hash")
    seen = set()
    for adjacency, text, parameters in zip(table.adjacency, table.ops, table.params, strict=True):
        operations = text.split(",")
        n = len(operations)
        inputs = tuple(tuple(s for s in range(v) if adjacency[s * n + v] == "1") for v in range(1, n))
        graph = canonical(Graph(tuple(NAMES[operation] for operation in operations[1:-1]), inputs))
        with torch.device("meta"):
            network = CellNetwork((3, 32, 32), 10, graph, width=128, cells=3, stacks=3)
        assert sum(p.numel() for p in network.parameters()) == parameters
        seen.add(graph)
    assert len(seen) == 91


def test_too_narrow_a_network_for_its_graph_says_so():
    graph = Graph(("conv1x1",) * 3, ((0,), (0,), (0,), (1, 2, 3)))
    with pytest.raises(ValueError, match="use a greater width"):
        CellNetwork((3, 8, 8), 2, graph, width=2, cells=1, stacks=1)


@pytest.mark.parametrize(("fields", "said"), [({"vertices": 8}, "2 to 7"), ({"operations": ("skip",)}, "out of conv3x3")])
def test_a_space_that_cannot_be_built_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Cell(**fields)
