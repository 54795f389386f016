import itertools
from collections import Counter
from pathlib import Path

import networkx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.space import Candidate, FixedTrial
from joulefront.spaces.cell import OPERATIONS, Cell, CellNetwork, Graph, canonical, channels_of, connect, to_json
from joulefront.spaces.recipes import FIXED

ECNAS = Path("../shared/data/ecnas/ecnas_4v.csv.gz")
NAMES = {"conv3x3-bn-relu": "conv3x3", "conv1x1-bn-relu": "conv1x1", "maxpool3x3": "maxpool3x3"}


@pytest.mark.slow
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


def test_a_cell_computes_what_its_graph_describes():
    torch.manual_seed(0)
    graph = Graph(("conv1x1", "maxpool3x3"), ((0,), (0, 1), (0, 2)))
    network = CellNetwork((3, 8, 8), 2, graph, width=4, cells=1, stacks=1).eval()
    cell = network.layers[1]
    x = torch.randn(2, 4, 8, 8)
    into = {name: projection(x) for name, projection in cell.projections.items()}
    first = cell.operations[0](into["1"])
    second = torch.nn.functional.max_pool2d(first + into["2"], 3, stride=1, padding=1)
    assert torch.allclose(cell(x), second + into["3"], atol=1e-6)


@pytest.mark.slow
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


def test_too_narrow_a_network_for_its_graph_is_rejected():
    graph = Graph(("conv1x1",) * 3, ((0,), (0,), (0,), (1, 2, 3)))
    with pytest.raises(ValueError, match="use a greater width"):
        CellNetwork((3, 8, 8), 2, graph, width=2, cells=1, stacks=1)


@pytest.mark.parametrize(("fields", "said"), [({"vertices": 8}, "one of 2, 3, 4, 5, 6, 7"), ({"operations": ("skip",)}, "one of conv3x3")])
def test_a_space_that_cannot_be_built_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Cell(**fields)


def every_graph(inner, operations):
    """All cells with exactly this many inner vertices, in every numbering, by brute force over the edges."""
    pairs = [[source for source in range(vertex)] for vertex in range(1, inner + 2)]
    subsets = [[c for size in range(1, len(p) + 1) for c in itertools.combinations(p, size)] for p in pairs]
    for inputs in itertools.product(*subsets):
        fed = {source for sources in inputs for source in sources}
        if all(vertex in fed for vertex in range(1, inner + 1)):
            for labels in itertools.product(operations, repeat=inner):
                yield Graph(labels, inputs)


def as_networkx(graph):
    found = networkx.DiGraph()
    for vertex, label in enumerate(("input", *graph.operations, "output")):
        found.add_node(vertex, label=label)
    found.add_edges_from((source, vertex) for vertex, sources in enumerate(graph.inputs, start=1) for source in sources)
    return found


def isomorphic(a, b):
    return networkx.is_isomorphic(as_networkx(a), as_networkx(b), node_match=lambda left, right: left["label"] == right["label"])


def test_there_are_as_many_cells_of_up_to_four_vertices_as_ec_nas_lists():
    """Source: 91 models with 4 vertices, arXiv 2210.06015, table 1."""
    assert len({canonical(graph) for inner in range(3) for graph in every_graph(inner, OPERATIONS)}) == 91


@pytest.mark.slow
def test_there_are_as_many_cells_of_up_to_five_vertices_as_ec_nas_lists():
    """Source: 2,532 models with 5 vertices, arXiv 2210.06015, table 1; as NAS-Bench-101 allows 9 edges, the full graph is left out."""
    graphs = {canonical(graph) for inner in range(4) for graph in every_graph(inner, OPERATIONS)}
    assert sum(sum(map(len, graph.inputs)) <= 9 for graph in graphs) == 2532


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The hashes produced for directed graphs changed")
def test_canonical_forms_are_equal_exactly_where_a_general_algorithm_finds_an_isomorphism():
    graphs = [graph for inner in range(4) for graph in every_graph(inner, ("a", "b"))]
    by_hash = {}
    for graph in graphs:
        signature = networkx.weisfeiler_lehman_graph_hash(as_networkx(graph), node_attr="label", iterations=3)
        by_hash.setdefault(signature, []).append(graph)
    assert len(by_hash) > 100
    for alike in by_hash.values():  # an isomorphism never leaves its bucket
        forms = {}
        for graph in alike:
            forms.setdefault(canonical(graph), []).append(graph)
        for form, members in forms.items():
            assert all(isomorphic(form, member) for member in members)
        assert not any(isomorphic(a, b) for a, b in itertools.combinations(forms, 2))
    assert sum(len({canonical(graph) for graph in alike}) for alike in by_hash.values()) == len({canonical(graph) for graph in graphs})


choices = st.integers(1, 5).flatmap(
    lambda inner: st.tuples(
        st.lists(st.sampled_from(["a", "b", None]), min_size=inner, max_size=inner),
        st.tuples(*(st.sets(st.integers(0, vertex - 1)) for vertex in range(1, inner + 2))),
    )
)


@pytest.mark.slow
@given(choices)
def test_every_choice_of_operations_and_edges_is_a_cell_and_its_form_is_stable(choice):
    graph = connect(*[choice[0], [sorted(sources) for sources in choice[1]]])
    form = canonical(graph)
    assert canonical(form) == form
    assert isomorphic(graph, form)
    assert sorted(form.operations) == sorted(operation for operation in choice[0] if operation)


def test_wished_edges_of_a_whole_cell_are_kept_as_they_are():
    assert connect(["a", "b"], [[0], [0, 1], [1, 2]]) == Graph(("a", "b"), ((0,), (0, 1), (1, 2)))


def test_loose_vertices_are_tied_and_absent_ones_leave_no_trace():
    assert connect(["a", "b"], [[], [], []]) == Graph(("a", "b"), ((0,), (0,), (1, 2)))
    assert connect([None, "b"], [[0], [1], [1]]) == Graph(("b",), ((0,), (1,)))
    assert connect([None], [[], [1]]) == Graph((), ((0,),))


@pytest.mark.slow
def test_random_choices_are_spread_over_the_graphs(contract):
    """No graph may own a large share of the encodings, or a sampler would draw it again and again."""
    found = Counter(Cell().key(candidate) for candidate, _ in contract.trials(Cell(recipe=contract.fixed()), 1500))
    assert len(found) > 500
    assert found.most_common(1)[0][1] < 0.05 * 1500


@pytest.mark.parametrize(
    ("operations", "inputs", "said"),
    [
        (("a",), ((0,),), "needs inputs for 2 vertices"),
        (("a",), ((1,), (1,)), "inputs of vertex 1"),
        (("a",), ((), (1,)), "inputs of vertex 1"),
        (("a", "b"), ((0,), (0,), (2,)), r"every vertex must have a successor, got none for \[1\]"),
        (("a", "b"), ((0,), (1, 0), (2,)), "ascending"),
    ],
)
def test_what_is_no_cell_is_refused(operations, inputs, said):
    with pytest.raises(ValueError, match=said):
        Graph(operations, inputs)


def test_a_graph_that_is_too_large_for_the_exact_form_is_refused():
    with pytest.raises(ValueError, match="at most 5 inner vertices, got 6"):
        canonical(connect(["a"] * 6, [[]] * 7))
